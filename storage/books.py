"""The account books: accounts, sessions, subscriptions, payments, notices and the history of all of them.

A part of the catalog. It stores facts and knows no rule: those are pure functions in `retention`, called by
`service.agreement` between reading and writing, inside one transaction (`Catalog.books`). So everything that one
decision changes, the device's plans included, is committed together or not at all.

Money is in integer minor units of an ISO 4217 currency. Times are Unix milliseconds (`*_ms`), days are day numbers
(`*_on`). Texts that identify a person (name, e-mail, mobile, reasons that people wrote) are in these tables and
nowhere else, so that `erase_account` can clear them.

`tests/storage/books_contract.py` is the conformance suite of an implementation.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from storage.catalog import DeviceFacts

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


class PaymentState(StrEnum):
    PENDING = "pending"  # the gateway may or may not have acted: asked again under the same reference
    DONE = "done"
    FAILED = "failed"  # the gateway said no
    PAID_OTHERWISE = (
        "paid_otherwise"  # a refund that the gateway refused, and that an operator has paid by other means
    )


class NoticeState(StrEnum):
    QUEUED = "queued"
    DELIVERED = "delivered"
    FAILED = "failed"  # for good: an operator must act


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
    """A log-in. Only a hash of its token is kept."""

    token_hash: bytes  # 32 bytes, unique
    account: int
    created_ms: int
    expires_ms: int


@dataclass(frozen=True, slots=True)
class CodeRow:
    """A one-time code that proves an address or allows a new password. One per account and purpose: a new one
    replaces the old one."""

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


@dataclass(frozen=True, slots=True)
class NoticeRow:
    """A message to one address, in the outbox until it is delivered (at least once)."""

    notice_id: int  # 0 for a row that is not stored yet
    account: int
    channel: str  # "email" or "mobile"
    address: str
    purpose: str  # "activate", "closing", "receipt", "announcement", …
    subject: str
    body: str
    created_ms: int
    state: NoticeState = NoticeState.QUEUED
    attempts: int = 0
    next_ms: int = 0
    settled_ms: int | None = None  # delivered, or given up
    error: str = ""


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
        oldest_pending_ms: since when the oldest pending payment waits; None without one.
        unanswered_payments: pending ones that the gateway was asked for, and has not answered.
        failed_refunds: that the gateway refused, and nobody has paid by other means.
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


CODE_PURPOSES = ("activate", "email", "mobile", "password")
"""Of notices that carry a one-time code: somebody waits for them."""
TRIAL_ENDING = "trial_ending"
"""Purpose of the notice before a trial ends: one for each account, as there is one trial."""
MAX_OVERDUE_DAYS = 62
"""How far back overdue renewals are counted: so that no count goes through all plans that ever ended."""


class Books(ABC):
    """The books inside one transaction of the catalog, from `Catalog.books`. Not to be kept after it ended.

    `put_*` replaces the row of the same key and raises NotFound when there is none; `add_*` stores a new row and
    returns it with its number. Lists are in order of number unless said otherwise; `limit` bounds them. In a
    transaction for reading, every method that writes raises CatalogUnavailable, and so does every method after the
    end. What refers to an account, device, plan or agreement that does not exist raises NotFound; accounts that were
    erased exist for `account` and `accounts` only.
    """

    # --- accounts ---------------------------------------------------------------------------------------------

    @abstractmethod
    def add_account(self, row: AccountRow) -> AccountRow:
        """Raises CallerError `address_taken` when another account has the e-mail or the mobile number."""

    @abstractmethod
    def put_account(self, row: AccountRow) -> None:
        """Replace the row. Suspending, resuming or cancelling also changes what the account's devices may do: the
        devices' rows of the change log are written, and `before_change` is called for each of them.

        Raises:
            CallerError: `address_taken`; `account_cancelled`, it is over for good; `operator_account`, the built-in one
                can be neither suspended nor cancelled.
        """

    @abstractmethod
    def account(self, account: int) -> AccountRow:
        """Raises NotFound. Cancelled accounts are found, empty but for number, state and `cancelled_on`."""

    @abstractmethod
    def account_at(self, *, email: str | None = None, mobile: str | None = None) -> AccountRow | None:
        """The account that one of these addresses belongs to."""

    @abstractmethod
    def accounts(
        self, *, after: int = 0, limit: int = 100, state: AccountState | None = None
    ) -> list[AccountRow]: ...

    @abstractmethod
    def last_used_on(self, account: int) -> int:
        """The last day of a log-in, an upload or a playback of any of its devices; 0: never."""

    @abstractmethod
    def unused_accounts(self, *, before_day: int, after: int = 0, limit: int = 100) -> list[AccountRow]:
        """Owners' accounts, not cancelled, made and last used before that day."""

    # --- devices ----------------------------------------------------------------------------------------------

    @abstractmethod
    def add_device(self, account: int) -> DeviceFacts:
        """A new device of this account, as `Catalog.add_devices` makes it, without a plan.

        Raises:
            CallerError: `too_many_devices`, more than the `max_device` of this transaction; `account_cancelled`.
        """

    @abstractmethod
    def device(self, device: int) -> DeviceFacts:
        """Raises NotFound."""

    @abstractmethod
    def devices_of(self, account: int, *, after: int = 0, limit: int = 1000) -> list[DeviceFacts]: ...

    @abstractmethod
    def device_of_plan(self, plan_id: int) -> DeviceFacts:
        """The device that a plan is of, bought or granted. Raises NotFound."""

    @abstractmethod
    def trials_ending(self, *, first: int, last: int, limit: int = 100) -> list[DeviceFacts]:
        """Devices of owners whose trial has its last day between these, both included, and whose account has no notice
        of the purpose `TRIAL_ENDING`."""

    @abstractmethod
    def change_device(
        self, device: int, change: Callable[[DeviceFacts], DeviceFacts], *, what: str
    ) -> DeviceFacts:
        """As `Catalog.update_device`, in this transaction. The transaction must have been begun with
        `before_change`: in practice through `Entitlements.transact`, the one path to the bitmap.

        Returns:
            The new facts; plans that were new carry their ids.

        Raises:
            CallerError: `plan_in_use`, a plan with a subscription or payments was left out: it is ended, not removed;
                `not_through_bitmap`.
        """

    # --- sessions, codes, attempts ----------------------------------------------------------------------------

    @abstractmethod
    def add_session(self, row: SessionRow) -> None: ...

    @abstractmethod
    def session(self, token_hash: bytes) -> SessionRow | None: ...

    @abstractmethod
    def end_session(self, token_hash: bytes) -> bool: ...

    @abstractmethod
    def end_sessions(self, account: int) -> int:
        """All of an account. Returns how many."""

    @abstractmethod
    def put_code(self, row: CodeRow) -> None:
        """Store or replace the code of this account and purpose."""

    @abstractmethod
    def code(self, account: int, purpose: str) -> CodeRow | None: ...

    @abstractmethod
    def codes(self, account: int) -> list[CodeRow]: ...

    @abstractmethod
    def drop_code(self, account: int, purpose: str) -> None: ...

    @abstractmethod
    def attempts(self, subject: str) -> AttemptsRow | None: ...

    @abstractmethod
    def put_attempts(self, row: AttemptsRow) -> None:
        """Store or replace. Only a hash of the subject is kept, so they can't be listed."""

    @abstractmethod
    def drop_attempts(self, subject: str) -> None: ...

    @abstractmethod
    def drop_stale(self, *, before_ms: int) -> int:
        """Forget sessions and codes that ended, attempts last counted and idempotency answers given before that
        time; attempts that are locked at it stay. Returns how many rows."""

    # --- subscriptions and money ------------------------------------------------------------------------------

    @abstractmethod
    def add_subscription(self, row: SubscriptionRow) -> None:
        """For a plan that `change_device` has stored. Raises NotFound when it has not."""

    @abstractmethod
    def put_subscription(self, row: SubscriptionRow) -> None: ...

    @abstractmethod
    def subscription(self, plan_id: int) -> SubscriptionRow:
        """Raises NotFound; also for a plan that was granted."""

    @abstractmethod
    def subscriptions_of(self, account: int) -> list[SubscriptionRow]: ...

    @abstractmethod
    def subscriptions_of_device(self, device: int) -> list[SubscriptionRow]: ...

    @abstractmethod
    def renewals_due(
        self, *, ends_by: int, now_ms: int, after: int = 0, limit: int = 100
    ) -> list[SubscriptionRow]:
        """Subscriptions that renew, whose plan's last paid day is `ends_by` or earlier and whose retry time has come,
        with a plan_id above `after`."""

    @abstractmethod
    def add_payment(self, row: PaymentRow) -> PaymentRow:
        """Raises CallerError `reference_taken` when there is one under this reference."""

    @abstractmethod
    def put_payment(self, row: PaymentRow) -> None: ...

    @abstractmethod
    def payment(self, reference: str) -> PaymentRow | None: ...

    @abstractmethod
    def payments_of(self, account: int, *, after: int = 0, limit: int = 100) -> list[PaymentRow]: ...

    @abstractmethod
    def payments_of_plan(self, plan_id: int) -> list[PaymentRow]: ...

    @abstractmethod
    def pending_payments(self, *, before_ms: int, now_ms: int, limit: int = 100) -> list[PaymentRow]:
        """Payments still pending since before that time, and to be asked for now, those first that were to be
        longest ago; new ones before all."""

    @abstractmethod
    def failed_refunds(self, *, after: int = 0, limit: int = 100) -> list[PaymentRow]:
        """Refunds that the gateway refused, with an id above `after`."""

    # --- history, blocks, agreement ---------------------------------------------------------------------------

    @abstractmethod
    def add_event(self, row: EventRow) -> EventRow: ...

    @abstractmethod
    def events_of(self, account: int, *, after: int = 0, limit: int = 100) -> list[EventRow]: ...

    @abstractmethod
    def add_block(self, row: BlockRow) -> BlockRow: ...

    @abstractmethod
    def lift_block(self, block_id: int, *, now_ms: int) -> BlockRow:
        """Raises NotFound. One that was lifted already stays as it was."""

    @abstractmethod
    def blocks_of(self, account: int) -> list[BlockRow]:
        """Lifted ones included."""

    @abstractmethod
    def publish_agreement(self, text: str, *, now_ms: int) -> AgreementRow:
        """A new version; the newest one again when its text is the same."""

    @abstractmethod
    def agreement(self, version: int | None = None) -> AgreementRow:
        """One version, or the newest. Raises NotFound."""

    @abstractmethod
    def agreements(self) -> list[AgreementRow]: ...

    @abstractmethod
    def accept_agreement(self, row: AcceptanceRow) -> None:
        """The first acceptance of a version counts; later ones change nothing."""

    @abstractmethod
    def unaccepted(self, version: int, *, first: int, last: int) -> list[int]:
        """Accounts `first..last` whose owner, or one of whose devices, used the service while that version was current,
        and which have not accepted it."""

    @abstractmethod
    def note_requests(self, accounts: Collection[int], day: int, *, version: int) -> None:
        """Note that these accounts' owners asked something on `day`, while that version of the agreement was current.
        Neither goes back."""

    @abstractmethod
    def newest_account(self) -> int:
        """The highest number."""

    @abstractmethod
    def acceptances_of(self, account: int) -> list[AcceptanceRow]: ...

    # --- notices ----------------------------------------------------------------------------------------------

    @abstractmethod
    def add_notice(self, row: NoticeRow) -> NoticeRow: ...

    @abstractmethod
    def put_notice(self, row: NoticeRow) -> None: ...

    @abstractmethod
    def notice(self, notice_id: int) -> NoticeRow:
        """Raises NotFound."""

    @abstractmethod
    def due_notices(self, *, now_ms: int, limit: int = 100, codes: bool = False) -> list[NoticeRow]:
        """Queued ones whose time has come, the longest due first. `codes`: only those of `CODE_PURPOSES`."""

    @abstractmethod
    def notices(
        self,
        *,
        account: int | None = None,
        state: NoticeState | None = None,
        purpose: str | None = None,
        after: int = 0,
        limit: int = 100,
    ) -> list[NoticeRow]: ...

    @abstractmethod
    def approved_closings(self, *, after: int = 0, limit: int = 100) -> list[AccountRow]:
        """Accounts whose cancellation was approved and has not taken effect."""

    @abstractmethod
    def requested_closings(self, *, after: int = 0, limit: int = 100) -> list[AccountRow]:
        """Accounts whose owner asked for cancellation, and whom nobody has answered."""

    @abstractmethod
    def backlog(self, *, on: int) -> Backlog:
        """What waits on that day. Cheap: it looks at what waits, not at all that is kept."""

    # --- idempotency ------------------------------------------------------------------------------------------

    @abstractmethod
    def answer(self, account: int, key: str) -> AnswerRow | None: ...

    @abstractmethod
    def put_answer(self, row: AnswerRow) -> None:
        """Store or replace."""

    # --- the end of an account --------------------------------------------------------------------------------

    @abstractmethod
    def erase_account(self, account: int, *, cancelled_on: int) -> None:
        """Clear the account (agreement 6.5.3, 6.5.4): its row but for number, kind, state and `cancelled_on`; sessions,
        codes, subscriptions, plans of its devices, payments, blocks, events, notices, acceptances, idempotency
        answers; what people wrote in the change log and about deleted ranges of its devices. Devices' numbers and
        erasure records stay; counted attempts are forgotten by `drop_stale`.

        Texts about people are gone from the database's files, not only unlinked, when the books are closed; where
        somebody was reading meanwhile, when `Catalog.overwrite_erased` returns True. An account that was erased
        before stays as it is.

        Raises:
            CallerError: `not_marked`, a device is not terminated and marked for erasure, which is to happen in the
                same transaction; `operator_account`.
        """

    @abstractmethod
    def reserve_address(self, address_hash: bytes, *, until_day: int) -> None:
        """Keep a keyed hash of an address through that day (6.5.2)."""

    @abstractmethod
    def is_reserved(self, address_hash: bytes, *, on: int) -> bool: ...

    @abstractmethod
    def drop_reserved(self, *, before_day: int) -> int:
        """Forget hashes kept through a day before this one. Returns how many."""
