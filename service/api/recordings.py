"""Recordings: listed, played, fetched, exported. Each handler asks playback and words its answer."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Query, Request, Response

from ingest.media import Media
from retention.tokens import SHARE_PREFIX
from service.agreement import recordings
from service.agreement.texts import MAX_REASON_CHARS
from service.api.asking import (
    AtMs,
    CaptureMs,
    Encodings,
    FromMs,
    Limit,
    MaybeFromMs,
    MaybeToMs,
    NearMs,
    Sound,
    ToMs,
    check_order,
    part_of,
    takes_gzip,
)
from service.api.door import Asks, Caller, Device
from service.api.models.recordings import DeletedRange
from service.api.models.recordings import Recordings as Listing
from service.api.numbers import DIGITS
from service.api.problems import NO_STORE, PrivateJSON, problem
from service.api.responses import (
    MEDIA_TYPES,
    PLAYLIST_TYPE,
    ChunkResponse,
    ExportResponse,
    FragmentResponse,
    HeldResponse,
    as_text,
    etag,
    listing,
    live_playlist,
)
from service.api.routing import Answers, add, content
from service.api.services import Api
from service.playback import Export, Viewer
from service.playback.refusals import not_found
from storage.days import MAX_TIME_MS

Range = Annotated[str | None, Header(alias="Range", description="one range of bytes; several are ignored")]
Clips = Annotated[
    Literal["delete", "keep"], Query(description="what becomes of kept clips that have something of it")
]
Reason = Annotated[str, Query(max_length=MAX_REASON_CHARS, description="kept in the history")]


Width = Annotated[int, DIGITS, Query(ge=16, le=1920, description="most pixels across")]
SmallWidth = Annotated[int, DIGITS, Query(ge=16, le=320, description="pixels across of each picture")]
Count = Annotated[int, DIGITS, Query(ge=1, le=60, description="how many pictures")]


class Recordings:
    """The handlers. Each docstring is a description in the OpenAPI document."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._services = api.services
        self._playback = api.playback

    def routes(self) -> APIRouter:
        router = APIRouter(tags=["recordings"])
        device = "/v1/devices/{n}"

        def get(path: str, handler: Callable[..., Any], types: Answers, *refuses: int, **more: Any) -> None:
            refused = (401, 403, 404, *refuses)
            add(router, "GET", path, handler, refuses=refused, types=types, response_class=Response, **more)

        video: Answers = {status: content("video/mp2t", "video/mp4") for status in (200, 206)}
        get(f"{device}/recordings", self.recordings, {200: {"model": Listing}})
        refused = (401, 403, 404, 422)
        add(
            router, "DELETE", f"{device}/recordings", self.delete, refuses=refused, response_class=PrivateJSON
        )
        get(f"{device}/playlist.m3u8", self.playlist, {200: content(PLAYLIST_TYPE)})
        mp4: Answers = {200: content("video/mp4")}
        get(f"{device}/chunks/{{capture_ms}}.m4s", self.fragment, mp4, 410, 422)
        get(f"{device}/chunks/{{capture_ms}}.map.mp4", self.header, mp4, 410, 422)
        get(f"{device}/chunks/{{capture_ms}}.init.mp4", self.init, mp4, 410)
        get(f"{device}/chunks/{{capture_ms}}.ts", self.chunk, video, 410, 416, name="chunk_ts")
        get(f"{device}/chunks/{{capture_ms}}", self.chunk, video, 410, 416)
        whole_or_part: Answers = {status: content("video/mp2t") for status in (200, 206)}
        get(f"{device}/clip.ts", self.clip, whole_or_part, 410, 416)
        films: Answers = {status: content("video/mp4", "application/zip") for status in (200, 206)}
        get(f"{device}/clip.mp4", self.clip_mp4, films, 400, 410, 416, 422)
        jpeg: Answers = {200: content("image/jpeg")}
        get(f"{device}/still.jpg", self.still, jpeg, 410, 422)
        get(f"{device}/stills.jpg", self.stills, jpeg, 410, 422)
        return router

    async def still(self, viewer: Asks, at: AtMs, width: Width = 640) -> Response:
        """The key frame at or before a moment, as JPEG, at most `width` pixels across and no larger than it is.
        `Clipkeep-Time` says when it was recorded, in Unix ms. Where nothing was recorded: `404 not_found`; where what
        was recorded has no picture: `422`."""
        taken = await self._playback.stills.still(viewer, at, width)
        headers = {"Content-Type": "image/jpeg", "Clipkeep-Time": str(taken.at_ms)}
        response = Response(taken.still.data, headers=NO_STORE | headers)
        return HeldResponse(self._playback, viewer, response, taken.row)

    async def stills(
        self, viewer: Asks, from_ms: FromMs, to_ms: ToMs, count: Count = 20, width: SmallWidth = 160
    ) -> Response:
        """A strip for a timeline: one JPEG with `count` pictures, of the middle of each of as many parts of the range,
        or of what was recorded in the part after that. Picture i, from 0 on, is at column i mod 10 and row i // 10 of a
        grid of places `width` pixels wide and 9/16 of that high, rounded down to even; `Clipkeep-Grid` is
        COLUMNSxWIDTHxHEIGHT. `Clipkeep-Times` has the time of each, Unix ms, separated by commas; where there is none
        the place is grey and nothing stands between the commas."""
        check_order(from_ms, to_ms)
        strip = await self._playback.stills.strip(viewer, from_ms, to_ms, count, width & ~1)
        times = ",".join("" if at_ms is None else str(at_ms) for at_ms in strip.times_ms)
        headers = {
            "Content-Type": "image/jpeg",
            "Clipkeep-Grid": f"{strip.columns}x{strip.width}x{strip.height}",
            "Clipkeep-Times": times,
        }
        return HeldResponse(self._playback, viewer, Response(strip.data, headers=NO_STORE | headers))

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
        check_order(from_ms, to_ms)
        finish = partial(listing, viewer.device, takes_gzip(accept_encoding))
        limit = limit or self._services.page_chunks
        page = await self._playback.listings.page(viewer, from_ms, to_ms, limit=limit, finish=finish)
        return HeldResponse(self._playback, viewer, page)

    async def delete(
        self,
        n: Device,
        actor: Caller,
        from_ms: FromMs,
        to_ms: ToMs,
        reason: Reason = "",
        clips: Clips = "delete",
    ) -> DeletedRange:
        """Delete the recordings of a range, for ever: they are served no more from now on, and refused when they are
        uploaded again. Kept clips that have something of it are deleted, too, unless `clips=keep` says otherwise. For
        the owner of the device, and for operators; a viewer token does not do."""
        check_order(from_ms, to_ms)
        gone = await self._api.calls.run(
            recordings.delete,
            self._api.desk,
            actor,
            n,
            from_ms,
            to_ms,
            why=reason,
            delete_delay_ms=self._services.delete_delay_ms,
            keep_clips=clips == "keep",
        )
        return DeletedRange(device=n, deleted_chunks=gone.chunks, bytes=gone.size_bytes)

    async def playlist(
        self,
        viewer: Asks,
        from_ms: MaybeFromMs = None,
        to_ms: MaybeToMs = None,
        accept_encoding: Encodings = "",
    ) -> Response:
        """HLS of all chunks that can be played: as MPEG-TS, or, where one of them is MP4 or has H.265, all as fMP4.
        With `to` the recording of that range, complete; without it live, where `from` is the earliest time listed. A
        live playlist with nothing new says in a comment and a `Link` where the newest recordings are. URLs in it carry
        the token of this request. By a share link it is the recording of the link's range, without `to` all of it."""
        gzip = takes_gzip(accept_encoding)
        if to_ms is None and viewer.token.startswith(SHARE_PREFIX):
            shared = await self._playback.shared(viewer.token)
            from_ms, to_ms = shared.from_ms, shared.to_ms
        if to_ms is None:
            live = partial(live_playlist, viewer.device, gzip)
            playlist = await self._playback.listings.live(viewer, from_ms, finish=live)
        else:
            finish = partial(as_text, PLAYLIST_TYPE, gzip)
            check_order(from_ms or 0, to_ms)
            playlist = await self._playback.listings.recorded(viewer, from_ms or 0, to_ms, finish=finish)
        self._playback.note_open(viewer)
        return HeldResponse(self._playback, viewer, playlist)

    async def chunk(
        self,
        request: Request,
        viewer: Asks,
        capture_ms: CaptureMs,
        range_: Range = None,
    ) -> Response:
        """One chunk as it was uploaded. Fragments of fMP4 come without their init segment, which is at `.init.mp4`."""
        row = await self._playback.chunks.find(viewer, capture_ms)
        part = part_of(row.length, etag(row), range_, request.headers.get("if-range"))
        if part is None:
            return _out_of_range(row.length, "the chunk")
        if request.method == "HEAD":
            await self._playback.chunks.readable(viewer, row)
            return ChunkResponse(self._playback, viewer, row, part, None)
        return ChunkResponse(self._playback, viewer, row, part, await self._playback.chunks.read(viewer, row))

    async def fragment(
        self,
        request: Request,
        viewer: Asks,
        capture_ms: CaptureMs,
        near_ms: NearMs = None,
        sound: Sound = None,
    ) -> Response:
        """One chunk as a fragment of MP4, of whatever container it is: H.264 or H.265 (as `hvc1`), and sound.
        Nothing is transcoded. Playlists name it."""
        row = await self._playback.chunks.find(viewer, capture_ms)
        read = await self._playback.fragments.read(viewer, row, near_ms=near_ms, silence=sound is not None)
        return FragmentResponse(self._playback, viewer, read, read.data, is_head=request.method == "HEAD")

    async def header(
        self, request: Request, viewer: Asks, capture_ms: CaptureMs, sound: Sound = None
    ) -> Response:
        """The header of `.m4s` of this time, and of all chunks of the device that are set up alike."""
        row = await self._playback.chunks.find(viewer, capture_ms)
        read = await self._playback.fragments.read(viewer, row, silence=sound is not None)
        return FragmentResponse(self._playback, viewer, read, read.init, is_head=request.method == "HEAD")

    async def init(self, viewer: Asks, capture_ms: CaptureMs) -> Response:
        """The init segment of a chunk of fMP4 as it was uploaded; `404 not_found` where the chunk is something else."""
        row = await self._playback.chunks.find(viewer, capture_ms)
        if row.media != Media.FMP4:
            raise not_found()
        init = await self._playback.chunks.init(viewer, row)
        await self._playback.chunks.confirm(viewer, row)
        response = Response(init, headers=NO_STORE | {"Content-Type": MEDIA_TYPES[Media.MP4]})
        return HeldResponse(self._playback, viewer, response)

    async def clip(
        self, request: Request, viewer: Asks, from_ms: FromMs, to_ms: ToMs, range_: Range = None
    ) -> Response:
        """The MPEG-TS chunks of a range, one after the other, to keep as a file. MP4 chunks are left out. It begins
        with a key frame, a little before `from` where it must. The connection breaks before `Content-Length` bytes have
        come when the right to them ends half-way.

        A download that broke goes on with `Range`. With `If-Range` and the `ETag` of before, it is of the same bytes,
        or all of it anew. Without `If-Range` a `Range` is not taken where recordings of the range were deleted or have
        expired, for these may not be the same bytes."""
        check_order(from_ms, to_ms)
        export = await self._playback.exports.plan(viewer, from_ms, to_ms)
        return await self._exported(request, viewer, export, from_ms, to_ms, range_)

    async def clip_mp4(
        self, request: Request, viewer: Asks, from_ms: FromMs, to_ms: ToMs, range_: Range = None
    ) -> Response:
        """The recordings of a range as one MP4, fragmented, to keep as a file; nothing is transcoded. It begins and
        breaks off as `clip.ts` does, and goes on with `Range` as that does: the same range has the same bytes, as long
        as its recordings are the same.

        Gaps are closed: what was recorded after one follows at once. Where codecs or their set-up change, a film can't
        go on: then the answer is a zip archive (`application/zip`) with an MP4 for each. `Clipkeep-Films` says how many
        there are. A recording that can't be put into MP4 is left out, and the film stands still for its time."""
        check_order(from_ms, to_ms)
        export = await self._playback.mp4_exports.plan(viewer, from_ms, to_ms)
        return await self._exported(request, viewer, export, from_ms, to_ms, range_)

    async def _exported(
        self,
        request: Request,
        viewer: Viewer,
        export: Export,
        from_ms: int,
        to_ms: int,
        range_: str | None,
    ) -> Response:
        if_range = request.headers.get("if-range")
        if range_ is not None and if_range is None:
            settled = await self._playback.exports.is_settled(viewer, from_ms, to_ms, export)
            range_ = range_ if settled else None
        part = part_of(export.length_bytes, export.etag, range_, if_range)
        if part is None:
            return _out_of_range(export.length_bytes, "the clip")
        export.keep(*part)
        if request.method == "HEAD":
            await export.probe()
            return ExportResponse(self._playback, export, viewer, part)
        try:
            await export.open()
        except BaseException:
            export.close()
            raise
        if part[0] == 0:  # else a download goes on
            self._playback.note_open(viewer)
        return ExportResponse(self._playback, export, viewer, part)


def _out_of_range(length: int, what: str) -> Response:
    headers = {"Content-Range": f"bytes */{length}"}
    return problem(416, "range_not_satisfiable", f"{what} has {length} bytes", headers)
