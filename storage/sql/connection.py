"""What the shared SQL of the catalog asks of an engine: a connection, its transactions, and what no common SQL says.

The SQL in this room is what SQLite and PostgreSQL both understand: `?` or `:name` for values, RETURNING for numbers
that the database gives, ON CONFLICT for what is there already, FILTER for conditional counts. Booleans are integers,
0 or 1. The few things that differ are methods of `Connection`.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from enum import Enum
from typing import Any, Concatenate, NamedTuple, ParamSpec, Protocol, TypeVar

import numpy as np

from storage.sql.newrows import NewRows

Values = Sequence[Any] | Mapping[str, Any]

P = ParamSpec("P")
R = TypeVar("R")


class Rows(Protocol):
    """What a statement gave."""

    @property
    def rowcount(self) -> int:
        """How many rows a change touched; of `executemany`, all of its statements together."""

    def fetchone(self) -> Any: ...

    def fetchall(self) -> list[Any]: ...

    def __iter__(self) -> Iterator[Any]: ...


class Move(NamedTuple):
    """Where a chunk row points, and where it shall."""

    device: int
    capture_ms: int
    old_ordinal: int
    new_ordinal: int
    new_offset: int


class Connection(Protocol):
    """One connection inside one transaction. It belongs to one thread at a time."""

    def execute(self, sql: str, values: Values = (), /) -> Rows: ...

    def executemany(self, sql: str, rows: Iterable[Values], /) -> Rows: ...

    def last(self, sql: str, values: Values = ()) -> None:
        """Execute a change now or with the end of the transaction: nothing that follows in it looks at its outcome, or
        at what it changes."""

    def together(self, queries: Sequence[tuple[str, Values]]) -> list[list[Any]]:
        """The rows of each of several queries, whose values are numbers and plain text, in one round trip where the
        engine is behind one."""

    def streamed(self, sql: str, values: Values = ()) -> Iterator[tuple[Any, ...]]:
        """The rows of a query as they come: they need not be in memory together. One at a time in a transaction."""

    def records(self, sql: str, values: Values, dtype: np.dtype[np.void], /) -> np.ndarray:
        """(n,) of `dtype`: what a query gave whose columns are BIGINT and never NULL. For many rows: an object
        for each would be dear.

        Args:
            dtype: one "<i8" for each column.
        """

    def try_execute(self, sql: str, values: Values = ()) -> Rows:
        """Execute one change that constraints may refuse; refused, it leaves the transaction usable.

        Raises:
            Taken: another row has a value that is unique.
            Refers: a row that this one refers to does not exist, or rows refer to the one that should go.
        """

    def among(self, column: str, value: str) -> str:
        """SQL for whether a column is one of the numbers in a JSON array. `value`: the placeholder of the array, as
        text."""

    def last_number(self, table: str) -> int:
        """The highest number ever given to a row of `devices`, `plans`, `payments`, `notices` or `segments`, 0 before
        the first."""

    def start_above(self, table: str, last: int) -> None:
        """Give no number up to `last` to a row of this table any more."""

    def gave_numbers(self, table: str, last: int) -> None:
        """Note that rows with explicit numbers up to `last` were inserted."""

    def change_numbers(self, count: int) -> Sequence[int | None]:
        """Numbers for so many new rows of the change log, without gaps and in the order in which they are committed:
        who reads the log up to a number has all that will ever be at or below it. None: the database gives it."""

    def forget_history(self, account: int) -> None:
        """Remove the events and acceptances of an account, which must be cancelled: nothing else removes any."""

    def exclude_commits(self) -> None:
        """From here to the end of the transaction no chunks are committed: for changes of what a commit decides by.
        Waits for the commits that are under way. To be called before such a change is written."""

    def exclude_devices(self, devices: Collection[int]) -> None:
        """From here to the end of the transaction, keep out others that called this with one of these devices, and
        perhaps with another one. To be called once in a transaction."""

    def take_its_time(self) -> None:
        """To the end of this transaction nothing is given up for being slow, nor for a pause between two statements:
        for what reads or writes whole tables."""

    def overwrite_freed(self) -> None:
        """From here to the end of the transaction, overwrite what deleted rows leave in the files, where the engine
        can."""

    def create_chunk_table(self, day: int) -> None:
        """Make a day's chunk table where it is missing, clustered or indexed by device and time."""

    def drop_chunk_table(self, table: str) -> None:
        """Let go of a table that no longer is in `days`, in this transaction or soon after it: an engine that would
        have to wait for readers of it notes it for `Database.drop_unlisted`."""

    def chunk_tables(self) -> set[str]:
        """The names of all chunk tables that exist, listed as days or not, less those that `drop_chunk_table` let go
        of."""

    def insert_chunks(self, table: str, rows: NewRows, careful: bool) -> Sequence[int]:
        """Insert rows where no row of their device and time is. Returns the places in `rows` of the others.

        Raises:
            Taken: there are others, and `careful` is false. The transaction can't go on.
        """

    def move_chunks(self, table: str, old_id: int, new_id: int, moves: Sequence[Move]) -> Sequence[int]:
        """Point the rows that still are those of a segment at another one. Returns the new ordinals of those moved."""

    @property
    def locking(self) -> str:
        """What ends a SELECT whose rows nobody else may change before this transaction ends."""

    @property
    def home_ms(self) -> str:
        """SQL for what home's clock says now, Unix milliseconds."""

    def larger(self, one: str, other: str) -> str:
        """SQL for the larger of two numbers."""

    def joined(self, blob: str, more: str) -> str:
        """SQL for a BLOB followed by another one."""


