"""What the account books keep about people: corrections asked for, consents, serials, downloads, the privacy
policy, planned announcements; and which notices went to many (`user_version` 13).

Revision ID: 0012
Revises: 0011
"""

from alembic import op

from storage.sqlite.statements import statements

revision = "0012"
down_revision = "0011"

CHANGES = """
-- Requests to correct untrue data (agreement 6.1.1).
CREATE TABLE corrections (
    correction_id INTEGER PRIMARY KEY AUTOINCREMENT,
    account INTEGER NOT NULL REFERENCES accounts,
    state TEXT NOT NULL,
    fields TEXT NOT NULL,
    detail BLOB NOT NULL,
    asked_ms INTEGER NOT NULL,
    due_on INTEGER NOT NULL,
    next_on INTEGER,
    suspended_ms INTEGER,
    ended_ms INTEGER
) STRICT;
CREATE INDEX corrections_of_account ON corrections (account);
CREATE INDEX corrections_due ON corrections (next_on) WHERE next_on IS NOT NULL;

CREATE TABLE policies (
    version INTEGER PRIMARY KEY, published_ms INTEGER NOT NULL, sha256 TEXT NOT NULL, text TEXT NOT NULL
) STRICT;

CREATE TABLE announcements (
    reference TEXT PRIMARY KEY,
    subject TEXT NOT NULL,
    body TEXT NOT NULL,
    from_ms INTEGER NOT NULL,
    until_ms INTEGER NOT NULL,
    made_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX announcements_by_end ON announcements (until_ms);

CREATE TABLE consents (
    account INTEGER NOT NULL REFERENCES accounts,
    subject TEXT NOT NULL,
    given INTEGER NOT NULL,
    how TEXT NOT NULL,
    at_ms INTEGER NOT NULL,
    PRIMARY KEY (account, subject)
) STRICT, WITHOUT ROWID;
CREATE INDEX consents_given ON consents (subject, account) WHERE given = 1;

CREATE TABLE serials (
    device INTEGER PRIMARY KEY REFERENCES devices,
    account INTEGER NOT NULL REFERENCES accounts,
    serial BLOB NOT NULL,
    serial_hash BLOB UNIQUE  -- NULL: another device may have it
) STRICT;
CREATE INDEX serials_of_account ON serials (account);
-- Keyed hashes of serials that had their trial; they stay when accounts end.
CREATE TABLE serial_trials (serial_hash BLOB PRIMARY KEY, began_on INTEGER NOT NULL) STRICT, WITHOUT ROWID;

CREATE TABLE data_exports (
    export_id INTEGER PRIMARY KEY AUTOINCREMENT,
    account INTEGER NOT NULL REFERENCES accounts,
    state TEXT NOT NULL,
    asked_ms INTEGER NOT NULL,
    expires_ms INTEGER NOT NULL,
    claimed_ms INTEGER NOT NULL,
    ready_ms INTEGER,
    parts INTEGER NOT NULL,
    length INTEGER NOT NULL,
    secret BLOB NOT NULL,
    error TEXT NOT NULL
) STRICT;
CREATE INDEX data_exports_of_account ON data_exports (account);
CREATE INDEX data_exports_waiting ON data_exports (export_id) WHERE state = 'queued';

ALTER TABLE notices ADD COLUMN bulk INTEGER NOT NULL DEFAULT 0;
CREATE INDEX notices_own ON notices (next_ms) WHERE state = 'queued' AND bulk = 0;
CREATE INDEX notices_bulk ON notices (next_ms) WHERE state = 'queued' AND bulk = 1;
CREATE INDEX plans_not_trials ON plans (ends_on) WHERE kind != 'trial';
PRAGMA user_version=13;
"""


def upgrade() -> None:
    for statement in statements(CHANGES):
        op.execute(statement)
