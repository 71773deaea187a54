"""The API port: what people, players and operators call. HTTP around `service.playback`.

Runs under Hypercorn's trio worker: every handler is `async def`, for a plain one would run in a thread out of
a pool that nobody here bounds. Answers are whole, with their length, so that one which breaks off half-way can be
told from one that ended, by any client. All that is said about recordings carries `Cache-Control: no-store`.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Annotated, Any

import structlog
import trio
from fastapi import APIRouter, Depends, FastAPI, Header, Path, Query, Request, Response, Security
from fastapi.exceptions import RequestValidationError
from fastapi.security import APIKeyQuery, HTTPAuthorizationCredentials, HTTPBearer
from isal import igzip
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from ingest import answers
from ingest.media import Media
from ingest.requests import MAX_DEVICE
from service.playback import MAX_TIME_MS, Export, Page, Playback, PlaybackServices, ReadChunk, Refused, Viewer
from storage.catalog import ChunkRow
from storage.days import to_date
from storage.errors import ClipkeepError, KeyDestroyed, StoreDenied, StoreUnavailable, WorldError

MAX_PAGE_CHUNKS = 10_000
"""Most chunks in one page of a listing, some 2 MB of JSON."""
GZIP_FROM_BYTES = 1024
"""Smaller texts go as they are: they fit a packet anyway."""
PLAYLIST_TYPE = "application/vnd.apple.mpegurl"
MEDIA_TYPES = {Media.MPEG_TS: "video/mp2t", Media.MP4: "video/mp4"}
NO_STORE = {"Cache-Control": "no-store"}

_SAME_AS_INGEST = (
    answers.BAD_TOKEN,
    answers.SUSPENDED,
    answers.TERMINATED,
    answers.PLAN_LAPSED,
    answers.EXPIRED,
    answers.OVERLOADED,
)
STATUS_OF = {answer.code: answer.status for answer in _SAME_AS_INGEST} | {
    "erased": 403,
    "not_found": 404,
    "only_mp4": 404,
    "range_too_large": 400,
}
"""Status of each code that `Refused` carries."""

_log = structlog.get_logger("api")


@dataclass(frozen=True, kw_only=True)
class ApiServices(PlaybackServices):
    """What the API stands on: playback with its limits, and what operators ask for."""

    ready: Callable[[], Awaitable[dict[str, str]]]
    """What is wrong, by component; empty when the service can do its work. Bounds its own time."""
    metrics: Callable[[], bytes]
    """The text of `/metrics`. May block: it is called in a thread."""


class Problem(BaseModel):
    """Every refusal and every failure."""

    error: Annotated[str, Field(description="stable code, for programs", examples=["plan_lapsed"])]
    detail: Annotated[str, Field(description="what happened and what to do, for people")]


class NotReady(Problem):
    problems: Annotated[dict[str, str], Field(description="by component")]


class RecordedChunk(BaseModel):
    capture_ms: Annotated[int, Field(description="Unix ms")]
    duration_ms: int
    length_bytes: int
    content_type: Annotated[str, Field(examples=["video/mp2t", "video/mp4"])]
    expires_on: Annotated[str, Field(description="UTC date of the first day on which it is no longer served")]
    url: Annotated[str, Field(description="relative to this listing; without a token")]


class RecordedSpan(BaseModel):
    """A stretch of recording without a gap."""

    from_ms: Annotated[int, Field(description="Unix ms")]
    to_ms: Annotated[int, Field(description="Unix ms, the first moment after it")]
    length_bytes: int
    chunks: list[RecordedChunk]


class Recordings(BaseModel):
    device: int
    spans: list[RecordedSpan]
    next: Annotated[
        int | None,
        Field(description="`from` of the next page, null after the last; a page may be empty before it"),
    ]


_bearer = HTTPBearer(auto_error=False, description="a viewer token of the device")
_query = APIKeyQuery(name="token", auto_error=False, description="a viewer token, for players")
Device = Annotated[int, Path(alias="n", ge=0, le=MAX_DEVICE, description="device number")]
CaptureMs = Annotated[int, Path(ge=0, le=MAX_TIME_MS, description="capture time, Unix ms")]
FromMs = Annotated[int, Query(alias="from", ge=0, le=MAX_TIME_MS, description="Unix ms, the first included")]
ToMs = Annotated[int, Query(alias="to", ge=0, le=MAX_TIME_MS, description="Unix ms, the first left out")]
MaybeFromMs = Annotated[
    int | None, Query(alias="from", ge=0, le=MAX_TIME_MS, description="Unix ms, the first included")
]
MaybeToMs = Annotated[
    int | None, Query(alias="to", ge=0, le=MAX_TIME_MS, description="Unix ms, the first left out")
]
Limit = Annotated[
    int | None, Query(ge=1, le=MAX_PAGE_CHUNKS, description="most chunks in a page; default 1000")
]
Encodings = Annotated[str, Header(alias="Accept-Encoding", include_in_schema=False)]


async def _viewer(
    device: Device,
    bearer: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)],
    token: Annotated[str | None, Security(_query)],
) -> Viewer:
    """Who asks. The header goes before the query."""
    return Viewer(device, bearer.credentials if bearer else token or "")


Asks = Annotated[Viewer, Depends(_viewer)]


class _Pages:
    """The handlers. Each docstring is a description in the OpenAPI document."""

    def __init__(self, services: ApiServices, playback: Playback) -> None:
        self._services = services
        self._playback = playback
        self._metrics_thread = trio.CapacityLimiter(1)

    async def recordings(
        self,
        viewer: Asks,
        from_ms: FromMs = 0,
        to_ms: ToMs = MAX_TIME_MS,
        limit: Limit = None,
        accept_encoding: Encodings = "",
    ) -> Response:
        """Contiguous spans of recording and their chunks, by capture time. A span that does not end with its page
        goes on in the next one."""
        _check_range(from_ms, to_ms)
        finish = partial(_listing, viewer.device, _takes_gzip(accept_encoding))
        limit = limit or self._services.page_chunks
        return await self._playback.page(viewer, from_ms, to_ms, limit=limit, finish=finish)

    async def playlist(
        self,
        viewer: Asks,
        from_ms: MaybeFromMs = None,
        to_ms: MaybeToMs = None,
        accept_encoding: Encodings = "",
    ) -> Response:
        """HLS of the MPEG-TS chunks. With `to` the recording of that range, complete; without it live, where
        `from` is the earliest time listed. Segment URLs carry the token of this request."""
        finish = partial(_text, PLAYLIST_TYPE, _takes_gzip(accept_encoding))
        if to_ms is None:
            return await self._playback.live(viewer, from_ms, finish=finish)
        _check_range(from_ms or 0, to_ms)
        return await self._playback.recorded(viewer, from_ms or 0, to_ms, finish=finish)

    async def chunk(
        self,
        request: Request,
        viewer: Asks,
        capture_ms: CaptureMs,
        range_: Annotated[
            str | None, Header(alias="Range", description="one range of bytes; several are ignored")
        ] = None,
    ) -> Response:
        """One chunk as it was uploaded."""
        row = await self._playback.find(viewer, capture_ms)
        part = _part(request, range_, row)
        if part is None:
            headers = {"Content-Range": f"bytes */{row.length}"}
            detail = f"the chunk has {row.length} bytes"
            return _problem(416, "range_not_satisfiable", detail, headers)
        if request.method == "HEAD":
            await self._playback.readable(viewer, row)
            return _ChunkResponse(row, part, None)
        return _ChunkResponse(row, part, await self._playback.read(viewer, row))

    async def clip(self, request: Request, viewer: Asks, from_ms: FromMs, to_ms: ToMs) -> Response:
        """The MPEG-TS chunks of a range, one after the other, to keep as a file. MP4 chunks are left out. The
        connection breaks before `Content-Length` bytes have come when the right to them ends half-way."""
        _check_range(from_ms, to_ms)
        export = await self._playback.export(viewer, from_ms, to_ms)
        if request.method != "HEAD":
            try:
                await export.open()
            except BaseException:
                export.close()
                raise
        return _ExportResponse(export, viewer.device)

    async def healthz(self) -> dict[str, str]:
        """The process is alive."""
        return {"status": "ok"}

    async def readyz(self) -> Response:
        """Whether the service can do its work; else what is wrong."""
        problems = await self._services.ready()
        if not self._playback.running:
            problems = problems | {"keyring": "data keys are not being read"}
        if not problems:
            return _json(200, {"status": "ready"})
        detail = "; ".join(f"{component}: {problem}" for component, problem in problems.items())
        return _json(503, {"error": "not_ready", "detail": detail, "problems": problems}, _RETRY)

    async def metrics(self) -> Response:
        """Figures for Prometheus."""
        text = await trio.to_thread.run_sync(self._services.metrics, limiter=self._metrics_thread)
        return Response(text, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})


def create_app(services: ApiServices) -> FastAPI:
    """The application. Its lifespan owns the key cache: a server that runs no lifespan gets 503 for every chunk.

    What is in `services` stays the caller's, who closes it after the application has ended.
    """
    playback = Playback(services)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with trio.open_nursery() as nursery:
            await nursery.start(playback.run)
            yield
            nursery.cancel_scope.cancel()

    app = FastAPI(
        title="Clipkeep",
        version="1",
        summary="Recordings of cameras: listed, played, fetched, exported",
        description="Times are Unix milliseconds. `clipkeep viewer-token` makes tokens.",
        lifespan=lifespan,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.include_router(_routes(_Pages(services, playback)))
    app.add_exception_handler(ClipkeepError, _on_clipkeep_error)
    app.add_exception_handler(RequestValidationError, _on_malformed)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(Exception, _on_bug)
    return app


_Answers = dict[int | str, Any]
"""Of an operation in the OpenAPI document, by status."""


def _routes(pages: _Pages) -> APIRouter:
    router = APIRouter()
    # A `default` answer also keeps FastAPI from promising its own 422.
    refused: _Answers = {"default": {"model": Problem, "description": "refused"}}

    def get(path: str, handler: Callable[..., Any], types: _Answers, **more: Any) -> None:
        router.add_api_route(path, handler, methods=["GET"], responses=refused | types, **more)
        router.add_api_route(path, handler, methods=["HEAD"], include_in_schema=False, **more)

    def content(*types: str) -> dict[str, Any]:
        return {"content": {kind: {"schema": {"type": "string", "format": "binary"}} for kind in types}}

    video: _Answers = {200: content("video/mp2t", "video/mp4"), 206: content("video/mp2t", "video/mp4")}
    listing: _Answers = {200: {"model": Recordings}}
    device = "/v1/devices/{n}"
    recording: dict[str, Any] = {"tags": ["recordings"], "response_class": Response}
    service: dict[str, Any] = {"tags": ["service"]}
    get(f"{device}/recordings", pages.recordings, listing, **recording)
    get(f"{device}/playlist.m3u8", pages.playlist, {200: content(PLAYLIST_TYPE)}, **recording)
    get(f"{device}/chunks/{{capture_ms}}.ts", pages.chunk, video, name="chunk_ts", **recording)
    get(f"{device}/chunks/{{capture_ms}}", pages.chunk, video, **recording)
    get(f"{device}/clip.ts", pages.clip, {200: content("video/mp2t")}, **recording)
    get("/healthz", pages.healthz, {}, **service)
    get("/readyz", pages.readyz, {503: {"model": NotReady}}, **service)
    get("/metrics", pages.metrics, {200: content("text/plain")}, response_class=Response, **service)
    return router


# --- answers ------------------------------------------------------------------------------------------------


class _ChunkResponse(Response):
    """A chunk or a part of it, `start <= byte < stop`; without `read`, its headers. Gives its memory back."""

    def __init__(self, row: ChunkRow, part: tuple[int, int], read: ReadChunk | None) -> None:
        start, stop = part
        whole = stop - start == row.length
        headers = {
            "Content-Type": MEDIA_TYPES.get(_media(row), "application/octet-stream"),
            "Content-Length": str(stop - start),
            "Accept-Ranges": "bytes",
            "ETag": _etag(row),
        }
        if not whole:
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{row.length}"
        body = b"" if read is None else read.data if whole else read.data[start:stop]
        super().__init__(body, 200 if whole else 206, NO_STORE | headers)
        self._read = read

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            if self._read is not None:
                self._read.release()


class _ExportResponse(Response):
    """An opened export; one that was not opened is answered without its body."""

    def __init__(self, export: Export, device: int) -> None:
        headers = {
            "Content-Type": MEDIA_TYPES[Media.MPEG_TS],
            "Content-Length": str(export.length_bytes),
            "Content-Disposition": f'attachment; filename="device-{device}-{export.from_ms}.ts"',
        }
        super().__init__(None, 200, NO_STORE | headers)
        self._export = export
        self._device = device

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "HEAD":
            return await super().__call__(scope, receive, send)
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            finished = False
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_cancel_when_gone, receive, nursery.cancel_scope)
                finished = await self._stream(send)
                nursery.cancel_scope.cancel()
        finally:
            self._export.close()
        if finished:
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        # Else nothing: the server closes the connection of an answer that its application left unfinished.

    async def _stream(self, send: Send) -> bool:
        """Whether all of it was sent."""
        sent_bytes = 0

        async def write(data: bytes) -> None:
            nonlocal sent_bytes
            await send({"type": "http.response.body", "body": data, "more_body": True})
            sent_bytes += len(data)

        try:
            await self._export.stream(write)
        except ClipkeepError as error:
            _log.warning("export_stopped", device=self._device, code=error.code, sent_bytes=sent_bytes)
            return False
        return True


async def _cancel_when_gone(receive: Receive, scope: trio.CancelScope) -> None:
    """Sending to a client that has gone raises nothing: without this an export would be read to its end."""
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


def _listing(device: int, gzip: bool, page: Page) -> Response:
    """JSON of `Recordings`. Not through the model: that would take four times as long."""
    spans = [
        {
            "from_ms": span.from_ms,
            "to_ms": span.to_ms,
            "length_bytes": span.length_bytes,
            "chunks": [_listed(row) for row in rows],
        }
        for span, rows in page.spans
    ]
    text = json.dumps({"device": device, "spans": spans, "next": page.next_ms}, separators=(",", ":"))
    return _text("application/json", gzip, text)


def _listed(row: ChunkRow) -> dict[str, object]:
    media = _media(row)
    return {
        "capture_ms": row.capture_ms,
        "duration_ms": row.duration_ms,
        "length_bytes": row.length,
        "content_type": MEDIA_TYPES.get(media, "application/octet-stream"),
        "expires_on": to_date(row.expires_on).isoformat(),
        "url": f"chunks/{row.capture_ms}{'.ts' if media is Media.MPEG_TS else ''}",
    }


def _text(content_type: str, gzip: bool, text: str) -> Response:
    """A text about recordings, compressed when the client takes that. Made in a thread."""
    body = text.encode()
    headers = {"Content-Type": content_type, "Vary": "Accept-Encoding"}
    if gzip and len(body) >= GZIP_FROM_BYTES:
        body = igzip.compress(body, compresslevel=1)
        headers["Content-Encoding"] = "gzip"
    return Response(body, headers=NO_STORE | headers)


def _json(status: int, content: dict[str, Any], headers: dict[str, str] | None = None) -> Response:
    body = json.dumps(content) + "\n"
    return Response(body, status, NO_STORE | (headers or {}), "application/json")


_RETRY = {"Retry-After": str(answers.RETRY_AFTER_S)}


def _problem(status: int, code: str, detail: str, headers: dict[str, str] | None = None) -> Response:
    headers = dict(headers or {})
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if status == 503:
        headers |= _RETRY
    return _json(status, {"error": code, "detail": detail}, headers)


# --- errors -------------------------------------------------------------------------------------------------


async def _on_clipkeep_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ClipkeepError)
    match error:
        case Refused():
            return _problem(STATUS_OF[error.code], error.code, error.detail)
        case KeyDestroyed():
            return _problem(
                410, answers.DELETED.code, "this recording was erased and can't be read by anyone"
            )
        case StoreUnavailable() | StoreDenied():
            _log.warning("store_unavailable", code=error.code)
            return _problem(503, answers.STORE_DOWN.code, answers.STORE_DOWN.detail)
        case WorldError():
            _log.warning("unavailable", code=error.code)
            return _problem(503, error.code, "something that is needed can't be reached; try again")
        case _:
            _log.error("failed", code=error.code)
            return _problem(500, error.code, "this can't be read; the operator's log says more")


async def _on_malformed(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    return _problem(400, "malformed", f"{place}: {first['msg']}")


async def _on_http_error(request: Request, error: Exception) -> Response:
    """What the router has to say."""
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        return _problem(404, "not_found", "there is no such page; /docs tells which there are")
    phrase = HTTPStatus(error.status_code).phrase
    # The router knows one method of a page at a time, and so do its headers.
    headers = {"Allow": "GET, HEAD"} if error.status_code == 405 else {}
    return _problem(error.status_code, phrase.lower().replace(" ", "_"), phrase, headers)


async def _on_bug(request: Request, error: Exception) -> Response:
    _log.error("bug", exc_info=error)
    return _problem(500, "internal", "a fault of the service; the operator's log says more")


# --- requests -----------------------------------------------------------------------------------------------


def _check_range(from_ms: int, to_ms: int) -> None:
    if from_ms >= to_ms:
        error = {"loc": ("query", "to"), "msg": f"is not after from: {to_ms} <= {from_ms}", "type": "value"}
        raise RequestValidationError([error])


def _takes_gzip(accept_encoding: str) -> bool:
    """Whether gzip is among the encodings (RFC 9110 §12.5.3), with a weight that is not 0."""
    for entry in accept_encoding.lower().split(","):
        name, _, weight = entry.replace(" ", "").partition(";")
        if name in ("gzip", "*"):
            return weight.removeprefix("q=").strip("0.") != "" or not weight
    return False


def _part(request: Request, range_: str | None, row: ChunkRow) -> tuple[int, int] | None:
    """What is asked for, as (start, stop): all of it without a Range, with one that is none (RFC 9110 §14.2
    lets a server ignore it), or with an If-Range of something else. None when it can't be satisfied."""
    whole = (0, row.length)
    unit, _, spec = (range_ or "").partition("=")
    first, dash, last = spec.strip().partition("-")
    if unit.strip().lower() != "bytes" or not dash or not _digits(first + last):
        return whole
    if request.headers.get("if-range", _etag(row)) != _etag(row):
        return whole
    if not first:
        start, stop = max(row.length - int(last), 0), row.length
    else:
        start, stop = int(first), min(int(last) + 1, row.length) if last else row.length
        if last and int(last) < int(first):
            return whole
    return (start, stop) if start < stop else None


def _digits(text: str) -> bool:
    # Bounded: a number of thousands of digits is slow to read, and Python refuses it.
    return text.isascii() and text.isdigit() and len(text) <= 40


def _etag(row: ChunkRow) -> str:
    return f'"{row.crc32:08x}-{row.length:x}"'


def _media(row: ChunkRow) -> Media:
    return Media(row.media) if row.media in (Media.MPEG_TS, Media.MP4) else Media.UNKNOWN
