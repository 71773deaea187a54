"""The account books: `storage.catalog.books.Books` by subject, and the transaction that they are open in."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

from storage.catalog.books import Books, BooksCatalog
from storage.errors import ClipkeepError
from storage.rows.devices import DeviceFacts
from storage.sql.base import OnDatabase
from storage.sql.books.backlog import Waiting
from storage.sql.books.erasing import LEFT_IN_LOG, Erasing
from storage.sql.books.history import History
from storage.sql.books.money import Money
from storage.sql.books.notices import Notices
from storage.sql.books.sessions import Sessions
from storage.sql.connection import Connection, writing

T = TypeVar("T")


class SqlBooks(Erasing, Sessions, Money, History, Notices, Waiting):
    """See `storage.catalog.books.Books`."""


class Bookkeeping(OnDatabase, BooksCatalog):
    @contextmanager
    def books(self) -> Iterator[Books]:
        with self.db.read() as connection:
            books = SqlBooks(connection, write=False)
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
    ) -> T:
        def with_books(connection: Connection) -> tuple[T, bool]:
            books = SqlBooks(
                connection, write=True, before_change=before_change, now_ms=now_ms, max_device=max_device
            )
            try:
                return work(books), books.erased
            finally:
                books.end()

        done, erased = self.db.write(with_books)
        if erased:
            with suppress(ClipkeepError):  # the transaction is over; what was left over is noted
                self.overwrite_erased()
        return done

    def overwrite_erased(self) -> bool:
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
