"""Connections, transactions and error translation for the SQLite catalog."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from storage.disk import DISK_FULL, is_full, looks_full, make_room
from storage.errors import CallerError, CatalogCorrupt, CatalogUnavailable, ClipkeepError
from storage.open_files import OpenFiles, what_to_do
from storage.sql.connection import Connection, Database, Excludes, Move, Refers, Rows, Taken, Values
from storage.sql.newrows import CHUNK_COLUMNS, NewRows
from storage.sqlite_check import errors_with_text, found_by_sqlite

CACHE_KIB = 65536
"""Page cache per connection. A guess: the interior pages of a catalog of 50 million chunks fit."""
MAX_IDLE_CONNECTIONS = 4
"""Connections kept open between transactions. Also a guess: a process has one writer and a few readers at once."""
CHECKPOINT_PAGES = 4000
"""Pages in the write-ahead log, 16 MiB of them, at which the commit that comes to so many writes them into the file.

A fleet's chunks land on one page a device, again and again until it is full. At SQLite's own 1000 pages each write of
a page of 2000 devices is written back by itself, a fifth of all that commits cost. More would save less and less, and
hold that one commit up for longer (measured 20 ms at 8000), as well as the start after a crash.
"""
WAL_LIMIT_BYTES = 64 * 1024 * 1024
"""What a checkpoint leaves of the write-ahead log's file, which one large transaction may have let grow."""

R = TypeVar("R")

TRUNCATE_WAIT_MS = 200
"""How long commits may be held up for a log that is to be cut: a segment's linger and a put take as long."""


_INSERT_CHUNK = (
    f"({', '.join(CHUNK_COLUMNS)}) VALUES ({', '.join('?' * len(CHUNK_COLUMNS))}) ON CONFLICT DO NOTHING"
)


