"""Plans, what they cost, and what cancelling them gives back."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal, Self

from pydantic import BaseModel, Field

from retention.cancelling import CancelKind, Outcome, Outcomes
from retention.fee_changes import first_day
from retention.money import Money as Amount
from retention.orders import OrderState
from retention.packages import Package
from retention.plans import denied_from_ms
from retention.subscriptions import Note, Subscription
from service.agreement.cancelling import Cancelled
from service.agreement.details import page_of
from service.agreement.open_purchases import OpenPurchase
from service.agreement.purchases import Quote
from service.agreement.texts import MAX_REASON_CHARS
from service.api.models.accounts import Why
from service.api.models.base import Asked, AskedMoney, Day, Money, Ms, fields_of
from storage.rows.accounts import PaymentKind, PaymentRow, PaymentState

Kind = Literal["trial", "monthly", "annual", "full"]
"""`annual` is paid in full for 12 months, `full` for another number."""
PACKAGE_NAME = r"^[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?$"
PackageName = Annotated[
    str,
    Field(
        pattern=PACKAGE_NAME,
        description="a package, by its name: GET /v1/packages shows what is sold",
        examples=["monthly", "annual"],
    ),
]
RetentionDays = Annotated[int, Field(ge=1, le=255, description="days for which recordings are kept")]
Method = Annotated[
    str,
    Field(
        min_length=1,
        max_length=200,
        description="the payment gateway's name for what is charged; no card number",
    ),
]
DeniedFrom = Annotated[
    int | None, Field(description="Unix ms, 00:00 UTC after the last day: access ends then")
]


class Purchase(Asked):
    """A plan to be paid for."""

    plan: PackageName
    method: Method
    retention_days: Annotated[
        RetentionDays | None,
        Field(description="another number of days than the package comes with: operators only"),
    ] = None
    amount: Annotated[AskedMoney | None, Field(description="refused unless it is the price")] = None


class Grant(Asked):
    """A plan without a fee. A past date imports one that runs already."""

    plan: PackageName
    retention_days: RetentionDays | None = None
    starts_on: Annotated[
        str | None, Field(pattern=r"^\d{4}-\d{2}-\d{2}$", description="UTC date; default today")
    ] = None


class CancellationAsked(Asked):
    reason: Annotated[str, Field(max_length=MAX_REASON_CHARS, description="kept in the history")] = ""


class Credit(Asked):
    """What an operator gives for a subscription. It lowers a later refund (8.2.1)."""

    amount: AskedMoney
    reason: Why


class RefundGiven(Asked):
    """What an operator gives back by hand. A later cancellation gives back as much less (8.2.1)."""

    amount: AskedMoney
    reason: Why
    paid_by_other_means: Annotated[
        bool, Field(description="it was paid by other means, and is only noted; else through the gateway")
    ] = False


class Remark(BaseModel):
    """Something the owner should be told."""

    code: Annotated[str, Field(examples=["trial_cut", "follows"])]
    text: str

    @classmethod
    def of(cls, note: Note) -> Self:
        return cls(code=note.code, text=note.text)


class Prices(BaseModel):
    """Of the packages `monthly` and `annual`, null while they are not sold. `GET /v1/packages` has all."""

    monthly: Money | None
    annual: Money | None


class PackagePrice(BaseModel):
    """In one currency."""

    fee: Money
    monthly_fee: Annotated[Money, Field(description="what a refund counts for each month begun (8.2.1)")]


class PackageView(BaseModel):
    """A package that is sold today. What was bought keeps its fees."""

    package: PackageName
    version: int
    kind: Annotated[Literal["trial", "monthly", "full"], Field(description="full: paid in full for `months`")]
    months: int | None
    trial_days: int | None
    retention_days: Annotated[int, Field(description="days for which recordings are kept")]
    max_devices: Annotated[
        int | None, Field(description="of one account that may have it at a time; null: any number")
    ]
    max_bytes_per_day: Annotated[
        int | None,
        Field(description="of one device, stored on one UTC day, by the day of arrival; null: no limit"),
    ]
    max_chunks_per_s: Annotated[
        int | None, Field(description="of one device, in the long run; null: no limit")
    ]
    prices: Annotated[list[PackagePrice], Field(description="one for each currency; none of a trial")]
    sold_until: Annotated[
        str | None, Field(description="UTC date, the last day of sale; null: no end is set")
    ]

    @classmethod
    def of(cls, found: Package) -> Self:
        return cls(
            package=found.name,
            version=found.version,
            kind=found.kind.value,
            months=found.months or None,
            trial_days=found.days or None,
            retention_days=found.retention_days,
            max_devices=found.max_devices or None,
            max_bytes_per_day=found.limits.bytes_per_day or None,
            max_chunks_per_s=found.limits.chunks_per_s or None,
            prices=[
                PackagePrice(fee=money(terms.fee), monthly_fee=money(terms.monthly_fee))
                for _, terms in sorted(found.prices.items())
            ],
            sold_until=iso(found.sold_until),
        )


class SubscriptionView(BaseModel):
    """A plan of a device. `fee` is null for one that an operator granted."""

    subscription: int
    device: int
    plan: Kind
    package: Annotated[str, Field(description="that it was started from; empty: of none")]
    package_version: int
    starts_on: Day
    last_day: Annotated[str | None, Field(description="UTC date, null while it goes on without an end")]
    denied_from_ms: DeniedFrom
    renews: bool
    cancelled_on: Annotated[str | None, Field(description="UTC date")]
    retention_days: int
    fee: Money | None
    monthly_fee: Annotated[
        Money | None, Field(description="with which a refund of a plan paid in full is counted")
    ]
    next_fee: Annotated[
        Money | None, Field(description="that its owner was told of: from `next_fee_from` on; else null")
    ]
    next_fee_from: Annotated[
        str | None, Field(description="UTC date, first day of the first period at `next_fee`")
    ]

    @classmethod
    def of(cls, device: int, sub: Subscription) -> Self:
        plan, terms = sub.plan, sub.terms
        begins = first_day(sub)
        return cls(
            subscription=sub.plan_id,
            device=device,
            plan=plan.kind.value,
            package=plan.package,
            package_version=plan.version,
            starts_on=plan.starts_on.isoformat(),
            last_day=iso(plan.ends_on),
            denied_from_ms=None if plan.ends_on is None else denied_from_ms(plan.ends_on),
            renews=sub.renews,
            cancelled_on=iso(plan.cancelled_on),
            retention_days=plan.retention_days,
            fee=None if terms is None else money(terms.fee),
            monthly_fee=None if terms is None else money(terms.monthly_fee),
            next_fee=None if begins is None or sub.next_fee is None else money(sub.next_fee.fee),
            next_fee_from=iso(begins),
        )


class Started(BaseModel):
    """A plan that was started."""

    subscription: SubscriptionView
    charged: Annotated[Money | None, Field(description="null when nothing was")]
    notes: list[Remark]


class PurchaseQuote(BaseModel):
    """What a purchase now would come to."""

    device: int
    plan: Kind
    package: str
    package_version: int
    fee: Money
    starts_on: Day
    last_day: Annotated[str, Field(description="UTC date, the last that the fee pays for")]
    denied_from_ms: Annotated[
        int, Field(description="Unix ms, 00:00 UTC after it: access ends then unless it renews")
    ]
    renews: bool
    retention_days: int
    notes: list[Remark]
    agreement_version: Annotated[int, Field(description="that the purchase accepts")]

    @classmethod
    def of(cls, quote: Quote) -> Self:
        return cls(
            plan=quote.plan.value,
            package=quote.package,
            package_version=quote.version,
            fee=money(quote.fee),
            starts_on=quote.starts_on.isoformat(),
            last_day=quote.ends_on.isoformat(),
            notes=[Remark.of(note) for note in quote.notes],
            **fields_of(quote, "device", "denied_from_ms", "renews", "retention_days", "agreement_version"),
        )


class OutcomeView(BaseModel):
    """How a subscription goes on."""

    last_day: Annotated[str | None, Field(description="UTC date; null: it gets no day, or has no end")]
    denied_from_ms: Annotated[
        int | None, Field(description="Unix ms; null where another plan follows at once")
    ]
    renews: bool
    refund: Money

    @classmethod
    def of(cls, outcome: Outcome) -> Self:
        return cls(
            last_day=iso(outcome.last_day),
            refund=money(outcome.refund),
            **fields_of(outcome, "denied_from_ms", "renews"),
        )


class CancellationQuote(BaseModel):
    """Both ways, to choose from before confirming (8.1 against 8.2)."""

    subscription: int
    device: int
    kind: CancelKind
    keep: OutcomeView
    cancel: OutcomeView
    notes: list[Remark]

    @classmethod
    def of(cls, subscription: int, device: int, found: Outcomes) -> Self:
        return cls(
            subscription=subscription,
            device=device,
            kind=found.cancellation.kind,
            keep=OutcomeView.of(found.keep),
            cancel=OutcomeView.of(found.cancel),
            notes=[Remark.of(note) for note in found.cancellation.change.notes],
        )


class Payment(BaseModel):
    payment: int
    reference: str
    kind: Annotated[
        PaymentKind, Field(description="counter: it takes back a credit, or the note of a refund")
    ]
    amount: Money
    state: Annotated[
        PaymentState,
        Field(
            description="paid_otherwise: a refund that an operator paid by other means; taken_back: a credit or such a"
            " refund, by a counter-entry; void: a refund that is owed no more"
        ),
    ]
    why: str
    device: int
    subscription: Annotated[int | None, Field(description="null while what is paid for is not there yet")]
    at_ms: Ms
    settled_ms: Ms | None
    url: Annotated[
        str | None, Field(description="where whoever pays confirms it, while nothing is charged before that")
    ]
    expires_ms: Annotated[int | None, Field(description="Unix ms until which `url` holds")]

    @classmethod
    def of(cls, row: PaymentRow) -> Self:
        page = page_of(row) if row.state is PaymentState.PENDING else None
        return cls(
            payment=row.payment_id,
            url=None if page is None else page.url,
            expires_ms=None if page is None else page.until_ms,
            subscription=row.plan_id,
            amount=Money(minor=row.minor, currency=row.currency),
            **fields_of(row, "reference", "kind", "state", "why", "device", "at_ms", "settled_ms"),
        )


class OpenPurchaseView(BaseModel):
    """A purchase that is not paid for. While it is `open`, another one for the device waits for it."""

    payment: int
    device: int
    package: str
    fee: Money
    ordered_ms: Ms
    expires_ms: Annotated[int, Field(description="Unix ms after which it is not charged any more")]
    state: Annotated[
        OrderState,
        Field(
            description="expired and abandoned: it will never be charged, or is given back if it was, and the gateway"
            " has not said which; void: it was not; given_back: it was"
        ),
    ]
    url: Annotated[
        str | None, Field(description="while it is open: a page on which whoever pays has to do something")
    ]

    @classmethod
    def of(cls, found: OpenPurchase) -> Self:
        return cls(
            payment=found.payment_id,
            fee=money(found.fee),
            **fields_of(found, "device", "package", "ordered_ms", "expires_ms", "state"),
            url=found.url or None,
        )


class Refunds(BaseModel):
    """One for each charge of which a part is given back, the newest charge first."""

    refunds: list[Payment]

    @classmethod
    def of(cls, rows: list[PaymentRow]) -> Self:
        return cls(refunds=[Payment.of(row) for row in rows])


def money(amount: Amount) -> Money:
    return Money(minor=amount.minor, currency=amount.currency)


def iso(day: date | None) -> str | None:
    return None if day is None else day.isoformat()


class CancelledView(BaseModel):
    """A subscription that was cancelled, and what is given back."""

    subscription: SubscriptionView
    kind: CancelKind
    last_day: Annotated[str | None, Field(description="UTC date; null: it gets no day")]
    denied_from_ms: Annotated[
        int | None, Field(description="Unix ms; null where another plan follows at once")
    ]
    refund: Money
    refunds: Annotated[list[Payment], Field(description="the payments that give it back")]
    notes: list[Remark]

    @classmethod
    def of(cls, done: Cancelled) -> Self:
        cancellation = done.cancellation
        return cls(
            subscription=SubscriptionView.of(done.device, done.subscription),
            last_day=iso(cancellation.last_day),
            refund=money(cancellation.refund),
            refunds=[Payment.of(row) for row in done.refunds],
            notes=[Remark.of(note) for note in cancellation.change.notes],
            **fields_of(cancellation, "kind", "denied_from_ms"),
        )
