"""Finding an account or a camera: by number, by address, by a camera's name within an account; lists of accounts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from fastapi import APIRouter, Request, Response

from ingest.requests import MAX_DEVICE
from service.agreement import closing, devices, naming, records, sessions
from service.agreement.devices import Standing
from service.pages.door import Operator
from service.pages.operators.common import one_of
from service.pages.paging import PAGE_ROWS, number_in, paged
from service.pages.site import Part, Person
from storage.errors import NotFound
from storage.rows.accounts import AccountRow, AccountState, ClosingState

MAX_QUERY_CHARS = 320
"""An e-mail address is no longer."""
LISTS = ("new", "active", "cancelled", "requested", "approved")
"""What may be listed: accounts in a state, or whose cancellation is."""
_NUMBER = re.compile("[0-9]{1,18}")


@dataclass(frozen=True, slots=True)
class Found:
    """What a search came to. `more`: what the next page of cameras is after."""

    accounts: Sequence[AccountRow] = ()
    cameras: Sequence[Standing] = ()
    more: int | None = None


class Accounts(Part):
    """The handlers."""

    def routes(self) -> APIRouter:
        site, router = self._site, self._site.router()
        site.get(router, "/operator/accounts", self.listed)
        site.get(router, "/operator/search", self.search)
        return router

    async def listed(self, request: Request, person: Operator) -> Response:
        wanted, after = one_of(request, "list", LISTS), number_in(request, "after")
        rows, more = paged(await self._run(self._accounts, person, wanted, after), lambda row: row.account)
        return self._site.page(
            request, "operator/accounts", rows=rows, more=more, wanted=wanted, lists=LISTS, query=""
        )

    def _accounts(self, person: Person, wanted: str, after: int) -> list[AccountRow]:
        limit = PAGE_ROWS + 1
        if wanted in ("requested", "approved"):
            return closing.under_way(self._desk, person.actor, ClosingState(wanted), after=after, limit=limit)
        state = AccountState(wanted) if wanted else None
        return records.accounts(self._desk, person.actor, state=state, after=after, limit=limit)

    async def search(self, request: Request, person: Operator) -> Response:
        query = request.query_params.get("q", "").strip()[:MAX_QUERY_CHARS]
        within, after = number_in(request, "account"), number_in(request, "after")
        found = await self._run(self._found, person, query, within, after) if query else Found()
        return self._site.page(
            request, "operator/search", query=query, within=within or "", found=found, lists=LISTS
        )

    def _found(self, person: Person, query: str, within: int, after: int) -> Found:
        if within:
            try:
                cameras, more = naming.named(
                    self._desk, person.actor, within, query, after=after, limit=PAGE_ROWS
                )
            except NotFound:
                return Found()
            return Found((), cameras, more)
        accounts, standings = [], []
        by_address = sessions.find(self._desk, person.actor, query)
        if by_address is not None:
            accounts.append(by_address)
        if _NUMBER.fullmatch(query):
            number = int(query)
            if (
                by_address is None
            ):  # of a cancelled account the number is left, and the operators' own is no owner's
                accounts += self._account(person, number)
            if number <= MAX_DEVICE:
                standings += self._camera(person, number)
        return Found(accounts, standings)

    def _account(self, person: Person, number: int) -> list[AccountRow]:
        try:
            return [records.account(self._desk, person.actor, number)]
        except NotFound:
            return []

    def _camera(self, person: Person, number: int) -> list[Standing]:
        try:
            return [devices.show(self._desk, person.actor, number)]
        except NotFound:
            return []
