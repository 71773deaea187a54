"""The account books' rows: accounts, sessions, subscriptions, payments, notices and the history of all of them.

Money is in integer minor units of an ISO 4217 currency. Times are Unix milliseconds (`*_ms`), days are day numbers
(`*_on`). Texts that identify a person (name, e-mail, mobile, reasons that people wrote) are in these rows and nowhere
else, so that `Books.erase_account` can clear them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

OPERATOR_ACCOUNT = 1
"""The built-in account of those who run the service. It is never suspended, cancelled or charged."""


class AccountState(StrEnum):
    NEW = "new"  # registered, not activated
    ACTIVE = "active"
    CANCELLED = "cancelled"  # for good; nothing but the number is left


class ClosingState(StrEnum):
    """How far the cancellation of an account has come (agreement 6.4)."""

    NONE = "none"
    REQUESTED = "requested"
    APPROVED = "approved"  # it takes effect when its notices are delivered


class PaymentKind(StrEnum):
    CHARGE = "charge"
    REFUND = "refund"
    CREDIT = "credit"  # given by an operator for a subscription; lowers a later refund (8.2.1)
    DISPUTE = "dispute"  # whoever paid asks for it back from the bank; LOST: the bank has taken it back
    COUNTER = "counter"  # takes back a credit, or the note that a refund was paid by other means


class PaymentState(StrEnum):
    """What may follow what, for each kind: `retention.payments`."""

    PENDING = "pending"  # the gateway may or may not have acted: asked again under the same reference
    DONE = "done"
    FAILED = "failed"  # the gateway said no
    PAID_OTHERWISE = "paid_otherwise"  # a refund that an operator has paid by other means, and noted
    VOID = "void"  # a refund that is owed no more: the bank gave that money, or it was offered by hand and refused
    OPEN = "open"  # a dispute that is not decided
    LOST = "lost"  # a dispute: the money was taken back
    WON = "won"  # a dispute: the money stays, or has come back
    TAKEN_BACK = "taken_back"  # a credit or a note, by a counter-entry of its own


class MethodState(StrEnum):
    """How far a payment method has come; one that is removed has no row. What may follow what: `retention.payments`."""

    PENDING = "pending"  # its owner is to enter it on the gateway's page
    USABLE = "usable"
    FAILED = "failed"  # the gateway refused it, or its owner did not enter it in time


class NoticeState(StrEnum):
    QUEUED = "queued"
    DELIVERED = "delivered"
    FAILED = "failed"  # for good: an operator must act


class NoticeLane(StrEnum):
    """Which queued notices are asked for: none of a lane waits behind another lane's."""

    ALL = "all"
    CODES = "codes"  # of `CODE_PURPOSES`: somebody sits and waits
    OWN = "own"  # about one account; codes too
    BULK = "bulk"  # the same to many accounts


class BlockKind(StrEnum):
    """Why an account may not be cancelled for now (agreement 6.2.2, 6.2.3, 6.3)."""

    DISPUTE = "dispute"
    LINKED_ACCOUNT = "linked_account"
    BALANCE = "balance"
    TRANSACTION = "transaction"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class AccountRow:
    account: int  # 0 for a row that is not stored yet
    kind: str  # "operator" or "owner"
    name: str
    created_ms: int
    state: AccountState = AccountState.NEW
    email: str | None = None  # as `retention.addresses` normalises it; unique among accounts
    mobile: str | None = None  # likewise, E.164
    password_hash: str = ""
    activated_ms: int | None = None
    suspended_ms: int | None = None
    suspend_reason: str = ""
    trial_ms: int | None = None  # when its one trial began (7.1); stays when the device is gone
    used_on: int = 0  # last day of a log-in; uploads and playback are noted per device
    closing: ClosingState = ClosingState.NONE
    closing_ms: int | None = None  # when it was requested
    closing_reason: str = ""
    closing_by: str = ""  # "owner" or "operator"
    cancelled_on: int | None = None  # the day on which the cancellation took effect
    used_version: int = 0  # of the agreement that was current at its owner's last request


@dataclass(frozen=True, slots=True)
class SessionRow:
    """A log-in of an owner. Only a hash of its token is kept."""

    token_hash: bytes  # 32 bytes, unique
    account: int
    created_ms: int
    expires_ms: int


@dataclass(frozen=True, slots=True)
class CodeRow:
    """A one-time code that proves an address or allows a new password. One per account and purpose: a new one
    replaces the old one.

    Args:
        code_hash: what the code is made of, together with a secret that is not in the catalog. Random; earlier releases
            kept a keyed hash of the code here.
        attempts: of earlier releases; counts nothing any more.
    """

    account: int
    purpose: str  # "activate", "email", "mobile", "password"
    address: str  # that it was sent to; for "email" and "mobile" the new address
    code_hash: bytes
    expires_ms: int
    attempts: int = 0


@dataclass(frozen=True, slots=True)
class AttemptsRow:
    """Attempts counted against a limit: failed log-ins of an account or of a client's address, registrations."""

    subject: str  # unique, e.g. "login:account:5", "login:client:203.0.113.9", "register:client:…"
    count: int
    first_ms: int
    last_ms: int
    locked_until_ms: int = 0


@dataclass(frozen=True, slots=True)
class SubscriptionRow:
    """What was bought with a plan (`PlanRow` of the same `plan_id`). A plan without one was granted by an operator."""

    plan_id: int
    account: int
    device: int
    currency: str  # ISO 4217
    fee_minor: int  # of the whole period: a month, or a year; as on the day of purchase
    monthly_fee_minor: int  # as on the day of purchase; what an annual refund is counted with
    renews: bool  # monthly only: the next period is charged before this one ends
    method: str  # the payment gateway's name for what is charged; opaque, never a card number
    agreement_version: int
    bought_ms: int
    retry_at_ms: int = 0  # no charge for the next period before this time
    failed_charges: int = 0  # of the period that is due
    fee_version: int = 0  # of its package, whose fee it pays by now; 0: that of its purchase
    next_fee_version: int = 0  # whose fee its owner was told of; 0: none
    next_fee_minor: int = 0
    next_fee_on: int = 0  # it is that of the first period that begins on this day or later


