"""keys.db: the connection, its settings, transactions, and the emptying of its log.

Here is what `storage.keys` needs of SQLite and nothing about keys; see there for the tables and why they are so.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from storage._key_files import corrupt, fsync, unavailable
from storage.errors import CallerError, WorldError
from storage.open_files import OpenFiles, what_to_do
from storage.sqlite_check import found_by_sqlite

SCRUB_ATTEMPTS = 3
"""Tries to empty the write-ahead log after a destruction; each waits up to the busy timeout for readers."""

_APPLICATION_ID = 0x434B4B59  # "CKKY"; `file` and SQLite's own tools show it
_SCHEMA_VERSION = 1
ACCOUNT_KEYS_VERSION = 2
"""From the first account key on there is a table for them, which earlier releases do not know."""

# Any other failure of a constant statement on tables that we made means that the file is not what was written.
_WORLD_CODES = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_INTERRUPT,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_READONLY,
    }
)


def create_database(path: Path, wrapping_key_id: int) -> None:
    """Make a new, empty database. Raises OSError and sqlite3.Error: the caller removes what is there then."""
    os.close(os.open(path, os.O_CREAT | os.O_EXCL, 0o600))  # its -wal and -shm inherit the mode
    connection = _connect(path, busy_timeout_s=0)
    try:
        connection.execute("BEGIN")
        connection.execute(
            "CREATE TABLE state (wrapping_key_id INTEGER NOT NULL, month_floor INTEGER NOT NULL)"
        )
        connection.execute("CREATE TABLE floors (device INTEGER PRIMARY KEY, lowest_epoch INTEGER NOT NULL)")
        connection.execute("INSERT INTO state VALUES (?, 0)", (wrapping_key_id,))
        connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")
        connection.execute("COMMIT")
    finally:
        connection.close()
    fsync(path)


class KeyDatabase:
    """One connection, served to the threads of a process in turn.

    One is enough: SQLite lets a single writer through at a time anyway, and reads take microseconds.

    Raises (all methods): WorldError, CorruptError as `storage.keys.KeyStore` says; CallerError when closed.
    """

    def __init__(self, path: Path, *, busy_timeout_s: float) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._closed = False
        with translated_errors(path):
            self._connection = _connect(path, busy_timeout_s)
            self._connection.execute("PRAGMA schema_version").fetchone()  # a read opens the log and its index
        self._files = OpenFiles(path.with_name(path.name + suffix) for suffix in ("", "-wal", "-shm"))

    def require_files(self) -> None:
        """Make sure that what is open is what has the name.

        Raises:
            WorldError: `key_store_replaced`: a key that is made now would be lost with this process.
        """
        if lost := self._files.lost():
            raise WorldError(what_to_do(lost), subject=str(lost), code="key_store_replaced")

    def check_format(self) -> None:
        """Make sure that this is a key store's database, of this version.

        Raises:
            CorruptError: it is not, and the header field is named.
        """
        with self._statements() as connection:
            for field, expected in (
                ("application_id", (_APPLICATION_ID,)),
                ("user_version", (_SCHEMA_VERSION, ACCOUNT_KEYS_VERSION)),
            ):
                found = whole_number(connection, f"PRAGMA {field}")
                if found not in expected:
                    raise corrupt(
                        self.path,
                        f"header field {field} is {found}, not {expected[-1]}: this is no key store,"
                        " or one of another version of Clipkeep (then use that version)",
                    )

    @contextmanager
    def transaction(self, mode: Literal["DEFERRED", "IMMEDIATE"]) -> Iterator[sqlite3.Connection]:
        """One transaction: committed and durable when the block ends, rolled back when it raises.

        DEFERRED reads one consistent state; IMMEDIATE holds the write lock, across processes, from the start.

        Raises:
            WorldError: `key_store_replaced`: IMMEDIATE, and it was committed to a file that nobody will find again.
        """
        with self._statements() as connection:
            try:
                connection.execute(f"BEGIN {mode}")
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:  # after a full disk SQLite has rolled back by itself
                    with suppress(sqlite3.Error):
                        connection.execute("ROLLBACK")
                raise
        if mode == "IMMEDIATE":
            self.require_files()

    def scrub_log(self) -> None:
        """Move the write-ahead log into the database and cut it to nothing, durably.

        Raises:
            WorldError: a reader in another process held the log for longer than the bounded retries.
        """
        log = self.path.with_name(self.path.name + "-wal")
        with self._statements() as connection:
            for _ in range(SCRUB_ATTEMPTS):
                busy = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
                if not busy:
                    break
            else:
                raise WorldError(
                    "the keys are destroyed for every process, but another one held the log of keys.db, so their"
                    " wrapped bytes may still be in it; call again to empty it",
                    subject=str(log),
                    code="key_store_unavailable",
                )
        try:
            fsync(log)  # SQLite does not make the cut itself durable
        except OSError as error:
            raise unavailable(log, error) from error

    def damage(self) -> list[str]:
        """What SQLite's own check reports, read from the disk by a connection that remembers nothing.

        Raises:
            WorldError, CorruptError: it could not be asked.
        """
        with translated_errors(self.path):
            connection = _connect(self.path, busy_timeout_s=5.0)
            try:
                return found_by_sqlite(self.path.name, connection)
            finally:
                connection.close()

    def copy_to(self, target: sqlite3.Connection) -> None:
        """Copy all pages, of one moment, to another database. Others may write meanwhile."""
        with self._statements() as connection:
            connection.backup(target)

    def close(self) -> None:
        """Let go of the files. Idempotent; a call in another thread is waited for."""
        with self._lock:
            self._closed = True
            self._connection.close()

    @contextmanager
    def _statements(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            if self._closed:
                raise CallerError("the key store is closed", subject=str(self.path), code="key_store_closed")
            with translated_errors(self.path):
                yield self._connection


def whole_number(connection: sqlite3.Connection, query: str, values: tuple[int, ...] = ()) -> int:
    """The one whole number that a query returns; anything else is a corrupt file (sqlite3.DatabaseError)."""
    row = connection.execute(query, values).fetchone()
    if row is None or not isinstance(row[0], int):
        raise sqlite3.DatabaseError(f"no whole number from: {query}")
    return row[0]


@contextmanager
def translated_errors(path: Path) -> Iterator[None]:
    """Raise SQLite's errors as ours."""
    try:
        yield
    except sqlite3.Error as error:
        code = (
            getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF
        )  # above are SQLite's subcodes
        if code in _WORLD_CODES:
            raise unavailable(path, error) from error
        raise corrupt(path, f"SQLite cannot read it ({error})") from error
    except UnicodeDecodeError as error:  # an error message of SQLite that quotes a corrupt name
        raise corrupt(path, "SQLite cannot read its table definitions") from error


def _connect(path: Path, busy_timeout_s: float) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=rw",  # never make an empty one in place of one that is missing
        uri=True,
        timeout=busy_timeout_s,
        isolation_level=None,  # transactions are written out
        check_same_thread=False,  # the lock of KeyDatabase sees to that
    )
    try:
        connection.execute("PRAGMA synchronous = FULL")  # in WAL mode: the log is synced at every commit
        connection.execute("PRAGMA fullfsync = ON")  # where a plain fsync stops at the drive's cache (macOS)
        connection.execute(
            "PRAGMA secure_delete = ON"
        )  # also for pages that are freed as a whole, unlike FAST
        connection.execute("PRAGMA temp_store = MEMORY")  # no wrapped key in a temporary file
        connection.execute("PRAGMA cell_size_check = ON")
        mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        if mode != "wal":
            raise unavailable(path, f"SQLite offers only journal mode {mode!r} on this file system, not wal")
    except BaseException:
        connection.close()
        raise
    return connection
