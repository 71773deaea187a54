"""Log-in from elsewhere: who an account is at a provider (`user_version` 16).

Revision ID: 0015
Revises: 0014
"""

from alembic import op

from storage.sqlite.statements import statements

revision = "0015"
down_revision = "0014"

CHANGES = """
CREATE TABLE identities (
    account INTEGER NOT NULL REFERENCES accounts,
    provider TEXT NOT NULL,
    subject BLOB NOT NULL,
    subject_bucket INTEGER NOT NULL,
    linked_ms INTEGER NOT NULL,
    PRIMARY KEY (account, provider)
) STRICT, WITHOUT ROWID;
CREATE INDEX identities_by_subject ON identities (subject_bucket);
PRAGMA user_version=16;
"""


def upgrade() -> None:
    for statement in statements(CHANGES):
        op.execute(statement)
