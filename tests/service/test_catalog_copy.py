"""`clipkeep catalog copy`: the whole of a filled catalog goes to PostgreSQL, is compared, and comes back only while
nothing was written there."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest

from service.config_file import with_value
from service.folder import open_folder
from storage.contracts.blocks import writing_books
from storage.copy_catalog import copy_catalog
from storage.errors import CallerError, WorldError
from storage.keys import KeyStore
from storage.open_catalog import open_catalog
from storage.rows.accounts import AccountRow
from storage.sqlite.sealing_off import held_alone, seal_off
from tests.retention.world import NOON, World
from tests.servers.catalogs import empty_database, on_postgres
from tests.service.test_cli import Run, run

__all__ = ["run"]
pytestmark = pytest.mark.skipif(on_postgres(), reason="it goes from SQLite to PostgreSQL by itself")


@pytest.fixture
def url(tmp_path: Path) -> str:
    return empty_database(tmp_path / "data")


@pytest.fixture
def filled(tmp_path: Path, run: Run) -> Path:
    """Devices, plans, an account, recordings of several days, deleted ones, an erased device, a sweep's tombstones."""
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    (data / "config.toml").write_text("# mine\n")
    with World(data, local=True) as world:
        devices = [world.add() for _ in range(4)]
        for at in range(6):
            world.keep([(device, NOON + at * 4000) for device in devices])
        world.keep([(devices[0], NOON + 100_000)], expires_on=20_700)
        moment = {"now_ms": world.clock.ms, "delete_after_ms": world.clock.ms}
        world.catalog.delete_range(devices[1], NOON, NOON + 4001, reason="test", who="test", **moment)
        with writing_books(world.catalog, now_ms=NOON) as books:
            books.add_account(AccountRow(0, "owner", "Ada Ünïcode", NOON))
        world.terminate(devices[3], erase=True)
        world.sweep().run()
    return data


def everything(catalog: Any) -> list[object]:
    with catalog.books() as books:
        accounts = books.account(2)
    return [
        catalog.devices(),
        [list(catalog.chunks(d.device, 0, 1 << 45, limit=1000)) for d in catalog.devices()],
        catalog.segments(),
        catalog.totals(),
        catalog.numbers_given(),
        catalog.ceilings(),
        catalog.clock_mark(),
        catalog.changes_after(0),
        catalog.last_sweep(),
        accounts,
        catalog.home,
    ]


def test_all_of_it_goes_over_and_life_goes_on(filled: Path, url: str, run: Run) -> None:
    with open_folder(filled, environ={}) as opened:
        before = everything(opened.catalog)
    done = run("catalog", "copy", "--to", url, "--data", filled, "--json")
    assert done.code == 0, done
    assert done.document["recordings_read"] == 3
    assert done.document["rows"] > 40
    with KeyStore.open(filled / "keys") as vault, closing(open_catalog(url, filled, vault)) as catalog:
        assert everything(catalog) == before
        assert list(catalog.broken_rows()) == []
    added = run("device", "add", "--plan", "annual", "--data", filled, "--json").document
    assert added["device"] == 5
    checked = run("check", "--deep", "--data", filled, "--json")
    assert checked.document["broken"] == []
    with World(filled, local=True, address=url) as world:
        world.keep([(1, NOON + 200_000)])
        assert world.sweep().run().held_back_devices == 0


def test_the_file_is_sealed(filled: Path, url: str, run: Run) -> None:
    assert run("catalog", "copy", "--to", url, "--data", filled).code == 0
    with pytest.raises(CallerError) as caught:
        open_catalog("sqlite", filled / "catalog.db")
    assert caught.value.code == "catalog_moved"
    config = filled / "config.toml"
    config.write_text(with_value(config.read_text(), "home", "catalog", "sqlite"))
    assert run("device", "add", "--data", filled, "--json").error == "catalog_moved"


def test_a_running_service_is_not_copied_under(filled: Path, url: str, run: Run) -> None:
    with open_folder(filled, environ={}):
        assert run("catalog", "copy", "--to", url, "--data", filled, "--json").error == "catalog_in_use"
    assert run("device", "add", "--data", filled).code == 0
    assert run("catalog", "copy", "--to", url, "--data", filled).code == 0


