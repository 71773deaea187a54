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

**An outcome that was lost with the connection.** When the connection breaks in COMMIT, nobody can tell whether it was
committed. So each write counts up a row of `tries` that is its own while it lasts (a `_Slot`), and each of its tries
sets the row to the same number: the next try waits for a backend that is still at work with the first, and a row that
has the number already says that the first was committed. A process has as many rows as it ever had writes at once.
"""

from __future__ import annotations

import re
import secrets
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import psycopg
from psycopg import conninfo, errors

from storage.errors import CallerError, CatalogCorrupt, CatalogUnavailable, ClipkeepError
from storage.postgres import damage
from storage.postgres.connection import (
    DECISIONS_LOCK,
    TAKEN_BACK,
    WRITERS_LOCK,
    NoAnswer,
    PostgresConnection,
)
from storage.postgres.packed_rows import drop_tables_of_day
from storage.postgres.promise import SETTINGS, promise_of
from storage.postgres.remedies import remedy, shown
from storage.postgres.waits import Waits
from storage.promise import Promise
from storage.sql.connection import Connection, Database, Excludes
from storage.sqlite.schema import REVISION

R = TypeVar("R")

APPLICATION = "clipkeep"
"""What the server is told of each connection, with the revision of the catalog that this release works on."""
LEAST_VERSION = 150_000
"""Of the server, as `server_version_num`."""
MAX_IDLE_CONNECTIONS = 4
"""Connections kept open between transactions; as for SQLite, a guess: a process has a writer and a few readers."""
IDLE_S = 60.0
"""A connection that was idle for longer is closed instead of used: what stands in between may have forgotten it."""
TRIES = 5
"""How often a write is tried that the server took back: a deadlock, a connection that broke, a restart."""
FIRST_PAUSE_S = 0.05
DROP_LOCK_TIMEOUT_MS = 50
"""Longest wait for the readers of a table that is to be dropped."""
CHECK_TIMEOUT_MS = 6 * 3600 * 1000
"""Longest look at one table or index by `amcheck`."""
KEEPALIVE = {
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 4,
    "tcp_user_timeout": 30_000,
}
"""A server that vanished without a word is given up after 30 s."""
SLOT_DAYS = 2
"""How long a row of `tries` outlives its last write. An hour would do: tries of one write are seconds apart."""


_SPILL = "SET LOCAL work_mem = '64kB'; SELECT count(*) FROM generate_series(1, 70000)"
"""A function's rows are kept, in a file beyond `work_mem`, before they are counted: 14 bytes each, some 10 ms."""
_CLEAN_SLOTS = f"DELETE FROM tries WHERE used_on < current_date - {SLOT_DAYS}"
BEGIN_READ = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
BEGIN_CHECK = "BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY"
BEGIN_WRITE = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE"
_LOCKS = {
    Excludes.NOTHING: None,
    Excludes.DECISIONS: f"SELECT pg_advisory_xact_lock_shared({DECISIONS_LOCK})",
    Excludes.WRITERS: f"SELECT pg_advisory_xact_lock({WRITERS_LOCK})",
}


@dataclass(slots=True)
class _Slot:
    """The row of `tries` that a write has to itself, and the number of its last write."""

    name: str = field(default_factory=lambda: secrets.token_hex(16))
    number: int = 0

    @property
    def mark(self) -> str:
        """SQL that touches the row, unless a write of this number was committed."""
        return (
            f"INSERT INTO tries AS t VALUES ('\\x{self.name}', {self.number}, current_date)"
            " ON CONFLICT (slot) DO UPDATE SET number = excluded.number, used_on = excluded.used_on"
            " WHERE t.number < excluded.number"
        )


CATALOG_FULL = "catalog_full"
GIVEN_UP = (errors.LockNotAvailable, errors.QueryCanceled, errors.DiskFull)
"""What it says when a further try would wait as long, or fail again."""


