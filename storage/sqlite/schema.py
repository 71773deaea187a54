"""The catalog's tables. Chunk rows live in one table per expiry day, so that a day goes in one step."""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from pathlib import Path

from storage.account_keys import AccountKeys
from storage.errors import CallerError, CatalogCorrupt
from storage.sql.beginning import begin_accounts, first_keys
from storage.sqlite.books_schema import BOOKS_TABLES
from storage.sqlite.database import SqliteDatabase
from storage.sqlite.statements import statements

SCHEMA_VERSION = 23
REVISION = "0022"
"""The newest migration: what `create_schema` makes is as if all of them had run (`storage.sqlite.migrations`)."""
OUTDATED = {
    2: "0001",
    3: "0002",
    4: "0003",
    5: "0004",
    6: "0005",
    7: "0006",
    8: "0007",
    9: "0008",
    10: "0009",
    11: "0010",
    12: "0011",
    13: "0012",
    14: "0013",
    15: "0014",
    16: "0015",
    17: "0016",
    18: "0017",
    19: "0018",
    20: "0019",
    21: "0020",
    22: "0021",
}
"""Schema versions of earlier releases, and the revisions that they are."""
SEALED = 1_000_000
"""Added to the version of a file whose rows were copied elsewhere: `storage.sqlite.sealing_off`."""

TABLES = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT;
INSERT INTO meta VALUES ('closed_through', 0);

CREATE TABLE accounts (
    account INTEGER PRIMARY KEY,  -- rows stay when accounts end, so no number is given twice
    kind TEXT NOT NULL,
    created_ms INTEGER NOT NULL,
    state TEXT NOT NULL DEFAULT 'new',
    name BLOB NOT NULL DEFAULT x'',  -- BLOBs are sealed with the account's key: `storage.sql.sealing`
    email BLOB,
    email_bucket INTEGER,
    mobile BLOB,
    mobile_bucket INTEGER,
    password_hash BLOB NOT NULL DEFAULT x'',
    activated_ms INTEGER,
    suspended_ms INTEGER,
    suspend_reason BLOB NOT NULL DEFAULT x'',
    trial_ms INTEGER,
    used_on INTEGER NOT NULL DEFAULT 0,
    closing TEXT NOT NULL DEFAULT 'none',
    closing_ms INTEGER,
    closing_reason BLOB NOT NULL DEFAULT x'',
    closing_by TEXT NOT NULL DEFAULT '',
    cancelled_on INTEGER,
    used_version INTEGER NOT NULL DEFAULT 0  -- of the agreement that was current at the last request
) STRICT;
CREATE INDEX accounts_by_email ON accounts (email_bucket) WHERE email_bucket IS NOT NULL;
CREATE INDEX accounts_by_mobile ON accounts (mobile_bucket) WHERE mobile_bucket IS NOT NULL;
CREATE INDEX accounts_closing ON accounts (account) WHERE closing = 'approved';
CREATE INDEX accounts_asking ON accounts (account) WHERE closing = 'requested';
INSERT INTO accounts (account, kind, created_ms, state, activated_ms) VALUES (1, 'operator', 0, 'active', 0);

CREATE TABLE devices (
    device INTEGER PRIMARY KEY AUTOINCREMENT,  -- never given twice: an old token or chunk must not fit a new one
    account INTEGER NOT NULL REFERENCES accounts,
    token_generation INTEGER NOT NULL DEFAULT 1,
    erase_epoch INTEGER NOT NULL DEFAULT 0,
    suspended INTEGER NOT NULL DEFAULT 0,
    terminated_ms INTEGER,
    erase_state INTEGER NOT NULL DEFAULT 0,
    erase_reason TEXT NOT NULL DEFAULT '',
    classes TEXT NOT NULL DEFAULT '[]',  -- JSON: every retention class this device's chunks may have
    has_deletions INTEGER NOT NULL DEFAULT 0,
    stale_rows INTEGER NOT NULL DEFAULT 0,  -- 1: there may be chunk rows of an earlier erase epoch
    created_ms INTEGER NOT NULL,
    used_on INTEGER NOT NULL DEFAULT 0,  -- day of the last upload or playback
    used_version INTEGER NOT NULL DEFAULT 0,  -- of the agreement that was current then
    viewer_generation INTEGER NOT NULL DEFAULT 0  -- viewer tokens of another one are void
) STRICT;
CREATE INDEX devices_of_account ON devices (account);
CREATE INDEX devices_erasing ON devices (erase_state) WHERE erase_state != 0;

