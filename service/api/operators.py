"""What only operators ask: all accounts, suspension, the outbox, announcements (agreement 3, 6.1)."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query, Response

from service.agreement import announcing, notices, records, sessions, standing
from service.agreement.texts import MAX_REASON_CHARS
from service.api.door import Account, Operator
from service.api.models.accounts import MAX_ADDRESS_CHARS, AccountView, WithReason
from service.api.models.base import MAX_ROW, Page
from service.api.models.notices import Announced, AnnouncementAsked, Notice
from service.api.numbers import DIGITS
from service.api.paging import DEFAULT_PAGE_ROWS, After, Rows, page_of
from service.api.problems import NO_STORE, PrivateJSON
from service.api.routing import add
from service.api.services import Api
from storage.rows.accounts import AccountState, NoticeState

NoticeNumber = Annotated[int, DIGITS, Path(alias="notice", ge=1, le=MAX_ROW, description="notice number")]
State = Annotated[Literal["new", "active", "cancelled"] | None, Query(description="only those")]
Address = Annotated[
    str | None,
    Query(
        min_length=1, max_length=MAX_ADDRESS_CHARS, description="the e-mail address or mobile number of one"
    ),
]
Delivery = Annotated[Literal["queued", "delivered", "failed"] | None, Query(description="only those")]
OfAccount = Annotated[int | None, DIGITS, Query(ge=1, le=MAX_ROW, description="only of this account")]
Reference = Annotated[
    str,
    Path(
        min_length=1,
        max_length=announcing.MAX_REFERENCE_CHARS,
        description="of the announcement",
    ),
]
Reason = Annotated[
    str,
    Query(
        min_length=1, max_length=MAX_REASON_CHARS, description="kept in the history, and told to the owner"
    ),
]


class Operators:
    """The handlers. Each docstring is a description in the OpenAPI document."""

    def __init__(self, api: Api) -> None:
        self._desk = api.desk
        self._run = api.calls.run

    def routes(self) -> APIRouter:
        router = APIRouter(tags=["operators"], default_response_class=PrivateJSON)
        suspension = "/v1/accounts/{account}/suspension"
        writes = (401, 403, 404, 409, 422)
        add(router, "GET", "/v1/accounts", self.accounts, refuses=(401, 403))
        add(router, "POST", suspension, self.suspend, refuses=writes)
        add(router, "DELETE", suspension, self.resume, refuses=writes)
        add(router, "GET", "/v1/notices", self.notices, refuses=(401, 403))
        add(router, "POST", "/v1/notices/{notice}/confirmation", self.confirm, refuses=(401, 403, 404, 409))
        add(router, "POST", "/v1/announcements", self.announce, refuses=(401, 403, 409, 422))
        shown = "/v1/announcements/{reference}"
        add(router, "DELETE", shown, self.withdraw, refuses=(401, 403, 404), status=204)
        return router

    async def accounts(
        self,
        operator: Operator,
        state: State = None,
        address: Address = None,
        after: After = 0,
        limit: Rows = DEFAULT_PAGE_ROWS,
    ) -> Page[AccountView]:
        """All accounts, in order of number; with `address` the one that it belongs to, or none."""
        if address is not None:
            found = await self._run(sessions.find, self._desk, operator, address)
            fits = found is not None and found.account > after and state in (None, found.state.value)
            return Page(items=[AccountView.of(found)] if found is not None and fits else [], next=None)
        wanted = None if state is None else AccountState(state)
        rows = await self._run(
            records.accounts, self._desk, operator, state=wanted, after=after, limit=limit + 1
        )
        return page_of(rows, limit, lambda row: row.account, AccountView.of)

    async def suspend(self, account: Account, operator: Operator, asked: WithReason) -> AccountView:
        """Suspend an account: no log-in, upload or playback from now on; nothing is erased by it (3.3, 6.1)."""
        return AccountView.of(await self._run(standing.suspend, self._desk, operator, account, asked.reason))

    async def resume(self, account: Account, operator: Operator, reason: Reason) -> AccountView:
        """Lift a suspension."""
        return AccountView.of(await self._run(standing.resume, self._desk, operator, account, reason))

    async def notices(
        self,
        operator: Operator,
        state: Delivery = None,
        account: OfAccount = None,
        after: After = 0,
        limit: Rows = DEFAULT_PAGE_ROWS,
    ) -> Page[Notice]:
        """The outbox, in order of number: what is queued, delivered, or has failed and needs an operator."""
        wanted = None if state is None else NoticeState(state)
        found = await self._run(
            notices.listed,
            self._desk,
            operator,
            state=wanted,
            account=account,
            after=after,
            limit=limit + 1,
        )
        return page_of(found, limit, lambda row: row.notice_id, Notice.of)

    async def confirm(self, number: NoticeNumber, operator: Operator) -> Notice:
        """A notice that could not be delivered has reached its owner by other ways (6.4)."""
        return Notice.of(await self._run(notices.confirm, self._desk, operator, number))

    async def announce(self, operator: Operator, asked: AnnouncementAsked) -> Announced:
        """Tell all active accounts of a change or an interruption of the service (3.1, 3.2)."""
        window = (
            None
            if asked.planned is None
            else announcing.Window(asked.planned.from_ms, asked.planned.until_ms)
        )
        done = await self._run(
            announcing.announce,
            self._desk,
            operator,
            asked.subject,
            asked.body,
            reference=asked.reference,
            window=window,
            to_suspended=asked.to_suspended,
        )
        return Announced(reference=done.reference, accounts=done.accounts)

    async def withdraw(self, reference: Reference, operator: Operator) -> Response:
        """An announcement with a planned window is shown no longer: it is off, or over early."""
        await self._run(announcing.withdraw, self._desk, operator, reference)
        return Response(status_code=204, headers=NO_STORE)
