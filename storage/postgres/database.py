"""Connections, transactions and error translation for the catalog on PostgreSQL.

Nothing outlives a transaction: no prepared statement, no session setting, no temporary table, no session lock. So a
pooler that gives each transaction another connection (PgBouncer in transaction mode) may stand in between.

**What keeps transactions apart.** Writes run at READ COMMITTED, and SQLite's single writer is replaced by two advisory
locks, taken for the length of a transaction (`Excludes`):

    WRITERS    every write but those of ingest holds it exclusively: they come one after the other, as on SQLite
    DECISIONS  commits hold it shared; `exclude_commits` holds it exclusively. What a commit decides by (erase epochs,
               classes, deleted ranges, the closed day) changes under it only, so it stays as the commit has read it

A writer takes WRITERS before DECISIONS, and a commit never takes WRITERS, so the two can't wait for each other. Reads
run at REPEATABLE READ and take no lock.

**An outcome that was lost with the connection.** Each write transaction inserts a token of its own. When the connection
breaks in COMMIT, nobody can tell whether it was committed. The next try inserts the same token: it waits for a backend
that is still at work, and a conflict says that the first try was committed.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

import psycopg
from psycopg import conninfo, errors

from storage.errors import CallerError, CatalogCorrupt, CatalogUnavailable, ClipkeepError
from storage.postgres.connection import DECISIONS_LOCK, WRITERS_LOCK, PostgresConnection
from storage.sql.connection import Connection, Database, Excludes

R = TypeVar("R")

APPLICATION = "clipkeep"
MAX_IDLE_CONNECTIONS = 4
"""Connections kept open between transactions; as for SQLite, a guess: a process has a writer and a few readers."""
IDLE_S = 60.0
"""A connection that was idle for longer is closed instead of used: what stands in between may have forgotten it."""
TRIES = 5
"""How often a write is tried that the server took back: a deadlock, a connection that broke, a restart."""
FIRST_PAUSE_S = 0.05
LOCK_TIMEOUT_MS = 10_000
"""Longest wait for another transaction, as SQLite's busy timeout."""
STATEMENT_TIMEOUT_MS = 60_000
"""Longest statement. A backstop: no statement of the service takes a tenth of it."""

_BEGIN_READ = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
_BEGIN_WRITE = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE"
_LOCKS = {
    Excludes.NOTHING: None,
    Excludes.DECISIONS: f"SELECT pg_advisory_xact_lock_shared({DECISIONS_LOCK})",
    Excludes.WRITERS: f"SELECT pg_advisory_xact_lock({WRITERS_LOCK})",
}

TAKEN_BACK = (errors.SerializationFailure, errors.DeadlockDetected)
"""What the server says when it undid a transaction that may be tried again at once."""


