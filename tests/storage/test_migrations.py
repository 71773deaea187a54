"""Old catalogs become new ones, with the schema of a fresh file and all that was in them, or nothing is changed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from storage.catalog import Catalog
from storage.contracts.blocks import writing_books
from storage.contracts.books.given import to_erasing
from storage.contracts.given import (
    AFTER,
    DAY,
    ENDS,
    MONTH,
    NOON,
    NOW,
    WEEK,
    Upload,
    add_device,
    commit,
    erase,
    everything,
    lease,
)
from storage.errors import ClipkeepError
from storage.keys import KeyStore
from storage.rows.accounts import AccountRow, AccountState, AnswerRow, EventRow
from storage.rows.devices import EraseState, PlanRow
from storage.rows.recordings import Verdict
from storage.sql.sealing import unseal
from storage.sqlite import SqliteCatalog
from storage.sqlite.migrations import run
from storage.sqlite.migrations.run import FOLDER, Migrated
from storage.sqlite.migrations.versions.revision_0001 import TABLES
from storage.sqlite.schema import OUTDATED, REVISION, SCHEMA_VERSION
from storage.sqlite.statements import statements

ROOT = Path(__file__).parents[2]


def make_old(path: Path) -> None:
    """An empty catalog of the release before the agreement."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        for statement in statements(TABLES):
            connection.execute(statement)


def migrate(path: Path, *, backup: Path) -> Migrated:
    with vault_of(path) as vault:
        return run.migrate(path, backup=backup, vault=vault, now_ms=NOW)


def vault_of(path: Path) -> KeyStore:
    """The vault beside a catalog, made when it is not there."""
    if not path.with_name("keys").exists():
        KeyStore.create(path.with_name("keys")).close()
    return KeyStore.open(path.with_name("keys"))


@contextmanager
def opened(path: Path) -> Iterator[SqliteCatalog]:
    with vault_of(path) as vault, closing(SqliteCatalog.open(path, vault)) as catalog:
        yield catalog


def raw(path: Path, statement: str) -> list[Any]:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        return connection.execute(statement).fetchall()


