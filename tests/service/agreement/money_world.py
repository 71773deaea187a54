"""A data folder with owners, devices, a clock set by hand and a gateway that can be met on its way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from retention.bitmap import EntitlementBitmap
from retention.entitlements import Entitlements
from retention.money import Money
from retention.subscriptions import Subscription
from service.agreement import cancelling, devices, packages, purchases, renewing
from service.agreement.cancelling import Cancelled
from service.agreement.desk import OPERATOR, Actor, Desk
from service.agreement.gateway.recording import RecordFiles, RecordingGateway
from service.agreement.holdings import held
from service.agreement.payments import PaymentUnavailable, Receipt
from service.agreement.purchases import Started
from service.agreement.renewing import RenewReport
from service.config import AgreementSettings, NoticeSettings, RetentionSettings
from storage.catalog import Catalog
from storage.catalog.books import Books
from storage.days import MS_PER_DAY, to_date, to_day
from storage.keys import KeyStore
from storage.rows.accounts import AccountRow, AccountState, NoticeRow, PaymentRow, SubscriptionRow
from tests.retention.world import HandClock
from tests.servers.catalogs import catalog_of, make_catalog

START = date(2025, 1, 31)
"""The world's first day: a month that others are shorter than."""
HOUR_MS = 3_600_000
ROWS = 400
RETENTION_DAYS = 30
METHOD = "card-1"
SETTINGS = AgreementSettings()
MONTHLY = Money(SETTINGS.monthly_fee_minor, "USD")
ANNUAL = Money(SETTINGS.annual_fee_minor, "USD")


def noon_ms(day: date) -> int:
    return to_day(day) * MS_PER_DAY + MS_PER_DAY // 2


T = TypeVar("T")