class SqliteConnection(sqlite3.Connection):
    """See `storage.sql.connection.Connection`. One writer at a time: what keeps others out has nothing to do."""

    locking = ""
    overwriting = False
    """Whether this transaction overwrites all that it frees."""
    files: OpenFiles
    """Those that it has open: of the database, its write-ahead log, and the log's index."""

    def last(self, sql: str, values: Values = ()) -> None:
        self.execute(sql, values)

    def together(self, queries: Sequence[tuple[str, Values]]) -> list[list[Any]]:
        return [self.execute(sql, values).fetchall() for sql, values in queries]

    def streamed(self, sql: str, values: Values = ()) -> Iterator[tuple[Any, ...]]:
        return iter(self.execute(sql, values))

    def try_execute(self, sql: str, values: Values = ()) -> Rows:
        try:
            return self.execute(sql, values)
        except sqlite3.IntegrityError as error:
            if error.sqlite_errorname in ("SQLITE_CONSTRAINT_UNIQUE", "SQLITE_CONSTRAINT_PRIMARYKEY"):
                raise Taken from error
            if error.sqlite_errorname == "SQLITE_CONSTRAINT_FOREIGNKEY":
                raise Refers from error
            raise

    def among(self, column: str, value: str) -> str:
        return f"{column} IN (SELECT value FROM json_each({value}))"

    def records(self, sql: str, values: Values, dtype: np.dtype[np.void], /) -> np.ndarray:
        return np.array(self.execute(sql, values).fetchall(), dtype)

    def last_number(self, table: str) -> int:
        row = self.execute("SELECT seq FROM sqlite_sequence WHERE name = ?", (table,)).fetchone()
        return 0 if row is None else int(row[0])

    def start_above(self, table: str, last: int) -> None:
        if not self.execute("UPDATE sqlite_sequence SET seq = ? WHERE name = ?", (last, table)).rowcount:
            self.execute("INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", (table, last))

    def gave_numbers(self, table: str, last: int) -> None:
        """SQLite notes it by itself."""

    def change_numbers(self, count: int) -> Sequence[None]:
        return [None] * count

    def forget_history(self, account: int) -> None:
        for table in ("events", "acceptances"):
            self.execute(f"DELETE FROM {table} WHERE account = ?", (account,))

    def exclude_commits(self) -> None:
        """They wait for this writer anyway."""

    def exclude_devices(self, devices: Collection[int]) -> None:
        """They wait for this writer anyway."""

    def take_its_time(self) -> None:
        """A file gives nothing up."""

    def overwrite_freed(self) -> None:
        self.overwriting = True
        self.execute("PRAGMA secure_delete=ON")

    @property
    def home_ms(self) -> str:
        return "CAST(round((julianday('now') - 2440587.5) * 86400000) AS INTEGER)"

    def larger(self, one: str, other: str) -> str:
        return f"max({one}, {other})"

    def joined(self, blob: str, more: str) -> str:
        return f"CAST({blob} || {more} AS BLOB)"

    def create_chunk_table(self, day: int) -> None:
        self.execute(
            f"""CREATE TABLE IF NOT EXISTS chunks_{int(day)} (
                device INTEGER NOT NULL,
                capture_ms INTEGER NOT NULL,
                segment_id INTEGER NOT NULL,
                ordinal INTEGER NOT NULL,
                offset INTEGER NOT NULL,
                length INTEGER NOT NULL,
                duration_ms INTEGER NOT NULL,
                crc32 INTEGER NOT NULL,
                crc64 INTEGER NOT NULL,
                nonce BLOB NOT NULL,
                media INTEGER NOT NULL,
                epoch INTEGER NOT NULL,
                facts BLOB NOT NULL DEFAULT x'',  -- storage.media_facts; empty: nothing is known
                PRIMARY KEY (device, capture_ms)
            ) STRICT, WITHOUT ROWID"""
        )

    def drop_chunk_table(self, table: str) -> None:
        self.execute(f"DROP TABLE {table}")

    def chunk_tables(self) -> set[str]:
        rows = self.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name LIKE 'chunks\\_%' ESCAPE '\\'"
        )
        return {row[0] for row in rows}

    def insert_chunks(self, table: str, rows: NewRows, careful: bool) -> Sequence[int]:
        statement = f"INSERT INTO {table} {_INSERT_CHUNK}"
        if careful:  # rows of `rows` may be there already
            return [
                place for place, row in enumerate(rows.values()) if not self.execute(statement, row).rowcount
            ]
        if self.executemany(statement, rows.values()).rowcount == len(rows):
            return ()
        mine = f"SELECT 1 FROM {table} WHERE device = ? AND capture_ms = ? AND segment_id = ? AND ordinal = ?"
        each = zip(
            *(rows.index[name].tolist() for name in ("device", "capture_ms")),
            *(numbers.tolist() for numbers in (rows.segment_ids, rows.ordinals)),
            strict=True,
        )
        return [place for place, row in enumerate(each) if self.execute(mine, row).fetchone() is None]

    def move_chunks(self, table: str, old_id: int, new_id: int, moves: Sequence[Move]) -> Sequence[int]:
        moved = []
        for move in moves:
            cursor = self.execute(
                f"UPDATE {table} SET segment_id = ?, ordinal = ?, offset = ?"
                " WHERE device = ? AND capture_ms = ? AND segment_id = ? AND ordinal = ?",
                (
                    *(new_id, move.new_ordinal, move.new_offset),
                    *(move.device, move.capture_ms, old_id, move.old_ordinal),
                ),
            )
            if cursor.rowcount:
                moved.append(move.new_ordinal)
        return moved


