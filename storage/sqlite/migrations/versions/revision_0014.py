"""Operators have names, roles and tokens of their own; what they did is in histories by name (`user_version` 15).

Tokens of earlier releases, which were sessions, become those of the built-in operator.

Revision ID: 0014
Revises: 0013
"""

from alembic import op

from storage.sqlite.statements import statements

revision = "0014"
down_revision = "0013"

CHANGES = """CREATE TABLE operators (
    operator INTEGER PRIMARY KEY AUTOINCREMENT,
    name BLOB NOT NULL,
    role TEXT NOT NULL,
    added_ms INTEGER NOT NULL,
    ended_ms INTEGER,
    account INTEGER NOT NULL REFERENCES accounts
) STRICT;
CREATE TABLE operator_tokens (
    token_id INTEGER PRIMARY KEY AUTOINCREMENT,
    token_hash BLOB NOT NULL UNIQUE,
    operator INTEGER REFERENCES operators,  -- NULL: of the built-in operator
    created_ms INTEGER NOT NULL,
    expires_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX operator_tokens_by_end ON operator_tokens (expires_ms);
INSERT INTO operator_tokens (token_hash, created_ms, expires_ms)
    SELECT token_hash, created_ms, expires_ms FROM sessions WHERE account = 1;
DELETE FROM sessions WHERE account = 1;
ALTER TABLE events ADD COLUMN operator BLOB NOT NULL DEFAULT x'';
PRAGMA user_version=15;
"""


def upgrade() -> None:
    for statement in statements(CHANGES):
        op.execute(statement)