class MetGateway(RecordingGateway):
    """The recording gateway, with something that happens before or after it acts, and times when it is away.

    Args:
        before, after: called once, at the next charge or refund.
        away: "": it works; "before": it can't be reached; "after": it acts, and its answer is lost.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(RecordFiles(folder))
        self.folder = folder
        self.before: Callable[[], object] | None = None
        self.after: Callable[[], object] | None = None
        self.away = ""
        self.calls = 0

    def charge(self, reference: str, money: Money, method: str, why: str) -> Receipt:
        return self._met(lambda: RecordingGateway.charge(self, reference, money, method, why))

    def refund(self, reference: str, of_reference: str, money: Money) -> Receipt:
        return self._met(lambda: RecordingGateway.refund(self, reference, of_reference, money))

    def void(self, reference: str, money: Money) -> Receipt | None:
        return self._met(lambda: RecordingGateway.void(self, reference, money))

    def look_up(self, reference: str, kind: str, money: Money, of_reference: str = "") -> Receipt | None:
        return self._met(lambda: RecordingGateway.look_up(self, reference, kind, money, of_reference))

    def _met(self, act: Callable[[], T]) -> T:
        self.calls += 1
        before, self.before = self.before, None
        if before:
            before()
        if self.away == "before":
            raise PaymentUnavailable("the gateway is away; try again later")
        receipt = act()
        after, self.after = self.after, None
        if after:
            after()
        if self.away == "after":
            raise PaymentUnavailable("the gateway is away; try again later")
        return receipt


class MoneyWorld:
    """See the module docstring. `folder` is empty, or one that another MoneyWorld made."""

    def __init__(
        self,
        folder: Path,
        *,
        clock_ms: int | None = None,
        gateway: type[MetGateway] = MetGateway,
        rows: int = ROWS,
        **settings: Any,
    ) -> None:
        new = not (folder / "keys").exists()
        if new:
            folder.mkdir(exist_ok=True)
            with KeyStore.create(folder / "keys") as vault:
                make_catalog(folder, vault).close()
            EntitlementBitmap.create(folder / "entitlements.bitmap", rows)
        self.clock = HandClock(noon_ms(START) if clock_ms is None else clock_ms)
        self.vault = KeyStore.open(folder / "keys")
        self.catalog: Catalog = catalog_of(folder, self.vault)
        self.bitmap = EntitlementBitmap.open(folder / "entitlements.bitmap", writable=True)
        self.gateway = gateway(folder / "payments")
        self.settings = replace(SETTINGS, **settings)
        self.desk = self.desk_of(self.catalog, self.bitmap)
        packages.ensure(
            self.catalog, self.settings, RetentionSettings(default_days=RETENTION_DAYS), now_ms=self.clock.ms
        )
        if new:
            self.desk.entitlements.recover()

    def desk_of(self, catalog: Any, bitmap: Any) -> Desk:
        return Desk(
            catalog=catalog,
            entitlements=Entitlements(catalog, bitmap, self.clock),
            vault=self.vault,
            clock=self.clock,
            settings=self.settings,
            notices=NoticeSettings(),
            gateway=self.gateway,
            address_secret=bytes(32),
            random_bytes=bytes,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bitmap.close()
        self.catalog.close()
        self.vault.close()

    # --- who and when ---------------------------------------------------------------------------------------------

    def add_owner(self, name: str = "Ada") -> Actor:
        """An active account."""
        row = AccountRow(
            0,
            "owner",
            name,
            self.clock.ms,
            AccountState.ACTIVE,
            email=f"{name.lower()}@example.org",
            activated_ms=self.clock.ms,
        )
        return Actor("owner", self.desk.write(lambda books: books.add_account(row), new_accounts=1).account)

    def add_device(self, owner: Actor) -> int:
        return devices.add_device(self.desk, owner, owner.account).device

    def account(self, owner: Actor) -> AccountRow:
        with self.desk.reading() as books:
            return books.account(owner.account)

    def change_account(self, owner: Actor, **fields: Any) -> None:
        """What `standing` and `closing` do to the row."""
        self.desk.change(lambda books: books.put_account(replace(books.account(owner.account), **fields)))

    def erase(self, owner: Actor) -> None:
        """As the cancellation of an account does when it takes effect."""
        for device in self._devices(owner):
            devices.terminate(self.desk, OPERATOR, device, why="account cancelled", erase=True)
        on = self.desk.today()
        self.desk.change(lambda books: books.erase_account(owner.account, cancelled_on=on))

    def _devices(self, owner: Actor) -> list[int]:
        with self.desk.reading() as books:
            return [facts.device for facts in books.devices_of(owner.account)]

    def go(self, day: date) -> None:
        """It is noon of that day."""
        self.clock.ms = noon_ms(day)

    def pass_days(self, days: int) -> None:
        self.clock.ms += days * MS_PER_DAY

    @property
    def today(self) -> date:
        return to_date(self.desk.today())

    # --- what is asked ----------------------------------------------------------------------------------------------

    def buy(self, owner: Actor, device: int, kind: str, reference: str, **more: Any) -> Started:
        more = {"method": METHOD, **more}
        return purchases.buy(self.desk, owner, device, kind, reference=reference, **more)

    def cancel(self, owner: Actor, plan_id: int) -> Cancelled:
        return cancelling.cancel(self.desk, owner, plan_id)

    def renew(self, **more: Any) -> RenewReport:
        return renewing.renew(self.desk, **more)

    def terminate(self, device: int) -> None:
        devices.terminate(self.desk, OPERATOR, device, why="test")

    # --- what there is ----------------------------------------------------------------------------------------------

    def plans(self, device: int) -> list[Subscription]:
        with self.desk.reading() as books:
            return list(held(books, books.device(device)))

    def spans(self, device: int) -> list[tuple[str, date, date | None]]:
        """(kind, first, last day) of each plan."""
        return [(str(s.plan.kind), s.plan.starts_on, s.plan.ends_on) for s in self.plans(device)]

    def payments(self, account: int) -> list[PaymentRow]:
        with self.desk.reading() as books:
            return books.payments_of(account, limit=10_000)

    def kept_minor(self) -> int:
        """What the gateway charged and did not give back, of everybody."""
        sign = {"charge": 1, "refund": -1}
        return sum(sign[receipt.kind] * receipt.money.minor for receipt in self.gateway.receipts())

    def row(self, plan_id: int) -> SubscriptionRow:
        with self.desk.reading() as books:
            return books.subscription(plan_id)

    def notices(self, owner: Actor) -> list[NoticeRow]:
        with self.desk.reading() as books:
            return books.notices(account=owner.account, limit=1000)

    def decline(self, owner: Actor, is_so: bool = True) -> None:
        """What the owner's subscriptions are charged to is declined from now on, or no longer."""
        method = "declined-1" if is_so else METHOD

        def change(books: Books) -> None:
            for row in books.subscriptions_of(owner.account):
                books.put_subscription(replace(row, method=method))

        self.desk.write(change)

    def events(self, owner: Actor) -> list[str]:
        with self.desk.reading() as books:
            return [event.what for event in books.events_of(owner.account, limit=1000)]

    def entitled(self, device: int, day: date) -> bool:
        """Whether the bitmap lets the device in on a day."""
        row = self.bitmap.read(device)
        assert row is not None
        offset = to_day(day) - row.first_day
        return not row.flags & ~1 and offset >= 0 and bool(row.days >> offset & 1)
