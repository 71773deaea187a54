"""Kept clips (`user_version` 23).

Revision ID: 0022
Revises: 0021
"""

from alembic import op

from storage.sqlite.statements import statements

revision = "0022"
down_revision = "0021"

CHANGES = """
CREATE TABLE kept_clips (
    clip_id INTEGER PRIMARY KEY AUTOINCREMENT,
    account INTEGER NOT NULL REFERENCES accounts,
    device INTEGER NOT NULL REFERENCES devices,
    epoch INTEGER NOT NULL,
    first_ms INTEGER NOT NULL,
    from_ms INTEGER NOT NULL,
    to_ms INTEGER NOT NULL,
    name BLOB NOT NULL,
    created_ms INTEGER NOT NULL,
    state TEXT NOT NULL,
    chunks INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    next_ms INTEGER NOT NULL,
    claimed_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX kept_clips_of_device ON kept_clips (device);
CREATE INDEX kept_clips_of_account ON kept_clips (account);
CREATE INDEX kept_clips_waiting ON kept_clips (clip_id) WHERE state = 'copying';

CREATE TABLE kept_chunks (
    clip_id INTEGER NOT NULL,
    device INTEGER NOT NULL,
    capture_ms INTEGER NOT NULL,
    segment_id INTEGER NOT NULL,
    ordinal INTEGER NOT NULL,
    "offset" INTEGER NOT NULL,
    length INTEGER NOT NULL,
    duration_ms INTEGER NOT NULL,
    crc32 INTEGER NOT NULL,
    nonce BLOB NOT NULL,
    media INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    facts BLOB NOT NULL,
    PRIMARY KEY (clip_id, capture_ms)
) STRICT, WITHOUT ROWID;
CREATE INDEX kept_chunks_of_segment ON kept_chunks (segment_id);
PRAGMA user_version=23;
"""


def upgrade() -> None:
    for statement in statements(CHANGES):
        op.execute(statement)
