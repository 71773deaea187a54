"""The catalog of the main job: devices, plans, segments, sweeps, erasures (`user_version` 2).

Revision ID: 0001
Revises:
"""

from alembic import op

from storage.sqlite.statements import statements

revision = "0001"
down_revision = None

TABLES = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT;
INSERT INTO meta VALUES ('closed_through', 0);

CREATE TABLE accounts (
    account INTEGER PRIMARY KEY, kind TEXT NOT NULL, name TEXT NOT NULL, created_ms INTEGER NOT NULL
) STRICT;
INSERT INTO accounts VALUES (1, 'operator', 'the built-in operator account', 0);

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
    created_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX devices_erasing ON devices (erase_state) WHERE erase_state != 0;

CREATE TABLE plans (
    plan_id INTEGER PRIMARY KEY,
    device INTEGER NOT NULL REFERENCES devices,
    kind TEXT NOT NULL,
    starts_on INTEGER NOT NULL,
    ends_on INTEGER,
    retention_days INTEGER NOT NULL,
    cancelled_on INTEGER,
    created_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX plans_of_device ON plans (device);

CREATE TABLE changes (
    number INTEGER PRIMARY KEY AUTOINCREMENT, device INTEGER NOT NULL, what TEXT NOT NULL, at_ms INTEGER NOT NULL
) STRICT;

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
    reason TEXT NOT NULL,
    who TEXT NOT NULL,
    chunks INTEGER NOT NULL,
    at_ms INTEGER NOT NULL,
    done_ms INTEGER  -- NULL: there may be rows left; readers leave them out
) STRICT;
CREATE INDEX deletions_of_device ON deletions (device);
CREATE INDEX deletions_unfinished ON deletions (device) WHERE done_ms IS NULL;

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
PRAGMA user_version=2;
"""


def upgrade() -> None:
    for statement in statements(TABLES):
        op.execute(statement)
