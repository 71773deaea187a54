"""Plans of a device: trial, purchase, grant, and cancellation with what it gives back (agreement 7, 8)."""

from __future__ import annotations

from datetime import date
from typing import Annotated

from fastapi import APIRouter, Path, Query, Response

from retention.money import Money as Amount
from service.agreement import cancelling, crediting, devices, open_purchases, purchases, refunding
from service.agreement.errors import Unprocessable
from service.api.door import Account, Caller, Device, Operator
from service.api.idempotent import OnceOnly
from service.api.models.base import MAX_ROW, AskedMoney
from service.api.models.subscriptions import (
    CancellationAsked,
    CancellationQuote,
    CancelledView,
    Credit,
    Grant,
    OpenPurchaseView,
    PackageName,
    Payment,
    Purchase,
    PurchaseQuote,
    RefundGiven,
    Refunds,
    Remark,
    RetentionDays,
    Started,
    SubscriptionView,
    money,
)
from service.api.numbers import DIGITS
from service.api.problems import PrivateJSON
from service.api.routing import Answers, add
from service.api.services import Api
from storage.days import parse_date
from storage.errors import CallerError

Subscription = Annotated[int, DIGITS, Path(ge=1, le=MAX_ROW, description="subscription number")]


class Subscriptions:
    """The handlers. Each docstring is a description in the OpenAPI document."""

    def __init__(self, api: Api) -> None:
        self._desk = api.desk
        self._run = api.calls.run
        self._pay = api.calls.pay

    def routes(self) -> APIRouter:
        router = APIRouter(tags=["subscriptions"], default_response_class=PrivateJSON)
        device, one = "/v1/devices/{n}", "/v1/subscriptions/{subscription}"
        reads, writes = (401, 403, 404, 422), (401, 403, 404, 409, 422)
        started: Answers = {201: {"model": Started}}
        add(router, "GET", f"{device}/subscriptions", self.listed, refuses=(401, 403, 404))
        add(router, "GET", f"{device}/quote", self.quote, refuses=(*reads, 409))
        add(router, "POST", f"{device}/trial", self.trial, refuses=writes, types=started, status=201)
        buys = (*writes, 402)
        add(router, "POST", f"{device}/subscriptions", self.buy, refuses=buys, types=started, status=201)
        add(router, "POST", f"{device}/grants", self.grant, refuses=writes, types=started, status=201)
        cancelled: Answers = {201: {"model": CancelledView}}
        credited: Answers = {201: {"model": Payment}}
        cancellation = f"{one}/cancellation"
        add(router, "GET", cancellation, self.cancellation_quote, refuses=(*reads, 409))
        add(router, "POST", cancellation, self.cancel, refuses=writes, types=cancelled, status=201)
        add(router, "POST", f"{one}/credits", self.credit, refuses=writes, types=credited, status=201)
        opened = "/v1/accounts/{account}/purchases"
        add(router, "GET", opened, self.open_purchases, refuses=(401, 403, 404))
        add(router, "DELETE", f"{device}/purchase", self.abandon, refuses=(401, 403, 404, 409))
        given: Answers = {201: {"model": Refunds}}
        add(router, "POST", f"{one}/refunds", self.refund, refuses=writes, types=given, status=201)
        return router

    async def listed(self, n: Device, actor: Caller) -> list[SubscriptionView]:
        """All plans of a device: those that run, are to come, and are over."""
        found = await self._run(devices.show, self._desk, actor, n)
        return [SubscriptionView.of(n, sub) for sub in found.subscriptions]

    async def quote(
        self,
        n: Device,
        actor: Caller,
        plan: Annotated[PackageName, Query()],
        retention_days: Annotated[RetentionDays | None, DIGITS, Query()] = None,
        currency: Annotated[
            str | None, Query(pattern="^[A-Z]{3}$", description="ISO 4217; default: the service's own")
        ] = None,
    ) -> PurchaseQuote:
        """What a purchase now would come to: the fee, its first and last day and the instant at which access ends.
        Days are UTC. Nothing is changed."""
        found = await self._run(
            purchases.quote, self._desk, actor, n, plan, retention_days=retention_days, currency=currency
        )
        return PurchaseQuote.of(found)

    async def trial(self, n: Device, actor: Caller, once: OnceOnly) -> Response:
        """The account's one trial, on this device, from today on (7.1)."""
        return await once.answer(
            actor,
            lambda tell: _started(
                purchases.start_trial(
                    self._desk, actor, n, told=lambda books, done: tell(books, _started(done))
                )
            ),
        )

    async def buy(self, n: Device, actor: Caller, asked: Purchase, once: OnceOnly) -> Response:
        """Pay for a plan, which starts on payment, or behind the plans that the device has (7.2)."""
        return await once.answer(
            actor,
            lambda _: _started(
                purchases.buy(
                    self._desk,
                    actor,
                    n,
                    asked.plan,
                    method=asked.method,
                    reference=once.reference(actor, "purchase"),
                    retention_days=asked.retention_days,
                    amount=None if asked.amount is None else _amount(asked.amount),
                )
            ),
        )

    async def open_purchases(self, account: Account, actor: Caller) -> list[OpenPurchaseView]:
        """Purchases of an account that the payment gateway has not answered, the oldest first."""
        found = await self._run(open_purchases.of_account, self._desk, actor, account)
        return [OpenPurchaseView.of(one) for one in found]

    async def abandon(self, n: Device, actor: Caller) -> list[OpenPurchaseView]:
        """Abandon what was ordered for a device and is not paid: it is never charged, or given back if it was."""
        found = await self._pay(open_purchases.abandon, self._desk, actor, n)
        return [OpenPurchaseView.of(one) for one in found]

    async def grant(self, n: Device, operator: Operator, asked: Grant, once: OnceOnly) -> Response:
        """Give a device a plan without a fee. For operators."""
        return await once.answer(
            operator,
            lambda tell: _started(
                purchases.grant(
                    self._desk,
                    operator,
                    n,
                    asked.plan,
                    retention_days=asked.retention_days,
                    starts_on=_date(asked.starts_on),
                    told=lambda books, done: tell(books, _started(done)),
                )
            ),
        )

    async def cancellation_quote(self, subscription: Subscription, actor: Caller) -> CancellationQuote:
        """What keeping the subscription means and what cancelling it now would: to choose from before `POST`."""
        device, found = await self._run(cancelling.quote, self._desk, actor, subscription)
        return CancellationQuote.of(subscription, device, found)

    async def cancel(
        self, subscription: Subscription, actor: Caller, asked: CancellationAsked, once: OnceOnly
    ) -> Response:
        """Cancel a subscription (8.1). Access goes on through its last day."""
        return await once.answer(
            actor,
            lambda tell: CancelledView.of(
                cancelling.cancel(
                    self._desk,
                    actor,
                    subscription,
                    why=asked.reason,
                    told=lambda books, done: tell(books, CancelledView.of(done)),
                )
            ),
        )

    async def credit(
        self, subscription: Subscription, operator: Operator, asked: Credit, once: OnceOnly
    ) -> Response:
        """Note a credit given for a subscription: it lowers a later refund (8.2.1). For operators."""
        return await once.answer(
            operator,
            lambda _: Payment.of(
                crediting.credit(
                    self._desk,
                    operator,
                    subscription,
                    _amount(asked.amount),
                    why=asked.reason,
                    reference=once.reference(operator, "credit"),
                )
            ),
        )

    async def refund(
        self, subscription: Subscription, operator: Operator, asked: RefundGiven, once: OnceOnly
    ) -> Response:
        """Give back a part of what was paid for a subscription, which goes on as it was (8.2.1). For operators."""
        return await once.answer(
            operator,
            lambda _: Refunds.of(
                refunding.give(
                    self._desk,
                    operator,
                    subscription,
                    _amount(asked.amount),
                    why=asked.reason,
                    reference=once.reference(operator, "hand"),
                    otherwise=asked.paid_by_other_means,
                )
            ),
        )


def _started(found: purchases.Started) -> Started:
    return Started(
        subscription=SubscriptionView.of(found.device, found.subscription),
        charged=None if found.fee is None else money(found.fee),
        notes=[Remark.of(note) for note in found.notes],
    )


def _amount(asked: AskedMoney) -> Amount:
    return Amount(asked.minor, asked.currency)


def _date(text: str | None) -> date | None:
    """Raises Unprocessable `bad_date`."""
    try:
        return None if text is None else parse_date(text, field="starts_on")
    except CallerError as error:
        raise Unprocessable(error.detail, code=error.code) from error