def dump(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as connection:
        return [*connection.iterdump(), str(connection.execute("PRAGMA user_version").fetchone())]


@pytest.fixture
def old(tmp_path: Path) -> Path:
    path = tmp_path / "100% #1.db"
    make_old(path)
    return path


@pytest.fixture
def backup(tmp_path: Path) -> Path:
    return tmp_path / "backup.db"


# --- the schema -------------------------------------------------------------------------------------------------


def schema(path: Path) -> dict[str, Any]:
    """All that decides what a file can hold, whatever words made it."""
    with closing(sqlite3.connect(path)) as connection:

        def rows(statement: str) -> list[Any]:
            return connection.execute(statement).fetchall()

        found: dict[str, Any] = {"user_version": rows("PRAGMA user_version")}
        for kind, name, sql in rows(
            "SELECT type, name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'"
        ):
            if kind == "table":
                found[name] = {
                    "columns": rows(f"PRAGMA table_xinfo({name})"),
                    "refers": rows(f"PRAGMA foreign_key_list({name})"),
                    "options": [row[3:] for row in rows(f"PRAGMA table_list({name})")],
                    "indexes": sorted(row[1:] for row in rows(f"PRAGMA index_list({name})")),
                    "numbered": "AUTOINCREMENT" in sql,
                }
            else:
                found[name] = sql
        return found


def test_a_migrated_file_has_the_schema_of_a_fresh_one(old: Path, backup: Path, tmp_path: Path) -> None:
    fresh = tmp_path / "fresh.db"
    SqliteCatalog.create(fresh).close()
    assert schema(old) != schema(fresh)
    assert migrate(old, backup=backup) == Migrated("0001", REVISION, backup)
    assert schema(old) == schema(fresh)
    for table in ("alembic_version", "meta"):
        assert raw(old, f"SELECT * FROM {table}") == raw(fresh, f"SELECT * FROM {table}")
    assert raw(fresh, "SELECT * FROM alembic_version") == [(REVISION,)]


def test_every_revision_is_known_and_the_newest_is_what_fresh_files_are() -> None:
    names = sorted(
        path.stem.removeprefix("revision_") for path in (FOLDER / "versions").glob("revision_*.py")
    )
    assert names == [*OUTDATED.values(), REVISION]
    assert list(OUTDATED) == list(range(min(OUTDATED), SCHEMA_VERSION))


def test_alembic_is_imported_by_nobody_who_does_not_migrate() -> None:
    code = (
        "import sys, storage.sqlite, service.cli, service.worker, service.api_process;"
        "print([m for m in ('alembic', 'sqlalchemy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# --- a filled one -----------------------------------------------------------------------------------------------


def fill(catalog: Catalog) -> None:
    """Something of everything that the main job stores."""
    plans = [PlanRow(0, "trial", DAY - 20, DAY - 7, WEEK), PlanRow(0, "monthly", DAY, None, MONTH)]
    catalog.add_devices(20, account=1, plans=plans, now_ms=NOW)
    a, b, gone = add_device(catalog), add_device(catalog, WEEK, MONTH), add_device(catalog)
    catalog.update_device(
        a,
        lambda f: replace(f, token_generation=3, suspended=True, plans=(*f.plans, plans[0])),
        what="operator: more",
        now_ms=NOW,
    )
    catalog.update_device(a, lambda f: replace(f, plans=f.plans[:1]), what="fewer", now_ms=NOW)
    commit(catalog, *(Upload(d, NOON + i, i) for d in (a, b, gone) for i in range(200)))
    commit(catalog, Upload(b, NOON + 9_000_000), expires_on=DAY + MONTH + 1)
    commit(catalog, Upload(a, NOON))  # a duplicate: a tombstone
    catalog.prepare(worker="w1", class_days=7, expires_on=ENDS, count=3, now_ms=NOW)
    catalog.delete_range(a, NOON, NOON + 50, reason="asked for", who="owner", now_ms=NOW, delete_after_ms=NOW)
    erase(catalog, gone)
    fence = lease(catalog)
    catalog.note_keys_destroyed({gone: (1, 2)}, fence=fence, now_ms=NOW)
    catalog.unindex_device(gone, fence=fence, now_ms=NOW, delete_after_ms=NOW)
    catalog.update_device(
        gone, lambda f: replace(f, erase_state=EraseState.ERASED), what="sweep: erased", now_ms=NOW
    )
    commit(catalog, Upload(b, NOON - 4 * 86_400_000), expires_on=ENDS - 4)
    catalog.close_day(ENDS - 4, fence=fence, now_ms=AFTER, delete_after_ms=AFTER)
    catalog.record_sweep({"days": [1]}, now_ms=NOW)
    catalog.note_failed_sweep("lease_lost", "another", now_ms=NOW)


def as_old(new: Path, old: Path) -> None:
    """Put all rows of a new catalog into an empty old one, as the release of then would have written them."""
    with closing(sqlite3.connect(old, isolation_level=None)) as connection:
        connection.execute("ATTACH ? AS new", (str(new),))
        for name, sql in connection.execute(
            "SELECT name, sql FROM new.sqlite_master WHERE type = 'table' AND name LIKE 'chunks_%'"
        ).fetchall():
            connection.execute(sql)
            connection.execute(f"ALTER TABLE {name} DROP COLUMN facts")
            assert connection.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (name,)).fetchone()
        tables = connection.execute("SELECT name FROM main.sqlite_master WHERE type = 'table'").fetchall()
        for (table,) in tables:
            if table == "accounts":
                continue
            names = [row[1] for row in connection.execute(f"PRAGMA main.table_info({table})")]
            columns = ", ".join(names)
            read = columns.replace("reason", "CAST(reason AS TEXT)") if table == "deletions" else columns
            connection.execute(f"DELETE FROM main.{table}")
            connection.execute(f"INSERT INTO main.{table} ({columns}) SELECT {read} FROM new.{table}")
        connection.execute("DELETE FROM sqlite_sequence WHERE name = 'plans'")  # they had no AUTOINCREMENT


def remembered(catalog: Catalog) -> tuple[object, ...]:
    """What `everything` leaves out."""
    return (
        catalog.erasures(),
        catalog.sweep_reports(limit=9),
        catalog.failed_sweeps(limit=9),
        catalog.changes_after(0),
        catalog.highest_segment_id(),
        catalog.closed_through,
        catalog.retention_classes(),
        catalog.due_tombstones(AFTER, after_id=0, limit=99),
    )


@pytest.fixture
def filled(old: Path, tmp_path: Path) -> Iterator[tuple[Path, SqliteCatalog]]:
    """An old catalog, and the new one that has the same in it."""
    model = tmp_path / "model.db"
    with closing(SqliteCatalog.create(model)) as catalog:
        fill(catalog)
        for (day,) in raw(model, "SELECT expires_on FROM days"):  # which the release of then did not know
            raw(model, f"UPDATE chunks_{day} SET facts = x''")
        raw(model, "UPDATE plans SET package = kind, package_version = 1")  # what revision 0009 makes of them
        as_old(model, old)
        yield old, catalog


def test_a_filled_catalog_is_read_back_whole(filled: tuple[Path, SqliteCatalog], backup: Path) -> None:
    old, model = filled
    assert len(raw(old, "SELECT * FROM plans")) > 40
    assert len(raw(old, f"SELECT * FROM chunks_{ENDS}")) > 300
    migrate(old, backup=backup)
    with opened(old) as catalog:
        assert everything(catalog) == everything(model)
        assert remembered(catalog) == remembered(model)
        assert list(catalog.broken_rows()) == []
        with catalog.books() as books:
            [operator] = books.accounts()
            assert operator == AccountRow(
                1, "operator", "the built-in operator account", 0, AccountState.ACTIVE, activated_ms=0
            )
            assert [f.device for f in books.devices_of(1)] == [f.device for f in catalog.devices()]
            assert books.agreements() == []


def test_a_migrated_catalog_goes_on(filled: tuple[Path, SqliteCatalog], backup: Path) -> None:
    """What the main job and the agreement write is taken, and no number comes twice."""
    old, model = filled
    migrate(old, backup=backup)
    with opened(old) as catalog:
        device = catalog.devices(after=20)[0].device
        before = catalog.device(device)
        known = {plan.plan_id for facts in catalog.devices() for plan in facts.plans}
        assert commit(catalog, Upload(21, NOON + 5_000_000)) == [Verdict.STORED]
        with writing_books(catalog, before_change=lambda *_: None, now_ms=NOW) as books:
            owner = books.add_account(AccountRow(0, "owner", "Ann", NOW, email="ann@example.com"))
            assert owner.account == 2
            added = books.add_device(owner.account)
            assert added.device == max(f.device for f in model.devices()) + 1
            facts = books.change_device(
                device,
                lambda f: replace(f, plans=(*f.plans, PlanRow(0, "annual", DAY, DAY + 364, WEEK))),
                what="",
            )
            assert {p.plan_id for p in facts.plans} - {p.plan_id for p in before.plans} == {max(known) + 1}
            books.add_event(EventRow(0, owner.account, None, "registered", "owner", "", {}, NOW))
        assert list(catalog.broken_rows()) == []


# --- account keys -----------------------------------------------------------------------------------------------


def test_account_keys_go_into_the_vault_and_no_copy_is_left(tmp_path: Path, backup: Path) -> None:
    """A key of an account that ends later is destroyed in the vault: the file must not have it any more."""
    path = tmp_path / "data" / "catalog.db"
    path.parent.mkdir()
    with vault_of(path) as vault:
        SqliteCatalog.create(path, vault).close()
    with opened(path) as catalog, writing_books(catalog, now_ms=NOW, new_accounts=700) as books:
        rows = [
            books.add_account(AccountRow(0, "owner", f"Ann {n}", NOW, email=f"a{n}@example.com"))
            for n in range(700)
        ]
        for row in rows[::7]:
            books.erase_account(row.account, cancelled_on=DAY)
    keys = as_revision_0006(path)
    gone = {row.account for row in rows[::7]}
    assert migrate(path, backup=backup) == Migrated("0006", REVISION, backup)
    with opened(path) as catalog, catalog.books() as books:
        for row in rows:
            assert books.account(row.account).email == (None if row.account in gone else row.email)
        assert books.account_at(email="a1@example.com") == rows[1]
        assert list(catalog.broken_rows()) == []
        ids = [row.key_id for row in catalog.account_keys()]
        assert len(ids) == 600 + 2
        with vault_of(path) as vault:
            assert set(vault.account_keys(ids).values()) == set(keys)
    assert all(key in backup.read_bytes() for key in keys), "it is as it was"
    files = [file for file in path.parent.rglob("*") if file.is_file()]
    data = b"\0".join(file.read_bytes() for file in files)
    assert sum(key in data for key in keys) == 0
    assert raw(path, "SELECT * FROM meta WHERE name = 'erased_left_in_log'") == []


def as_revision_0006(path: Path) -> list[bytes]:
    """Make the catalog one of the release that kept the keys of accounts in it. Returns the keys."""
    with vault_of(path) as vault:
        ids = raw(path, "SELECT account, key_id FROM account_keys WHERE account IS NOT NULL")
        keys = {account: vault.account_keys([id_])[id_] for account, id_ in ids}
        vault.destroy_account_keys([id_ for _, id_ in ids])
    raw(path, "DROP TABLE account_keys")
    raw(path, "CREATE TABLE account_keys (account INTEGER PRIMARY KEY, key BLOB NOT NULL) STRICT")
    for (account,) in raw(path, "SELECT account FROM accounts UNION SELECT 0 ORDER BY 1"):
        raw(path, f"INSERT INTO account_keys VALUES ({account}, x'{keys.get(account, bytes(32)).hex()}')")
    without_people(path)
    without_packages(path)
    raw(path, "UPDATE alembic_version SET version_num = '0006'")
    raw(path, "PRAGMA user_version=7")
    return list(keys.values())


def test_what_people_wrote_is_sealed_hashed_or_cut_and_no_copy_is_left(tmp_path: Path, backup: Path) -> None:
    path = tmp_path / "data" / "catalog.db"
    path.parent.mkdir()
    with vault_of(path) as vault:
        SqliteCatalog.create(path, vault).close()
    with opened(path) as catalog:
        with writing_books(catalog, before_change=lambda *_: None, now_ms=NOW, new_accounts=2) as books:
            ann, bob = (
                books.add_account(AccountRow(0, "owner", name, NOW)).account for name in ("ann", "bob")
            )
            first, second = (books.add_device(account).device for account in (ann, bob))
            books.put_answer(AnswerRow(ann, "key of ann", b"sha", 200, "body", NOW))
        for device in (first, second):
            catalog.delete_range(
                device, NOON, NOON + 1, reason="x", who="owner", now_ms=NOW, delete_after_ms=NOW
            )
        with writing_books(catalog, before_change=lambda *_: None, now_ms=NOW) as books:
            books.change_device(second, to_erasing, what="owner: account cancelled")
            books.erase_account(bob, cancelled_on=DAY)
    as_revision_0007(path, {first: "Ann asked", second: "Bob asked"}, key="key of ann")
    written = ("Ann asked", "Bob asked", "key of ann", "Ann is", "Mr Smith")
    assert all(text.encode() in path.read_bytes() for text in written)
    highest = raw(path, "SELECT seq FROM sqlite_sequence WHERE name = 'changes'")

    assert migrate(path, backup=backup) == Migrated("0007", REVISION, backup)
    files = [file for file in path.parent.rglob("*") if file.is_file()]
    data = b"\0".join(file.read_bytes() for file in files)
    assert [text for text in written if text.encode() in data] == []
    assert raw(path, "SELECT seq FROM sqlite_sequence WHERE name = 'changes'") == highest
    assert {row[0] for row in raw(path, "SELECT what FROM changes")} >= {
        "operator: suspended",
        "new token",
        "",
    }
    assert raw(path, "SELECT who FROM deletions") == [("owner",), ("",)]
    with opened(path) as catalog:
        with catalog.books() as books:
            assert books.answer(ann, "key of ann") == AnswerRow(ann, "key of ann", b"sha", 200, "body", NOW)
        rows = raw(
            path,
            "SELECT reason, key_id FROM deletions JOIN devices USING (device) LEFT JOIN account_keys USING (account)",
        )
        (sealed, key_id), of_bob = rows
        assert unseal(catalog.keys.of([key_id])[key_id], "deletions.reason", sealed) == "Ann asked"
        assert of_bob == (b"", None)
        assert list(catalog.broken_rows()) == []


def without_people(path: Path) -> None:
    """Take away what 0012 adds."""
    added = (
        "corrections",
        "policies",
        "announcements",
        "consents",
        "serials",
        "serial_trials",
        "data_exports",
    )
    for table in added:
        raw(path, f"DROP TABLE {table}")
    for index in ("notices_own", "notices_bulk", "plans_not_trials"):
        raw(path, f"DROP INDEX {index}")
    raw(path, "ALTER TABLE notices DROP COLUMN bulk")


def without_operators(path: Path) -> None:
    """As before revisions 0014 to 0022."""
    for table in (
        *("operator_tokens", "operators", "identities", "hosts", "scheduled_runs", "payment_records"),
        *("device_names", "sightings", "refusals", "inits", "shares", "kept_clips", "kept_chunks"),
    ):
        raw(path, f"DROP TABLE {table}")
    raw(path, "ALTER TABLE events DROP COLUMN operator")


def without_packages(path: Path) -> None:
    """As before revisions 0009, 0010, 0011, 0013 and 0014."""
    without_operators(path)
    raw(path, "DROP TABLE closed_payments")
    for index in ("payments_open", "payments_by_time"):
        raw(path, f"DROP INDEX {index}")
    raw(path, "DROP TABLE methods")
    raw(path, "DROP INDEX payments_disputed")
    without_limits(path)
    raw(path, "DROP TABLE packages")
    for column in ("package", "package_version"):
        raw(path, f"ALTER TABLE plans DROP COLUMN {column}")


def without_limits(path: Path) -> None:
    """Take away what 0013 adds."""
    raw(path, "DROP TABLE daily_uploads")
    raw(path, "DROP INDEX subscriptions_told")
    for column in ("max_bytes_per_day", "max_chunks_per_s", "limit_class", "applied_ms"):
        raw(path, f"ALTER TABLE packages DROP COLUMN {column}")
    raw(path, "ALTER TABLE plans DROP COLUMN limit_class")
    for column in ("fee_version", "next_fee_version", "next_fee_minor", "next_fee_on"):
        raw(path, f"ALTER TABLE subscriptions DROP COLUMN {column}")


def as_revision_0007(path: Path, reasons: dict[int, str], *, key: str) -> None:
    """Make the catalog one of the release that kept these texts as they were written."""
    raw(path, "ALTER TABLE deletions RENAME TO sealed")
    raw(
        path,
        "CREATE TABLE deletions (deletion_id INTEGER PRIMARY KEY, device INTEGER NOT NULL REFERENCES devices,"
        " from_ms INTEGER NOT NULL, to_ms INTEGER NOT NULL, reason TEXT NOT NULL, who TEXT NOT NULL,"
        " chunks INTEGER NOT NULL, at_ms INTEGER NOT NULL, done_ms INTEGER) STRICT",
    )
    raw(
        path,
        "INSERT INTO deletions SELECT deletion_id, device, from_ms, to_ms, '', who, chunks, at_ms, done_ms FROM sealed",
    )
    raw(path, "DROP TABLE sealed")
    for device, reason in reasons.items():
        raw(path, f"UPDATE deletions SET reason = '{reason}' WHERE device = {device}")
    raw(path, "UPDATE deletions SET who = 'Mr Smith' WHERE deletion_id = 2")
    raw(path, f"UPDATE answers SET key = '{key}'")
    for what in ("operator: suspended: Ann is away", "new token: Ann is back", "Ann is gone"):
        raw(path, f"INSERT INTO changes (device, what, at_ms) VALUES (1, '{what}', 0)")
    without_people(path)
    without_packages(path)
    raw(path, "UPDATE alembic_version SET version_num = '0007'")
    raw(path, "PRAGMA user_version=8")
    raw(path, "PRAGMA wal_checkpoint(TRUNCATE)")


def test_without_a_vault_nothing_is_migrated(old: Path, backup: Path) -> None:
    before = dump(old)
    assert refused(lambda: run.migrate(old, backup=backup)) == "no_vault"
    assert dump(old) == before


# --- or nothing -------------------------------------------------------------------------------------------------


def refused(call: Callable[[], object]) -> str:
    with pytest.raises(ClipkeepError) as caught:
        call()
    return caught.value.code


def test_an_old_catalog_is_not_opened_but_says_what_to_do(old: Path) -> None:
    before = dump(old)
    with pytest.raises(ClipkeepError, match="clipkeep catalog migrate") as caught:
        SqliteCatalog.open(old)
    assert caught.value.code == "catalog_outdated"
    assert dump(old) == before


def test_a_copy_of_the_old_file_is_made_first(filled: tuple[Path, SqliteCatalog], backup: Path) -> None:
    old, _ = filled
    before = dump(old)
    migrate(old, backup=backup)
    assert dump(backup) == before
    assert backup.stat().st_mode & 0o777 == 0o600


def test_what_is_up_to_date_stays_as_it_is(old: Path, backup: Path, tmp_path: Path) -> None:
    migrate(old, backup=backup)
    before = dump(old)
    assert migrate(old, backup=tmp_path / "another") == Migrated(REVISION, REVISION, None)
    assert not (tmp_path / "another").exists()
    assert dump(old) == before


def test_a_copy_that_cannot_be_made_means_no_migration(old: Path, backup: Path, tmp_path: Path) -> None:
    before = dump(old)
    backup.write_bytes(b"somebody's")
    assert refused(lambda: migrate(old, backup=backup)) == "catalog_unavailable"
    assert backup.read_bytes() == b"somebody's"
    assert refused(lambda: migrate(old, backup=tmp_path / "no" / "folder")) == "catalog_unavailable"
    assert dump(old) == before


def test_a_catalog_in_use_is_left_alone(old: Path, backup: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An open connection that does nothing is enough: a service between two transactions."""
    monkeypatch.setattr("storage.sqlite.migrations.run.IN_USE_WAIT_S", 0.1)
    with closing(sqlite3.connect(old)) as connection:
        connection.execute("SELECT count(*) FROM devices").fetchall()
        before = dump(old)
        assert refused(lambda: migrate(old, backup=backup)) == "catalog_in_use"
        assert dump(old) == before
    assert not backup.exists()
    assert migrate(old, backup=backup).after == REVISION


@pytest.mark.parametrize("version", [0, 1, SCHEMA_VERSION + 1, 99])
def test_another_schema_is_not_touched(old: Path, backup: Path, version: int) -> None:
    raw(old, f"PRAGMA user_version={version}")
    before = dump(old)
    assert refused(lambda: migrate(old, backup=backup)) == "catalog_corrupt"
    assert dump(old) == before
    assert not backup.exists()


def test_a_file_that_is_no_catalog(tmp_path: Path, backup: Path) -> None:
    path = tmp_path / "notes.txt"
    assert refused(lambda: migrate(path, backup=backup)) == "catalog_unavailable"
    path.write_bytes(b"Dear diary, " * 1000)
    assert refused(lambda: migrate(path, backup=backup)) == "catalog_corrupt"
    assert path.read_bytes() == b"Dear diary, " * 1000
    assert not backup.exists()


def test_a_file_that_was_cut(filled: tuple[Path, SqliteCatalog], backup: Path) -> None:
    old, _ = filled
    data = old.read_bytes()
    old.write_bytes(data[: len(data) - 5000])
    assert refused(lambda: migrate(old, backup=backup)) == "catalog_corrupt"
    assert old.read_bytes() == data[: len(data) - 5000]


def test_rows_that_refer_to_nothing_undo_all_of_it(filled: tuple[Path, SqliteCatalog], backup: Path) -> None:
    old, _ = filled
    raw(old, "UPDATE plans SET device = 4711 WHERE plan_id = 3")
    before = dump(old)
    assert refused(lambda: migrate(old, backup=backup)) == "catalog_corrupt"
    assert dump(old) == before


def migrate_and_die(path: Path, backup: Path) -> None:
    upgrade = run.command.upgrade

    def die(*args: Any) -> None:
        upgrade(*args)
        os.kill(os.getpid(), signal.SIGKILL)

    run.command.upgrade = die
    migrate(path, backup=backup)


def test_a_migration_that_is_killed_is_run_again(
    filled: tuple[Path, SqliteCatalog], backup: Path, tmp_path: Path
) -> None:
    """SIGKILL when all is written and nothing committed."""
    old, model = filled
    before = dump(old)
    child = multiprocessing.get_context("spawn").Process(target=migrate_and_die, args=(old, backup))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    assert dump(old) == before == dump(backup)
    migrate(old, backup=tmp_path / "second.db")
    with opened(old) as catalog:
        assert everything(catalog) == everything(model)
