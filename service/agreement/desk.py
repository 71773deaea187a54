"""What every use case of the agreement is given, and the few steps that all of them share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from datetime import date
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self, TypeVar

from argon2 import Parameters
from argon2.profiles import RFC_9106_LOW_MEMORY

from retention.entitlements import Entitlements
from retention.operators import BUILT_IN, OperatorRole
from service.agreement.errors import Conflict, Forbidden
from service.agreement.kept_counts import KeptCounts
from service.agreement.templates import Templates, shipped
from service.config import AgreementSettings, NoticeSettings, PaymentSettings
from storage.catalog.account_keys import AccountKeysCatalog
from storage.catalog.books import Books, BooksCatalog
from storage.catalog.devices import ChangesCatalog, DevicesCatalog
from storage.catalog.erasures import ErasuresCatalog
from storage.catalog.kept import KeptCatalog
from storage.catalog.reading import ReadingCatalog
from storage.catalog.sightings import SightingsCatalog
from storage.clock import Clock
from storage.days import to_date
from storage.errors import CallerError, NotFound
from storage.rows.accounts import OPERATOR_ACCOUNT, AccountRow, AccountState, ClosingState, EventRow
from storage.rows.devices import DeviceFacts
from storage.vault import Vault

if TYPE_CHECKING:
    from service.agreement.payments import PaymentGateway

Role = Literal["owner", "operator", "system"]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Actor:
    """Who asks.

    Args:
        account: an owner's own; OPERATOR_ACCOUNT for operators and for the system itself.
        operator: an operator's name, as histories have it.
        reason: that an operator gave for what is asked, where that has none of its own.
    """

    role: Role
    account: int = OPERATOR_ACCOUNT
    operator: str = ""
    operator_role: OperatorRole = OperatorRole.ADMIN
    reason: str = ""

    @property
    def may_see_all(self) -> bool:
        return self.role != "owner"

    def require_operator(self) -> None:
        """Raises Forbidden `operators_only`."""
        if not self.may_see_all:
            raise Forbidden("only operators may do this", code="operators_only")


Told = Callable[[Books, T], object]
"""Called inside a transaction, at its end, with what it did."""


def unheard(books: Books, done: object) -> None:
    """A `Told` that does nothing."""


OPERATOR = Actor("operator", operator=BUILT_IN)
"""The built-in one."""
SYSTEM = Actor("system")


class DeskCatalog(
    BooksCatalog,
    DevicesCatalog,
    ChangesCatalog,
    ErasuresCatalog,
    AccountKeysCatalog,
    ReadingCatalog,
    SightingsCatalog,
    KeptCatalog,
    Protocol,
):
    """The account books, the devices that they are about, what was seen, recorded and kept of those, and their ends."""


@dataclass(frozen=True, slots=True)
class Desk:
    """See the module docstring. Safe to share between threads.

    Args:
        address_secret: 32 bytes that are not in the catalog: what keyed hashes of addresses and codes are made with.
        random_bytes: of a given length, unpredictable: `secrets.token_bytes`.
        templates: what notices say.
        hashing: Argon2 parameters of new passwords; older hashes go on being understood.
    """

    catalog: DeskCatalog
    entitlements: Entitlements
    vault: Vault
    clock: Clock
    settings: AgreementSettings
    notices: NoticeSettings
    gateway: PaymentGateway
    address_secret: bytes = field(repr=False)
    random_bytes: Callable[[int], bytes]
    hashing: Parameters = field(default_factory=lambda: RFC_9106_LOW_MEMORY)
    templates: Templates = field(default_factory=shipped)
    payments: PaymentSettings = field(default_factory=PaymentSettings)
    kept: KeptCounts = field(default_factory=KeptCounts)

    def now_ms(self) -> int:
        return self.clock.now_ms()

    def today(self) -> int:
        """The day number that entitlement is judged by."""
        return self.entitlements.today()

    def date(self) -> date:
        return to_date(self.today())

    def reading(self) -> AbstractContextManager[Books]:
        """The books of one moment, for reading."""
        return self.catalog.books()

    def write(self, work: Callable[[Books], T | CallerError], *, new_accounts: int = 0) -> T:
        """Do `work` in one transaction that changes no device's rights.

        An error that it raises undoes all of it. One that it *returns* is raised after the commit: for a refusal that
        must be counted.

        Args:
            new_accounts: how many accounts `work` may add.
        """
        done = self.catalog.transact(work, now_ms=self.now_ms(), new_accounts=new_accounts)
        if isinstance(done, CallerError):
            raise done
        return done

    def change(self, work: Callable[[Books], T | CallerError]) -> T:
        """Do `work` in one transaction that may change what devices are allowed: through the one path to the bitmap,
        so that every process of every host acts on it when this returns, or serves nothing. Errors as for `write`."""
        done = self.entitlements.transact(work)
        if isinstance(done, CallerError):
            raise done
        return done

    @contextmanager
    def together(self) -> Iterator[Self]:
        """For runs that make many changes: see `Entitlements.together`."""
        with self.entitlements.together() as entitlements:
            yield replace(self, entitlements=entitlements)

    def record(
        self,
        books: Books,
        actor: Actor,
        account: int,
        what: str,
        *,
        why: str = "",
        device: int | None = None,
        facts: dict[str, Any] | None = None,
    ) -> None:
        """Append to the account's history. Without `why` the reason is the one that the operator gave."""
        why = why or actor.reason
        books.add_event(
            EventRow(0, account, device, what, actor.role, why, facts or {}, self.now_ms(), actor.operator)
        )


