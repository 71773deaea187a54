"""The recordings of a camera: the page with player and timeline, what they ask for, and what is done with a range."""

from __future__ import annotations

import re
from datetime import timedelta
from itertools import pairwise
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError

from service.agreement import clips, devices, recordings
from service.agreement.errors import Unprocessable
from service.api.asking import unix_ms
from service.api.door import Device
from service.api.problems import PrivateJSON
from service.api.responses import HeldResponse
from service.pages.cameras import Camera, view_token
from service.pages.day import lines, within
from service.pages.door import Owner
from service.pages.site import Part, Person, Site
from service.playback import Viewer
from storage.days import MAX_TIME_MS, MS_PER_DAY, day_of_ms
from storage.errors import CallerError
from storage.rows.clips import ClipRow, ClipState

MAX_SPAN_MS = 26 * 3_600_000
"""Asked of a timeline at once: the longest day that there is, when clocks are set back, and an hour."""
MAX_SPAN_CHUNKS = 50_000
"""Of them; a day of the shortest chunks that cameras send by default has 21,600. More are asked for again."""
MAX_DELETIONS = 1000
"""Of a timeline: the earliest ones, before they are joined. Each was a form that somebody sent."""
MAX_LINES = 500
"""Of a day as a list, in one page."""
MAX_DAYS = 43
"""Of a calendar: a month has parts of six weeks."""
_DAYS = re.compile(r"\d{1,15}(,\d{1,15}){1,43}")


class Recordings(Part):
    """The handlers."""

    def routes(self) -> APIRouter:
        site, router = self._site, self._site.router()
        site.get(router, "/cameras/{n}", self.watch)
        site.get(router, "/cameras/{n}/spans", self.spans)
        site.get(router, "/cameras/{n}/marks", self.marks)
        site.get(router, "/cameras/{n}/list", self.lines)
        site.get(router, "/cameras/{n}/days", self.days)
        site.get(router, "/cameras/{n}/range", self.range)
        site.post(router, "/cameras/{n}/delete", self.delete)
        return router

    async def watch(self, request: Request, n: Device, person: Owner) -> Response:
        """The page; its script asks for the rest. Why nothing plays, if nothing does, is told by the gate."""
        standing = await self._run(devices.show, self._desk, person.actor, n)
        viewer = Viewer(n, view_token(self._site, standing.facts))
        problem = None
        try:
            self._playback.confirming(viewer)()
        except CallerError as error:
            problem = await self._site.problem(request, error)
        camera = Camera(standing, None, viewer.token)
        return self._site.page(request, "camera", camera=camera, problem=problem, now_ms=self._desk.now_ms())

    async def _viewer(self, person: Person, device: int) -> Viewer:
        """Raises NotFound, also for somebody else's."""
        standing = await self._run(devices.show, self._desk, person.actor, device)
        return Viewer(device, view_token(self._site, standing.facts))

    async def spans(self, request: Request, n: Device, person: Owner) -> Response:
        """What a timeline is drawn of: stretches of recording, and a token for the media of the page."""
        from_ms, to_ms = span_bounds(request)
        viewer = await self._viewer(person, n)
        found, next_ms = await self._playback.listings.stretches(
            viewer, from_ms, to_ms, limit=MAX_SPAN_CHUNKS
        )
        told = {"spans": found, "next": next_ms, "token": viewer.token, "now": self._desk.now_ms()}
        answer = PrivateJSON(told)
        return HeldResponse(self._playback, viewer, answer)

    async def days(self, request: Request, n: Device, person: Owner) -> Response:
        """Which days have video. `starts`: when they begin, Unix ms, in the viewer's zone; the last is an end."""
        asked = request.query_params.get("starts", "")
        if not _DAYS.fullmatch(asked):
            raise malformed(f"starts: up to {MAX_DAYS} days as Unix ms, separated by commas, and the end")
        starts = [int(one) for one in asked.split(",")]
        if starts != sorted(set(starts)) or starts[-1] > MAX_TIME_MS:
            raise malformed("starts: are to ascend")
        viewer = await self._viewer(person, n)
        have = await self._playback.listings.which(viewer, list(pairwise(starts)))
        kept = await self._run(kept_within, self._site, person, n, starts[0], starts[-1])
        clipped = [bool(within(kept, first, last)) for first, last in pairwise(starts)]
        return HeldResponse(self._playback, viewer, PrivateJSON({"days": have, "kept": clipped}))

    async def marks(self, request: Request, n: Device, person: Owner) -> Response:
        """What else a timeline shows: the kept clips that have something of it, and what was deleted of it."""
        from_ms, to_ms = span_bounds(request)
        viewer = await self._viewer(person, n)
        kept, deleted = await self._run(self._marks, person, n, from_ms, to_ms)
        told = {
            "kept": [
                {
                    "clip": clip.clip_id,
                    "name": clip.name,
                    "from": clip.from_ms,
                    "to": clip.to_ms,
                    "ready": clip.state is ClipState.READY,
                }
                for clip in kept
            ],
            "deleted": deleted,
        }
        return HeldResponse(self._playback, viewer, PrivateJSON(told))

    def _marks(
        self, person: Person, device: int, from_ms: int, to_ms: int
    ) -> tuple[list[ClipRow], list[tuple[int, int]]]:
        kept = kept_within(self._site, person, device, from_ms, to_ms)
        gone = recordings.deleted(self._desk, person.actor, device, from_ms, to_ms, limit=MAX_DELETIONS)
        return kept, gone

    async def lines(self, request: Request, n: Device, person: Owner) -> Response:
        """A day as a list: for who has no script, or can't see the timeline. UTC's, unless its bounds are given."""
        now_ms = self._desk.now_ms()
        from_ms = day_of_ms(now_ms) * MS_PER_DAY
        to_ms = from_ms + MS_PER_DAY
        if "from" in request.query_params:
            from_ms, to_ms = span_bounds(request)
        standing = await self._run(devices.show, self._desk, person.actor, n)
        viewer = Viewer(n, view_token(self._site, standing.facts))
        listings = self._playback.listings
        spans, next_ms = await listings.stretches(viewer, from_ms, to_ms, limit=MAX_SPAN_CHUNKS)
        kept, deleted = await self._run(self._marks, person, n, from_ms, to_ms)
        end_ms = min(next_ms or to_ms, max(now_ms, from_ms))
        found = lines(spans, deleted, kept, from_ms, end_ms)
        if len(found) > MAX_LINES:
            next_ms = found[MAX_LINES].from_ms
        page = self._site.page(
            request,
            "camera_list",
            camera=Camera(standing, None, viewer.token),
            lines=found[:MAX_LINES],
            next_ms=next_ms,
            from_ms=from_ms,
            to_ms=to_ms,
            now_ms=now_ms,
        )
        return HeldResponse(self._playback, viewer, page)

    async def range(self, request: Request, n: Device, person: Owner) -> Response:
        """What may be done with a range: to have it, to keep it, to show it to others, to delete it."""
        from_ms, to_ms = bounds(request)
        return await range_page(self._site, request, person, n, from_ms, to_ms)

    async def delete(self, request: Request, n: Device, person: Owner) -> Response:
        """For ever; kept clips that have something of it too, unless they are to stay."""
        form = await self._site.form(request)
        from_ms, to_ms = form.whole("from"), form.whole("to")
        try:
            _check_order(from_ms, to_ms)
            if not form.ticked("sure"):
                raise Unprocessable("tick the box that says that you mean it", code="not_sure")
            await self._run(
                recordings.delete,
                self._desk,
                person.actor,
                n,
                from_ms,
                to_ms,
                why=form.text("reason"),
                delete_delay_ms=self._site.api.services.delete_delay_ms,
                keep_clips=form["clips"] == "keep",
            )
        except CallerError as error:
            return await range_page(self._site, request, person, n, from_ms, to_ms, error)
        return self._site.to(f"/cameras/{n}", "deleted", at=from_ms)


