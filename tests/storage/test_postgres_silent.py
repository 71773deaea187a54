"""A server that is there and does not answer, or answers that it can't: who waits is told within a bound, and why."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from storage.contracts.given import DAY, NOON, STORED, WEEK, Upload, add_device, commit
from storage.errors import CatalogUnavailable
from storage.postgres import PostgresCatalog, database
from storage.postgres.database import PostgresDatabase
from storage.postgres.vault_database import VaultDatabase
from storage.sql.connection import Connection, Excludes
from tests.servers.postgres import PostgresServer, any_binaries, new_database, postgres_server, with_template

ANSWER_S = 0.5
BOUND_S = 8.0
"""Far above what it takes, for machines that do other things too; far below for ever."""


@pytest.fixture(scope="module")
def own() -> Iterator[PostgresServer]:
    """A server of these tests' own, to be frozen and broken, with a database `template` that has a catalog."""
    with postgres_server(any_binaries()) as started:
        yield with_template(started)


_numbers = itertools.count()


@pytest.fixture
def url(own: PostgresServer) -> Iterator[str]:
    """Of a database with an empty catalog, on a server that runs again at the end."""
    with new_database(own, f"silent_{next(_numbers)}", template="template") as url:
        yield url
        own.resume()


def refused(call: Callable[[], object]) -> tuple[CatalogUnavailable, float]:
    """Why a call was refused, and after how many seconds."""
    began_s = time.monotonic()
    with pytest.raises(CatalogUnavailable) as caught:
        call()
    return caught.value, time.monotonic() - began_s


def test_a_frozen_server_is_given_up_and_taken_up_again(own: PostgresServer, url: str) -> None:
    with_one = PostgresCatalog.open(url, answer_s=ANSWER_S)
    _ = with_one.closed_through  # a connection that is idle now
    own.pause()
    for ask in (lambda: with_one.closed_through, with_one.require_writable):
        error, waited_s = refused(ask)
        assert waited_s < BOUND_S
    own.resume()
    with_one.require_writable()
    assert with_one.closed_through == 0
    with_one.close()
    assert "frozen" in error.detail or "can be reached" in error.detail


def test_a_server_that_freezes_inside_a_write(own: PostgresServer, url: str) -> None:
    """The answer is lost, and what was sent may still be done; the next write is another."""
    db = PostgresDatabase(url, answer_s=ANSWER_S)

    def freezes(connection: Connection) -> None:
        connection.execute("UPDATE numbers SET last = last + 1 WHERE name = 'devices'")
        own.pause()
        connection.execute("SELECT 1")

    error, waited_s = refused(lambda: db.write(freezes))
    assert waited_s < BOUND_S
    assert "has not answered for 0.5 s; look for a server that is frozen" in error.detail
    own.resume()
    with db.read() as connection:
        assert connection.execute("SELECT last FROM numbers WHERE name = 'devices'").fetchone() == (0,)
    db.write(lambda c: c.execute("UPDATE numbers SET last = 7 WHERE name = 'devices'"))
    db.close()


def test_keys_are_not_waited_for_either(own: PostgresServer, url: str) -> None:
    vault = VaultDatabase(url, answer_s=ANSWER_S)
    vault.making(lambda _: None)
    own.pause()
    began_s = time.monotonic()
    with pytest.raises(Exception, match=r"has not answered|timeout expired"):
        vault.making(lambda _: None)
    assert time.monotonic() - began_s < BOUND_S
    own.resume()
    vault.making(lambda _: None)
    vault.close()


def test_what_takes_its_time_is_waited_for(url: str) -> None:
    db = PostgresDatabase(url, answer_s=ANSWER_S)
    with db.hold() as connection:
        connection.take_its_time()  # type: ignore[attr-defined]
        connection.execute("SELECT pg_sleep(1)")
    with pytest.raises(CatalogUnavailable), db.hold() as connection:
        connection.execute("SELECT pg_sleep(1)")
    db.close()


def test_who_reads_objects_between_two_rows_is_waited_for(url: str) -> None:
    """As `check --deep` does: the server ended its transaction after half a minute of that."""
    catalog = PostgresCatalog.open(url, answer_s=ANSWER_S)
    device = add_device(catalog, WEEK)
    assert commit(catalog, Upload(device, NOON), Upload(device, NOON + 1)) == [STORED, STORED]
    rows = catalog.day_rows(DAY + WEEK + 1)
    first = next(rows)
    time.sleep(3 * ANSWER_S)
    assert [row.capture_ms for row in (first, *rows)] == [NOON, NOON + 1]
    catalog.close()