@dataclass(frozen=True, slots=True)
class PaymentRow:
    """Money that moved, or is to move. `reference` makes it happen once, here and at the gateway."""

    payment_id: int  # 0 for a row that is not stored yet
    reference: str  # unique
    account: int
    plan_id: int | None  # None while what is paid for is not stored yet
    device: int
    kind: PaymentKind
    currency: str
    minor: int  # 0 only for the purchase of a plan that costs nothing
    state: PaymentState
    why: str
    at_ms: int
    settled_ms: int | None = None
    gateway_id: str = ""
    detail: dict[str, Any] = field(default_factory=dict)  # what it needs to be finished
    attempts: int = 0  # how often the gateway was asked and did not answer
    next_ms: int = 0  # while pending: not asked again before


@dataclass(frozen=True, slots=True)
class MethodRow:
    """What an account pays with, as the gateway keeps it: never a card's number.

    Args:
        reference: unique; of its set-up, here and at the gateway.
        method: the gateway's name for it; "" until it is usable.
        label: what its owner knows it by, such as "Visa 4242".
        url: where its owner enters it, while that is to be done; "" else.
        until_ms: Unix ms until which `url` holds.
    """

    reference: str
    account: int
    state: MethodState
    made_ms: int
    method: str = ""
    label: str = ""
    url: str = ""
    until_ms: int | None = None


@dataclass(frozen=True, slots=True)
class ClosedPayment:
    """What stays of a payment when its account is erased (agreement 6.5.4): that money moved, and nothing of whose."""

    payment_id: int  # as it was
    kind: PaymentKind
    state: PaymentState
    currency: str
    minor: int
    day: int  # UTC, on which it was made


@dataclass(frozen=True, slots=True)
class BlockRow:
    block_id: int  # 0 for a row that is not stored yet
    account: int
    kind: BlockKind
    detail: str
    who: str
    at_ms: int
    lifted_ms: int | None = None


@dataclass(frozen=True, slots=True)
class EventRow:
    """A line of an account's history. Append-only: rows are never changed, and go only with the account."""

    event_id: int  # 0 for a row that is not stored yet
    account: int
    device: int | None
    what: str  # stable code, e.g. "registered", "subscribed", "suspended"
    who: str  # "owner", "operator" or "system"
    why: str
    facts: dict[
        str, Any
    ]  # JSON; for changes of subscriptions the after-image that `retention.history` replays
    at_ms: int
    operator: str = ""  # the name of the operator who did it; "" of others, and before operators had names


@dataclass(frozen=True, slots=True)
class NoticeRow:
    """A message to one address, in the outbox until it is delivered (at least once)."""

    notice_id: int  # 0 for a row that is not stored yet
    account: int
    channel: str  # "email", "mobile" or "push"
    address: str
    purpose: str  # "activate", "closing", "receipt", "announcement:REFERENCE", …
    subject: str
    body: str
    created_ms: int
    state: NoticeState = NoticeState.QUEUED
    attempts: int = 0
    next_ms: int = 0
    settled_ms: int | None = None  # delivered, or given up
    error: str = ""
    bulk: int = 0  # 1: the same went to many accounts, and waits for what is about one


@dataclass(frozen=True, slots=True)
class AgreementRow:
    version: int  # 1, 2, …
    published_ms: int
    sha256: str
    text: str


@dataclass(frozen=True, slots=True)
class AcceptanceRow:
    account: int
    version: int
    how: str  # "registered", "deemed" (continued use, 11.2) or "purchase"
    at_ms: int


@dataclass(frozen=True, slots=True)
class AnswerRow:
    """What a request with an idempotency key was answered; status 0 while it is being worked on."""

    account: int
    key: str
    request_sha256: bytes
    status: int
    body: str
    at_ms: int
    holder: str = ""  # the process that works on it


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits for somebody, or for a scheduled job: for metrics and alerts.

    Args:
        first_due_ms: when the queued notice that is due longest was to be tried; None without a queued one.
        overdue_renewals: plans that renew themselves, and whose last paid day was over before the day asked for; of
            the last `MAX_OVERDUE_DAYS` days.
        oldest_pending_ms: since when the oldest pending payment waits, but for refunds of plans with a dispute that is
            not decided, which wait for that; None without one.
        unanswered_payments: pending ones that the gateway was asked for, and has not answered.
        failed_refunds: that the gateway refused, and nobody has paid by other means.
        open_disputes: that are not decided.
    """

    queued_notices: int
    first_due_ms: int | None
    failed_notices: int
    requested_closings: int
    approved_closings: int
    overdue_renewals: int
    pending_payments: int
    oldest_pending_ms: int | None
    unanswered_payments: int
    failed_refunds: int
    open_disputes: int


CODE_PURPOSES = ("activate", "email", "mobile", "password")
"""Of notices that carry a one-time code: somebody waits for them."""

TRIAL_ENDING = "trial_ending"
"""Purpose of the notice before a trial ends: one for each account, as there is one trial."""

PLAN_ENDING = "plan_ending"
"""Purpose of the notice before a plan ends, with the plan's number and last day behind colons: one for each."""

MAX_OVERDUE_DAYS = 62
"""How far back overdue renewals are counted: so that no count goes through all plans that ever ended."""