async def range_page(
    site: Site,
    request: Request,
    person: Person,
    device: int,
    from_ms: int,
    to_ms: int,
    error: Exception | None = None,
) -> Response:
    """The page of a range: after a form that was refused, with why."""
    shown = await site.calls.run(_range, site, person, device, from_ms, to_ms)
    if error is not None:
        return await site.again(request, error, "range", **shown)
    return site.page(request, "range", **shown)


def _range(site: Site, person: Person, device: int, from_ms: int, to_ms: int) -> dict[str, Any]:
    standing = devices.show(site.desk, person.actor, device)
    used, most = clips.used_and_most(site.desk, person.actor, person.account)
    return {
        "camera": Camera(standing, None, view_token(site, standing.facts)),
        "from_ms": from_ms,
        "to_ms": to_ms,
        "kept": kept_within(site, person, device, from_ms, to_ms),
        "used": used,
        "most": most,
    }


def kept_within(site: Site, person: Person, device: int, from_ms: int, to_ms: int) -> list[ClipRow]:
    """The kept clips that have something of a range. Blocks."""
    most = site.desk.settings.max_clips_per_device
    return within(clips.listed(site.desk, person.actor, device, limit=most), from_ms, to_ms)


def span_bounds(request: Request) -> tuple[int, int]:
    """`bounds` of what is asked of a timeline at once."""
    from_ms, to_ms = bounds(request)
    if to_ms - from_ms > MAX_SPAN_MS:
        raise malformed(f"at most {timedelta(milliseconds=MAX_SPAN_MS)} at once")
    return from_ms, to_ms


def bounds(request: Request) -> tuple[int, int]:
    """`from` and `to` of an address, Unix ms. Raises RequestValidationError."""
    from_ms, to_ms = (_moment(request.query_params.get(name, "")) for name in ("from", "to"))
    _check_order(from_ms, to_ms)
    return from_ms, to_ms


def _moment(text: str) -> int:
    """Unix ms, or ISO 8601, in UTC where it does not say."""
    if re.fullmatch(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d{1,3})?)?", text):
        text += "Z"
    try:
        found = int(str(unix_ms(text)))  # digits stay a text
    except ValueError as error:
        raise malformed(str(error)) from None
    if not 0 <= found <= MAX_TIME_MS:
        raise malformed("a moment is Unix ms, or like 2026-07-01T12:00:00Z")
    return found


def _check_order(from_ms: int, to_ms: int) -> None:
    if not from_ms < to_ms <= MAX_TIME_MS:
        raise malformed("a range ends after it begins")


def malformed(what: str) -> RequestValidationError:
    """An address that no page of ours asks for."""
    return RequestValidationError([{"loc": ("query",), "msg": what, "type": "value"}])