@pytest.mark.parametrize("stop_at", [1, 9, 15, 26])
def test_a_copy_that_was_stopped_goes_on(filled: Path, url: str, run: Run, stop_at: int) -> None:
    class Stopped(Exception):
        pass

    def stop(phase: str, done: int, of: int) -> None:
        nonlocal stop_at
        stop_at -= 1
        if not stop_at:
            raise Stopped

    with open_folder(filled, environ={}) as opened:
        before, home = everything(opened.catalog), opened.catalog.home
    assert home is not None
    with pytest.raises(Stopped):
        copy_catalog("sqlite", filled / "catalog.db", to=url, home=home, progress=stop)
    assert run("device", "add", "--data", filled, "--json").error == "catalog_moved"
    with pytest.raises(CallerError) as caught:
        open_catalog(url, filled)
    assert caught.value.code == "no_catalog"
    assert run("catalog", "copy", "--to", url, "--data", filled).code == 0
    with KeyStore.open(filled / "keys") as vault, closing(open_catalog(url, filled, vault)) as catalog:
        assert everything(catalog) == before
    assert run("catalog", "copy", "--to", url, "--data", filled).code == 0, "it may be run again"


def test_back_before_anything_was_written(filled: Path, url: str, run: Run) -> None:
    assert run("catalog", "copy", "--to", url, "--data", filled).code == 0
    done = run("catalog", "copy", "--to", url, "--back", "--data", filled, "--json")
    assert done.code == 0, done
    assert run("device", "add", "--data", filled, "--json").document["device"] == 5
    assert (filled / "config.toml").read_text() == '# mine\n\n[home]\ncatalog = "sqlite"\n'
    assert run("catalog", "copy", "--to", url, "--data", filled).code == 0


def test_no_way_back_once_the_new_one_has_committed(filled: Path, url: str, run: Run) -> None:
    assert run("catalog", "copy", "--to", url, "--data", filled).code == 0
    assert run("device", "add", "--data", filled).code == 0
    assert run("catalog", "copy", "--to", url, "--back", "--data", filled, "--json").error == "committed"
    assert run("catalog", "copy", "--to", url, "--data", filled, "--json").error == "exists"
    assert run("device", "add", "--data", filled).code == 0


def test_a_copy_that_is_not_alike_is_no_catalog(filled: Path, url: str, run: Run) -> None:
    def spoil(phase: str, done: int, of: int) -> None:
        if phase == "rows copied" and done == of:
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute("SET lock_timeout = '1s'")
                connection.execute("UPDATE plans SET retention_days = retention_days + 1 WHERE plan_id = 1")

    with open_folder(filled, environ={}) as opened:
        home = opened.catalog.home or 0
    with pytest.raises(Exception, match="plans has 4 rows of 4, with another checksum"):
        copy_catalog("sqlite", filled / "catalog.db", to=url, home=home, progress=spoil)
    with pytest.raises(CallerError):
        open_catalog(url, filled)


def test_recordings_that_cannot_be_read_stop_it(filled: Path, url: str, run: Run) -> None:
    for path in (filled / "objects").rglob("*"):
        if path.is_file():
            path.write_bytes(bytes(path.stat().st_size))
    done = run("catalog", "copy", "--to", url, "--data", filled, "--json")
    assert done.error == "samples_unreadable"
    assert (filled / "config.toml").read_text() == "# mine\n"
    assert run("catalog", "copy", "--to", url, "--back", "--data", filled).code == 0


def test_another_homes_database_is_left_alone(filled: Path, url: str, run: Run, tmp_path: Path) -> None:
    assert run("init", "--data", tmp_path / "other", "--catalog", url).code == 0
    assert run("catalog", "copy", "--to", url, "--data", filled, "--json").error == "exists"
    assert run("device", "add", "--data", filled).code == 0
    assert run("device", "add", "--data", tmp_path / "other", "--json").document["device"] == 1


