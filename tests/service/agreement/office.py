"""A data folder with a desk, a clock set by hand and cheap passwords: where people's use cases are tested."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from argon2.profiles import CHEAPEST

from retention.history import replay, standing_of
from service.agreement import closing, packages, privacy, registration, sessions, versions
from service.agreement.desk import OPERATOR, Actor, Desk
from service.agreement.notices import DeliveryReport, deliver_due
from service.agreement.senders import FileSender, Sender
from service.config import AgreementSettings, NoticeSettings, RetentionSettings
from storage.catalog.books import Books
from storage.days import MS_PER_DAY
from storage.errors import CallerError
from storage.rows.accounts import AccountRow, EventRow, NoticeRow
from tests.retention.world import HOUR, NOON, TODAY, World, monthly

PASSWORD = "correct horse battery"
EMAIL, MOBILE = "ada@example.org", "+491712345678"
CLIENT = "203.0.113.9"
MINUTE = 60_000
SECRET = bytes(range(32))


class Office(World):
    """See the module docstring.

    Args:
        folder: empty, or one that another Office made.
        settings: keywords of AgreementSettings that differ from the defaults.
    """

    def __init__(
        self,
        folder: Path,
        *,
        clock_ms: int = NOON,
        settings: dict[str, Any] | None = None,
        notices: dict[str, Any] | None = None,
        local: bool = False,
    ) -> None:
        super().__init__(folder, clock_ms=clock_ms, local=local)
        versions.ensure(self.catalog, now_ms=clock_ms)
        privacy.ensure(self.catalog, now_ms=clock_ms)
        packages.ensure(
            self.catalog, AgreementSettings(**(settings or {})), RetentionSettings(), now_ms=clock_ms
        )
        self.desk = Desk(
            catalog=self.catalog,
            entitlements=self.entitlements,
            vault=self.vault,
            clock=self.clock,
            settings=AgreementSettings(**(settings or {})),
            notices=NoticeSettings(**(notices or {})),
            gateway=None,  # type: ignore[arg-type]  # no use case of people moves money
            address_secret=SECRET,
            random_bytes=secrets.token_bytes,
            hashing=CHEAPEST,
        )

    def parts(self, **changed: Any) -> Desk:
        """The desk with some of its parts replaced."""
        return replace(self.desk, **changed)

    def later(self, *, days: float = 0, hours: float = 0, seconds: float = 0) -> None:
        self.clock.ms += round(days * MS_PER_DAY + hours * HOUR + seconds * 1000)

    def device(self, account: int) -> int:
        """A device of this account, entitled from 100 days before the world's first day on, as an operator grants."""

        def work(books: Books) -> int:
            device = books.add_device(account).device
            books.change_device(device, lambda f: replace(f, plans=(monthly(TODAY - 100),)), what="granted")
            return device

        return self.entitlements.transact(work)

    # --- accounts ---------------------------------------------------------------------------------------------

    def register(
        self, email: str | None = EMAIL, mobile: str | None = None, client: str = CLIENT, **more: Any
    ) -> AccountRow:
        more = {"password": PASSWORD, "name": "Ada", "accepts_version": 1, **more}
        return registration.register(self.desk, email=email, mobile=mobile, client=client, **more)

    def active(self, email: str | None = EMAIL, mobile: str | None = None, **more: Any) -> AccountRow:
        """An active account with these addresses, each proved by its own code."""
        account = self.register(email, mobile, **more).account
        first, second = ("email", mobile) if email is not None else ("mobile", None)
        row = registration.activate(self.desk, account, self.code(account, channel=first))
        if second is None:
            return row
        return registration.confirm_address(
            self.desk, account, "mobile", self.code(account, channel="mobile")
        )

    def old_enough(self, email: str | None = EMAIL, mobile: str | None = None) -> AccountRow:
        """An active account that may be cancelled."""
        row = self.active(email, mobile)
        self.later(days=7)
        return row

    def approved(self, email: str | None = EMAIL, mobile: str | None = None) -> AccountRow:
        row = self.old_enough(email, mobile)
        closing.request(self.desk, owner(row), row.account, "moving")
        return closing.approve(self.desk, OPERATOR, row.account)

    def log_in(self, login: str = EMAIL, password: str = PASSWORD, client: str = CLIENT) -> str:
        return sessions.log_in(self.desk, login, password, client)[0]

    def row(self, account: int) -> AccountRow:
        with self.catalog.books() as books:
            return books.account(account)

    # --- what was told ----------------------------------------------------------------------------------------

    def notices(self, account: int | None = None, purpose: str | None = None) -> list[NoticeRow]:
        with self.catalog.books() as books:
            return books.notices(account=account, purpose=purpose, limit=10_000)

    def code(self, account: int, purpose: str = "activate", channel: str = "") -> str:
        """As its owner reads it in the newest notice, of this channel when one is named."""
        notices = [n for n in self.notices(account, purpose) if channel in ("", n.channel)]
        found = re.search(r": ([0-9A-Z]{4}(?:-[0-9A-Z]{4}){2})\n", notices[-1].body)
        assert found is not None
        return found[1]

    def deliver(self, **senders: Sender) -> DeliveryReport:
        files = FileSender(self.folder / "notices", "clipkeep@example.org")
        return deliver_due(self.desk, {"email": files, "mobile": files, **senders})

    def events(self, account: int) -> list[EventRow]:
        with self.catalog.books() as books:
            return books.events_of(account, limit=10_000)

    def told(self, account: int) -> list[str]:
        """What happened to the account; and replaying it gives the account as it is."""
        events = self.events(account)
        assert replay(events).standing == standing_of(self.row(account))
        return [event.what for event in events]


def owner(row: AccountRow) -> Actor:
    return Actor("owner", row.account)


@contextmanager
def refused(kind: type[CallerError], code: str) -> Iterator[pytest.ExceptionInfo[CallerError]]:
    with pytest.raises(kind) as caught:
        yield caught
    assert caught.value.code == code
    assert caught.value.detail
