"""The account books: `storage.catalog.books.Books` by subject, and the transaction that they are open in."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

from storage.account_keys import AccountKeys
from storage.catalog.books import Books, BooksCatalog
from storage.errors import ClipkeepError, Unprocessable
from storage.rows.devices import DeviceFacts
from storage.sql.books.backlog import Waiting
from storage.sql.books.clips import ClipsOfDevices
from storage.sql.books.erasing import LEFT_IN_LOG, Erasing
from storage.sql.books.history import History
from storage.sql.books.identities import Identities
from storage.sql.books.keys import AccountKeyRows
from storage.sql.books.money import Money
from storage.sql.books.names import Names
from storage.sql.books.notices import Notices
from storage.sql.books.operators import Operators
from storage.sql.books.packages import Packages
from storage.sql.books.people import People
from storage.sql.books.sessions import Sessions
from storage.sql.books.shares import SharesOfDevices
from storage.sql.connection import Connection, writing

T = TypeVar("T")


class SqlBooks(
    Erasing,
    Sessions,
    Identities,
    Operators,
    Packages,
    Money,
    History,
    Notices,
    People,
    Names,
    SharesOfDevices,
    ClipsOfDevices,
    Waiting,
):
    """See `storage.catalog.books.Books`."""


class Bookkeeping(AccountKeyRows, BooksCatalog):
    keys: AccountKeys

    @contextmanager
    def books(self) -> Iterator[Books]:
        with self.db.read() as connection:
            books = SqlBooks(connection, self.keys, write=False)
            try:
                yield books
            finally:
                books.end()

    def transact(
        self,
        work: Callable[[Books], T],
        *,
        before_change: Callable[[DeviceFacts, DeviceFacts], None] | None = None,
        now_ms: int | None = None,
        max_device: int | None = None,
        new_accounts: int = 0,
    ) -> T:
        ahead = self._keys_ahead(new_accounts, now_ms)
        unused = ahead

        def with_books(connection: Connection) -> tuple[T, bool]:
            nonlocal unused
            books = SqlBooks(
                connection,
                self.keys,
                write=True,
                key_ids=ahead,
                before_change=before_change,
                now_ms=now_ms,
                max_device=max_device,
            )
            try:
                done = work(books)
                unused = books.unused_keys
                return done, books.erased
            except BaseException:
                # It is undone for certain, and no earlier try was committed: then this one would not have been made.
                unused = [id_ for id_ in ahead if id_ not in books.spoiled_keys]
                raise
            finally:
                books.end()

        try:
            done, erased = self.db.write(with_books)
        finally:
            self.keys.give_back(unused)
        if erased:
            with suppress(ClipkeepError):  # the transaction is over; what was left over is noted
                self.overwrite_erased()
        return done

    def _keys_ahead(self, count: int, now_ms: int | None) -> list[bytes]:
        """Before the transaction: it may run twice, and a key that is made in it could outlive it or be lost."""
        if not count:
            return []
        if now_ms is None:
            raise Unprocessable(
                "accounts are added in a transaction that was begun with now_ms", code="no_time"
            )
        return self.keys.made_ahead(count, now_ms=now_ms)

    def overwrite_erased(self) -> bool:
        while self.keys.has_vault and (ids := self.ended_account_keys()):
            self.keys.destroy(ids)
            self.note_account_keys_destroyed(ids)
        with self.db.read() as connection:
            if not connection.execute("SELECT 1 FROM meta WHERE name = ?", (LEFT_IN_LOG,)).fetchone():
                return True
        if not self.db.cut_log():
            return False
        self.db.write(
            lambda connection: connection.execute("DELETE FROM meta WHERE name = ?", (LEFT_IN_LOG,))
        )
        return True

    @writing()
    def note_used(
        self, connection: Connection, devices: Collection[int], day: int, *, version: int = 0
    ) -> None:
        connection.execute(
            f"UPDATE devices SET used_on = {connection.larger('used_on', ':day')},"
            f" used_version = {connection.larger('used_version', ':version')}"
            f" WHERE {connection.among('device', ':devices')}"
            " AND (used_on < :day OR used_version < :version)",
            {"day": day, "version": version, "devices": json.dumps(sorted(devices))},
        )
