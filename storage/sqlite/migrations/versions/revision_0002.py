"""The agreement: accounts that people register, sessions, subscriptions, payments, notices, history (`user_version` 3).

Plans are made anew, for AUTOINCREMENT: references of payments are made of their numbers, which may not come twice.

Revision ID: 0002
Revises: 0001
"""

import secrets

from alembic import op

from storage.sql.sealing import seal
from storage.sqlite.statements import statements

revision = "0002"
down_revision = "0001"

CHANGES = """
ALTER TABLE accounts ADD COLUMN state TEXT NOT NULL DEFAULT 'new';
ALTER TABLE accounts RENAME COLUMN name TO old_name;
ALTER TABLE accounts ADD COLUMN name BLOB NOT NULL DEFAULT x'';
ALTER TABLE accounts ADD COLUMN email BLOB;
ALTER TABLE accounts ADD COLUMN email_bucket INTEGER;
ALTER TABLE accounts ADD COLUMN mobile BLOB;
ALTER TABLE accounts ADD COLUMN mobile_bucket INTEGER;
ALTER TABLE accounts ADD COLUMN password_hash BLOB NOT NULL DEFAULT x'';
ALTER TABLE accounts ADD COLUMN activated_ms INTEGER;
ALTER TABLE accounts ADD COLUMN suspended_ms INTEGER;
ALTER TABLE accounts ADD COLUMN suspend_reason BLOB NOT NULL DEFAULT x'';
ALTER TABLE accounts ADD COLUMN trial_ms INTEGER;
ALTER TABLE accounts ADD COLUMN used_on INTEGER NOT NULL DEFAULT 0;
ALTER TABLE accounts ADD COLUMN closing TEXT NOT NULL DEFAULT 'none';
ALTER TABLE accounts ADD COLUMN closing_ms INTEGER;
ALTER TABLE accounts ADD COLUMN closing_reason BLOB NOT NULL DEFAULT x'';
ALTER TABLE accounts ADD COLUMN closing_by TEXT NOT NULL DEFAULT '';
ALTER TABLE accounts ADD COLUMN cancelled_on INTEGER;
CREATE INDEX accounts_by_email ON accounts (email_bucket) WHERE email_bucket IS NOT NULL;
CREATE INDEX accounts_by_mobile ON accounts (mobile_bucket) WHERE mobile_bucket IS NOT NULL;
CREATE INDEX accounts_closing ON accounts (account) WHERE closing = 'approved';
CREATE INDEX accounts_asking ON accounts (account) WHERE closing = 'requested';
UPDATE accounts SET state = 'active', activated_ms = created_ms;

ALTER TABLE devices ADD COLUMN used_on INTEGER NOT NULL DEFAULT 0;
CREATE INDEX devices_of_account ON devices (account);

CREATE TABLE new_plans (
    plan_id INTEGER PRIMARY KEY AUTOINCREMENT,
    device INTEGER NOT NULL REFERENCES devices,
    kind TEXT NOT NULL,
    starts_on INTEGER NOT NULL,
    ends_on INTEGER,
    retention_days INTEGER NOT NULL,
    cancelled_on INTEGER,
    created_ms INTEGER NOT NULL
) STRICT;
INSERT INTO new_plans SELECT plan_id, device, kind, starts_on, ends_on, retention_days, cancelled_on, created_ms
FROM plans ORDER BY plan_id;
DROP TABLE plans;
ALTER TABLE new_plans RENAME TO plans;
CREATE INDEX plans_of_device ON plans (device);
CREATE INDEX plans_ending ON plans (ends_on) WHERE kind = 'monthly';

CREATE INDEX changes_of_device ON changes (device);
CREATE TABLE account_keys (account INTEGER PRIMARY KEY, key BLOB NOT NULL) STRICT;  -- added and overwritten only

CREATE TABLE sessions (
    token_hash BLOB PRIMARY KEY,
    account INTEGER NOT NULL REFERENCES accounts,
    created_ms INTEGER NOT NULL,
    expires_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX sessions_of_account ON sessions (account);
CREATE INDEX sessions_by_end ON sessions (expires_ms);

CREATE TABLE codes (
    account INTEGER NOT NULL REFERENCES accounts,
    purpose TEXT NOT NULL,
    address BLOB NOT NULL,
    code_hash BLOB NOT NULL,
    expires_ms INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    PRIMARY KEY (account, purpose)
) STRICT, WITHOUT ROWID;

CREATE TABLE attempts (
    subject_hash BLOB PRIMARY KEY,
    count INTEGER NOT NULL,
    first_ms INTEGER NOT NULL,
    last_ms INTEGER NOT NULL,
    locked_until_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE subscriptions (
    plan_id INTEGER PRIMARY KEY REFERENCES plans,
    account INTEGER NOT NULL REFERENCES accounts,
    device INTEGER NOT NULL REFERENCES devices,
    currency TEXT NOT NULL,
    fee_minor INTEGER NOT NULL,
    monthly_fee_minor INTEGER NOT NULL,
    renews INTEGER NOT NULL,
    method BLOB NOT NULL,
    agreement_version INTEGER NOT NULL,
    bought_ms INTEGER NOT NULL,
    retry_at_ms INTEGER NOT NULL,
    failed_charges INTEGER NOT NULL
) STRICT;
CREATE INDEX subscriptions_of_account ON subscriptions (account);
CREATE INDEX subscriptions_of_device ON subscriptions (device);
CREATE INDEX subscriptions_renewing ON subscriptions (plan_id) WHERE renews = 1;

CREATE TABLE payments (
    payment_id INTEGER PRIMARY KEY AUTOINCREMENT,
    reference TEXT NOT NULL UNIQUE,
    account INTEGER NOT NULL REFERENCES accounts,
    plan_id INTEGER REFERENCES plans,
    device INTEGER NOT NULL REFERENCES devices,
    kind TEXT NOT NULL,
    currency TEXT NOT NULL,
    minor INTEGER NOT NULL,
    state TEXT NOT NULL,
    why BLOB NOT NULL,
    at_ms INTEGER NOT NULL,
    settled_ms INTEGER,
    gateway_id BLOB NOT NULL,
    detail BLOB NOT NULL  -- JSON
) STRICT;
CREATE INDEX payments_of_account ON payments (account);
CREATE INDEX payments_of_plan ON payments (plan_id);
CREATE INDEX payments_pending ON payments (payment_id) WHERE state = 'pending';

CREATE TABLE blocks (
    block_id INTEGER PRIMARY KEY AUTOINCREMENT,
    account INTEGER NOT NULL REFERENCES accounts,
    kind TEXT NOT NULL,
    detail BLOB NOT NULL,
    who BLOB NOT NULL,
    at_ms INTEGER NOT NULL,
    lifted_ms INTEGER
) STRICT;
CREATE INDEX blocks_of_account ON blocks (account);

CREATE TABLE events (
    event_id INTEGER PRIMARY KEY AUTOINCREMENT,
    account INTEGER NOT NULL REFERENCES accounts,
    device INTEGER,
    what TEXT NOT NULL,
    who TEXT NOT NULL,
    why BLOB NOT NULL,
    facts BLOB NOT NULL,  -- JSON
    at_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX events_of_account ON events (account);
CREATE TRIGGER events_stay_as_written BEFORE UPDATE ON events BEGIN
    SELECT RAISE(ABORT, 'events are append-only');
END;
CREATE TRIGGER events_go_with_their_account BEFORE DELETE ON events
WHEN (SELECT state FROM accounts WHERE account = OLD.account) IS NOT 'cancelled' BEGIN
    SELECT RAISE(ABORT, 'events go only with their account');
END;

CREATE TABLE notices (
    notice_id INTEGER PRIMARY KEY AUTOINCREMENT,
    account INTEGER NOT NULL REFERENCES accounts,
    channel TEXT NOT NULL,
    address BLOB NOT NULL,
    purpose TEXT NOT NULL,
    subject BLOB NOT NULL,
    body BLOB NOT NULL,
    created_ms INTEGER NOT NULL,
    state TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    next_ms INTEGER NOT NULL,
    settled_ms INTEGER,
    error BLOB NOT NULL
) STRICT;
CREATE INDEX notices_of_account ON notices (account);
CREATE INDEX notices_queued ON notices (next_ms) WHERE state = 'queued';
CREATE INDEX notices_failed ON notices (notice_id) WHERE state = 'failed';

CREATE TABLE agreements (
    version INTEGER PRIMARY KEY, published_ms INTEGER NOT NULL, sha256 TEXT NOT NULL, text TEXT NOT NULL
) STRICT;
CREATE TABLE acceptances (
    account INTEGER NOT NULL REFERENCES accounts,
    version INTEGER NOT NULL REFERENCES agreements,
    how TEXT NOT NULL,
    at_ms INTEGER NOT NULL,
    PRIMARY KEY (account, version)
) STRICT, WITHOUT ROWID;

CREATE TABLE answers (
    account INTEGER NOT NULL REFERENCES accounts,
    key TEXT NOT NULL,
    request_sha256 BLOB NOT NULL,
    status INTEGER NOT NULL,
    body BLOB NOT NULL,
    at_ms INTEGER NOT NULL,
    PRIMARY KEY (account, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX answers_by_time ON answers (at_ms);

-- Keyed hashes of addresses that may not be used again yet.
CREATE TABLE reserved_addresses (address_hash BLOB PRIMARY KEY, until_day INTEGER NOT NULL) STRICT, WITHOUT ROWID;
"""


def upgrade() -> None:
    for statement in statements(CHANGES):
        op.execute(statement)
    _seal_names()
    op.execute("ALTER TABLE accounts DROP COLUMN old_name")
    op.execute("PRAGMA user_version=3")


def _seal_names() -> None:
    connection = op.get_bind()
    names = connection.exec_driver_sql("SELECT account, old_name FROM accounts ORDER BY account").fetchall()
    for account, name in [(0, ""), *names]:
        key = secrets.token_bytes(32)
        connection.exec_driver_sql("INSERT INTO account_keys VALUES (?, ?)", (account, key))
        connection.exec_driver_sql(
            "UPDATE accounts SET name = ? WHERE account = ?", (seal(key, "accounts.name", name), account)
        )
