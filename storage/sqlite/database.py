"""Connections, transactions and error translation for the SQLite catalog."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from storage.errors import CallerError, CatalogCorrupt, CatalogUnavailable, ClipkeepError

CACHE_KIB = 65536
"""Page cache per connection. A guess: the interior pages of a catalog of 50 million chunks fit."""


class Database:
    """One SQLite file; one connection per thread, made on first use.

    Args:
        path: the file. Opened read-write; only made when `create` is set.
        busy_timeout_s: how long a write waits for another connection's write.
    """

    def __init__(self, path: Path, *, busy_timeout_s: float, create: bool = False) -> None:
        if create and path.exists():
            raise CallerError("a catalog is already here", subject=str(path), code="exists")
        if not create and not path.exists():
            raise CatalogUnavailable(
                "the catalog file is missing; restore it, or run `clipkeep init` for a new data folder",
                subject=str(path),
            )
        self.path = path
        self._mode = "rwc" if create else "rw"
        self._busy_timeout_s = busy_timeout_s
        self._local = threading.local()
        self._all: list[sqlite3.Connection] = []
        self._lock = threading.Lock()

    def _connection(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = sqlite3.connect(
                f"{self.path.absolute().as_uri()}?mode={self._mode}",
                uri=True,
                timeout=self._busy_timeout_s,
                isolation_level=None,  # transactions are written out, never implied
                check_same_thread=False,  # `close` runs on another thread
                cached_statements=512,
            )
            with self._lock:
                self._all.append(connection)
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute("PRAGMA foreign_keys=ON")
            connection.execute(f"PRAGMA cache_size=-{CACHE_KIB}")
            self._local.connection = connection
        return connection

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """A read transaction: everything read inside is of one moment."""
        with self._transaction("BEGIN") as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """A write transaction, durable when the block is left without an exception, else undone."""
        with self._transaction("BEGIN IMMEDIATE") as connection:
            yield connection

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[sqlite3.Connection]:
        try:
            connection = self._connection()
            connection.execute(begin)
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise self._translated(error) from error

    def _translated(self, error: sqlite3.Error) -> ClipkeepError:
        name = getattr(error, "sqlite_errorname", "")
        if name in ("SQLITE_CORRUPT", "SQLITE_NOTADB"):
            return CatalogCorrupt(
                f"{error}; restore it from a backup, then run `clipkeep check`", subject=str(self.path)
            )
        return CatalogUnavailable(f"{error} ({name or 'SQLITE_ERROR'})", subject=str(self.path))

    def close(self) -> None:
        """Close every thread's connection. No call may be under way."""
        with self._lock:
            for connection in self._all:
                connection.close()
            self._all.clear()
        self._local = threading.local()