class PostgresDatabase(Database):
    """One database of a server, and a small pool of connections: each transaction has one of them to itself.

    Args:
        url: a libpq URL or connection string. What it lacks comes from the environment or a service file, as libpq
            reads them: the password best of all.
        answer_s: longest wait for one answer; None: as long as commands wait, see `Waits`.
        lock_timeout_ms: longest wait for another transaction; None: as `answer_s` says.
    """

    def __init__(
        self, url: str, *, lock_timeout_ms: int | None = None, answer_s: float | None = None
    ) -> None:
        try:
            parts = conninfo.conninfo_to_dict(url)
        except psycopg.ProgrammingError as error:
            said = " ".join(str(error).split())
            raise CallerError(f"not a PostgreSQL address: {said}", code="bad_catalog_url") from error
        self._waits = Waits.at_most(answer_s)
        self._conninfo = conninfo.make_conninfo(
            url,
            application_name=f"{APPLICATION}/{REVISION}",
            connect_timeout=self._waits.connect_s,
            **KEEPALIVE,
        )
        self._subject = shown(parts)
        self._lock_timeout_ms = self._waits.lock_ms if lock_timeout_ms is None else lock_timeout_ms
        self._lock = threading.Lock()
        self._idle: list[tuple[float, PostgresConnection]] = []
        self._slots: list[_Slot] = []
        """Those of no write under way."""
        self._ready_days: set[int] = set()
        self._closed = False

    @property
    def subject(self) -> str:
        return self._subject

    # --- transactions ---------------------------------------------------------------------------------------------

    @contextmanager
    def read(self) -> Iterator[Connection]:
        with self._translating(), self._block(BEGIN_READ) as connection:
            yield connection

    def write(self, work: Callable[[Connection], R], excludes: Excludes = Excludes.WRITERS) -> R:
        slot = self._take_slot()
        slot.number += 1
        committing: list[R] = []
        """What `work` returned in a try whose COMMIT was not answered."""
        try:
            done = self._until_kept(lambda: self._try_write(work, excludes, slot, committing))
        except (psycopg.OperationalError, *TAKEN_BACK) as error:
            # The slot goes with it: a backend may still be at work in it.
            raise self._translated(error) from error
        except BaseException as error:
            self._free(slot)
            if isinstance(error, psycopg.Error):
                raise self._translated(error) from error
            raise
        if slot.number == 1:  # a new one is rare: the time to remove those of processes that are gone
            self._clean_slots()
        self._free(slot)
        return done

    def _until_kept(self, once: Callable[[], R]) -> R:
        """Call it again when the server took back what it did, or may have: `TRIES` times, and for as long as patience
        lasts. Raises psycopg's errors."""
        pause_s = FIRST_PAUSE_S
        began_s = time.monotonic()
        for left in reversed(range(TRIES)):
            try:
                return once()
            except (psycopg.OperationalError, *TAKEN_BACK) as error:
                if (
                    left == 0
                    or isinstance(error, GIVEN_UP)
                    or time.monotonic() - began_s > self._waits.patience_s
                ):
                    raise
            time.sleep(pause_s)
            pause_s *= 2
        raise AssertionError("the last try returns or raises")

    def _try_write(
        self, work: Callable[[Connection], R], excludes: Excludes, slot: _Slot, committing: list[R]
    ) -> R:
        # One round trip. Statements of one message see what was committed before each of them began.
        timeout_ms = self._waits.statement_ms if excludes is Excludes.WRITERS else self._waits.ingest_ms
        connection, marked = self._begun(BEGIN_WRITE, timeout_ms, _LOCKS[excludes], slot.mark)
        try:
            if not marked:  # an earlier try was committed, though nobody could say so
                connection.rollback()
                return committing[-1]
            done = work(connection)
            committing[:] = [done]
            connection.commit()
            return done
        except BaseException:
            self._undo(connection)
            raise
        finally:
            self._give_back(connection)

    def _take_slot(self) -> _Slot:
        with self._lock:
            return self._slots.pop() if self._slots else _Slot()

    def _clean_slots(self) -> None:
        """If it fails, another one does it."""
        with (
            suppress(psycopg.Error),
            self._block(BEGIN_WRITE, timeout_ms=self._waits.ingest_ms) as connection,
        ):
            connection.run(_CLEAN_SLOTS)

    def _free(self, slot: _Slot) -> None:
        """The outcome of its write is known."""
        with self._lock:
            self._slots.append(slot)

    @contextmanager
    def hold(self) -> Iterator[Connection]:
        with self._translating(), self._block(BEGIN_WRITE, _LOCKS[Excludes.WRITERS]) as connection:
            yield connection

    @contextmanager
    def _block(
        self, begin: str, lock: str | None = None, *, timeout_ms: int | None = None
    ) -> Iterator[PostgresConnection]:
        """A transaction, with psycopg's errors as they are."""
        connection, _ = self._begun(begin, timeout_ms or self._waits.statement_ms, lock)
        try:
            yield connection
            connection.commit()
        except BaseException:
            self._undo(connection)
            raise
        finally:
            self._give_back(connection)

    def make_days_ready(self, days: Collection[int]) -> None:
        """Make chunk tables in a transaction of their own: two commits that both made one would wait for each other's
        end, and one of them fail."""
        missing = set(days) - self._ready_days
        for day in sorted(missing):
            # Beside commits, and not beside the closing of this day.
            self.write(partial(_make_day, day=day), Excludes.DECISIONS)
        self._ready_days |= missing
        if len(self._ready_days) > 1000:  # a clock that jumps about must not make it grow
            self._ready_days = missing

    def drop_unlisted(self) -> int:
        """A reader that began before its day was closed may still read a table, or come to it: it is dropped when all
        who began before are done. Who waits for a lock on a table makes later readers of it wait: a moment only."""
        names = self.write(_unlisted, Excludes.NOTHING)
        left = 0
        for name in names:
            try:
                left += not self.write(partial(_drop_unread, name=name), Excludes.NOTHING)
            except CatalogUnavailable as error:
                if not isinstance(error.__cause__, errors.LockNotAvailable):
                    raise
                left += 1
        return left

    def promise(self) -> Promise:
        """What the server's settings promise for commits that were acknowledged."""
        with self.read() as connection:
            found = {name: connection.execute(f"SHOW {name}").fetchone()[0] for name in SETTINGS}
        return promise_of(found)

    def require_version(self) -> None:
        """Raises CallerError `server_too_old`."""
        with self.read() as connection:
            found = int(connection.execute("SHOW server_version_num").fetchone()[0])
        if found < LEAST_VERSION:
            raise CallerError(
                f"this server is PostgreSQL {found // 10000}, and {LEAST_VERSION // 10000} or later is needed",
                subject=self._subject,
                code="server_too_old",
            )

    def require_files(self) -> None:
        """The files are the server's."""

    def require_writable(self) -> None:
        self.write(lambda _: None, Excludes.NOTHING)  # its mark in `tries` is the write
        self.require_room()

    def require_room(self) -> None:
        """Make sure that the server may write, and its disk is not full. A row that is updated in its page needs no
        room, so such writes go on; a temporary file of a MiB does, and leaves nothing behind. (Where `temp_tablespaces`
        names another disk, it is that disk which is asked.)"""
        # A role may be allowed no file of that size.
        with (
            self._translating(),
            suppress(errors.ConfigurationLimitExceeded),
            self._block(BEGIN_WRITE, timeout_ms=self._waits.ingest_ms) as connection,
        ):
            connection.run(_SPILL)

    def damage(self) -> list[str]:
        """What `amcheck` finds, where it is installed; else nothing, and `unlooked` says so."""
        with self.read() as connection:
            todo = damage.relations(connection) if damage.can_look(connection) else []
        found: list[str] = []
        for name, kind in todo:
            if len(found) >= damage.MOST_TOLD:
                break
            with self._translating(), self._block(BEGIN_CHECK, timeout_ms=CHECK_TIMEOUT_MS) as on:
                found += damage.found_in(on, name, kind)
        return found

    def unlooked(self) -> list[str]:
        with self.read() as connection:
            return [] if damage.can_look(connection) else [damage.NOT_LOOKED]

    def cut_log(self) -> bool:
        """The server's log and its backups are the operator's: nothing that the service could cut."""
        return True

    # --- connections ----------------------------------------------------------------------------------------------

    def _begun(self, begin: str, timeout_ms: int, *more: str | None) -> tuple[PostgresConnection, int]:
        """A connection inside a new transaction, and how many rows the last statement touched. An idle one that broke
        meanwhile is replaced.

        Args:
            timeout_ms: longest statement.
            more: statements for the same round trip.
        """
        settings = (
            f"SET LOCAL lock_timeout = {self._lock_timeout_ms}",
            f"SET LOCAL statement_timeout = {timeout_ms}",
            f"SET LOCAL idle_in_transaction_session_timeout = {self._waits.idle_ms}",
        )
        text = "; ".join(filter(None, (begin, *settings, *more)))
        answer_s = timeout_ms / 1000 + self._waits.margin_s
        while (connection := self._take_idle()) is not None:
            connection.wait_at_most(answer_s)
            try:
                return connection, connection.run(text)
            except BaseException as error:
                self._abandon(connection)
                if (
                    not isinstance(error, psycopg.OperationalError)
                    or isinstance(error, NoAnswer)
                    or connection.is_whole
                ):
                    raise
        connection = PostgresConnection.connect(self._conninfo)
        connection.wait_at_most(answer_s)
        try:
            return connection, connection.run(text)
        except BaseException:
            self._abandon(connection)
            raise

    def _abandon(self, connection: PostgresConnection) -> None:
        """Give back a connection whose transaction could not begin."""
        self._undo(connection)
        self._give_back(connection)

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
            connection.rollback()

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
        if isinstance(error, errors.UndefinedTable) and (found := _OF_A_DAY.search(said)):
            return self._without_table(int(found[1]), said)
        code = CATALOG_FULL if isinstance(error, errors.DiskFull) else None
        return CatalogUnavailable(f"{said}; {remedy(error)}", subject=self._subject, code=code)

    def _without_table(self, day: int, said: str) -> ClipkeepError:
        """What is wrong when a day's table is not there: it went with its day, unless the day is still open."""
        with suppress(psycopg.Error, CatalogUnavailable), self._block(BEGIN_READ) as connection:
            query = "SELECT EXISTS (SELECT 1 FROM days WHERE expires_on = ?)"
            if connection.execute(query, (day,)).fetchone()[0]:
                return CatalogCorrupt(
                    f"{said}, though its day is open; `clipkeep catalog rebuild` makes its rows anew",
                    subject=self._subject,
                )
        return CatalogUnavailable(
            f"{said}: day {day} was closed, or is being made, at this moment; trying again is safe",
            subject=self._subject,
        )


