"""The catalogs of test worlds: SQLite, or with CLIPKEEP_TEST_CATALOG=postgresql a database for each folder.

A test process has one PostgreSQL server, started when the first world asks and ended with the process. Processes that
it starts use the same. The database of a folder is found again by the folder's path, so that a world may be looked at
by the next one, as after a crash; the oldest are dropped when there are many.
"""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import sqlite3
from collections import OrderedDict
from contextlib import ExitStack, closing
from hashlib import blake2b
from pathlib import Path

import psycopg
import pytest

from storage.catalog import Catalog
from storage.open_catalog import SQLITE, create_catalog, open_catalog
from storage.vault import Vault
from tests.servers.postgres import any_binaries, postgres_server, with_template

ENGINE = "CLIPKEEP_TEST_CATALOG"
_SERVER = "CLIPKEEP_TEST_POSTGRES"
"""The address of the server, for the processes that a test starts."""
MOST_DATABASES = 24
"""Far more than one test has worlds; each takes 8 MB."""
_MEMORY = Path("/dev/shm")
ROOM_BYTES = 2 << 30
"""More than a server needs: its databases, its log and a copy of its programs take 800 MB at most."""
_databases: OrderedDict[str, None] = OrderedDict()


def on_postgres() -> bool:
    """Whether the worlds of this run have their catalogs on PostgreSQL."""
    return os.environ.get(ENGINE, SQLITE) == "postgresql"


sqlite_only = pytest.mark.skipif(on_postgres(), reason="it is about the files of SQLite")


@functools.cache
def server_url() -> str:
    """Of a running server's maintenance database."""
    if (known := os.environ.get(_SERVER)) is not None:
        return known
    stack = ExitStack()
    settings = {"max_connections": "300", "max_wal_size": "256MB"}
    started = stack.enter_context(postgres_server(any_binaries(), settings, parent=_memory()))
    owner = os.getpid()
    atexit.register(lambda: stack.close() if os.getpid() == owner else None)
    url = os.environ[_SERVER] = started.url()
    with psycopg.connect(started.url("template1"), autocommit=True) as operator:
        operator.execute(
            "CREATE EXTENSION amcheck"
        )  # all databases have it: `check --deep` looks into their tables
    with_template(started)
    return url


def _memory() -> Path | None:
    """A folder in memory, if there is one with room. A server that `init` takes has fsync on, and these tests would
    wait for that most."""
    if not os.access(_MEMORY, os.W_OK) or shutil.disk_usage(_MEMORY).free < ROOM_BYTES:
        return None
    return _MEMORY


def address_of(folder: Path) -> str:
    """The address of a folder's catalog, whether that is made yet or not."""
    return _database_url(_name_of(folder)) if on_postgres() else SQLITE


def home_settings(folder: Path) -> str:
    """What a folder's config.toml says of its catalog."""
    return f'[home]\ncatalog = "{address_of(folder)}"\n' if on_postgres() else ""


def empty_address(folder: Path) -> str:
    """The address for an `init` of this folder: on PostgreSQL, of an empty database that is made for it."""
    return empty_database(folder) if on_postgres() else SQLITE


def empty_database(folder: Path) -> str:
    """The address of an empty database that is made for this folder, whatever engine this run is on."""
    server_url()
    _make(_name_of(folder), "template1")
    return _database_url(_name_of(folder))


def make_catalog(folder: Path, vault: Vault | None, *, keep: bool = False) -> Catalog:
    """A folder's catalog, made and open.

    Args:
        keep: for one that very many others are copied from; it goes with the server.
    """
    if not on_postgres():
        return create_catalog(SQLITE, folder / "catalog.db", vault)
    server_url()
    _make(_name_of(folder), "template", counted=not keep)
    catalog = catalog_of(folder, vault)
    if vault is not None:
        # The template was made without a vault: it has ids of keys.
        vault.make_account_keys([row.key_id for row in catalog.account_keys()], now_ms=0)
    return catalog


def catalog_of(folder: Path, vault: Vault | None = None) -> Catalog:
    """A folder's catalog, open."""
    return open_catalog(address_of(folder), folder / "catalog.db", vault)


def impatient_catalog_of(folder: Path) -> Catalog:
    """A folder's catalog, opened by one who waits 10 ms for another's transaction."""
    from storage.postgres import PostgresCatalog
    from storage.sqlite import SqliteCatalog

    if on_postgres():
        return PostgresCatalog.open(address_of(folder), lock_timeout_ms=10)
    return SqliteCatalog.open(folder / "catalog.db", busy_timeout_s=0.01)


def drop_catalog(folder: Path) -> None:
    """Let go of the database of a folder that `copy_catalog` made to be kept."""
    if on_postgres():
        with psycopg.connect(server_url(), autocommit=True) as connection:
            connection.execute(f"DROP DATABASE IF EXISTS {_name_of(folder)} (FORCE)")


def copy_catalog(source: Path, target: Path, *, keep: bool = False) -> None:
    """Let the folder `target` have the catalog that `source` has now, as a backup that is put back does. Nobody may
    have either open.

    Args:
        keep: for one of very many; the caller drops it.
    """
    if on_postgres():
        _make(_name_of(target), _name_of(source), counted=not keep)
        return
    for suffix in ("", "-wal", "-shm"):
        (target / f"catalog.db{suffix}").unlink(missing_ok=True)
    with (
        closing(sqlite3.connect(source / "catalog.db")) as old,
        closing(sqlite3.connect(target / "catalog.db")) as new,
    ):
        old.backup(new)


def copy_home(source: Path, target: Path) -> None:
    """Let the folder `target`, into which all files of `source` were copied, have a catalog of its own. Nobody may have
    the one of `source` open."""
    if on_postgres():
        copy_catalog(source, target)
        config = target / "config.toml"
        named = config.read_text()
        assert address_of(source) in named
        config.write_text(named.replace(address_of(source), address_of(target)))


def _name_of(folder: Path) -> str:
    return "world_" + blake2b(str(folder.absolute()).encode(), digest_size=12).hexdigest()


def _database_url(name: str) -> str:
    return server_url().rpartition("/")[0] + "/" + name


def _make(name: str, template: str, *, counted: bool = True) -> None:
    """Make a database, in place of one of this name; one that is not counted stays until it is dropped."""
    with psycopg.connect(server_url(), autocommit=True) as connection:
        for old in [name, *list(_databases)[: max(0, len(_databases) - MOST_DATABASES)]]:
            connection.execute(f"DROP DATABASE IF EXISTS {old} (FORCE)")
            _databases.pop(old, None)
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (template,)
        )
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
    if counted:
        _databases[name] = None
