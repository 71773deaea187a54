"""Kept clips: ranges of a device that stay beyond their expiry."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from service.agreement import clips
from service.agreement.texts import MAX_REASON_CHARS
from service.api.asking import AtMs, CaptureMs, Encodings, MaybeFromMs, MaybeToMs, NearMs, Sound
from service.api.door import AsksClip, Caller, Clip, Device
from service.api.models.base import Page
from service.api.models.clips import ClipAsked, ClipView
from service.api.paging import DEFAULT_PAGE_ROWS, After, Rows, page_of
from service.api.problems import NO_STORE, PrivateJSON
from service.api.recordings import Range, Recordings, Width
from service.api.responses import PLAYLIST_TYPE
from service.api.routing import Answers, add, content
from service.api.services import Api
from storage.days import MAX_TIME_MS

Reason = Annotated[str, Query(max_length=MAX_REASON_CHARS, description="kept in the history")]


class KeptClips:
    """The handlers. Each docstring is a description in the OpenAPI document. What is watched of a clip goes the way of
    what is recorded."""

    def __init__(self, api: Api) -> None:
        self._desk = api.desk
        self._run = api.calls.run
        self._gap_ms = api.services.gap_ms
        self._recordings = Recordings(api)

    def routes(self) -> APIRouter:
        router = APIRouter(tags=["kept clips"], default_response_class=PrivateJSON)
        of_device, one = "/v1/devices/{n}/clips", "/v1/devices/{n}/clips/{clip}"
        add(router, "GET", of_device, self.listed, refuses=(401, 403, 404))
        add(router, "POST", of_device, self.keep, refuses=(401, 403, 404, 409, 422), status=201)
        add(router, "GET", one, self.show, refuses=(401, 403, 404))
        add(router, "DELETE", one, self.drop, refuses=(401, 403, 404, 422), status=204)

        def watch(path: str, handler: Callable[..., Any], types: Answers, *refuses: int, **more: Any) -> None:
            refused = (401, 403, 404, 410, 416, *refuses)
            add(router, "GET", path, handler, refuses=refused, types=types, response_class=Response, **more)

        video: Answers = {status: content("video/mp2t", "video/mp4") for status in (200, 206)}
        watch(f"{one}/playlist.m3u8", self.playlist, {200: content(PLAYLIST_TYPE)})
        mp4: Answers = {200: content("video/mp4")}
        watch(f"{one}/chunks/{{capture_ms}}.m4s", self.fragment, mp4, 422)
        watch(f"{one}/chunks/{{capture_ms}}.map.mp4", self.header, mp4, 422)
        watch(f"{one}/chunks/{{capture_ms}}.init.mp4", self.init, mp4)
        watch(f"{one}/chunks/{{capture_ms}}.ts", self.chunk, video, name="clip_chunk_ts")
        watch(f"{one}/chunks/{{capture_ms}}", self.chunk, video)
        whole_or_part: Answers = {status: content("video/mp2t") for status in (200, 206)}
        watch(f"{one}/clip.ts", self.export, whole_or_part)
        films: Answers = {status: content("video/mp4", "application/zip") for status in (200, 206)}
        watch(f"{one}/clip.mp4", self.film, films, 400, 422)
        watch(f"{one}/still.jpg", self.still, {200: content("image/jpeg")}, 422)
        return router

    async def listed(
        self, n: Device, actor: Caller, after: After = 0, limit: Rows = DEFAULT_PAGE_ROWS
    ) -> Page[ClipView]:
        """The kept clips of a device, in order of number."""
        found = await self._run(clips.listed, self._desk, actor, n, after=after, limit=limit + 1)
        return page_of(found, limit, lambda row: row.clip_id, ClipView.of)

    async def keep(self, n: Device, actor: Caller, response: Response, asked: ClipAsked) -> ClipView:
        """Keep a range beyond its expiry: a copy under a key of its own, made in the background. It can be watched for
        as long as a plan of the device runs, counts against the bytes that an account may keep, and ends with the
        device's recordings when that was erased, or lapsed and its grace is over."""
        made = await self._run(
            clips.keep, self._desk, actor, n, asked.from_ms, asked.to_ms, name=asked.name, gap_ms=self._gap_ms
        )
        response.headers["Location"] = f"/v1/devices/{n}/clips/{made.clip_id}"
        return ClipView.of(made)

    async def show(self, n: Device, clip: Clip, actor: Caller) -> ClipView:
        """One kept clip, and how far it is."""
        return ClipView.of(await self._run(clips.clip_of, self._desk, actor, n, clip))

    async def drop(self, n: Device, clip: Clip, actor: Caller, reason: Reason = "") -> Response:
        """Delete a kept clip, for ever: its key is destroyed at once."""
        await self._run(clips.drop, self._desk, actor, n, clip, why=reason)
        return Response(status_code=204, headers=NO_STORE)

    async def playlist(
        self,
        viewer: AsksClip,
        from_ms: MaybeFromMs = None,
        to_ms: MaybeToMs = None,
        accept_encoding: Encodings = "",
    ) -> Response:
        """HLS of a kept clip, or of a part of it."""
        return await self._recordings.playlist(viewer, from_ms or 0, _end(to_ms), accept_encoding)

    async def chunk(
        self, request: Request, viewer: AsksClip, capture_ms: CaptureMs, range_: Range = None
    ) -> Response:
        """One chunk of a kept clip, as it was uploaded."""
        return await self._recordings.chunk(request, viewer, capture_ms, range_)

    async def fragment(
        self,
        request: Request,
        viewer: AsksClip,
        capture_ms: CaptureMs,
        near_ms: NearMs = None,
        sound: Sound = None,
    ) -> Response:
        """One chunk of a kept clip as a fragment of MP4: as `.m4s` of a device. Playlists name it."""
        return await self._recordings.fragment(request, viewer, capture_ms, near_ms, sound)

    async def header(
        self, request: Request, viewer: AsksClip, capture_ms: CaptureMs, sound: Sound = None
    ) -> Response:
        """The header of `.m4s` of this time, and of all chunks of the clip that are set up alike."""
        return await self._recordings.header(request, viewer, capture_ms, sound)

    async def init(self, viewer: AsksClip, capture_ms: CaptureMs) -> Response:
        """The init segment of a chunk of fMP4 as it was uploaded; `404 not_found` where the chunk is something else."""
        return await self._recordings.init(viewer, capture_ms)

    async def export(
        self,
        request: Request,
        viewer: AsksClip,
        from_ms: MaybeFromMs = None,
        to_ms: MaybeToMs = None,
        range_: Range = None,
    ) -> Response:
        """A kept clip as one file, or a part of it: as `clip.ts` of a device."""
        return await self._recordings.clip(request, viewer, from_ms or 0, _end(to_ms), range_)

    async def film(
        self,
        request: Request,
        viewer: AsksClip,
        from_ms: MaybeFromMs = None,
        to_ms: MaybeToMs = None,
        range_: Range = None,
    ) -> Response:
        """A kept clip as one MP4, or a part of it: as `clip.mp4` of a device."""
        return await self._recordings.clip_mp4(request, viewer, from_ms or 0, _end(to_ms), range_)

    async def still(self, viewer: AsksClip, at: AtMs, width: Width = 640) -> Response:
        """The key frame of a kept clip at or before a moment: as `still.jpg` of a device."""
        return await self._recordings.still(viewer, at, width)


def _end(to_ms: int | None) -> int:
    return MAX_TIME_MS if to_ms is None else to_ms