def account_of(books: Books, actor: Actor, account: int) -> AccountRow:
    """The row of an account that `actor` may see.

    Raises:
        NotFound: there is none, it was cancelled, or it is somebody else's: an owner can't tell which.
    """
    missing = NotFound("there is no such account", subject=f"account {account}")
    if not actor.may_see_all and actor.account != account:
        raise missing
    try:
        row = books.account(account)
    except NotFound:
        raise missing from None
    if row.state is AccountState.CANCELLED and not actor.may_see_all:
        raise missing
    return row


def device_of(books: Books, actor: Actor, device: int) -> DeviceFacts:
    """The facts of a device that `actor` may see. Raises NotFound as `account_of` does."""
    missing = NotFound("there is no such device", subject=f"device {device}")
    try:
        facts = books.device(device)
    except NotFound:
        raise missing from None
    if not actor.may_see_all and facts.account != actor.account:
        raise missing
    return facts


def require_open(row: AccountRow) -> None:
    """What new business needs of an account: trials, purchases, devices, addresses.

    Raises:
        Forbidden: `not_activated`, `account_suspended`.
        Conflict: `account_closing`: its cancellation was requested; `account_cancelled`.
    """
    subject = f"account {row.account}"
    if row.state is AccountState.CANCELLED:
        raise Conflict("it was cancelled, for good", subject=subject, code="account_cancelled")
    if row.suspended_ms is not None:
        raise Forbidden("it is suspended; ask the operator", subject=subject, code="account_suspended")
    if row.state is AccountState.NEW:
        raise Forbidden(
            "activate it first, with the code that was sent to its addresses",
            subject=subject,
            code="not_activated",
        )
    require_not_closing(row)


def require_not_closing(row: AccountRow) -> None:
    """Raises Conflict `account_closing`."""
    if row.closing is not ClosingState.NONE:
        raise Conflict(
            "its cancellation was requested; withdraw the request to go on with the account",
            subject=f"account {row.account}",
            code="account_closing",
        )


def may_be_charged(row: AccountRow, facts: DeviceFacts) -> bool:
    """Whether an account pays for what a device goes on with: not while either is suspended, or about to end."""
    return (
        row.state is AccountState.ACTIVE
        and row.suspended_ms is None
        and row.closing is ClosingState.NONE
        and not facts.suspended
        and facts.terminated_ms is None
    )