class Excludes(Enum):
    """What a write transaction keeps out while it lasts. SQLite has one writer, so there each keeps out all."""

    NOTHING = "nothing"
    """Others may write beside it: it adds rows, or changes rows that it has locked."""
    DECISIONS = "decisions"
    """Changes of what a commit decides by, which `Connection.exclude_commits` begins: for commits."""
    WRITERS = "writers"
    """Every other transaction of this kind."""


class Taken(Exception):
    """A unique value is another row's."""


class Refers(Exception):
    """A reference to a row that does not exist, or from a row that still does."""


class Database(ABC):
    """A catalog's database: transactions, and errors in the words of `storage.errors`."""

    @property
    @abstractmethod
    def subject(self) -> str:
        """What errors name: a file, or a server and database without a password."""

    @abstractmethod
    def read(self) -> AbstractContextManager[Connection]:
        """A read transaction: everything read inside is of one moment."""

    @abstractmethod
    def write(self, work: Callable[[Connection], R], excludes: Excludes = Excludes.WRITERS) -> R:
        """Do `work` in a write transaction, durable when this returns, undone when it raises.

        Args:
            work: may be called again after a try that the engine took back, so it changes nothing but the database.
        """

    @abstractmethod
    def make_days_ready(self, days: Collection[int]) -> None:
        """Make the chunk tables of these expiry days before a commit needs them, where the engine makes tables in
        transactions of their own."""

    @abstractmethod
    def drop_unlisted(self) -> int:
        """Drop the tables that `Connection.drop_chunk_table` noted, where nobody reads them now. Returns how many are
        left for a later call. Nobody waits for it."""

    @abstractmethod
    def hold(self) -> AbstractContextManager[Connection]:
        """A write transaction as a block, which is never tried again: for a step outside of the database that must
        see a row held."""

    @abstractmethod
    def cut_log(self) -> bool:
        """Cut what the engine's log holds of earlier versions of rows, where that can be done now. Returns whether
        nothing is left to cut."""

    @abstractmethod
    def require_files(self) -> None:
        """See `Catalog.require_files`."""

    @abstractmethod
    def require_writable(self) -> None:
        """See `Catalog.require_writable`."""

    @abstractmethod
    def damage(self) -> list[str]:
        """See `Catalog.damage`."""

    @abstractmethod
    def unlooked(self) -> list[str]:
        """See `Catalog.unlooked`."""

    @abstractmethod
    def close(self) -> None:
        """Close the connections. Transactions under way end first; a later one is refused."""


UNBOUNDED = (1 << 62) - 1


def bounded(limit: int) -> int:
    """A LIMIT for "at most so many, all when negative": only SQLite takes a negative one."""
    return limit if limit >= 0 else UNBOUNDED


class HasDatabase(Protocol):
    @property
    def db(self) -> Database: ...


S = TypeVar("S", bound=HasDatabase)


def writing(
    excludes: Excludes = Excludes.WRITERS,
) -> Callable[[Callable[Concatenate[S, Connection, P], R]], Callable[Concatenate[S, P], R]]:
    """A method of the catalog that is one write transaction: called without the connection, which it is given. It may
    run twice: see `Database.write`."""

    def decorate(method: Callable[Concatenate[S, Connection, P], R]) -> Callable[Concatenate[S, P], R]:
        @functools.wraps(method)
        def call(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
            return self.db.write(lambda connection: method(self, connection, *args, **kwargs), excludes)

        return call

    return decorate
