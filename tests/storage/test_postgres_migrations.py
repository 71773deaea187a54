"""Catalogs of earlier releases on PostgreSQL: the sum of the steps is a fresh catalog, and two releases at once."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from storage.contracts.given import NOON, STORED, WEEK, Upload, add_device, commit
from storage.errors import ClipkeepError
from storage.keys import KeyStore
from storage.postgres import PostgresCatalog, migrations
from storage.postgres import schema as postgres_schema
from storage.postgres.database import PostgresDatabase
from storage.postgres.migrations import STEPS, Half, Step, migrate
from storage.rows.accounts import AnswerRow
from storage.sql.sealing import unseal
from storage.sqlite.migrations.run import FOLDER
from storage.sqlite.schema import REVISION
from storage.vault import Vault

FIRST = Path(__file__).with_name("postgres_0005.sql")
"""The tables of the first release that knew PostgreSQL."""
NEXT = f"{int(REVISION) + 1:04d}"
"""A release that is yet to come."""
COMING = {REVISION: Step(NEXT, before="CREATE TABLE new_one (n BIGINT)", after="DROP TABLE unlisted")}


@pytest.fixture
def old_url(database_url: str) -> str:
    """Of a catalog that the first release made."""
    with psycopg.connect(database_url) as connection:
        connection.execute(FIRST.read_text().encode())
        connection.execute(
            "INSERT INTO account_keys SELECT account, decode(repeat('ab', 32), 'hex') FROM accounts"
            " UNION SELECT 0, decode(repeat('ab', 32), 'hex')"
        )
    return database_url


def described(url: str) -> dict[str, list[Any]]:
    """All that decides what a catalog can hold, in the server's own words."""
    here = "relnamespace = current_schema()::regnamespace"
    with psycopg.connect(url) as connection:

        def rows(query: str) -> list[Any]:
            return sorted(connection.execute(query.encode()).fetchall())

        return {
            "columns": rows(
                "SELECT relname, attname, format_type(atttypid, atttypmod), attnotnull, attidentity::text,"
                " coalesce(pg_get_expr(adbin, adrelid), '') FROM pg_class c JOIN pg_attribute a ON attrelid = c.oid"
                " LEFT JOIN pg_attrdef d ON adrelid = c.oid AND adnum = attnum"
                f" WHERE {here} AND relkind = 'r' AND attnum > 0 AND NOT attisdropped"
            ),
            "options": rows(
                f"SELECT relname, relkind::text, coalesce(reloptions::text, '') FROM pg_class WHERE {here}"
            ),
            "indexes": rows("SELECT indexdef FROM pg_indexes WHERE schemaname = current_schema()"),
            "constraints": rows(
                "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint"
                " WHERE connamespace = current_schema()::regnamespace"
            ),
            "triggers": rows("SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal"),
            "functions": rows(
                "SELECT pg_get_functiondef(oid), coalesce(proacl::text, '') FROM pg_proc"
                " WHERE pronamespace = current_schema()::regnamespace"
            ),
            "counters": rows("SELECT name FROM numbers"),
            "revision": rows("SELECT version_num FROM alembic_version"),
        }


@pytest.fixture
def vault(tmp_path: Path) -> Iterator[Vault]:
    with KeyStore.create(tmp_path / "keys") as vault:
        yield vault


def test_the_sum_of_the_steps_is_a_fresh_catalog(old_url: str, url: str, vault: Vault) -> None:
    assert described(old_url) != described(url)
    assert migrate(old_url, vault=vault) == ("0005", REVISION)
    old, new = described(old_url), described(url)
    assert [(what, set(old[what]) ^ set(new[what])) for what in old if old[what] != new[what]] == []
    assert migrate(old_url) == (REVISION, REVISION)


def test_every_revision_of_the_chain_has_its_step() -> None:
    """A step of SQLite's without one here would leave catalogs on PostgreSQL behind."""
    names = sorted(
        path.stem.removeprefix("revision_") for path in (FOLDER / "versions").glob("revision_*.py")
    )
    chain = names[names.index("0005") :]
    assert [*STEPS] == chain[:-1]
    assert [step.revision for step in STEPS.values()] == chain[1:]


