"""An account: what is known of it, its history and its payments. For its owner, and for operators."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Path, Response

from service.agreement import records, registration, sessions
from service.api.door import Account, Caller, Client
from service.api.models.accounts import AccountShown, AccountView, ActivationCode, Event, NewPassword, Update
from service.api.models.base import Page
from service.api.models.subscriptions import Payment
from service.api.paging import DEFAULT_PAGE_ROWS, After, Rows, page_of
from service.api.problems import NO_STORE, PrivateJSON
from service.api.routing import add
from service.api.services import Api

AddressKind = Annotated[Literal["email", "mobile"], Path(description="which address")]


class Accounts:
    """The handlers. Each docstring is a description in the OpenAPI document."""

    def __init__(self, api: Api) -> None:
        self._desk = api.desk
        self._calls = api.calls

    def routes(self) -> APIRouter:
        router = APIRouter(tags=["accounts"], default_response_class=PrivateJSON)
        account = "/v1/accounts/{account}"
        reads, writes = (401, 403, 404), (401, 403, 404, 409, 422)
        add(router, "GET", account, self.show, refuses=reads)
        add(router, "PATCH", account, self.update, refuses=(*writes, 429))
        add(router, "POST", f"{account}/addresses/{{kind}}", self.confirm, refuses=writes)
        add(router, "PUT", f"{account}/password", self.password, refuses=(*writes, 429), status=204)
        add(router, "GET", f"{account}/events", self.events, refuses=reads)
        add(router, "GET", f"{account}/payments", self.payments, refuses=reads)
        return router

    async def show(self, account: Account, actor: Caller) -> AccountShown:
        """An account, and which versions of the agreement it accepted, how and when."""
        row = await self._calls.run(records.account, self._desk, actor, account)
        accepted = await self._calls.run(records.acceptances, self._desk, actor, account)
        return AccountShown.with_accepted(row, accepted)

    async def update(self, account: Account, actor: Caller, asked: Update) -> AccountView:
        """Change the name, or ask for other addresses: a code is sent to each new one, which is bound when that comes
        back. Until then the account has the address before."""
        row = await self._calls.run(
            registration.update,
            self._desk,
            actor,
            account,
            name=asked.name,
            email=asked.email,
            mobile=asked.mobile,
        )
        return AccountView.of(row)

    async def confirm(
        self, account: Account, kind: AddressKind, actor: Caller, asked: ActivationCode
    ) -> AccountView:
        """Bind a new address, with the code that was sent to it."""
        row = await self._calls.run(
            registration.confirm_address, self._desk, account, kind, asked.code, actor=actor
        )
        return AccountView.of(row)

    async def password(self, account: Account, actor: Caller, client: Client, asked: NewPassword) -> Response:
        """Set a new password. All log-ins of the account end, this one too."""
        await self._calls.hash(
            sessions.change_password, self._desk, actor, account, asked.old, asked.new, client
        )
        return Response(status_code=204, headers=NO_STORE)

    async def events(
        self, account: Account, actor: Caller, after: After = 0, limit: Rows = DEFAULT_PAGE_ROWS
    ) -> Page[Event]:
        """What happened to the account and its subscriptions, with who and why, the oldest first."""
        found = await self._calls.run(
            records.events, self._desk, actor, account, after=after, limit=limit + 1
        )
        return page_of(found, limit, lambda row: row.event_id, Event.of)

    async def payments(
        self, account: Account, actor: Caller, after: After = 0, limit: Rows = DEFAULT_PAGE_ROWS
    ) -> Page[Payment]:
        """Charges, refunds and credits of the account, the oldest first."""
        found = await self._calls.run(
            records.payments, self._desk, actor, account, after=after, limit=limit + 1
        )
        return page_of(found, limit, lambda row: row.payment_id, Payment.of)