@pytest.mark.parametrize("table", ["theirs", "accounts"])
def test_a_database_with_other_tables_is_left_alone(filled: Path, url: str, run: Run, table: str) -> None:
    """Neither copied into, nor emptied by taking back what was never there."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE TABLE {table} AS SELECT 1 AS one".encode())
        assert run("catalog", "copy", "--to", url, "--data", filled, "--json").error == "not_empty"
        assert run("device", "add", "--data", filled).code == 0, "nothing was sealed"
        with held_alone(filled / "catalog.db") as source:
            seal_off(source)
        done = run("catalog", "copy", "--to", url, "--back", "--data", filled, "--json")
        assert done.error == "not_empty"
        assert connection.execute(f"TABLE {table}".encode()).fetchall() == [(1,)]
        connection.execute(f"DROP TABLE {table}".encode())
    assert run("catalog", "copy", "--to", url, "--back", "--data", filled).code == 0
    assert run("device", "add", "--data", filled).code == 0


def test_another_homes_copy_is_not_taken_back(filled: Path, url: str, run: Run) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE copying (name TEXT PRIMARY KEY, rows BIGINT NOT NULL)")
        connection.execute("INSERT INTO copying VALUES ('', 1)")
    with held_alone(filled / "catalog.db") as source:
        seal_off(source)
    assert run("catalog", "copy", "--to", url, "--back", "--data", filled, "--json").error == "exists"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"password": "wrong"}, "password"),
        ({"path": "/missing"}, "CREATE DATABASE"),
        ({"port": 1}, "look whether the server runs"),
    ],
)
def test_a_server_that_cannot_be_used_is_told_and_nothing_sealed(
    filled: Path, url: str, run: Run, change: dict[str, Any], says: str
) -> None:
    parts = urlsplit(url)
    password, port = change.get("password", parts.password), change.get("port", parts.port)
    place = f"{parts.username}:{password}@{parts.hostname}:{port}"
    wrong = urlunsplit(parts._replace(netloc=place, path=change.get("path", parts.path)))
    done = run("catalog", "copy", "--to", wrong, "--data", filled, "--json")
    assert (done.error, done.code) == ("catalog_unavailable", 1)
    assert says in done.err
    assert run("device", "add", "--data", filled).code == 0


@pytest.mark.parametrize(
    "trouble", [KeyboardInterrupt(), WorldError("disk full", code="catalog_unavailable")]
)
def test_a_copy_that_is_cut_short_serves_nothing(
    filled: Path, url: str, run: Run, monkeypatch: pytest.MonkeyPatch, trouble: BaseException
) -> None:
    """By Ctrl-C, or a full disk of the server: neither catalog opens until it was run again, or taken back."""

    def stop(*_: object) -> None:
        raise trouble

    with monkeypatch.context() as patch:
        patch.setattr("storage.postgres.copying.copy_numbers", stop)
        stopped = run("catalog", "copy", "--to", url, "--data", filled)
    assert stopped.code != 0
    if isinstance(trouble, KeyboardInterrupt):
        assert "interrupted: the same command goes on" in stopped.err
        assert "--back" in stopped.err
    assert run("device", "add", "--data", filled, "--json").error == "catalog_moved"
    with pytest.raises(CallerError):
        open_catalog(url, filled)
    assert run("catalog", "copy", "--to", url, "--back", "--data", filled).code == 0
    assert run("device", "add", "--data", filled).code == 0


def test_every_table_of_the_file_has_one_there(filled: Path, url: str) -> None:
    with closing(sqlite3.connect(filled / "catalog.db")) as source:
        from storage.postgres.copying import tables_of

        names = [table.name for table in tables_of(source)]
    assert names.index("accounts") < names.index("devices") < names.index("plans")
    assert {"meta", "segments", "changes", "account_keys", "events"} <= set(names)


@pytest.mark.parametrize(
    ("text", "after"),
    [
        ("", '[home]\ncatalog = "x"\n'),
        (
            '# mine\n[store]\nurl = "s3://a/b"\n',
            '# mine\n[store]\nurl = "s3://a/b"\n\n[home]\ncatalog = "x"\n',
        ),
        ("[home]\n# note\ncatalog = 'a'  # b\n[store]\n", '[home]\n# note\ncatalog = "x"\n[store]\n'),
        ("[home]", '[home]\ncatalog = "x"\n'),
        ('[home]\n# catalog = "sqlite"\n\n[api]\n', '[home]\ncatalog = "x"\n# catalog = "sqlite"\n\n[api]\n'),
    ],
)
def test_a_value_is_set_and_the_rest_stays(text: str, after: str) -> None:
    assert with_value(text, "home", "catalog", "x") == after


def test_a_value_that_cannot_be_found_is_said() -> None:
    with pytest.raises(CallerError, match="by hand"):
        with_value('home = {catalog = "a"}\n', "home", "catalog", "x")