class SqliteDatabase(Database):
    """One SQLite file and a small pool of connections: each transaction has one of them to itself.

    A pool, not a connection per thread: the threads that trio lends come and go, and an iterator that is read
    slowly must not stand in the way of the next call of the same thread.

    Args:
        path: the file. Opened read-write; only made when `create` is set.
        busy_timeout_s: how long a write waits for another connection's write.
    """

    def __init__(self, path: Path, *, busy_timeout_s: float, create: bool = False) -> None:
        if create:
            try:
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
            except FileExistsError:
                raise CallerError("a catalog is already here", subject=str(path), code="exists") from None
            except OSError as error:
                if is_full(error):
                    raise CatalogUnavailable(make_room(path), subject=str(path), code=DISK_FULL) from error
                raise CatalogUnavailable(
                    f"cannot make the catalog: {error.strerror}", subject=str(path)
                ) from error
        elif not path.exists():
            raise CatalogUnavailable(
                "the catalog file is missing; restore it, or run `clipkeep init` for a new data folder",
                subject=str(path),
            )
        self.path = path
        self._busy_timeout_s = busy_timeout_s
        self._lock = threading.Lock()
        self._idle: list[SqliteConnection] = []
        self._closed = False
        self._file: OpenFiles | None = None

    def _connect(self) -> SqliteConnection:
        # Once a file was opened, one that was put in its place is not this catalog.
        if self._file is not None and self._file.lost():
            raise self._replaced(self.path)
        connection: SqliteConnection = sqlite3.connect(
            f"{self.path.absolute().as_uri()}?mode=rw",
            uri=True,
            timeout=self._busy_timeout_s,
            isolation_level=None,  # transactions are written out, never implied
            check_same_thread=False,  # one thread at a time, but not always the same
            cached_statements=512,
            factory=SqliteConnection,
        )
        try:
            with errors_with_text():
                connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute("PRAGMA foreign_keys=ON")
            # Debian builds SQLite so that it overwrites all it frees with zeros: to drop a day would write every
            # page of it. FAST overwrites what costs no page more; data keys are not in here.
            connection.execute("PRAGMA secure_delete=FAST")
            connection.execute(f"PRAGMA wal_autocheckpoint={CHECKPOINT_PAGES}")
            connection.execute(f"PRAGMA journal_size_limit={WAL_LIMIT_BYTES}")
            connection.execute(f"PRAGMA cache_size=-{CACHE_KIB}")
            connection.execute("PRAGMA schema_version").fetchone()  # a read opens the log and its index
            connection.files = OpenFiles(self._paths)
            if self._file is None:
                self._file = OpenFiles([self.path])
        except BaseException:
            connection.close()
            raise
        return connection

    @property
    def _paths(self) -> tuple[Path, ...]:
        return tuple(self.path.with_name(self.path.name + suffix) for suffix in ("", "-wal", "-shm"))

    def require_files(self) -> None:
        """Make sure that what is open is what has the name.

        Raises:
            CatalogUnavailable: `catalog_replaced`: what is committed now would be lost.
        """
        with self._lock:
            opened = [connection.files for connection in self._idle]
        opened += [] if self._file is None else [self._file]
        for files in opened:
            if lost := files.lost():
                raise self._replaced(lost)

    def require_writable(self) -> None:
        with self.hold() as connection:
            connection.execute("UPDATE meta SET value = value WHERE name = 'closed_through'")

    def _replaced(self, lost: Path) -> CatalogUnavailable:
        return CatalogUnavailable(what_to_do(lost), subject=str(lost), code="catalog_replaced")

    def _take(self) -> SqliteConnection:
        with self._lock:
            if self._closed:
                raise CatalogUnavailable("the catalog was closed", subject=str(self.path))
            if self._idle:
                return self._idle.pop()
        return self._connect()

    def _give_back(self, connection: SqliteConnection) -> None:
        """Keep a connection for the next transaction, unless it is still inside one, or there are enough."""
        with self._lock:
            if not self._closed and not connection.in_transaction and len(self._idle) < MAX_IDLE_CONNECTIONS:
                self._idle.append(connection)
                return
        connection.close()

    @property
    def subject(self) -> str:
        return str(self.path)

    @contextmanager
    def read(self) -> Iterator[SqliteConnection]:
        """A read transaction: everything read inside is of one moment."""
        with self._transaction("BEGIN") as connection:
            yield connection

    def write(self, work: Callable[[Connection], R], excludes: Excludes = Excludes.WRITERS) -> R:
        with self.hold() as connection:
            return work(connection)

    def make_days_ready(self, days: Collection[int]) -> None:
        """A commit makes them itself."""

    def drop_unlisted(self) -> int:
        return 0  # each went with its day

    @contextmanager
    def hold(self) -> Iterator[SqliteConnection]:
        """A write transaction, durable when the block is left without an exception, else undone.

        Raises:
            CatalogUnavailable: `catalog_replaced`: it was committed to files that nobody will find again.
        """
        with self._transaction("BEGIN IMMEDIATE") as connection:
            files = connection.files
            yield connection
        if lost := files.lost():
            raise self._replaced(lost)

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[SqliteConnection]:
        try:
            connection = self._take()
            try:
                connection.execute(begin)
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    with suppress(
                        sqlite3.Error
                    ):  # closing undoes it too, and the first error is the one to tell
                        connection.execute("ROLLBACK")
                raise
            finally:
                if connection.overwriting:
                    connection.overwriting = False
                    with suppress(sqlite3.Error):
                        connection.execute("PRAGMA secure_delete=FAST")
                self._give_back(connection)
        except sqlite3.Error as error:
            raise self._translated(error) from error

    def damage(self) -> list[str]:
        """What SQLite's own check reports, read from the disk by a connection that remembers nothing.

        Raises:
            CatalogUnavailable: it could not be asked.
        """
        try:
            connection = self._connect()
            try:
                return found_by_sqlite(self.path.name, connection)
            finally:
                connection.close()
        except sqlite3.Error as error:
            translated = self._translated(error)
            if isinstance(translated, CatalogCorrupt):
                return [str(translated)]
            raise translated from error

    def unlooked(self) -> list[str]:
        return []

    def cut_log(self) -> bool:
        """Write all of the write-ahead log into the file and cut it to nothing, where nobody is in the way.
        Returns whether it was done."""
        try:
            connection = self._connect()
            try:
                connection.execute("PRAGMA wal_checkpoint(PASSIVE)")  # most of it while others go on writing
                # The rest keeps writers out, and waits for readers: not for one that takes its time.
                connection.execute(f"PRAGMA busy_timeout={TRUNCATE_WAIT_MS}")
                busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            finally:
                connection.close()
        except sqlite3.Error:
            return False  # locked, or no space: the log stays as it is, and a later call does it
        return not busy

    def _translated(self, error: sqlite3.Error) -> ClipkeepError:
        name = getattr(error, "sqlite_errorname", None) or "SQLITE_ERROR"
        if name.startswith("SQLITE_CORRUPT") or name == "SQLITE_NOTADB":
            return CatalogCorrupt(
                f"{error}; restore it from a backup, then run `clipkeep check`", subject=str(self.path)
            )
        if str(error).startswith("no such table: chunks_"):
            return CatalogCorrupt(f"{error}; run `clipkeep catalog rebuild`", subject=str(self.path))
        busy = name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED"))
        if name.startswith("SQLITE_FULL") or (not busy and looks_full(self.path)):
            said = f"{make_room(self.path)} ({error}, {name})"
            return CatalogUnavailable(said, subject=str(self.path), code=DISK_FULL)
        return CatalogUnavailable(f"{error} ({name}); {_remedy(name)}", subject=str(self.path))

    def close(self) -> None:
        """Close the connections. Transactions under way end first; a later one is refused."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def discard(self) -> None:
        """Close, and remove the files of a catalog whose making failed."""
        self.close()
        for path in self._paths:
            path.unlink(missing_ok=True)


def _remedy(name: str) -> str:
    """What a person does about an error that may pass, by the name that SQLite gives it."""
    if name.startswith("SQLITE_IOERR"):
        return "look for a full or failing disk, or a limit on the size of files; trying again is safe"
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return "another process has been writing all the time: try again"
    if name.startswith(("SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_PERM", "SQLITE_AUTH")):
        return "look for a wrong owner or permissions of it and its folder, or a read-only disk"
    return "try again; if it stays, `clipkeep check` may say more"