def test_what_was_there_stays_and_numbers_go_on(old_url: str, vault: Vault) -> None:
    with psycopg.connect(old_url) as connection:
        connection.execute("INSERT INTO devices (device, account, created_ms) VALUES (1, 1, 0)")
        connection.execute("UPDATE numbers SET last = 1 WHERE name = 'devices'")
        for _ in range(3):
            connection.execute(
                "INSERT INTO plans (device, kind, starts_on, retention_days, created_ms) VALUES (1, 'trial', 1, 7, 0)"
            )
        connection.execute("DELETE FROM plans WHERE plan_id = 3")
        connection.execute(
            "INSERT INTO deletions (device, from_ms, to_ms, reason, who, chunks, at_ms)"
            " VALUES (1, 5, 6, 'Ann asked', 'owner', 0, 0), (1, 7, 8, 'Ann again', 'Mr Smith', 0, 0)"
        )
        connection.execute("INSERT INTO answers VALUES (1, 'key of ann', 'sha', 200, '', 0)")
        for what in ("operator: suspended: Ann is away", "new token: Ann", "Ann is gone"):
            connection.execute("INSERT INTO changes (device, what, at_ms) VALUES (1, %s, 0)", (what,))
        connection.execute("UPDATE numbers SET last = 3 WHERE name = 'changes'")
    migrate(old_url, vault=vault)
    with psycopg.connect(old_url) as connection:
        codes = connection.execute("SELECT what FROM changes ORDER BY number").fetchall()
        assert [*codes] == [("operator: suspended",), ("new token",), ("",)]
        rows = connection.execute(
            "SELECT reason, who, key_id FROM deletions JOIN devices USING (device)"
            " JOIN account_keys USING (account) ORDER BY deletion_id"
        ).fetchall()
    assert [
        (unseal(vault.account_keys([key_id])[key_id], "deletions.reason", reason), who)
        for reason, who, key_id in rows
    ] == [("Ann asked", "owner"), ("Ann again", "")]
    with contextlib.closing(PostgresCatalog.open(old_url, vault)) as catalog, catalog.books() as books:
        assert books.answer(1, "key of ann") == AnswerRow(1, "key of ann", b"sha", 200, "", 0)
    with contextlib.closing(PostgresCatalog.open(old_url)) as catalog:
        assert [plan.plan_id for plan in catalog.device(1).plans] == [1, 2]
        added = add_device(catalog, WEEK)
        assert added == 2
        assert [plan.plan_id for plan in catalog.device(added).plans] == [4], (
            "3 was given before it was removed"
        )
        assert commit(catalog, Upload(added, NOON)) == [STORED]
        assert list(catalog.broken_rows()) == []


# --- two releases at once ---------------------------------------------------------------------------------------


@pytest.fixture
def coming(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Runs a call as the release that is yet to come would."""

    @contextlib.contextmanager
    def as_next() -> Iterator[None]:
        with monkeypatch.context() as patch:
            for module in (postgres_schema, "storage.postgres.database"):
                name = module if isinstance(module, str) else module.__name__
                patch.setattr(f"{name}.REVISION", NEXT)
            yield

    return as_next


def refused(url: str, half: Half) -> str:
    with pytest.raises(ClipkeepError) as caught:
        migrate(url, half, COMING)
    return caught.value.code


def test_two_releases_at_once(url: str, coming: Any) -> None:
    earlier = PostgresCatalog.open(url)
    device = add_device(earlier, WEEK)
    with coming():
        with pytest.raises(ClipkeepError, match="--before"):
            PostgresCatalog.open(url)
        assert refused(url, Half.AFTER) == "catalog_in_use"
        assert migrate(url, Half.BEFORE, COMING) == (REVISION, NEXT)
        later = PostgresCatalog.open(url)

    # Both work, and the earlier one can still be started.
    PostgresCatalog.open(url).close()
    for turn, catalog in enumerate((earlier, later, earlier)):
        assert commit(catalog, Upload(device, NOON + turn)) == [STORED]
    with coming():
        assert refused(url, Half.AFTER) == refused(url, Half.BOTH) == "catalog_in_use"
        assert migrate(url, Half.BEFORE, COMING) == (REVISION, NEXT), "once more: nothing is done twice"
        earlier.close()
        assert migrate(url, Half.AFTER, COMING) == (REVISION, NEXT)
        assert commit(later, Upload(device, NOON + 3)) == [STORED]
        later.close()
        PostgresCatalog.open(url).close()
    with pytest.raises(ClipkeepError, match="later release"):
        PostgresCatalog.open(url)


def test_the_second_half_alone_is_refused(url: str, coming: Any) -> None:
    with coming():
        assert refused(url, Half.AFTER) == "not_prepared"
        assert migrate(url, Half.BOTH, COMING) == (REVISION, NEXT)


def test_a_step_that_fails_changes_nothing(url: str, coming: Any) -> None:
    before = described(url)
    broken = {REVISION: Step(NEXT, before="CREATE TABLE new_one (n BIGINT)", after="DROP TABLE not_there")}
    with coming(), pytest.raises(ClipkeepError):
        migrate(url, Half.BOTH, broken)
    assert described(url) == before


def test_the_first_step_leaves_the_release_before_it_at_work(old_url: str) -> None:
    """Its statements, as that release had them: it was given numbers by the tables, and read them from sequences."""
    only = {"0005": STEPS["0005"]}
    migrate(old_url, Half.BEFORE, only)
    with psycopg.connect(old_url) as connection:
        revision = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        assert revision == ("0005",)
        connection.execute("INSERT INTO devices (device, account, created_ms) VALUES (1, 1, 0)")
        found = connection.execute(
            "INSERT INTO plans (device, kind, starts_on, retention_days, created_ms) VALUES (1, 'trial', 1, 7, 0)"
            " RETURNING plan_id"
        ).fetchone()
        assert found == (1,)
        connection.execute("DELETE FROM events WHERE account = 1")
    assert migrate(old_url, Half.AFTER, only) == ("0005", "0006")


@pytest.mark.parametrize("half", [Half.BEFORE, Half.AFTER])
def test_a_step_without_halves_is_done_alone(old_url: str, half: Half, vault: Vault) -> None:
    before = described(old_url)
    with pytest.raises(ClipkeepError, match="on every host") as caught:
        migrate(old_url, half, vault=vault)
    assert caught.value.code == "no_halves"
    assert described(old_url) == before


def test_the_database_is_told_which_release_is_connected(url: str) -> None:
    with contextlib.closing(PostgresDatabase(url)) as database, database.read() as connection:
        name = connection.execute("SELECT current_setting('application_name')").fetchone()[0]
    assert name == f"clipkeep/{REVISION}"
    assert migrations.APPLICATION == "clipkeep"
