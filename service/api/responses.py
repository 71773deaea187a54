"""What is answered of recordings: chunks, exports, listings. Answers are whole, with their length, so that one which
breaks off half-way can be told from one that ended, by any client. All carry `Cache-Control: no-store`."""

from __future__ import annotations

import json

import structlog
from fastapi import Response
from isal import igzip
from starlette.types import Receive, Scope, Send

from ingest.media import Media
from service.api.pieces import PiecewiseAnswer, send_whole
from service.api.problems import NO_STORE
from service.playback import (
    Export,
    LivePlaylist,
    Mp4Export,
    Page,
    Playback,
    ReadChunk,
    ReadFragment,
    Viewer,
)
from storage.days import to_date
from storage.errors import ClipkeepError
from storage.rows.recordings import ChunkRow

GZIP_FROM_BYTES = 1024
"""Smaller texts go as they are: they fit a packet anyway."""
PLAYLIST_TYPE = "application/vnd.apple.mpegurl"
MEDIA_TYPES = {Media.MPEG_TS: "video/mp2t", Media.MP4: "video/mp4", Media.FMP4: "video/mp4"}

_log = structlog.get_logger("api")


class ChunkResponse(Response):
    """A chunk or a part of it, `start <= byte < stop`; without `read`, its headers. Gives its memory back."""

    def __init__(
        self,
        playback: Playback,
        viewer: Viewer,
        row: ChunkRow,
        part: tuple[int, int],
        read: ReadChunk | None,
    ) -> None:
        start, stop = part
        whole = stop - start == row.length
        headers = {
            "Content-Type": _content_type(row),
            "Content-Length": str(stop - start),
            "Accept-Ranges": "bytes",
            "ETag": etag(row),
        }
        if not whole:
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{row.length}"
        body = b""
        if read is not None:
            read.keep(start, stop)
            body = read.data
        super().__init__(body, 200 if whole else 206, NO_STORE | headers)
        self._read = read
        self._confirm = playback.confirming(viewer, row)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            start = {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
            await send_whole(send, start, self.body, self._confirm)
        finally:
            if self._read is not None:
                self._read.release()


class FragmentResponse(Response):
    """A part of what a chunk is as fMP4: `data`. Gives its memory back."""

    def __init__(
        self, playback: Playback, viewer: Viewer, read: ReadFragment, data: bytes, *, is_head: bool
    ) -> None:
        headers = {"Content-Type": MEDIA_TYPES[Media.MP4], "Content-Length": str(len(data))}
        super().__init__(b"" if is_head else data, headers=NO_STORE | headers)
        self._read = read
        self._confirm = playback.confirming(viewer, read.row)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            start = {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
            await send_whole(send, start, self.body, self._confirm)
        finally:
            self._read.release()


class HeldResponse(Response):
    """A text about recordings or a picture of one, charged to its viewer while it is being sent: a slow reader of long
    lists holds as much as one of chunks.

    Args:
        row: the chunk that it is of, when it is of one.
    """

    def __init__(
        self, playback: Playback, viewer: Viewer, response: Response, row: ChunkRow | None = None
    ) -> None:
        super().__init__(response.body, response.status_code)
        self.raw_headers = response.raw_headers
        self._holding = playback.holding(viewer, len(response.body))
        self._confirm = playback.confirming(viewer, row)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._holding:
            start = {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
            await send_whole(send, start, self.body, self._confirm)


class ExportResponse(Response):
    """An opened export, or the part of it that it was told to keep; one that was not opened is answered without its
    body."""

    def __init__(self, playback: Playback, export: Export, viewer: Viewer, part: tuple[int, int]) -> None:
        start, stop = part
        whole = stop - start == export.length_bytes
        headers = {
            "Content-Type": export.content_type,
            "Content-Length": str(stop - start),
            "Content-Disposition": f'attachment; filename="{export.file_name}"',
            "Accept-Ranges": "bytes",
            "ETag": export.etag,
        }
        if not whole:
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{export.length_bytes}"
        if isinstance(export, Mp4Export):
            headers["Clipkeep-Films"] = str(export.film_count)
        super().__init__(None, 200 if whole else 206, NO_STORE | headers)
        self._export = export
        self._device = viewer.device
        self._confirm = playback.confirming(viewer)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "HEAD":
            return await super().__call__(scope, receive, send)
        start = {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        answer = PiecewiseAnswer(send, start, self._confirm)
        try:
            await self._stream(answer)
        finally:
            self._export.close()

    async def _stream(self, answer: PiecewiseAnswer) -> None:
        sent_bytes = 0

        async def write(data: bytes | memoryview) -> None:
            nonlocal sent_bytes
            await answer.send(data, more=True)
            sent_bytes += len(data)

        try:
            await self._export.stream(write)
            await answer.send(b"", more=False)
        except ClipkeepError as error:
            if not answer.has_begun:
                raise
            # The server closes the connection of an answer that its application left unfinished.
            _log.warning("export_stopped", device=self._device, code=error.code, sent_bytes=sent_bytes)


def listing(device: int, gzip: bool, page: Page) -> Response:
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
    return as_text("application/json", gzip, text)


def _listed(row: ChunkRow) -> dict[str, object]:
    return {
        "capture_ms": row.capture_ms,
        "duration_ms": row.duration_ms,
        "length_bytes": row.length,
        "content_type": _content_type(row),
        "expires_on": to_date(row.expires_on).isoformat(),
        "url": f"chunks/{row.capture_ms}{'.ts' if row.media == Media.MPEG_TS else ''}",
    }


def live_playlist(device: int, gzip: bool, live: LivePlaylist) -> Response:
    """A live playlist; one with nothing new says in its header, too, where the recordings are (RFC 8288)."""
    response = as_text(PLAYLIST_TYPE, gzip, live.text)
    if live.recorded is not None:
        from_ms, to_ms = live.recorded
        place = f"/v1/devices/{device}/playlist.m3u8?from={from_ms}&to={to_ms}"
        response.headers["Link"] = f'<{place}>; rel="alternate"; title="the newest recordings"'
    return response


def as_text(content_type: str, gzip: bool, text: str) -> Response:
    """A text about recordings, compressed when the client takes that. Made in a thread."""
    body = text.encode()
    headers = {"Content-Type": content_type, "Vary": "Accept-Encoding"}
    if gzip and len(body) >= GZIP_FROM_BYTES:
        body = igzip.compress(body, compresslevel=1)
        headers["Content-Encoding"] = "gzip"
    return Response(body, headers=NO_STORE | headers)


def etag(row: ChunkRow) -> str:
    return f'"{row.crc32:08x}-{row.length:x}"'


def _content_type(row: ChunkRow) -> str:
    # A row may name a medium of a later version.
    return next(
        (text for media, text in MEDIA_TYPES.items() if media == row.media), "application/octet-stream"
    )
