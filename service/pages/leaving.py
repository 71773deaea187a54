"""The end of an account: what stands in its way, the request, and what is left afterwards (agreement 6)."""

from __future__ import annotations

import re

from fastapi import APIRouter, Request, Response

from service.agreement import closing
from service.agreement.errors import Unprocessable
from service.pages.door import Owner
from service.pages.site import Part, Person
from storage.errors import CallerError
from storage.rows.devices import ErasureRecord

MAX_RECORDS = 20
"""Of one camera: each ended plan that was followed by another may have left one."""


class Leaving(Part):
    """The handlers."""

    def routes(self) -> APIRouter:
        site, router = self._site, self._site.router()
        site.get(router, "/account/close", self.show)
        site.post(router, "/account/close", self.ask)
        site.post(router, "/account/close/withdraw", self.withdraw)
        site.get(router, "/erased", self.erased)
        return router

    async def show(self, request: Request, person: Owner) -> Response:
        return await self._shown(request, person)

    async def _shown(self, request: Request, person: Person, error: Exception | None = None) -> Response:
        progress = await self._run(closing.progress, self._desk, person.actor, person.account)
        shown = {"progress": progress, "reserve_days": self._desk.settings.reserve_days}
        if error is not None:
            return await self._site.again(request, error, "close", **shown)
        return self._site.page(request, "close", **shown)

    async def ask(self, request: Request, person: Owner) -> Response:
        try:
            form = await self._site.form(request)
            if not form.ticked("sure"):
                raise Unprocessable("tick the box that says that you mean it", code="not_sure")
            reason = form.text("reason")
            await self._run(closing.request, self._desk, person.actor, person.account, reason)
        except CallerError as error:
            return await self._shown(request, person, error)
        return self._site.to("/account/close", "closing_asked")

    async def withdraw(self, request: Request, person: Owner) -> Response:
        try:
            await self._site.form(request)
            await self._run(closing.withdraw, self._desk, person.actor, person.account)
        except CallerError as error:
            return await self._shown(request, person, error)
        return self._site.to("/account/close", "closing_withdrawn")

    async def erased(self, request: Request) -> Response:
        """Anybody may ask by a camera's number: a record names no person."""
        asked = request.query_params.get("camera", "").strip()
        found: list[ErasureRecord] | None = None
        if re.fullmatch("[0-9]{1,9}", asked):
            found = await self._run(self._records, int(asked))
        return self._site.page(request, "erased", camera=asked if found is not None else "", found=found)

    def _records(self, device: int) -> list[ErasureRecord]:
        return self._desk.catalog.erasures(device=device, limit=MAX_RECORDS)
