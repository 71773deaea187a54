"""Money by hand: credits, refunds, and what is done about refunds that were refused; and what waits of all accounts.

A form that moves money carries a key that is made with the page. What is asked under it has one reference, so a double
click, or a form that is sent again, moves the money once.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from hashlib import sha256

from fastapi import APIRouter, Request, Response

from retention.money import EXPONENTS, Money
from retention.operators import Act
from service.agreement import crediting, records, refunding
from service.agreement.desk import Actor
from service.agreement.errors import Unprocessable
from service.agreement.idempotency import reference_for
from service.api.door import Account
from service.api.payments import Reference
from service.api.subscriptions import Subscription
from service.pages.door import Operator
from service.pages.forms import Form
from service.pages.operators.common import offered, one_of
from service.pages.operators.deciding import Deed, done
from service.pages.operators.story import Paid
from service.pages.paging import PAGE_ROWS, number_in, paged
from service.pages.site import Part, Person
from storage.errors import NotFound
from storage.rows.accounts import PaymentKind, PaymentRow, PaymentState

WAITS = {
    "failed": (PaymentKind.REFUND, PaymentState.FAILED),
    "pending": (None, PaymentState.PENDING),
    "open": (PaymentKind.DISPUTE, PaymentState.OPEN),
}
"""What waits: refunds that the gateway refused, what is not settled, disputes that are not decided."""
_AMOUNT = re.compile(r"([0-9]{1,15})(?:[.,]([0-9]{1,4}))?")


class Moneyed(Part):
    """The handlers."""

    def routes(self) -> APIRouter:
        site, router = self._site, self._site.router()
        account = "/operator/accounts/{account}"
        site.get(router, "/operator/money", self.waiting)
        site.post(router, f"{account}/plans/{{subscription}}/credit", self.credit)
        site.post(router, f"{account}/plans/{{subscription}}/refund", self.refund)
        site.post(router, f"{account}/payments/{{reference}}/retry", self.retry)
        site.post(router, f"{account}/payments/{{reference}}/paid", self.paid)
        site.post(router, f"{account}/payments/{{reference}}/take-back", self.take_back)
        return router

    async def waiting(self, request: Request, person: Operator) -> Response:
        """Of all accounts. What is done about it is done on the account's page."""
        wanted, after = one_of(request, "list", tuple(WAITS)) or "failed", number_in(request, "after")
        kind, state = WAITS[wanted]
        found = await self._run(
            records.all_payments,
            self._desk,
            person.actor,
            kind=kind,
            state=state,
            after=after,
            limit=PAGE_ROWS + 1,
        )
        rows, more = paged(found, lambda row: row.payment_id)
        return self._site.page(
            request,
            "operator/money",
            rows=[Paid(row) for row in rows],
            more=more,
            wanted=wanted,
            may=offered(person),
        )

    async def credit(
        self, request: Request, account: Account, subscription: Subscription, person: Operator
    ) -> Response:
        def deed(actor: Actor, why: str, form: Form) -> object:
            money = self._amount(form, account, subscription)
            reference = reference_of(actor, form, subscription, "credit")
            return crediting.credit(self._desk, actor, subscription, money, why=why, reference=reference)

        return await self._pay(request, person, account, deed)

    async def refund(
        self, request: Request, account: Account, subscription: Subscription, person: Operator
    ) -> Response:
        def deed(actor: Actor, why: str, form: Form) -> object:
            money = self._amount(form, account, subscription)
            reference = reference_of(actor, form, subscription, "hand")
            return refunding.give(
                self._desk,
                actor,
                subscription,
                money,
                why=why,
                reference=reference,
                otherwise=form.ticked("otherwise"),
            )

        return await self._pay(request, person, account, deed)

    async def retry(
        self, request: Request, account: Account, reference: Reference, person: Operator
    ) -> Response:
        return await self._see_to(request, person, account, reference, refunding.retry)

    async def paid(
        self, request: Request, account: Account, reference: Reference, person: Operator
    ) -> Response:
        return await self._see_to(request, person, account, reference, refunding.paid_otherwise)

    async def take_back(
        self, request: Request, account: Account, reference: Reference, person: Operator
    ) -> Response:
        return await self._see_to(request, person, account, reference, crediting.take_back)

    async def _see_to(
        self, request: Request, person: Person, account: int, reference: str, what: Callable[..., object]
    ) -> Response:
        """Do something about a payment of the account."""

        def deed(actor: Actor, why: str, form: Form) -> object:
            self._require_of(account, reference)
            return what(self._desk, actor, reference, why=why)

        return await self._pay(request, person, account, deed)

    async def _pay(self, request: Request, person: Person, account: int, deed: Deed) -> Response:
        return await done(self._site, request, person, account, Act.MONEY, deed, self._site.calls.pay)

    def _amount(self, form: Form, account: int, plan_id: int) -> Money:
        """Of the form, in the currency of the plan. Raises NotFound: it is no plan of this account."""
        with self._desk.reading() as books:
            row = refunding.subscription_of(books, plan_id)
        if row.account != account:
            raise NotFound("there is no such plan", subject=f"account {account}")
        return amount_of(form.text("amount"), row.currency)

    def _require_of(self, account: int, reference: str) -> None:
        row = self._payment(reference)
        if row.account != account:
            raise NotFound("there is no such payment", subject=f"account {account}")

    def _payment(self, reference: str) -> PaymentRow:
        with self._desk.reading() as books:
            return refunding.payment_of(books, reference)


def reference_of(actor: Actor, form: Form, plan_id: int, what: str) -> str:
    """The payment reference of what a form asks: the same when it is sent again, another's for everyone else."""
    own = sha256(f"{actor.operator}\n{plan_id}\n{form['key']}".encode("utf-8", "replace")).hexdigest()
    if not form["key"]:
        raise Unprocessable("the form is not whole; open the page anew", code="bad_idempotency_key")
    return reference_for(actor.account, own, what)


def amount_of(text: str, currency: str) -> Money:
    """As people write it: `12`, `12.50` or `12,50`. Raises Unprocessable `bad_amount`."""
    digits = EXPONENTS.get(currency, 2)
    found = _AMOUNT.fullmatch(text)
    if found is None or len(found[2] or "") > digits:
        example = "12." + "50"[:digits].ljust(digits, "0") if digits else "12"
        raise Unprocessable(f"an amount in {currency} looks like {example}", code="bad_amount")
    return Money(int(found[1]) * 10**digits + int((found[2] or "").ljust(digits, "0") or "0"), currency)
