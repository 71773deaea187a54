"""Share links: made and ended by an owner, and the page that whoever has one sees without a log-in."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from service.agreement import devices, shares
from service.agreement.errors import Unprocessable
from service.api.door import Device
from service.api.problems import PrivateJSON
from service.api.responses import HeldResponse
from service.pages.cameras import Camera
from service.pages.door import Owner
from service.pages.recordings import MAX_SPAN_CHUNKS, span_bounds
from service.pages.site import Part, Person
from service.playback import Refused
from storage.errors import CallerError

HOURS = {"24": "a day", "168": "a week", "720": "30 days"}
"""How long a link may last, as the form offers it."""
MAX_LINK_CHARS = 100


class Sharing(Part):
    """The handlers."""

    def routes(self) -> APIRouter:
        site, router = self._site, self._site.router()
        site.get(router, "/cameras/{n}/shares", self.listed)
        site.post(router, "/cameras/{n}/shares", self.make)
        site.post(router, "/cameras/{n}/shares/end", self.end)
        site.get(router, "/s/{token}", self.watch)
        site.get(router, "/s/{token}/spans", self.spans)
        return router

    # --- the owner's ------------------------------------------------------------------------------------------

    async def listed(self, request: Request, n: Device, person: Owner) -> Response:
        return await self._listed(request, n, person)

    async def _listed(
        self, request: Request, n: int, person: Person, error: Exception | None = None
    ) -> Response:
        standing = await self._run(devices.show, self._desk, person.actor, n)
        rows = await self._run(shares.listed, self._desk, person.actor, n)
        shown = {
            "camera": Camera(standing, None, ""),
            "shares": rows,
            "link": await self._made(request, n),
        }
        if error is not None:
            return await self._site.again(request, error, "shares", **shown)
        return self._site.page(request, "shares", **shown)

    async def _made(self, request: Request, device: int) -> str:
        """The address of the link that was just made: its token is told this once."""
        token = request.query_params.get("made", "")
        if not token or len(token) > MAX_LINK_CHARS:
            return ""
        try:
            shared = await self._playback.shared(token)
        except Refused:
            return ""
        host = f"{request.url.scheme}://{request.headers.get('host', '')}"
        return f"{host}/s/{token}" if shared.viewer.device == device else ""

    async def make(self, request: Request, n: Device, person: Owner) -> Response:
        try:
            form = await self._site.form(request)
            if form["hours"] not in HOURS:
                raise Unprocessable("choose how long the link lasts", code="bad_hours")
            from_ms, to_ms, hours = form.whole("from"), form.whole("to"), float(form["hours"])
            _, token = await self._run(
                shares.create, self._desk, person.actor, n, from_ms, to_ms, hours=hours
            )
        except CallerError as error:
            return await self._listed(request, n, person, error)
        return self._site.to(f"/cameras/{n}/shares", "shared", made=token)

    async def end(self, request: Request, n: Device, person: Owner) -> Response:
        try:
            form = await self._site.form(request)
            await self._run(
                shares.revoke, self._desk, person.actor, n, form.whole("share"), why="by its owner"
            )
        except CallerError as error:
            return await self._listed(request, n, person, error)
        return self._site.to(f"/cameras/{n}/shares", "share_ended")

    # --- anybody's who has the link ---------------------------------------------------------------------------

    async def watch(self, request: Request, token: str) -> Response:
        """The range, and nothing else: not even the camera's name."""
        shared = await self._playback.shared(token)
        return self._site.page(request, "share", shared=shared, token=token, now_ms=self._desk.now_ms())

    async def spans(self, request: Request, token: str) -> Response:
        from_ms, to_ms = span_bounds(request)
        shared = await self._playback.shared(token)
        from_ms, to_ms = max(from_ms, shared.from_ms), min(to_ms, shared.to_ms)
        found: list[tuple[int, int]] = []
        next_ms: int | None = None
        if from_ms < to_ms:
            found, next_ms = await self._playback.listings.stretches(
                shared.viewer, from_ms, to_ms, limit=MAX_SPAN_CHUNKS
            )
        told = {"spans": found, "next": next_ms, "token": token, "now": self._desk.now_ms()}
        return HeldResponse(self._playback, shared.viewer, PrivateJSON(told))
