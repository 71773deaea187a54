"""The vault's database on PostgreSQL: its tables, its transactions, and its errors in the vault's words.

    vault_state         one row: format, current wrapping_key_id, month_floor
    vault_secrets       name → wrapped: `tokens`
    vault_floors        device → lowest epoch that may still have keys
    vault_months        the months that have a table
    vault_month_N       one table per month N (yyyymm): device, epoch, wrapping_key_id, wrapped (NULL: destroyed)
    vault_account_keys  id, made_ms, wrapping_key_id, wrapped
    vault_hosts         see `storage.postgres.vault_hosts`

**What keeps transactions apart.** Two advisory locks, for the length of a transaction:

    KEYS    who makes keys holds it shared; who destroys keys, or changes the wrapping key, holds it exclusively. So
            nobody makes a key behind a floor that is being raised, or wraps with a key that is being retired
    MONTHS  who makes a month's table, taken after KEYS

Every step may run twice, for what it does the second time is nothing: that is how an outcome is decided which was lost
with the connection, and why no step needs a token as those of the catalog do.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from typing import TypeVar, cast

import psycopg
from psycopg import errors

from storage._key_files import RESTORE_DATABASE, SECRET_BYTES, corrupt
from storage._key_wrapping import WrappingKeys
from storage.errors import (
    CallerError,
    CatalogCorrupt,
    CatalogUnavailable,
    ClipkeepError,
    NotFound,
    WorldError,
)
from storage.postgres.connection import PostgresConnection, has_table
from storage.postgres.database import (
    BEGIN_READ,
    BEGIN_WRITE,
    CATALOG_FULL,
    PostgresDatabase,
)
from storage.postgres.schema import require_empty
from storage.postgres.vault_hosts import TABLE as HOSTS_TABLE
from storage.postgres.vault_hosts import begin_current
from storage.sql.connection import Connection

R = TypeVar("R")

FORMAT = 1
TOKENS = "tokens"
KEY_STORE_FULL = "key_store_full"
KEYS_LOCK, MONTHS_LOCK = 0x636C6B11, 0x636C6B12

_TABLES = f"""
CREATE TABLE vault_state (format INTEGER NOT NULL, wrapping_key_id BIGINT NOT NULL, month_floor INTEGER NOT NULL);
CREATE TABLE vault_secrets (name TEXT PRIMARY KEY, wrapping_key_id BIGINT NOT NULL, wrapped BYTEA);
CREATE TABLE vault_floors (device BIGINT PRIMARY KEY, lowest_epoch BIGINT NOT NULL);
CREATE TABLE vault_months (month INTEGER PRIMARY KEY);
CREATE TABLE vault_account_keys (
    id BYTEA PRIMARY KEY, made_ms BIGINT NOT NULL, wrapping_key_id BIGINT NOT NULL, wrapped BYTEA
);
INSERT INTO vault_state VALUES ({FORMAT}, 0, 0);
{HOSTS_TABLE}
"""


def month_table(month: int) -> str:
    """The name of a month's table."""
    return f"vault_month_{int(month)}"


class VaultDatabase(PostgresDatabase):
    """Connections and transactions. Raises (all methods) what `storage.vault.Vault` says."""

    def __init__(
        self, url: str, *, lock_timeout_ms: int | None = None, answer_s: float | None = None
    ) -> None:
        try:
            super().__init__(url, lock_timeout_ms=lock_timeout_ms, answer_s=answer_s)
        except CallerError as error:
            raise CallerError(error.detail, code="bad_vault_url") from error

    def reading(self, work: Callable[[Connection], R], *, waited_for: bool = False) -> R:
        """Do `work` in a transaction that reads one state. Twice when a month's table went meanwhile: the floor says so
        by then.

        Args:
            waited_for: a camera or a viewer waits for it, whichever process asks.
        """
        timeout_ms = self._waits.ingest_ms if waited_for else self._waits.statement_ms
        with self._translating():
            try:
                return self._reading(work, timeout_ms)
            except errors.UndefinedTable:
                return self._reading(work, timeout_ms)

    def _reading(self, work: Callable[[Connection], R], timeout_ms: int) -> R:
        with self._block(BEGIN_READ, timeout_ms=timeout_ms) as connection:
            return work(connection)

    def making(self, work: Callable[[Connection], R]) -> R:
        """Do `work` while no key is destroyed and no wrapping key retired."""
        return self._under(f"SELECT pg_advisory_xact_lock_shared({KEYS_LOCK})", work, self._waits.ingest_ms)

    def destroying(self, work: Callable[[Connection], R]) -> R:
        """Do `work` while nobody makes or destroys a key."""
        return self._under(exclusive(KEYS_LOCK), work, self._waits.statement_ms)

    def _under(self, lock: str, work: Callable[[Connection], R], timeout_ms: int) -> R:
        def once() -> R:
            with self._block(BEGIN_WRITE, lock, timeout_ms=timeout_ms) as connection:
                return work(connection)

        with self._translating():
            return self._until_kept(once)

    def _translated(self, error: psycopg.Error) -> ClipkeepError:
        found = super()._translated(error)
        if isinstance(error, errors.UndefinedTable):
            return corrupt(self.subject, "tables of the vault are missing", RESTORE_DATABASE)
        if isinstance(found, CatalogCorrupt):
            return corrupt(self.subject, found.detail)
        if isinstance(found, CatalogUnavailable):
            code = KEY_STORE_FULL if found.code == CATALOG_FULL else "key_store_unavailable"
            return WorldError(found.detail, subject=self.subject, code=code)
        return found


