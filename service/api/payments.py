"""What operators see of all payments, and what they do about refunds that were refused (agreement 8.2.1)."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query

from service.agreement import crediting, records, refunding
from service.agreement.payments import MAX_REFERENCE_CHARS
from service.api.door import Operator
from service.api.models.accounts import WithReason
from service.api.models.base import Page
from service.api.models.payments import PaymentOfAccount
from service.api.models.subscriptions import Payment
from service.api.paging import DEFAULT_PAGE_ROWS, After, Rows, page_of
from service.api.problems import PrivateJSON
from service.api.routing import add
from service.api.services import Api
from storage.rows.accounts import PaymentKind, PaymentState

Reference = Annotated[
    str,
    Path(
        pattern="^[A-Za-z0-9][A-Za-z0-9._-]*$",
        max_length=MAX_REFERENCE_CHARS,
        description="a payment's reference",
    ),
]
Kind = Annotated[
    Literal["charge", "refund", "credit", "dispute", "counter"] | None, Query(description="only those")
]
State = Annotated[
    Literal["pending", "done", "failed", "paid_otherwise", "taken_back", "void", "open", "lost", "won"]
    | None,
    Query(description="only those"),
]
OlderThan = Annotated[
    float | None, Query(ge=0, le=10**7, description="only those that were made so many hours ago, or earlier")
]


class Payments:
    """The handlers. Each docstring is a description in the OpenAPI document."""

    def __init__(self, api: Api) -> None:
        self._desk = api.desk
        self._run = api.calls.run
        self._pay = api.calls.pay

    def routes(self) -> APIRouter:
        router = APIRouter(tags=["operators"], default_response_class=PrivateJSON)
        one, writes = "/v1/payments/{reference}", (401, 403, 404, 409, 422)
        add(router, "GET", "/v1/payments", self.listed, refuses=(401, 403))
        add(router, "POST", f"{one}/retry", self.retry, refuses=writes)
        add(router, "POST", f"{one}/paid", self.paid, refuses=writes)
        add(router, "POST", f"{one}/counter-entry", self.take_back, refuses=writes)
        return router

    async def listed(
        self,
        operator: Operator,
        kind: Kind = None,
        state: State = None,
        older_than_h: OlderThan = None,
        after: After = 0,
        limit: Rows = DEFAULT_PAGE_ROWS,
    ) -> Page[PaymentOfAccount]:
        """Payments of all accounts, in order of number: with `state=failed&kind=refund` what somebody has to see to."""
        rows = await self._run(
            records.all_payments,
            self._desk,
            operator,
            kind=None if kind is None else PaymentKind(kind),
            state=None if state is None else PaymentState(state),
            older_than_ms=None if older_than_h is None else round(older_than_h * 3_600_000),
            after=after,
            limit=limit + 1,
        )
        now_ms = self._desk.now_ms()
        return page_of(
            rows, limit, lambda row: row.payment_id, lambda row: PaymentOfAccount.seen(row, now_ms)
        )

    async def retry(self, reference: Reference, operator: Operator, asked: WithReason) -> Payment:
        """Ask the gateway again for a refund that it refused. It has a new reference from then on."""
        return Payment.of(await self._pay(refunding.retry, self._desk, operator, reference, why=asked.reason))

    async def paid(self, reference: Reference, operator: Operator, asked: WithReason) -> Payment:
        """Note that a refund which the gateway refused was paid by other means."""
        row = await self._run(refunding.paid_otherwise, self._desk, operator, reference, why=asked.reason)
        return Payment.of(row)

    async def take_back(self, reference: Reference, operator: Operator, asked: WithReason) -> Payment:
        """Take back a credit, or the note that a refund was paid by other means, by a counter-entry; or give up a
        refund by hand that the gateway refused. Until the plan is cancelled. Money that left can't be taken back."""
        row = await self._run(crediting.take_back, self._desk, operator, reference, why=asked.reason)
        return Payment.of(row)
