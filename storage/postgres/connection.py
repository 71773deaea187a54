"""One connection to PostgreSQL, which takes the shared SQL of `storage.sql`."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, TypeVar, cast

import numpy as np
import psycopg
from psycopg import errors, pq
from psycopg.abc import PQGen
from psycopg.adapt import Dumper, Loader

from storage.postgres.packed_rows import (
    COLUMNS,
    MOVE,
    arrays,
    copied,
    copy_in,
    drop_tables_of_day,
    insert_where_free,
    packed_row,
    places,
    tables_of_day,
)
from storage.sql.connection import Connection, Move, Refers, Rows, Taken, Values
from storage.sql.newrows import NewRows

T = TypeVar("T")

WRITERS_LOCK, DECISIONS_LOCK, TABLES_LOCK = 0x636C6B01, 0x636C6B02, 0x636C6B03
"""Advisory locks, made of "clk" and a number."""

STREAMED_ROWS = 5000
"""Fetched at once."""

TAKEN_BACK = (errors.SerializationFailure, errors.DeadlockDetected)
"""What the server says when it undid a transaction that may be tried again at once."""

DEVICES_LOCK = 0x636C6B04 << 32
"""The first of DEVICE_STRIPES advisory locks."""
DEVICE_STRIPES = 512
"""Devices share so many locks: what a server can hold of them is bounded, at 6400 in all by default."""


class _WholeNumber(Loader):
    """sum() of integers is NUMERIC to PostgreSQL; every number here is a whole one."""

    def load(self, data: bytes | bytearray | memoryview) -> int:
        return int(bytes(data))


class _ZeroOrOne(Dumper):
    """Booleans are integers in the shared SQL."""

    oid = psycopg.postgres.types["int8"].oid

    def dump(self, obj: bool) -> bytes:
        return b"1" if obj else b"0"


class _Impatient(psycopg.Connection[tuple[Any, ...]]):
    """Waits for an answer for a bounded time. `tcp_user_timeout` and keepalives see a host that is gone; a server that
    is frozen, or whose disk hangs, has a kernel that goes on answering them."""

    answer_s: float | None = None

    def wait(self, gen: PQGen[T], interval: float = 0.1, timeout: float | None = None) -> T:
        bound_s = self.answer_s if timeout is None else timeout
        began_s = time.monotonic()
        try:
            return super().wait(gen, interval, bound_s)
        except psycopg.OperationalError as error:
            if timeout is None and bound_s is not None and time.monotonic() - began_s >= bound_s:
                self.pgconn.finish()  # whatever is still answered belongs to nobody
                raise NoAnswer(f"the server has not answered for {bound_s:g} s") from error
            raise


class NoAnswer(psycopg.OperationalError):
    """The server has a connection and says nothing. What it was asked may be done, or be done yet."""


class PostgresConnection:
    """See `storage.sql.connection.Connection`."""

    locking = " FOR UPDATE"

    def __init__(self, raw: _Impatient) -> None:
        self._raw = raw
        self._last = ""
        """What is to be executed with COMMIT."""

    @classmethod
    def connect(cls, conninfo: str) -> PostgresConnection:
        # No prepared statements: a pooler may give the next transaction another connection.
        raw = _Impatient.connect(conninfo, autocommit=True, prepare_threshold=None)
        raw.adapters.register_loader("numeric", _WholeNumber)
        raw.adapters.register_dumper(bool, _ZeroOrOne)
        return cls(raw)

    @property
    def is_idle(self) -> bool:
        """Whether it is whole, and in no transaction."""
        return not self._raw.closed and self._raw.info.transaction_status == pq.TransactionStatus.IDLE

    @property
    def is_whole(self) -> bool:
        """Whether the server can be reached by it, as far as is known."""
        return not self._raw.closed

    def wait_at_most(self, answer_s: float | None) -> None:
        """From here on, wait so long for each answer: None is for ever."""
        self._raw.answer_s = answer_s

    def take_its_time(self) -> None:
        """To the end of this transaction nothing is given up for being slow: for what reads or writes whole tables."""
        self.wait_at_most(None)
        self.run("SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0")

    def run(self, sql: str) -> int:
        """Execute statements without values, several of them in one round trip. Returns how many rows the last one
        touched."""
        cursor = self._raw.execute(cast(Any, sql))
        while cursor.nextset():
            pass
        return cursor.rowcount

    def commit(self) -> None:
        last, self._last = self._last, ""
        self.run(f"{last}COMMIT")

    def rollback(self) -> None:
        self._last = ""
        self.run("ROLLBACK")

    def close(self) -> None:
        self._raw.close()

    @contextmanager
    def copying_in(self, table: str, columns: Sequence[str]) -> Iterator[Callable[[Sequence[Any]], None]]:
        """Many rows into a table, by COPY: a call for each."""
        if (packed := _packed(table)) != table:
            with self.copying_in(packed, [name.strip('"') for name in COLUMNS]) as put:
                yield lambda row: put(packed_row(**dict(zip(columns, row, strict=True))))
            return
        names = ", ".join(f'"{column}"' for column in columns)
        with self._raw.cursor().copy(cast(Any, f"COPY {table} ({names}) FROM STDIN")) as copy:
            yield copy.write_row

    # --- the shared SQL -------------------------------------------------------------------------------------------

    def execute(self, sql: str, values: Values = ()) -> Rows:
        if not values:
            return self._raw.execute(cast(Any, sql))
        return self._raw.execute(cast(Any, translated(sql)), values)

    def executemany(self, sql: str, rows: Iterable[Values]) -> Rows:
        cursor = self._raw.cursor()
        cursor.executemany(cast(Any, translated(sql)), rows)
        return cursor

    def last(self, sql: str, values: Values = ()) -> None:
        self._last += self._as_text(sql, values) + ";"

    def together(self, queries: Sequence[tuple[str, Values]]) -> list[list[Any]]:
        # Each statement of a message sees what was committed before it.
        cursor = self._raw.execute(cast(Any, ";".join(self._as_text(*query) for query in queries)))
        found = [cursor.fetchall()]
        while cursor.nextset():
            found.append(cursor.fetchall())
        return found

    def _as_text(self, sql: str, values: Values) -> str:
        """A statement with its values as literals: a message of several statements takes no values."""
        return psycopg.ClientCursor(self._raw).mogrify(cast(Any, translated(sql)), values)

    def streamed(self, sql: str, values: Values = ()) -> Iterator[tuple[Any, ...]]:
        with self._raw.cursor("streamed") as cursor:
            cursor.itersize = STREAMED_ROWS
            cursor.execute(cast(Any, translated(sql) if values else sql), values or None)
            yield from cursor

    def records(self, sql: str, values: Values, dtype: np.dtype[np.void], /) -> np.ndarray:
        statement = f"COPY ({translated(sql)}) TO STDOUT (FORMAT binary)"
        with self._raw.cursor().copy(cast(Any, statement), values) as copy:
            return _records(b"".join(copy), dtype)

    def try_execute(self, sql: str, values: Values = ()) -> Rows:
        try:
            with self._raw.transaction():  # a savepoint: the error undoes this statement only
                return self.execute(sql, values)
        except errors.UniqueViolation as error:
            raise Taken from error
        except errors.ForeignKeyViolation as error:
            raise Refers from error

    def among(self, column: str, value: str) -> str:
        # A constant once the value is there, so the planner sees how many they are.
        return f"{column} = ANY (translate({value}::text, '[]', '{{}}')::bigint[])"

    def last_number(self, table: str) -> int:
        row = self.execute("SELECT last FROM numbers WHERE name = ?", (table,)).fetchone()
        if row is not None:
            return int(row[0])
        row = self.execute(
            "SELECT coalesce(pg_sequence_last_value(pg_get_serial_sequence(?, ?)), 0)",
            (table, f"{table[:-1]}_id"),
        ).fetchone()
        return int(row[0])

    def start_above(self, table: str, last: int) -> None:
        self.execute("UPDATE numbers SET last = ? WHERE name = ? AND last < ?", (last, table, last))

    gave_numbers = start_above

    def change_numbers(self, count: int) -> Sequence[int]:
        """A counter in a row, held until the transaction ends: a sequence would let a later number be seen first."""
        row = self.execute(
            "UPDATE numbers SET last = last + ? WHERE name = 'changes' RETURNING last", (count,)
        ).fetchone()
        return range(row[0] - count + 1, row[0] + 1)

    def forget_history(self, account: int) -> None:
        """By a function of the tables' owner: the service's own role may have no privilege to delete them."""
        self.execute("SELECT forget_history(?)", (account,))

    def exclude_commits(self) -> None:
        self.run(f"SELECT pg_advisory_xact_lock({DECISIONS_LOCK})")

    def exclude_devices(self, devices: Collection[int]) -> None:
        stripes = sorted({device % DEVICE_STRIPES for device in devices})
        locks = [DEVICES_LOCK + stripe for stripe in stripes]  # in order, so that no two wait for each other
        self.execute("SELECT pg_advisory_xact_lock(n) FROM unnest(?::bigint[]) AS n", (locks,))

    def overwrite_freed(self) -> None:
        """What it leaves is VACUUM's to take: sealed texts are worthless without their account's key."""

    @property
    def home_ms(self) -> str:
        return "CAST(floor(extract(epoch FROM clock_timestamp()) * 1000) AS BIGINT)"

    def larger(self, one: str, other: str) -> str:
        return f"greatest({one}, {other})"

    def joined(self, blob: str, more: str) -> str:
        return f"{blob} || {more}"

    def create_chunk_table(self, day: int) -> None:
        self.run(f"SELECT pg_advisory_xact_lock({TABLES_LOCK})")
        # A day that was closed and opened again: its old rows go, as they would have without a reader in the way.
        if self.execute("DELETE FROM unlisted WHERE name = ?", (f"chunks_{int(day)}",)).rowcount:
            self.run(drop_tables_of_day(day))
        if not has_table(self, f"chunks_{int(day)}"):
            self.run(tables_of_day(day))

    def drop_chunk_table(self, table: str) -> None:
        """To drop it here would wait for its readers, and all who write would wait for this."""
        self.execute("INSERT INTO unlisted (name) VALUES (?) ON CONFLICT DO NOTHING", (table,))

    def chunk_tables(self) -> set[str]:
        rows = self.execute(
            "SELECT viewname FROM pg_views WHERE schemaname = current_schema() AND viewname ~ '^chunks_[0-9]+$'"
            " AND viewname NOT IN (SELECT name FROM unlisted)"
        )
        return {row[0] for row in rows}

    def insert_chunks(self, table: str, rows: NewRows, careful: bool) -> Sequence[int]:
        if not careful:
            self._copy(_packed(table), rows)
            return ()
        statement = insert_where_free(_packed(table))
        inserted = {row[0] for row in self._raw.execute(cast(Any, statement), arrays(rows))}
        return [place for place, known_as in enumerate(places(rows)) if known_as not in inserted]

    def _copy(self, table: str, rows: NewRows) -> None:
        data = copied(rows)
        try:
            with self._raw.cursor().copy(cast(Any, copy_in(table))) as copy:
                copy.write(data)
        except errors.UniqueViolation as error:
            raise Taken from error
        except ValueError as error:
            # The server ended the connection in the midst of it: libpq then has two errors to tell, and psycopg
            # expects one result.
            self._raw.close()
            raise psycopg.OperationalError("the connection was lost while rows were copied") from error

    def move_chunks(self, table: str, old_id: int, new_id: int, moves: Sequence[Move]) -> Sequence[int]:
        statement = MOVE.format(table=_packed(table))
        columns = [list(column) for column in zip(*moves, strict=True)]
        return [row[0] for row in self._raw.execute(cast(Any, statement), [new_id, *columns, old_id])]


def has_table(connection: Connection, name: str) -> bool:
    """Whether there is a table or view of this name where the connection looks for one."""
    return connection.execute("SELECT to_regclass(?)", (name,)).fetchone()[0] is not None


def _packed(table: str) -> str:
    """The table behind the view that the shared SQL calls the chunk table."""
    return table.replace("chunks_", "packed_")


_COPY_HEAD_BYTES, _COPY_TAIL_BYTES = 19, 2


def _records(data: bytes, dtype: np.dtype[np.void]) -> np.ndarray:
    """The rows of COPY's binary format, of BIGINT columns without NULL: a count of columns, then each with its length
    (PostgreSQL's manual, COPY, *Binary Format*)."""
    names = dtype.names or ()
    row = np.dtype(
        [("columns", ">i2"), *(field for n in names for field in ((f"{n} bytes", ">i4"), (n, ">i8")))]
    )
    rows = np.frombuffer(memoryview(data)[_COPY_HEAD_BYTES : len(data) - _COPY_TAIL_BYTES], row)
    found = np.empty(len(rows), dtype)
    assert (rows["columns"] == len(names)).all(), "as many columns as the dtype has"
    for name in names:
        assert (rows[f"{name} bytes"] == 8).all(), "each is a BIGINT, and not NULL"
        found[name] = rows[name]
    return found


_PLACE = re.compile(r"'(?:[^']|'')*'|\?|(?<![:\w]):([a-z_]+)|%")


@lru_cache(maxsize=1024)
def translated(sql: str) -> str:
    """The shared SQL's `?` and `:name` as psycopg's `%s` and `%(name)s`. Strings stay as they are, `%` is doubled."""

    def place(found: re.Match[str]) -> str:
        text = found[0]
        if text == "?":
            return "%s"
        if text == "%" or text.startswith("'"):
            return text.replace("%", "%%")
        return f"%({found[1]})s"

    return _PLACE.sub(place, sql)