class PostgresDatabase(Database):
    """One database of a server, and a small pool of connections: each transaction has one of them to itself.

    Args:
        url: a libpq URL or connection string. What it lacks comes from the environment or a service file, as libpq
            reads them: the password best of all.
    """

    def __init__(self, url: str, *, lock_timeout_ms: int = LOCK_TIMEOUT_MS) -> None:
        try:
            parts = conninfo.conninfo_to_dict(url)
        except psycopg.ProgrammingError as error:
            raise CallerError(f"not a PostgreSQL address: {error}", code="bad_catalog_url") from error
        self._conninfo = conninfo.make_conninfo(url, application_name=APPLICATION, connect_timeout=10)
        self._subject = "postgresql://" + "".join(
            str(part)
            for part in (parts.get("host", ""), ":", parts.get("port", 5432), "/", parts.get("dbname", ""))
        )
        self._settings = (
            f"SET LOCAL lock_timeout = {lock_timeout_ms};"
            f" SET LOCAL statement_timeout = {STATEMENT_TIMEOUT_MS}"
        )
        self._lock = threading.Lock()
        self._idle: list[tuple[float, PostgresConnection]] = []
        self._ready_days: set[int] = set()
        self._closed = False

    @property
    def subject(self) -> str:
        return self._subject

    # --- transactions ---------------------------------------------------------------------------------------------

    @contextmanager
    def read(self) -> Iterator[Connection]:
        with self._translating():
            connection = self._begun(_BEGIN_READ)
            try:
                yield connection
                connection.run("COMMIT")
            except BaseException:
                self._undo(connection)
                raise
            finally:
                self._give_back(connection)

    def write(self, work: Callable[[Connection], R], excludes: Excludes = Excludes.WRITERS) -> R:
        token = secrets.token_bytes(16)
        pause_s = FIRST_PAUSE_S
        committing: list[R] = []
        """What `work` returned in a try whose COMMIT was not answered."""
        for left in reversed(range(TRIES)):
            try:
                return self._try_write(work, excludes, token, committing)
            except (psycopg.OperationalError, *TAKEN_BACK) as error:
                if left == 0 or isinstance(
                    error, (errors.LockNotAvailable, errors.QueryCanceled, errors.DiskFull)
                ):
                    raise self._translated(error) from error
            except psycopg.Error as error:
                raise self._translated(error) from error
            time.sleep(pause_s)
            pause_s *= 2
        raise AssertionError("the last try returns or raises")

    def _try_write(
        self, work: Callable[[Connection], R], excludes: Excludes, token: bytes, committing: list[R]
    ) -> R:
        connection = self._begun(_BEGIN_WRITE)
        try:
            if (lock := _LOCKS[excludes]) is not None:
                connection.run(lock)
            added = connection.execute(
                "INSERT INTO tries VALUES (?, current_date) ON CONFLICT DO NOTHING", (token,)
            ).rowcount
            if not added:  # an earlier try was committed, though nobody could say so
                connection.run("ROLLBACK")
                return committing[-1]
            done = work(connection)
            committing[:] = [done]
            connection.run("COMMIT")
            return done
        except BaseException:
            self._undo(connection)
            raise
        finally:
            self._give_back(connection)

    @contextmanager
    def hold(self) -> Iterator[Connection]:
        with self._translating():
            connection = self._begun(_BEGIN_WRITE)
            try:
                yield connection
                connection.run("COMMIT")
            except BaseException:
                self._undo(connection)
                raise
            finally:
                self._give_back(connection)

    def make_days_ready(self, days: Collection[int]) -> None:
        """Make chunk tables in a transaction of their own: two commits that both made one would wait for each other's
        end, and one of them fail."""
        missing = set(days) - self._ready_days
        if not missing:
            return

        def make(connection: Connection) -> None:
            for day in sorted(missing):
                closed = connection.execute(
                    "SELECT value FROM meta WHERE name = 'closed_through'"
                ).fetchone()[0]
                if day > closed:
                    connection.create_chunk_table(day)
                    connection.execute("INSERT INTO days VALUES (?) ON CONFLICT DO NOTHING", (day,))

        self.write(make)
        self._ready_days |= missing
        if len(self._ready_days) > 1000:  # a clock that jumps about must not make it grow
            self._ready_days = missing

    def require_files(self) -> None:
        """The files are the server's."""

    def damage(self) -> list[str]:
        """What the server's own check (`amcheck`) would find is asked by an operator: see docs/operations.md."""
        return []

    def cut_log(self) -> bool:
        """The server's log and its backups are the operator's: nothing that the service could cut."""
        return True

    # --- connections ----------------------------------------------------------------------------------------------

    def _begun(self, begin: str) -> PostgresConnection:
        """A connection inside a new transaction. An idle one that broke meanwhile is replaced."""
        while (idle := self._take_idle()) is not None:
            try:
                idle.run(f"{begin}; {self._settings}")
                return idle
            except psycopg.OperationalError:
                idle.close()
        connection = PostgresConnection.connect(self._conninfo)
        try:
            connection.run(f"{begin}; {self._settings}")
        except BaseException:
            connection.close()
            raise
        return connection

    def _take_idle(self) -> PostgresConnection | None:
        now = time.monotonic()
        stale = []
        try:
            with self._lock:
                if self._closed:
                    raise CatalogUnavailable("the catalog was closed", subject=self._subject)
                while self._idle:
                    since, connection = self._idle.pop()
                    if now - since < IDLE_S:
                        return connection
                    stale.append(connection)
            return None
        finally:
            for connection in stale:
                connection.close()

    def _give_back(self, connection: PostgresConnection) -> None:
        with self._lock:
            if not self._closed and connection.is_idle and len(self._idle) < MAX_IDLE_CONNECTIONS:
                self._idle.append((time.monotonic(), connection))
                return
        connection.close()

    def _undo(self, connection: PostgresConnection) -> None:
        with suppress(psycopg.Error):  # closing undoes it too, and the first error is the one to tell
            connection.run("ROLLBACK")

    def close(self) -> None:
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for _, connection in idle:
            connection.close()

    # --- errors ---------------------------------------------------------------------------------------------------

    @contextmanager
    def _translating(self) -> Iterator[None]:
        try:
            yield
        except psycopg.Error as error:
            raise self._translated(error) from error

    def _translated(self, error: psycopg.Error) -> ClipkeepError:
        said = " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, (errors.DataCorrupted, errors.IndexCorrupted)):
            return CatalogCorrupt(f"{said}; restore it from a backup", subject=self._subject)
        if isinstance(error, errors.UndefinedTable) and "chunks_" in said:
            return CatalogCorrupt(f"{said}; run `clipkeep catalog rebuild`", subject=self._subject)
        return CatalogUnavailable(f"{said}; {_remedy(error)}", subject=self._subject)


def _remedy(error: psycopg.Error) -> str:
    """What a person does about an error that may pass."""
    if isinstance(error, (errors.DiskFull, errors.IoError)):
        return "look for a full or failing disk of the server; trying again is safe"
    if isinstance(error, (errors.LockNotAvailable, errors.QueryCanceled, *TAKEN_BACK)):
        return "another transaction has been in the way all the time: try again"
    if isinstance(error, (errors.InvalidPassword, errors.InvalidAuthorizationSpecification)):
        return "look for a wrong user or password: PGUSER, PGPASSWORD or the service file"
    if isinstance(error, errors.InsufficientPrivilege):
        return "the user lacks a privilege: docs/operations.md lists them"
    if isinstance(error, (errors.InvalidCatalogName, errors.UndefinedTable)):
        return "the database or its tables are missing: `clipkeep init --catalog` makes them"
    if isinstance(error, errors.ReadOnlySqlTransaction):
        return "this server is a standby: name the primary"
    return "look whether the server runs and can be reached; trying again is safe"
