"""Share links (`user_version` 22).

Revision ID: 0021
Revises: 0020
"""

from alembic import op

from storage.sqlite.statements import statements

revision = "0021"
down_revision = "0020"

CHANGES = """
CREATE TABLE shares (
    share_id INTEGER PRIMARY KEY AUTOINCREMENT,
    account INTEGER NOT NULL REFERENCES accounts,
    device INTEGER NOT NULL REFERENCES devices,
    from_ms INTEGER NOT NULL,
    to_ms INTEGER NOT NULL,
    created_ms INTEGER NOT NULL,
    expires_ms INTEGER NOT NULL,
    token_generation INTEGER NOT NULL,
    viewer_generation INTEGER NOT NULL,
    opens INTEGER NOT NULL DEFAULT 0,
    opened_ms INTEGER
) STRICT;
CREATE INDEX shares_of_device ON shares (device);
CREATE INDEX shares_of_account ON shares (account);
CREATE INDEX shares_by_end ON shares (expires_ms);
PRAGMA user_version=22;
"""


def upgrade() -> None:
    for statement in statements(CHANGES):
        op.execute(statement)
