"""Erasures: how far each has come, and the proof that nothing decrypts, which an operator asks for here."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from ingest.requests import MAX_DEVICE
from retention.operators import Act
from service.agreement.desk import Actor
from service.agreement.texts import MAX_REASON_CHARS
from service.api.door import Device
from service.errands.running import Errand, Kind
from service.pages.door import Operator, allowed
from service.pages.operators.common import offered
from service.pages.paging import PAGE_ROWS, number_in, paged
from service.pages.site import Part, Person, Site
from storage.catalog.books import Books
from storage.errors import CallerError, NotFound
from storage.rows.accounts import OPERATOR_ACCOUNT
from storage.rows.devices import ErasureRecord


class Erasures(Part):
    """The handlers."""

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self._errands = site.api.errands

    def routes(self) -> APIRouter:
        site, router = self._site, self._site.router()
        site.get(router, "/operator/erasures", self.listed)
        site.post(router, "/operator/erasures/{n}/verify", self.verify)
        return router

    async def listed(self, request: Request, person: Operator) -> Response:
        return await self._listed(request, person)

    async def _listed(self, request: Request, person: Person, error: Exception | None = None) -> Response:
        device, after = number_in(request, "device"), number_in(request, "after")
        named = "device" in request.query_params and request.query_params["device"].strip() != ""
        rows, more = paged(
            await self._run(self._records, device if named else None, after), lambda row: row.erasure_id
        )
        shown = {
            "rows": rows,
            "more": more,
            "device": device if named else "",
            "verify": self._errands.newest(Kind.VERIFY),
            "current": self._errands.current,
            "may": offered(person),
        }
        if error is not None:
            return await self._site.again(request, error, "operator/erasures", **shown)
        return self._site.page(request, "operator/erasures", **shown)

    def _records(self, device: int | None, after: int) -> list[ErasureRecord]:
        if device is not None and device > MAX_DEVICE:
            return []
        return self._site.api.services.operation.erasures(device=device, after_id=after, limit=PAGE_ROWS + 1)

    async def verify(self, request: Request, n: Device, person: Operator) -> Response:
        """It reads every object's index, and notes what it found: for whoever may destroy."""
        try:
            form = await self._site.form(request)
            why = form.text("reason", MAX_REASON_CHARS)
            actor = allowed(person, Act.DESTROY, why)
            if not await self._run(self._records, n, 0):
                raise NotFound("nothing of this camera was ever marked for erasure", subject=f"device {n}")
            self._errands.require_free()
            await self._run(self._record, actor, why, n)
            self._errands.begin(Errand(Kind.VERIFY, actor.operator, device=n))
        except CallerError as error:
            return await self._listed(request, person, error)
        return self._site.to("/operator/erasures")

    def _record(self, actor: Actor, why: str, device: int) -> None:
        def work(books: Books) -> None:
            self._desk.record(books, actor, OPERATOR_ACCOUNT, "erasure_verification", why=why, device=device)

        self._desk.write(work)
