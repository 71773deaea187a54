"""What a server's settings promise, by table and by a real server."""

from __future__ import annotations

import psycopg
import pytest

from storage.postgres import PostgresDatabase
from storage.postgres.promise import promise_of
from storage.promise import Survives

SAFE = {
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "synchronous_standby_names": "",
    "wal_level": "replica",
}


@pytest.mark.parametrize(
    ("changed", "survives", "says"),
    [
        ({}, Survives.MACHINE_CRASH, "without a synchronous standby"),
        ({"wal_level": "minimal"}, Survives.MACHINE_CRASH, "wal_level is minimal"),
        ({"fsync": "off"}, Survives.SERVER_CRASH, "fsync is off"),
        ({"full_page_writes": "off"}, Survives.SERVER_CRASH, "full_page_writes is off"),
        ({"synchronous_commit": "off"}, Survives.NOTHING, "synchronous_commit is off"),
        (
            {"synchronous_commit": "off", "synchronous_standby_names": "b"},
            Survives.NOTHING,
            "synchronous_commit is off",
        ),
        ({"synchronous_standby_names": "b"}, Survives.PRIMARY_LOSS, "disk of a synchronous standby"),
        ({"synchronous_standby_names": " "}, Survives.MACHINE_CRASH, "without a synchronous standby"),
        (
            {"synchronous_standby_names": "b", "synchronous_commit": "remote_write"},
            Survives.PRIMARY_LOSS,
            "memory of a synchronous standby",
        ),
        (
            {"synchronous_standby_names": "b", "synchronous_commit": "local"},
            Survives.MACHINE_CRASH,
            "synchronous_commit is local",
        ),
        ({"synchronous_standby_names": "b", "fsync": "off"}, Survives.SERVER_CRASH, "fsync is off"),
    ],
)
def test_what_settings_promise(changed: dict[str, str], survives: Survives, says: str) -> None:
    promise = promise_of({**SAFE, **changed})
    assert promise.survives is survives
    assert says in promise.said


def test_the_settings_are_those_of_this_database_and_user(url: str) -> None:
    """Which need not be the server's."""
    database = PostgresDatabase(url)
    assert database.promise().survives is Survives.SERVER_CRASH, "the tests' server does not sync"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {connection.info.dbname} SET synchronous_commit = off")
    database.close()
    database = PostgresDatabase(url)
    assert database.promise().survives is Survives.NOTHING
    database.close()
