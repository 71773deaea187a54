"""What several files of this room stand on."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from storage.postgres import PostgresCatalog
from storage.postgres.privileges import grant
from storage.sqlite import SqliteCatalog
from tests.servers.postgres import PostgresServer, any_binaries, new_database, postgres_server, with_template
from tests.storage.raw_server import RawServer


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Of a new catalog."""
    SqliteCatalog.create(tmp_path / "catalog.db").close()
    return tmp_path / "catalog.db"


@pytest.fixture
def catalog(path: Path) -> Iterator[SqliteCatalog]:
    """The one at `path`; sound at the end."""
    catalog = SqliteCatalog.open(path)
    yield catalog
    assert list(catalog.broken_rows()) == []
    catalog.close()


@pytest.fixture
def server() -> Iterator[RawServer]:
    """A server that answers what a test says."""
    server = RawServer()
    yield server
    server.close()


_numbers = itertools.count()


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A server with a database `template` that has an empty catalog."""
    with postgres_server(any_binaries()) as started:
        yield with_template(started)


@pytest.fixture
def url(postgres: PostgresServer) -> Iterator[str]:
    """Of a database with an empty catalog."""
    with new_database(postgres, f"catalog_{next(_numbers)}", template="template") as url:
        yield url


@pytest.fixture
def postgres_url(postgres: PostgresServer) -> str:
    """Of a database that stays empty."""
    return postgres.url()


@pytest.fixture
def database_url(postgres: PostgresServer) -> Iterator[str]:
    """Of a new, empty database."""
    with new_database(postgres, f"empty_{next(_numbers)}") as url:
        yield url


OWNER, SERVICE = "clip_owner", "clip service"
"""The second one has a blank in it: names are quoted."""


def url_of(url: str, user: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=f"{user.replace(' ', '%20')}:p@{parts.hostname}:{parts.port}").geturl()


@pytest.fixture(scope="session")
def roles(postgres: PostgresServer) -> None:
    with psycopg.connect(postgres.url(), autocommit=True) as connection:
        for role in (OWNER, SERVICE, "stranger"):
            connection.execute(f"CREATE ROLE \"{role}\" LOGIN PASSWORD 'p'".encode())
        connection.execute(f'GRANT "{SERVICE}" TO {OWNER}'.encode())


@pytest.fixture
def owner_url(roles: None, database_url: str) -> str:
    """Of a catalog that its owner made, who is no superuser."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {connection.info.dbname} OWNER TO {OWNER}".encode())
    url = url_of(database_url, OWNER)
    PostgresCatalog.create(url).close()
    return url


@pytest.fixture
def service_url(owner_url: str) -> str:
    grant(owner_url, SERVICE)
    return url_of(owner_url, SERVICE)
