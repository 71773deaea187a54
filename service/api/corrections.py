"""Untrue data of an account: operators ask for a correction, owners see what is asked (agreement 6.1.1)."""

from __future__ import annotations

from fastapi import APIRouter

from service.agreement import corrections
from service.api.door import Account, Caller, Operator
from service.api.models.base import Page
from service.api.models.people import Correction, CorrectionAsked
from service.api.operators import Reason
from service.api.paging import DEFAULT_PAGE_ROWS, After, Rows, page_of
from service.api.problems import PrivateJSON
from service.api.routing import add
from service.api.services import Api


class Corrections:
    """The handlers. Each docstring is a description in the OpenAPI document."""

    def __init__(self, api: Api) -> None:
        self._desk = api.desk
        self._run = api.calls.run

    def routes(self) -> APIRouter:
        router = APIRouter(tags=["corrections"], default_response_class=PrivateJSON)
        of_account = "/v1/accounts/{account}/corrections"
        writes = (401, 403, 404, 409, 422)
        add(router, "GET", "/v1/corrections", self.open, refuses=(401, 403))
        add(router, "GET", of_account, self.listed, refuses=(401, 403, 404))
        add(router, "POST", of_account, self.ask, refuses=writes, status=201)
        add(router, "DELETE", of_account, self.withdraw, refuses=writes)
        return router

    async def open(
        self, operator: Operator, after: After = 0, limit: Rows = DEFAULT_PAGE_ROWS
    ) -> Page[Correction]:
        """Requests to correct data that are open, of all accounts."""
        found = await self._run(
            corrections.listed, self._desk, operator, open_only=True, after=after, limit=limit + 1
        )
        return page_of(found, limit, lambda row: row.correction_id, Correction.of)

    async def listed(
        self, account: Account, actor: Caller, after: After = 0, limit: Rows = DEFAULT_PAGE_ROWS
    ) -> Page[Correction]:
        """What the owner was asked to correct, by when, and how far that is. Change the data, and it is done."""
        found = await self._run(
            corrections.listed, self._desk, actor, account=account, after=after, limit=limit + 1
        )
        return page_of(found, limit, lambda row: row.correction_id, Correction.of)

    async def ask(self, account: Account, operator: Operator, asked: CorrectionAsked) -> Correction:
        """Ask the owner to correct data. Without that the owner is reminded, suspended, and cancelled at last (6.1.1).
        For operators."""
        row = await self._run(
            corrections.ask,
            self._desk,
            operator,
            account,
            asked.fields,
            asked.detail,
            within_days=asked.within_days,
        )
        return Correction.of(row)

    async def withdraw(self, account: Account, operator: Operator, reason: Reason) -> Correction:
        """Take the open request back; a suspension that it made is lifted. For operators."""
        return Correction.of(await self._run(corrections.withdraw, self._desk, operator, account, reason))
