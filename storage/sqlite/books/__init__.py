"""The account books on SQLite: `storage.books.Books` by subject, and the transaction that they are open in."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from storage.books import Books
from storage.catalog import DeviceFacts
from storage.errors import ClipkeepError
from storage.sqlite.books.backlog import Waiting
from storage.sqlite.books.erasing import LEFT_IN_LOG, Erasing
from storage.sqlite.books.history import History
from storage.sqlite.books.money import Money
from storage.sqlite.books.notices import Notices
from storage.sqlite.books.sessions import Sessions
from storage.sqlite.commits import OnDatabase


class SqliteBooks(Erasing, Sessions, Money, History, Notices, Waiting):
    """See `storage.books.Books`."""


class Bookkeeping(OnDatabase):
    @contextmanager
    def books(
        self,
        *,
        write: bool = False,
        before_change: Callable[[DeviceFacts, DeviceFacts], None] | None = None,
        now_ms: int | None = None,
        max_device: int | None = None,
    ) -> Iterator[Books]:
        with self._db.write() if write else self._db.read() as connection:
            books = SqliteBooks(
                connection, write=write, before_change=before_change, now_ms=now_ms, max_device=max_device
            )
            try:
                yield books
            finally:
                books.end()
                if books.erased:
                    with suppress(sqlite3.Error):
                        connection.execute("PRAGMA secure_delete=FAST")
        if books.erased:
            with suppress(ClipkeepError):  # the books are closed; what was left over is noted
                self.overwrite_erased()

    def overwrite_erased(self) -> bool:
        with self._db.read() as connection:
            if not connection.execute("SELECT 1 FROM meta WHERE name = ?", (LEFT_IN_LOG,)).fetchone():
                return True
        if not self._db.truncate_log():
            return False
        with self._db.write() as connection:
            connection.execute("DELETE FROM meta WHERE name = ?", (LEFT_IN_LOG,))
        return True
