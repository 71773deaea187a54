"""The catalog as the desk sees it: the account books, in transactions.

They store facts and know no rule: those are pure functions in `retention`, called by `service.agreement` between
reading and writing, inside one transaction. So everything that one decision changes, the device's plans included, is
committed together or not at all. What their rows hold, and in which units: `storage.rows.accounts`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from typing import Protocol, TypeVar

from storage.catalog.people import PeopleBooks
from storage.rows.accounts import (
    AcceptanceRow,
    AccountRow,
    AccountState,
    AgreementRow,
    AnswerRow,
    AttemptsRow,
    Backlog,
    BlockRow,
    ClosedPayment,
    CodeRow,
    EventRow,
    MethodRow,
    NoticeLane,
    NoticeRow,
    NoticeState,
    PaymentKind,
    PaymentRow,
    PaymentState,
    SessionRow,
    SubscriptionRow,
)
from storage.rows.devices import DeviceFacts
from storage.rows.identities import IdentityRow
from storage.rows.operators import OperatorRow, OperatorTokenRow
from storage.rows.packages import PackageRow

T = TypeVar("T")


class Books(PeopleBooks):
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
        """Raises CallerError `address_taken`, another account has the e-mail or the mobile number; `no_account_key`,
        more accounts than the `new_accounts` of this transaction."""

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
    def devices_of(self, *accounts: int, after: int = 0, limit: int = 1000) -> list[DeviceFacts]:
        """Devices with numbers above `after` of an account, or of several together, in order."""

    @abstractmethod
    def device_of_plan(self, plan_id: int) -> DeviceFacts:
        """The device that a plan is of, bought or granted. Raises NotFound."""

    @abstractmethod
    def trials_ending(self, *, first: int, last: int, limit: int = 100) -> list[DeviceFacts]:
        """Devices of owners whose trial has its last day between these, both included, and whose account has no notice
        of the purpose `TRIAL_ENDING`."""

    @abstractmethod
    def plans_ending(self, *, first: int, last: int, limit: int = 100) -> list[tuple[int, str]]:
        """Plans of owners, but for trials, that don't renew themselves and whose last day is between these, both
        included: (plan_id, purpose of the notice about that day), where the account has no notice of that purpose."""

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
    def sessions_of(self, account: int, *, limit: int = 1000) -> list[SessionRow]:
        """Log-ins of an account, the newest first."""

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
        """Forget sessions, operators' tokens and codes that ended, attempts last counted and idempotency answers
        given before that time; attempts that are locked at it stay. Returns how many rows."""

    # --- log-in from elsewhere --------------------------------------------------------------------------------

    @abstractmethod
    def add_identity(self, row: IdentityRow) -> None:
        """Raises CallerError `identity_taken`, another account has it; `identity_exists`, the account has another one
        of this provider. NotFound."""

    @abstractmethod
    def identity_at(self, subject: str) -> IdentityRow | None: ...

    @abstractmethod
    def identities_of(self, account: int) -> list[IdentityRow]:
        """By name of the provider."""

    @abstractmethod
    def drop_identity(self, account: int, provider: str) -> bool: ...

    # --- operators --------------------------------------------------------------------------------------------

    @abstractmethod
    def add_operator(self, row: OperatorRow) -> OperatorRow: ...

    @abstractmethod
    def put_operator(self, row: OperatorRow) -> None: ...

    @abstractmethod
    def operator(self, operator: int) -> OperatorRow:
        """Raises NotFound."""

    @abstractmethod
    def operators(self, *, limit: int = 1000) -> list[OperatorRow]:
        """Ended ones included."""

    @abstractmethod
    def add_operator_token(self, row: OperatorTokenRow) -> OperatorTokenRow:
        """Raises CallerError `exists`; NotFound: there is no such operator."""

    @abstractmethod
    def operator_token(self, token_hash: bytes) -> OperatorTokenRow | None: ...

    @abstractmethod
    def operator_tokens(self, *, limit: int = 1000, good_ms: int = 0) -> list[OperatorTokenRow]:
        """The first ones; those alone that are good at a time (Unix ms) and after it."""

    @abstractmethod
    def end_operator_token(self, token_id: int) -> bool: ...

    # --- what is sold -----------------------------------------------------------------------------------------

    @abstractmethod
    def add_package(self, row: PackageRow) -> None:
        """A version of a package. Raises CallerError `exists`."""

    @abstractmethod
    def put_package(self, row: PackageRow) -> None: ...

    @abstractmethod
    def packages_change(self) -> int:
        """A number that grows with each package that is added or put."""

    @abstractmethod
    def packages(self, *, limit: int = 1000) -> list[PackageRow]:
        """All versions of all packages, also those that are not sold any more, in order of name and version."""

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
    def subscriptions_of(self, *accounts: int) -> list[SubscriptionRow]:
        """All of an account, or of several together, in the order of their numbers."""

    @abstractmethod
    def subscriptions_of_device(self, *devices: int) -> list[SubscriptionRow]:
        """All of a device, or of several together, some thousand at most, in the order of their numbers."""

    @abstractmethod
    def fee_changes_due(
        self, package: str, version: int, *, after: int = 0, limit: int = 100
    ) -> list[SubscriptionRow]:
        """Subscriptions of a package that renew, with numbers above `after`, in order: those whose owners were told of
        the fee of another version than this one, and those that pay that of an earlier one and were not told of it.

        Args:
            version: 0: none; those whose owners were told of any.
        """

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
    def payments_of(
        self, *accounts: int, after: int = 0, limit: int = 100, newest_first: bool = False
    ) -> list[PaymentRow]:
        """Payments with numbers above `after` of an account, or of several together, in order, or the newest first."""

    @abstractmethod
    def payments_of_plan(self, plan_id: int) -> list[PaymentRow]: ...

    @abstractmethod
    def pending_payments(self, *, before_ms: int, now_ms: int, limit: int = 100) -> list[PaymentRow]:
        """Payments still pending since before that time, and to be asked for now, those first that were to be
        longest ago; new ones before all."""

    @abstractmethod
    def open_charges(self, *, account: int | None = None, device: int | None = None) -> list[PaymentRow]:
        """Charges that are PENDING, of an account or of a device."""

    @abstractmethod
    def failed_refunds(
        self, *, account: int | None = None, after: int = 0, limit: int = 100
    ) -> list[PaymentRow]:
        """Refunds that the gateway refused, with an id above `after`; of one account, or of all."""

    @abstractmethod
    def payments(
        self,
        *,
        kind: PaymentKind | None = None,
        state: PaymentState | None = None,
        before_ms: int | None = None,
        after: int = 0,
        limit: int = 100,
    ) -> list[PaymentRow]:
        """Payments of all accounts. `before_ms`: made before that time."""

    @abstractmethod
    def payments_between(
        self, *, from_ms: int, until_ms: int, after: int = 0, limit: int = 1000
    ) -> list[PaymentRow]:
        """Payments of all accounts by the time at which they were made, then by number: from `from_ms` on and before
        `until_ms`; of those made at `from_ms` the ones with an id above `after`."""

    @abstractmethod
    def closed_payments(
        self, *, first: int, last: int, after: int = 0, limit: int = 1000
    ) -> list[ClosedPayment]:
        """What stays of payments of erased accounts, made on the days `first..last`, by day and number: of those made
        on the day `first` the ones with an id above `after`."""

    @abstractmethod
    def is_of_closed(self, reference: str) -> bool:
        """Whether a payment under this reference was an erased account's, and moved money."""

    @abstractmethod
    def add_method(self, row: MethodRow) -> None:
        """Raises CallerError `reference_taken` when there is one under this reference, whoever's."""

    @abstractmethod
    def put_method(self, row: MethodRow) -> None: ...

    @abstractmethod
    def drop_method(self, reference: str) -> None: ...

    @abstractmethod
    def method(self, reference: str) -> MethodRow | None: ...

    @abstractmethod
    def methods_of(self, account: int, *, limit: int = 100) -> list[MethodRow]:
        """The newest first."""

    # --- history, blocks, agreement ---------------------------------------------------------------------------

    @abstractmethod
    def add_event(self, row: EventRow) -> EventRow: ...

    @abstractmethod
    def events_of(
        self, account: int, *, after: int = 0, limit: int = 100, newest_first: bool = False
    ) -> list[EventRow]: ...

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
    def due_notices(
        self, *, now_ms: int, limit: int = 100, lane: NoticeLane = NoticeLane.ALL
    ) -> list[NoticeRow]:
        """Queued ones of that lane whose time has come, the longest due first."""

    @abstractmethod
    def notices(
        self,
        *,
        account: int | None = None,
        state: NoticeState | None = None,
        purpose: str | None = None,
        after: int = 0,
        limit: int = 100,
        newest_first: bool = False,
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
        erasure records stay; counted attempts are forgotten by `drop_stale`. Of a payment that moved money stays a
        `ClosedPayment`, and a keyed hash of its reference.

        Texts about people can be read by nobody when the books are closed, for the vault has destroyed their key; where
        it could not be reached, or somebody was reading meanwhile, when `overwrite_erased` returns True. An account
        that was erased before stays as it is.

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


class BooksCatalog(Protocol):
    """The way to the account books."""

    @abstractmethod
    def books(self) -> AbstractContextManager[Books]:
        """The account books of one moment, for reading."""

    @abstractmethod
    def transact(
        self,
        work: Callable[[Books], T],
        *,
        before_change: Callable[[DeviceFacts, DeviceFacts], None] | None = None,
        now_ms: int | None = None,
        max_device: int | None = None,
        new_accounts: int = 0,
    ) -> T:
        """Do `work` on the account books in one transaction: durable when this returns, undone when it raises.
        Inside, nothing else of this catalog may be written by the same thread: it would wait for itself.

        Args:
            work: may be called again after a try that the engine took back (a lost connection, a deadlock), so it has
                no effect beside what it does with the books it is given. Everybody else's writes wait meanwhile, so
                it is for milliseconds: no gateway, no password hash.
            before_change: called as `update_device` calls `before_commit`, for every device whose facts change.
                Needed for changes of what devices may do: take `Entitlements.transact`, which gives it.
            now_ms: for the change log; needed with `before_change`, and to add devices.
            max_device: the highest number that an added device may have.
            new_accounts: how many accounts `work` may add: their keys are made in the vault before the transaction.
                Those that it does not use are given to later ones.

        Returns:
            What `work` returned in the try that was kept.
        """

    @abstractmethod
    def overwrite_erased(self) -> bool:
        """Finish what `Books.erase_account` has begun: the vault destroys the key of the account, and the write-ahead
        log, which may hold pages of before, is cut where nobody reads it. Tried when the books are closed, to be called
        again now and then; two reads when there is nothing to do. Returns whether nothing is left.

        Raises:
            WorldError: as `storage.vault.Vault`: it could not be reached.
        """

    @abstractmethod
    def note_used(self, devices: Collection[int], day: int, *, version: int = 0) -> None:
        """Note that these devices were played back on `day`, while that version of the agreement was current. Commits
        note uploads themselves. Neither goes back."""
