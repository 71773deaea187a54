"""Kept clips of a camera: what is kept beyond its expiry, how a range is, and how a clip goes."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from service.agreement import clips, devices
from service.agreement.errors import Unprocessable
from service.agreement.texts import MAX_NAME_CHARS
from service.api.door import Device
from service.pages.cameras import Camera, view_token
from service.pages.door import Owner
from service.pages.paging import PAGE_ROWS, number_in, paged
from service.pages.recordings import range_page
from service.pages.site import Part, Person
from storage.errors import CallerError


class Keeping(Part):
    """The handlers."""

    def routes(self) -> APIRouter:
        site, router = self._site, self._site.router()
        site.get(router, "/cameras/{n}/clips", self.listed)
        site.post(router, "/cameras/{n}/clips", self.keep)
        site.post(router, "/cameras/{n}/clips/delete", self.drop)
        return router

    async def listed(self, request: Request, n: Device, person: Owner) -> Response:
        shown = await self._run(self._shown, person, n, number_in(request, "after"))
        return self._site.page(request, "clips", **shown)

    def _shown(self, person: Person, device: int, after: int) -> dict[str, Any]:
        desk, actor = self._desk, person.actor
        standing = devices.show(desk, actor, device)
        rows, more = paged(
            clips.listed(desk, actor, device, after=after, limit=PAGE_ROWS + 1), lambda row: row.clip_id
        )
        used, most = clips.used_and_most(desk, actor, person.account)
        token = view_token(self._site, standing.facts)
        return {
            "camera": Camera(standing, None, token),
            "clips": rows,
            "more": more,
            "used": used,
            "most": most,
        }

    async def keep(self, request: Request, n: Device, person: Owner) -> Response:
        """It is copied in the background."""
        form = await self._site.form(request)
        from_ms, to_ms = form.whole("from"), form.whole("to")
        try:
            await self._run(
                clips.keep,
                self._desk,
                person.actor,
                n,
                from_ms,
                to_ms,
                name=form.text("name", MAX_NAME_CHARS),
                gap_ms=self._site.api.services.gap_ms,
            )
        except CallerError as error:
            return await range_page(self._site, request, person, n, from_ms, to_ms, error)
        return self._site.to(f"/cameras/{n}/clips", "kept")

    async def drop(self, request: Request, n: Device, person: Owner) -> Response:
        """For ever."""
        try:
            form = await self._site.form(request)
            if not form.ticked("sure"):
                raise Unprocessable("tick the box that says that you mean it", code="not_sure")
            await self._run(
                clips.drop, self._desk, person.actor, n, form.whole("clip"), why=form.text("reason")
            )
        except CallerError as error:
            return await self._site.again(
                request, error, "clips", **await self._run(self._shown, person, n, 0)
            )
        return self._site.to(f"/cameras/{n}/clips", "unkept")
