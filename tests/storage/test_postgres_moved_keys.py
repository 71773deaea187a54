"""A catalog on PostgreSQL of an earlier release, brought up to date."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg
import pytest

from storage.contracts.blocks import writing_books
from storage.contracts.given import DAY, NOW
from storage.errors import CallerError
from storage.keys import KeyStore
from storage.postgres import PostgresCatalog
from storage.postgres.migrations import migrate
from storage.rows.accounts import AccountRow
from storage.sqlite.schema import REVISION
from tests.storage.with_vault import adopt_postgres


def columns(url: str) -> list[Any]:
    with psycopg.connect(url) as connection:
        return (
            connection.execute(
                "SELECT table_name, column_name, data_type, is_nullable, column_default FROM information_schema.columns"
                " WHERE table_schema = current_schema() ORDER BY 1, 2"
            ).fetchall()
            + connection.execute(
                "SELECT indexdef FROM pg_indexes WHERE schemaname = current_schema() ORDER BY 1"
            ).fetchall()
        )


def test_account_keys_go_into_the_vault(url: str, tmp_path: Path) -> None:
    opener = adopt_postgres(url, tmp_path / "keys")
    catalog, whole = opener(), columns(url)
    with writing_books(catalog, now_ms=NOW) as books:
        ann, bob = (
            books.add_account(AccountRow(0, "owner", name, NOW, email=f"{name}@example.com"))
            for name in ("ann", "bob")
        )
        books.erase_account(bob.account, cancelled_on=DAY)
    catalog.close()
    keys = as_revision_0006(url, tmp_path / "keys")
    with pytest.raises(CallerError) as outdated:
        PostgresCatalog.open(url)
    assert outdated.value.code == "catalog_outdated"
    with pytest.raises(CallerError):
        migrate(url)
    with KeyStore.open(tmp_path / "keys") as vault:
        assert migrate(url, vault=vault, now_ms=NOW) == ("0006", REVISION)
        assert migrate(url, vault=vault, now_ms=NOW) == (REVISION, REVISION)
        with psycopg.connect(url) as connection:
            ids = dict(connection.execute("SELECT account, key_id FROM account_keys").fetchall())
        assert {account: vault.account_keys([id_])[id_] for account, id_ in ids.items()} == keys
    assert columns(url) == whole
    catalog = opener()
    with catalog.books() as books:
        assert books.account_at(email="ann@example.com") == ann
        assert books.account(bob.account).name == ""
    catalog.close()


def as_revision_0006(url: str, folder: Path) -> dict[int, bytes]:
    """Make the catalog one of the release that kept the keys of accounts in it. Returns them."""
    with KeyStore.open(folder) as vault, psycopg.connect(url) as connection:
        ids = connection.execute(
            "SELECT account, key_id FROM account_keys WHERE account IS NOT NULL"
        ).fetchall()
        keys = {account: vault.account_keys([id_])[id_] for account, id_ in ids}
        connection.execute("DROP TABLE account_keys")
        connection.execute("CREATE TABLE account_keys (account BIGINT PRIMARY KEY, key BYTEA NOT NULL)")
        for (account,) in connection.execute("SELECT account FROM accounts UNION SELECT 0").fetchall():
            key = keys.get(account, bytes(32))
            connection.execute("INSERT INTO account_keys VALUES (%s, %s)", (account, key))
        connection.execute(
            "DROP TABLE corrections, policies, announcements, consents, serials, serial_trials, data_exports"
        )
        connection.execute("DELETE FROM numbers WHERE name IN ('corrections', 'data_exports')")
        connection.execute("DROP INDEX plans_not_trials")
        connection.execute("ALTER TABLE notices DROP COLUMN bulk")  # its indexes go with it
        connection.execute("DROP TABLE closed_payments, methods")
        connection.execute("DROP INDEX payments_open, payments_by_time, payments_disputed")
        connection.execute(
            "DROP TABLE packages, operator_tokens, operators, identities, hosts, scheduled_runs, payment_records,"
            " device_names, sightings, refusals, inits, shares, kept_clips, kept_chunks"
        )
        connection.execute(
            "DELETE FROM numbers WHERE name LIKE 'operator%' OR name IN ('shares', 'kept_clips')"
        )
        connection.execute("ALTER TABLE events DROP COLUMN operator")
        connection.execute(
            "ALTER TABLE plans DROP COLUMN package, DROP COLUMN package_version, DROP COLUMN limit_class"
        )
        connection.execute("DROP TABLE daily_uploads")
        for column in ("fee_version", "next_fee_version", "next_fee_minor", "next_fee_on"):
            connection.execute(f"ALTER TABLE subscriptions DROP COLUMN {column}")
        connection.execute("UPDATE alembic_version SET version_num = '0006'")
    return keys