_OF_A_DAY = re.compile(r'"(?:chunks|packed)_(\d+)"')
"""In what the server says of a table that it does not find."""


def _make_day(connection: Connection, day: int) -> None:
    """Make a day's table, unless it is closed."""
    if day > connection.execute("SELECT value FROM meta WHERE name = 'closed_through'").fetchone()[0]:
        connection.create_chunk_table(day)
        connection.execute("INSERT INTO days VALUES (?) ON CONFLICT DO NOTHING", (day,))


def _unlisted(connection: Connection) -> list[str]:
    """The tables to drop. Whoever does not know yet that they are, began before `seen_at`."""
    connection.execute("UPDATE unlisted SET seen_at = clock_timestamp() WHERE seen_at IS NULL")
    return [row[0] for row in connection.execute("SELECT name FROM unlisted ORDER BY name")]


def _drop_unread(connection: Connection, name: str) -> bool:
    """Drop a table, unless a transaction is left that began when its day was open."""
    assert isinstance(connection, PostgresConnection)
    connection.execute(f"SET LOCAL lock_timeout = {DROP_LOCK_TIMEOUT_MS}")
    is_free = connection.execute(
        "DELETE FROM unlisted u WHERE name = ? AND NOT EXISTS ("
        " SELECT 1 FROM pg_stat_activity a WHERE a.datname = current_database() AND a.xact_start < u.seen_at"
        " AND a.backend_type = 'client backend' AND a.pid != pg_backend_pid())",
        (name,),
    ).rowcount
    if is_free:
        connection.run(drop_tables_of_day(int(name.removeprefix("chunks_"))))
    return bool(is_free)