def test_a_standby_can_be_read_and_is_not_taken_for_healthy(own: PostgresServer, url: str) -> None:
    own.stop()
    signal = own.data / "standby.signal"
    signal.touch()
    own.start()
    catalog = PostgresCatalog.open(url)
    assert catalog.closed_through == 0
    error, _ = refused(catalog.require_writable)
    assert "this server is a standby" in error.detail
    with psycopg.connect(own.url(), autocommit=True) as operator:
        operator.execute("SELECT pg_promote()")
    catalog.require_writable()
    catalog.close()


def test_writes_that_are_switched_off(own: PostgresServer, url: str) -> None:
    """As a failover tool does to the old primary."""
    catalog = PostgresCatalog.open(url)
    with psycopg.connect(own.url(), autocommit=True) as operator:
        operator.execute("ALTER SYSTEM SET default_transaction_read_only = on")
        operator.execute("SELECT pg_reload_conf()")
        time.sleep(0.2)
        catalog.require_writable()  # it asks for what it needs: only a standby refuses that
        operator.execute("ALTER SYSTEM RESET default_transaction_read_only")
        operator.execute("SELECT pg_reload_conf()")
    catalog.close()


def test_all_connections_taken_is_said(own: PostgresServer, url: str) -> None:
    with psycopg.connect(own.url(), autocommit=True) as operator:
        operator.execute("ALTER SYSTEM SET max_connections = 5")
        operator.execute("ALTER SYSTEM SET max_wal_senders = 0")
        operator.execute("ALTER SYSTEM SET superuser_reserved_connections = 0")
    own.stop()
    own.start()
    catalog = PostgresCatalog.open(url)
    others = [psycopg.connect(url) for _ in range(4)]
    _ = catalog.closed_through  # its own connection is kept
    more = PostgresDatabase(url)
    error, waited_s = refused(lambda: more.write(lambda _: None))
    assert "all its connections are taken" in error.detail
    assert waited_s < BOUND_S
    others.pop().close()
    more.write(lambda _: None)
    for other in others:
        other.close()
    more.close()
    catalog.close()
    with psycopg.connect(own.url(), autocommit=True) as operator:
        operator.execute("ALTER SYSTEM RESET ALL")
    own.stop()
    own.start()


def test_all_connections_are_closed_by_the_server_again_and_again(own: PostgresServer, url: str) -> None:
    """One write happens once, with a failover between its statements."""
    db = PostgresDatabase(url)
    ends = 3

    def counts(connection: Connection) -> None:
        nonlocal ends
        connection.execute("UPDATE numbers SET last = last + 1 WHERE name = 'devices'")
        if ends:
            ends -= 1
            with psycopg.connect(own.url(), autocommit=True) as operator:
                operator.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE backend_type = 'client backend' AND pid != pg_backend_pid()"
                )

    db.write(counts, Excludes.DECISIONS)
    with db.read() as connection:
        assert connection.execute("SELECT last FROM numbers WHERE name = 'devices'").fetchone() == (1,)
    db.close()


@pytest.mark.parametrize("code", ["40001", "40P01"])
def test_what_the_server_takes_back_is_done_again_and_given_up_in_time(url: str, code: str) -> None:
    db = PostgresDatabase(url)
    tries = 0

    def taken_back(connection: Connection, times: int) -> int:
        nonlocal tries
        tries += 1
        if tries <= times:
            connection.execute(f"DO $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '{code}'; END $$")
        return tries

    assert db.write(lambda connection: taken_back(connection, 3)) == 4
    tries = 0
    error, waited_s = refused(lambda: db.write(lambda connection: taken_back(connection, 100)))
    assert tries == database.TRIES
    assert waited_s < BOUND_S
    assert "try again" in error.detail
    db.close()


def test_writes_are_probed_on_sqlite_too(tmp_path: Path) -> None:
    from storage.sqlite import SqliteCatalog

    SqliteCatalog.create(tmp_path / "catalog.db").close()
    catalog = SqliteCatalog.open(tmp_path / "catalog.db")
    catalog.require_writable()
    with catalog.db.hold() as connection:
        connection.execute("PRAGMA query_only = ON")
    assert catalog.closed_through == 0
    error, _ = refused(catalog.require_writable)
    assert error.code == "catalog_unavailable"
    catalog.close()