CREATE TABLE plans (
    plan_id INTEGER PRIMARY KEY AUTOINCREMENT,  -- never given twice: references of payments are made of it
    device INTEGER NOT NULL REFERENCES devices,
    kind TEXT NOT NULL,
    starts_on INTEGER NOT NULL,
    ends_on INTEGER,
    retention_days INTEGER NOT NULL,
    cancelled_on INTEGER,
    created_ms INTEGER NOT NULL,
    package TEXT NOT NULL DEFAULT '',
    package_version INTEGER NOT NULL DEFAULT 0,
    limit_class INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX plans_of_device ON plans (device);
CREATE INDEX plans_ending ON plans (ends_on) WHERE kind = 'monthly';
CREATE INDEX plans_trials ON plans (ends_on) WHERE kind = 'trial';
CREATE INDEX plans_not_trials ON plans (ends_on) WHERE kind != 'trial';

CREATE TABLE changes (
    number INTEGER PRIMARY KEY AUTOINCREMENT, device INTEGER NOT NULL, what TEXT NOT NULL, at_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX changes_of_device ON changes (device);

CREATE TABLE segments (
    segment_id INTEGER PRIMARY KEY AUTOINCREMENT,
    key TEXT NOT NULL UNIQUE,
    class_days INTEGER NOT NULL,
    expires_on INTEGER NOT NULL,
    state INTEGER NOT NULL DEFAULT 0,
    prepared_ms INTEGER NOT NULL,
    size_bytes INTEGER NOT NULL DEFAULT 0,
    chunks INTEGER NOT NULL DEFAULT 0,
    live_chunks INTEGER NOT NULL DEFAULT 0,
    crc32 INTEGER NOT NULL DEFAULT 0,
    refused BLOB NOT NULL DEFAULT x'',   -- uint32 ordinals
    delete_after_ms INTEGER,
    retry_at_ms INTEGER NOT NULL DEFAULT 0,  -- apart from delete_after_ms, which tells how old a tombstone is
    attempts INTEGER NOT NULL DEFAULT 0,  -- failed deletes; of a committed segment, failed rewrites
    last_error TEXT,
    reclaimed INTEGER NOT NULL DEFAULT 0  -- 1: to be deleted twice; 2: once more
) STRICT;
CREATE INDEX segments_by_state ON segments (state, expires_on);
CREATE INDEX tombstones ON segments (state) WHERE state = 2;  -- the sweep reads them in order of id, in pages
CREATE INDEX half_dead ON segments (expires_on) WHERE state = 1 AND live_chunks * 2 <= chunks;  -- worth a rewrite

-- Which chunks_N tables exist.
CREATE TABLE days (expires_on INTEGER PRIMARY KEY) STRICT;

CREATE TABLE deletions (
    deletion_id INTEGER PRIMARY KEY,
    device INTEGER NOT NULL REFERENCES devices,
    from_ms INTEGER NOT NULL,
    to_ms INTEGER NOT NULL,
    reason BLOB NOT NULL DEFAULT x'',  -- sealed with the key of the device's account
    who TEXT NOT NULL,  -- a role
    chunks INTEGER NOT NULL,
    at_ms INTEGER NOT NULL,
    done_ms INTEGER  -- NULL: there may be rows left; readers leave them out
) STRICT;
CREATE INDEX deletions_of_device ON deletions (device);
CREATE INDEX deletions_unfinished ON deletions (device) WHERE done_ms IS NULL;

-- What devices with limits sent in a day, as their workers report it: `ingest.limits`.
CREATE TABLE daily_uploads (
    day INTEGER NOT NULL,
    device INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    chunks INTEGER NOT NULL,
    PRIMARY KEY (day, device)
) STRICT, WITHOUT ROWID;

-- What workers saw of devices: `storage.catalog.sightings`.
CREATE TABLE sightings (device INTEGER PRIMARY KEY, seen_ms INTEGER NOT NULL) STRICT;
CREATE TABLE refusals (
    device INTEGER NOT NULL,
    code TEXT NOT NULL,
    count INTEGER NOT NULL,
    last_ms INTEGER NOT NULL,
    PRIMARY KEY (device, code)
) STRICT, WITHOUT ROWID;

-- Who serves this home: `storage.catalog.hosts`. Moments are by home's clock.
CREATE TABLE hosts (
    host TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    release TEXT NOT NULL,
    registered_ms INTEGER NOT NULL,
    asked_ms INTEGER NOT NULL,
    max_stale_ms INTEGER NOT NULL,
    applied INTEGER NOT NULL DEFAULT 0,
    load_pct INTEGER NOT NULL DEFAULT 0,
    lag_ms INTEGER NOT NULL DEFAULT 0,
    offset_ms INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

-- What the live playlist of a watched device lists, so that its numbers are the same from every process.
CREATE TABLE live_lists (
    device INTEGER PRIMARY KEY REFERENCES devices,
    version INTEGER NOT NULL,  -- counts its changes: who writes one names the version that it was made of
    epoch INTEGER NOT NULL,
    state TEXT NOT NULL  -- JSON of `service.playback.live`
) STRICT;

-- The init segment that a device sent last: `storage.rows.recordings.SentInit`.
CREATE TABLE inits (
    device INTEGER PRIMARY KEY REFERENCES devices,
    epoch INTEGER NOT NULL,
    number INTEGER NOT NULL,
    expires_on INTEGER NOT NULL,
    at_ms INTEGER NOT NULL
) STRICT;

-- The newest run of each job: `storage.catalog.schedule`.
CREATE TABLE scheduled_runs (
    job TEXT PRIMARY KEY,
    host TEXT NOT NULL,
    began_ms INTEGER NOT NULL,
    ended_ms INTEGER,
    outcome TEXT NOT NULL,
    detail TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- What the recording gateway was asked, where a home has several hosts: `storage.catalog.payment_records`.
CREATE TABLE payment_records (
    reference TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    minor INTEGER NOT NULL,
    currency TEXT NOT NULL,
    outcome TEXT NOT NULL,
    detail TEXT NOT NULL,
    of_reference TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE leases (
    name TEXT PRIMARY KEY, holder TEXT NOT NULL, fence INTEGER NOT NULL, expires_ms INTEGER NOT NULL
) STRICT;

CREATE TABLE sweeps (sweep_id INTEGER PRIMARY KEY, at_ms INTEGER NOT NULL, report TEXT NOT NULL) STRICT;
CREATE TABLE failed_sweeps (
    failure_id INTEGER PRIMARY KEY,
    at_ms INTEGER NOT NULL,
    code TEXT NOT NULL,
    detail TEXT NOT NULL,
    after_sweep INTEGER NOT NULL  -- the newest sweep_id of then: how many failed since the last that ended well
) STRICT;

CREATE TABLE erasures (
    erasure_id INTEGER PRIMARY KEY,
    device INTEGER NOT NULL,  -- no reference: the record outlives its device, and holds no personal data
    epoch INTEGER NOT NULL,
    why TEXT NOT NULL,
    who TEXT NOT NULL,
    marked_ms INTEGER NOT NULL,
    keys_destroyed_ms INTEGER,
    keys_destroyed INTEGER NOT NULL DEFAULT 0,
    unindexed_ms INTEGER,
    unindexed_chunks INTEGER NOT NULL DEFAULT 0,
    cleared_ms INTEGER,
    verified_ms INTEGER,
    verified TEXT NOT NULL DEFAULT '',
    UNIQUE (device, epoch)
) STRICT;
CREATE INDEX erasures_open ON erasures (erasure_id) WHERE cleared_ms IS NULL;

-- As Alembic itself makes it.
CREATE TABLE alembic_version (
    version_num VARCHAR(32) NOT NULL, CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
"""


def create_schema(database: SqliteDatabase, keys: AccountKeys) -> None:
    """Make all tables in a new file, in one transaction."""
    key_ids = first_keys(keys)
    with database.hold() as connection:
        for statement in statements(TABLES + BOOKS_TABLES):
            connection.execute(statement)
        begin_accounts(connection, keys, key_ids)
        connection.execute("INSERT INTO alembic_version VALUES (?)", (REVISION,))
        connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")


def require_schema(database: SqliteDatabase) -> None:
    """Say whether this is a whole catalog of this release.

    Raises:
        CallerError: `catalog_outdated`, of an earlier release: `clipkeep catalog migrate`.
        CallerError: `catalog_moved`, it was copied elsewhere.
        CatalogCorrupt: another schema version than this release reads, or a file that was cut.
    """
    with database.read() as connection:
        found = connection.execute("PRAGMA user_version").fetchone()[0]
        if found == SCHEMA_VERSION:
            require_whole(connection, database.path)
            return
    if found in OUTDATED:
        raise CallerError(
            "this catalog is of an earlier release; stop the service and run `clipkeep catalog migrate`",
            subject=str(database.path),
            code="catalog_outdated",
        )
    if found == SEALED + SCHEMA_VERSION:
        raise CallerError(
            "this catalog was sealed by `clipkeep catalog copy`, so that nothing is written to it beside the copy. If"
            " that was stopped, run it again, or take it back with --back; else [home] catalog names the new one",
            subject=str(database.path),
            code="catalog_moved",
        )
    raise not_of_this_release(database.path, found)


def not_of_this_release(path: Path, version: int) -> CatalogCorrupt:
    return CatalogCorrupt(
        f"schema version {version}, this release reads {SCHEMA_VERSION}: not a Clipkeep catalog, or of another release",
        subject=str(path),
    )


def require_whole(connection: sqlite3.Connection, path: Path) -> None:
    """Raises CatalogCorrupt when the file was cut."""
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    page_bytes = connection.execute("PRAGMA page_size").fetchone()[0]
    # SQLite reads a last page that was cut as if it ended in zeros. What is not in the file may be in the
    # write-ahead log, so only an empty one proves a cut; asked in this order, neither can have grown into an alarm.
    log = path.with_name(path.name + "-wal")
    log_bytes = 0
    with suppress(FileNotFoundError):
        log_bytes = log.stat().st_size
    if log_bytes == 0 and path.stat().st_size < pages * page_bytes:
        raise CatalogCorrupt(
            "the file was cut; restore it from a backup, then run `clipkeep check`", subject=str(path)
        )