def exclusive(lock: int) -> str:
    """SQL that takes an advisory lock until the transaction ends."""
    return f"SELECT pg_advisory_xact_lock({lock})"


def require_no_vault(database: VaultDatabase) -> None:
    """Raises CallerError `key_store_exists`, `vault_in_catalog` or `not_empty`: the database has tables already."""
    with database.read() as connection:
        _require_no_vault(database, connection)


def _require_no_vault(database: VaultDatabase, connection: Connection) -> None:
    if has_table(connection, "vault_state"):
        raise CallerError(
            "there is a vault here already, of another data folder, and nothing was changed. Name an empty database:"
            " CREATE DATABASE makes it. To go on with the vault that is here, use the data folder that it was made with"
            " (config.toml and keys/master.key), from its backup if it was lost",
            subject=database.subject,
            code="key_store_exists",
        )
    if has_table(connection, "alembic_version"):
        raise CallerError(
            "this database has a catalog in it. Make another one for the vault, with a user and backups of its own:"
            " whoever has a copy of the one must not have the other",
            subject=database.subject,
            code="vault_in_catalog",
        )
    require_empty(connection, database.subject)


def create_tables(database: VaultDatabase, wrapping_key_id: int, wrapping_keys: WrappingKeys) -> None:
    """Make all tables and a fresh token secret, in one transaction. Raises as `require_no_vault`."""
    with database.hold() as connection:
        connection.execute(exclusive(KEYS_LOCK))
        _require_no_vault(database, connection)
        cast(PostgresConnection, connection).run(_TABLES)
        connection.execute("UPDATE vault_state SET wrapping_key_id = ?", (wrapping_key_id,))
        begin_current(connection, wrapping_key_id, has_ended=True)
        wrapped = wrapping_keys.wrap(wrapping_key_id, TOKENS, secrets.token_bytes(SECRET_BYTES))
        connection.execute("INSERT INTO vault_secrets VALUES (?, ?, ?)", (TOKENS, wrapping_key_id, wrapped))


def drop_tables(database: VaultDatabase) -> None:
    """Undo `create_tables`."""
    with database.hold() as connection:
        names = re.findall(r"CREATE TABLE (?:IF NOT EXISTS )?(\w+)", _TABLES)
        if has_table(connection, "vault_months"):
            names += [month_table(month) for month in months_of(connection)]
        connection.execute(f"DROP TABLE IF EXISTS {', '.join(names)}")


def require_tables(database: VaultDatabase) -> None:
    """Make sure that this is a vault, of this format.

    Raises:
        NotFound: `key_store_missing`.
        CorruptError: it is of another format.
    """
    with database.read() as connection:
        if not has_table(connection, "vault_state"):
            raise NotFound(
                "there is no vault in this database; `clipkeep init --vault` makes one",
                subject=database.subject,
                code="key_store_missing",
            )
        [found] = connection.execute("SELECT format FROM vault_state").fetchone()
    if found != FORMAT:
        raise corrupt(
            database.subject, f"field format is {found}, this release reads {FORMAT}", RESTORE_DATABASE
        )


def state(connection: Connection) -> tuple[int, int]:
    """The current wrapping key's id, and the last month destroyed."""
    row = connection.execute("SELECT wrapping_key_id, month_floor FROM vault_state").fetchone()
    return int(row[0]), int(row[1])


def months_of(connection: Connection) -> list[int]:
    """The months that have a table, in order."""
    return [
        int(row[0]) for row in connection.execute("SELECT month FROM vault_months ORDER BY month").fetchall()
    ]


def make_month(connection: Connection, month: int) -> None:
    """Make a month's table where it is missing: one of those who need it does."""
    connection.execute(exclusive(MONTHS_LOCK))
    connection.execute(
        f"CREATE TABLE IF NOT EXISTS {month_table(month)} (device BIGINT NOT NULL, epoch BIGINT NOT NULL,"
        " wrapping_key_id BIGINT NOT NULL, wrapped BYTEA, PRIMARY KEY (device, epoch))"
    )
    connection.execute("INSERT INTO vault_months VALUES (?) ON CONFLICT DO NOTHING", (month,))
