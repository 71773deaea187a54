"""Connections that break at every statement of a write, and exactly at its COMMIT: one outcome, once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from storage.catalog import Catalog
from storage.contracts.given import DAY, NOON, NOW, STORED, WEEK, Upload, add_device, commit, segments
from storage.errors import CatalogUnavailable
from storage.postgres import PostgresCatalog
from storage.rows.devices import PlanRow
from storage.sql.connection import Connection, Excludes
from tests.servers.cutting import Cut, CuttingProxy
from tests.servers.postgres import PostgresServer, any_binaries, postgres_server


@pytest.fixture
def proxy(postgres: PostgresServer) -> Iterator[CuttingProxy]:
    proxy = CuttingProxy(postgres.port)
    yield proxy
    proxy.close()


@pytest.fixture
def catalog(url: str, proxy: CuttingProxy, postgres: PostgresServer) -> Iterator[PostgresCatalog]:
    catalog = PostgresCatalog.open(url.replace(f":{postgres.port}/", f":{proxy.port}/"))
    yield catalog
    assert list(catalog.broken_rows()) == []
    catalog.close()


def add_one(catalog: Catalog) -> int:
    plan = PlanRow(0, "monthly", DAY, None, WEEK)
    return catalog.add_devices(1, account=1, plans=[plan], now_ms=NOW)[0].device


def test_a_connection_that_ends_within_a_copy_with_two_errors(
    catalog: PostgresCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """psycopg expects one result of a COPY, and says so with a ValueError."""
    device, real, calls = add_device(catalog, WEEK), psycopg._copy.copy_end, []

    def two_results(pgconn: Any, error: bytes | None) -> Any:
        calls.append(error)
        if len(calls) == 1:
            raise ValueError("too many values to unpack (expected 1)")
        return real(pgconn, error)

    monkeypatch.setattr(psycopg._copy, "copy_end", two_results)
    assert commit(catalog, Upload(device, NOON)) == [STORED]
    assert len(calls) == 2, "it was done again on another connection"


def is_commit(messages: bytes) -> bool:
    return b"COMMIT\0" in messages


@pytest.mark.parametrize("how", [Cut.BEFORE, Cut.AFTER])
def test_cut_at_every_statement_a_write_happens_once(
    catalog: PostgresCatalog, proxy: CuttingProxy, how: Cut
) -> None:
    assert add_one(catalog) == 1
    for turn in range(100):
        proxy.cut_at(how, turn)
        assert add_one(catalog) == turn + 2
        if not proxy.has_cut:
            break
        assert len(catalog.devices()) == catalog.newest_change() == turn + 2
    proxy.stop_cutting()
    assert turn > 8, "it went through all of its statements"


@pytest.mark.parametrize("how", [Cut.BEFORE, Cut.AFTER])
def test_cut_at_every_statement_a_commit_of_chunks_happens_once(
    catalog: PostgresCatalog, proxy: CuttingProxy, how: Cut
) -> None:
    device = add_device(catalog, WEEK)
    assert commit(catalog, Upload(device, NOON)) == [STORED]
    for turn in range(100):
        proxy.cut_at(how, turn)
        assert commit(catalog, Upload(device, NOON + 1 + turn)) == [STORED]
        if not proxy.has_cut:
            break
    proxy.stop_cutting()
    assert turn > 5
    assert len(catalog.chunks(device, 0, 1 << 50, limit=1000)) == turn + 2
    # A block of keys that was prepared once more than it was told would only be reclaimed later: here none was.
    assert len(segments(catalog)) == turn + 2


def test_a_try_waits_for_the_backend_that_still_commits_the_one_before(
    catalog: PostgresCatalog, proxy: CuttingProxy, url: str
) -> None:
    add_one(catalog)
    proxy.cut(Cut.LATE, is_commit)
    with ThreadPoolExecutor(1) as thread, psycopg.connect(url, autocommit=True) as watching:
        adding = thread.submit(add_one, catalog)
        while not watching.execute("SELECT EXISTS (SELECT 1 FROM pg_locks WHERE NOT granted)").fetchone()[0]:  # type: ignore[index]
            threading.Event().wait(0.01)
        assert not adding.done()
        proxy.release()
        assert adding.result() == 2
    assert len(catalog.devices()) == 2


def test_the_first_trys_answer_counts(catalog: PostgresCatalog, proxy: CuttingProxy) -> None:
    calls = []

    def work(connection: Connection) -> int:
        calls.append(1)
        connection.execute("INSERT INTO meta VALUES ('tried', 1)")
        return len(calls)

    proxy.cut(Cut.AFTER, is_commit)
    assert catalog.db.write(work) == 1
    assert len(calls) == 1, "committed, so it is not done again"


@pytest.mark.parametrize("excludes", Excludes)
def test_a_deadlock_is_tried_again(catalog: PostgresCatalog, excludes: Excludes, url: str) -> None:
    """Whoever the server takes for the one to undo."""
    numbers = [add_one(catalog), add_one(catalog)]
    first = threading.Event()
    tries = []

    def work(connection: Connection) -> None:
        tries.append(1)
        if len(tries) > 1:  # else it may take the row before the other side, which waits for it, wakes up
            assert other_is_done.wait(30)
        connection.execute("UPDATE devices SET used_on = used_on + 1 WHERE device = ?", (numbers[0],))
        first.set()
        if len(tries) == 1:
            other_waits.wait(30)
        connection.execute("UPDATE devices SET used_on = used_on + 1 WHERE device = ?", (numbers[1],))

    other_waits, other_is_done = threading.Event(), threading.Event()
    with ThreadPoolExecutor(1) as thread, psycopg.connect(url) as other:
        other.execute("SET deadlock_timeout = '60 s'")  # so that the other side is the one to be undone
        written = thread.submit(catalog.db.write, work, excludes)
        assert first.wait(30)
        other.execute("UPDATE devices SET used_on = used_on + 100 WHERE device = %s", (numbers[1],))
        other_waits.set()
        other.execute("UPDATE devices SET used_on = used_on + 100 WHERE device = %s", (numbers[0],))
        other.commit()
        other_is_done.set()
        written.result()
    assert len(tries) == 2
    with catalog.db.read() as connection:
        found = connection.execute("SELECT used_on FROM devices").fetchall()
    assert [tuple(row) for row in found] == [(101,), (101,)]


def test_rows_of_tries_are_few_and_those_of_processes_that_are_gone_go(
    catalog: PostgresCatalog, url: str
) -> None:
    for _ in range(10):
        add_one(catalog)
    with psycopg.connect(url, autocommit=True) as connection:
        [count] = connection.execute("SELECT count(*) FROM tries").fetchone() or ()
        assert count == 1, "one writer at a time has one row"
        connection.execute("UPDATE tries SET used_on = used_on - 3")
        other = PostgresCatalog.open(url)
        add_one(other)
        other.close()
        [count] = connection.execute("SELECT count(*) FROM tries").fetchone() or ()
        assert count == 1, "the old one went, the new one came"
    assert add_one(catalog) == 12, "whose row went meanwhile makes it anew"


def test_a_server_killed_at_a_commit_loses_nothing_that_was_acknowledged() -> None:
    with postgres_server(any_binaries(), {"shared_buffers": "32MB"}) as server:
        catalog = PostgresCatalog.create(server.url())
        device = add_device(catalog, WEEK)
        acknowledged: set[int] = set()
        refusals: list[str] = []
        stop = threading.Event()

        def upload(first_ms: int) -> None:
            at = first_ms
            while not stop.is_set():
                at += 1
                try:
                    if commit(catalog, Upload(device, at)) == [STORED]:
                        acknowledged.add(at)
                except CatalogUnavailable as error:
                    refusals.append(str(error))
                    stop.wait(0.05)

        with ThreadPoolExecutor(4) as threads:
            uploading = [threads.submit(upload, NOON + 1_000_000 * n) for n in range(4)]
            for turn in range(1, 4):
                while len(acknowledged) < 40 * turn:
                    stop.wait(0.01)
                server.kill()
                stop.wait(0.2)
                server.start()
            enough = len(acknowledged) + 40
            while len(acknowledged) < enough:
                stop.wait(0.01)
            stop.set()
            for each in uploading:
                each.result()
        found = {row.capture_ms for row in catalog.chunks(device, 0, 1 << 50, limit=100_000)}
        assert acknowledged <= found
        assert all("try" in said for said in refusals), "each says what to do"
        assert list(catalog.broken_rows()) == []
        catalog.close()
