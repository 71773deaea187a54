"""The plan of a camera: what is paid until when, trial, purchase, and cancellation in two steps (agreement 7, 8)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date
from hashlib import sha256
from typing import Any
from uuid import uuid4

from fastapi import APIRouter, Request, Response

from retention.cancelling import Outcomes
from retention.fee_changes import first_day
from retention.money import Money
from retention.packages import Package
from retention.plans import denied_from_ms
from retention.subscriptions import Subscription
from service.agreement import cancelling, devices, methods, open_purchases, packages, purchases, records
from service.agreement.errors import Unprocessable
from service.agreement.idempotency import reference_for
from service.agreement.open_purchases import OpenPurchase
from service.api.door import Device
from service.api.subscriptions import Subscription as SubscriptionNumber
from service.pages.cameras import Camera
from service.pages.door import Owner
from service.pages.forms import Form
from service.pages.site import Part, Person, Site
from storage.days import ms_of_day, to_day
from storage.errors import CallerError
from storage.rows.accounts import MethodState

MAX_METHOD_CHARS = 200
_PACKAGE = re.compile(r"[a-z0-9-]{1,40}")
_KEY = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class Held:
    """A plan of a camera as its page shows it.

    Args:
        state: "runs", "to come", "over", or "never began".
        ends_ms: the instant at which the right ends as things stand; None: it renews itself, or has no end.
    """

    subscription: Subscription
    state: str
    begins_ms: int
    ends_ms: int | None

    @classmethod
    def of(cls, subscription: Subscription, on: date) -> Held:
        plan = subscription.plan
        if not plan.has_days:
            state = "never began"
        elif plan.has_ended(on):
            state = "over"
        else:
            state = "to come" if plan.starts_on > on else "runs"
        ends_ms = None if plan.ends_on is None or not plan.has_days else denied_from_ms(plan.ends_on)
        return cls(subscription, state, ms_of_day(to_day(plan.starts_on)), ends_ms)

    @property
    def may_be_cancelled(self) -> bool:
        plan = self.subscription.plan
        return self.state in ("runs", "to come") and plan.cancelled_on is None and plan.kind != "trial"

    @property
    def next_fee_from(self) -> date | None:
        return first_day(self.subscription)


class Plans(Part):
    """The handlers."""

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self._pay = site.calls.pay

    def routes(self) -> APIRouter:
        site, router = self._site, self._site.router()
        one = "/cameras/{n}"
        site.get(router, f"{one}/plan", self.show)
        site.post(router, f"{one}/trial", self.trial)
        site.get(router, f"{one}/buy", self.ask)
        site.post(router, f"{one}/buy", self.buy)
        site.post(router, f"{one}/abandon", self.abandon)
        site.get(router, "/plans/{subscription}/cancel", self.ask_cancel)
        site.post(router, "/plans/{subscription}/cancel", self.cancel)
        return router

    # --- what there is ----------------------------------------------------------------------------------------

    async def show(self, request: Request, n: Device, person: Owner) -> Response:
        return self._site.page(request, "plan", **await self._run(self._shown, person, n))

    def _shown(self, person: Person, device: int) -> dict[str, Any]:
        desk = self._desk
        standing = devices.show(desk, person.actor, device)
        row = records.account(desk, person.actor, person.account)
        held = [Held.of(one, desk.date()) for one in standing.subscriptions]
        return {
            "camera": Camera(standing, None, ""),
            "held": sorted(held, key=lambda one: (one.state == "over", one.begins_ms)),
            "offers": _offers(packages.listed(desk), desk.settings.currency),
            "open": [one for one in self._open(person) if one.device == device],
            "trial_ms": row.trial_ms,
            "trial": next((one for one in packages.listed(desk) if one.kind == "trial"), None),
            "covered_ms": None
            if standing.entitled_through is None
            else denied_from_ms(standing.entitled_through),
            "now_ms": desk.now_ms(),
        }

    def _open(self, person: Person) -> list[OpenPurchase]:
        return open_purchases.of_account(self._desk, person.actor, person.account)

    async def _again(self, request: Request, person: Person, n: int, error: Exception) -> Response:
        shown = await self._run(self._shown, person, n)
        return await self._site.again(request, error, "plan", **shown)

    # --- trial and purchase -----------------------------------------------------------------------------------

    async def trial(self, request: Request, n: Device, person: Owner) -> Response:
        try:
            await self._site.form(request)
            await self._pay(purchases.start_trial, self._desk, person.actor, n)
        except CallerError as error:
            return await self._again(request, person, n, error)
        return self._site.to(f"/cameras/{n}/plan", "trial_started")

    async def ask(self, request: Request, n: Device, person: Owner) -> Response:
        """Step 1: what it would come to."""
        package = request.query_params.get("package", "")
        try:
            shown = await self._run(self._quoted, person, n, package)
        except CallerError as error:
            return await self._again(request, person, n, error)
        return self._site.page(request, "buy", key=uuid4().hex, **shown)

    def _quoted(self, person: Person, device: int, package: str) -> dict[str, Any]:
        if not _PACKAGE.fullmatch(package):
            raise Unprocessable("choose one of the plans", code="not_for_sale")
        quote = purchases.quote(self._desk, person.actor, device, package)
        rows = methods.methods_of(self._desk, person.actor, person.account)
        return {
            "camera": Camera(devices.show(self._desk, person.actor, device), None, ""),
            "quote": quote,
            "methods": [row for row in rows if row.state is MethodState.USABLE],
            "method": "",
            "keeps_methods": self._desk.gateway.keeps_methods,
        }

    async def buy(self, request: Request, n: Device, person: Owner) -> Response:
        """Step 2: pay. The key of the form makes a second press of the button, or a reload, the same purchase."""
        form = await self._site.form(request)
        package, key = form["package"], form["key"]
        try:
            if not _KEY.fullmatch(key):
                raise Unprocessable("begin again from the plan's page", code="bad_key")
            await self._pay(
                purchases.buy,
                self._desk,
                person.actor,
                n,
                package,
                method=form.text("method", MAX_METHOD_CHARS),
                reference=reference_for(person.account, self._key(person, key, n, package), "purchase"),
                amount=Money(form.whole("minor"), form["currency"]),
            )
        except CallerError as error:
            return await self._not_bought(request, n, person, form, error)
        return self._site.to(f"/cameras/{n}/plan", "bought")

    async def _not_bought(
        self, request: Request, n: int, person: Person, form: Form, error: Exception
    ) -> Response:
        try:
            shown = await self._run(self._quoted, person, n, form["package"])
        except CallerError:  # it is not on sale any more, or a purchase is open: the plan's page says which
            return await self._again(request, person, n, error)
        shown |= {"method": form["method"]}
        return await self._site.again(request, error, "buy", key=uuid4().hex, **shown)

    @staticmethod
    def _key(person: Person, key: str, device: int, package: str) -> str:
        return sha256(f"page\n{person.account}\n{device}\n{package}\n{key}".encode()).hexdigest()

    async def abandon(self, request: Request, n: Device, person: Owner) -> Response:
        try:
            await self._site.form(request)
            await self._pay(open_purchases.abandon, self._desk, person.actor, n)
        except CallerError as error:
            return await self._again(request, person, n, error)
        return self._site.to(f"/cameras/{n}/plan", "abandoned")

    # --- cancellation -----------------------------------------------------------------------------------------

    async def ask_cancel(self, request: Request, subscription: SubscriptionNumber, person: Owner) -> Response:
        """Step 1: both outcomes, side by side. Nothing is changed."""
        shown = await self._run(self._outcomes, person, subscription)
        return self._site.page(request, "cancel", **shown)

    def _outcomes(self, person: Person, subscription: int) -> dict[str, Any]:
        """What the page of a cancellation shows."""
        device, found = cancelling.quote(self._desk, person.actor, subscription)
        return {
            "device": device,
            "name": devices.show(self._desk, person.actor, device).name.name,
            "subscription": subscription,
            "found": found,
            "now_ms": self._desk.now_ms(),
        }

    async def cancel(self, request: Request, subscription: SubscriptionNumber, person: Owner) -> Response:
        """Step 2, by a form that names what it gives back: if that is another sum by now, it is shown again."""
        shown = await self._run(self._outcomes, person, subscription)
        device, found = shown["device"], shown["found"]
        try:
            form = await self._site.form(request)
            if not form.ticked("sure"):
                raise Unprocessable("tick the box that says that you mean it", code="not_sure")
            if form["outcome"] != outcome_of(found):
                raise Unprocessable(
                    "what cancelling comes to has changed since this page was shown. Look at it again",
                    code="outcome_changed",
                )
            await self._pay(
                cancelling.cancel, self._desk, person.actor, subscription, why=form.text("reason")
            )
        except CallerError as error:
            return await self._site.again(request, error, "cancel", **shown)
        return self._site.to(f"/cameras/{device}/plan", "cancelled")


def outcome_of(found: Outcomes) -> str:
    """What a form of the second step confirms: the last day and the refund."""
    return f"{found.cancel.last_day} {found.cancel.refund.minor} {found.cancel.refund.currency}"


def _offers(sold: list[Package], currency: str) -> list[tuple[Package, Money, Money]]:
    """What may be bought, with its fee and its fee for a month."""
    found = [
        (one, one.prices[currency].fee, one.prices[currency].monthly_fee)
        for one in sold
        if one.kind != "trial" and currency in one.prices
    ]
    return sorted(found, key=lambda offer: (offer[0].kind != "monthly", offer[1].minor))
