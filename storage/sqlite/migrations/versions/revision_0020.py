"""Init segments of fragments (`user_version` 21).

Revision ID: 0020
Revises: 0019
"""

from alembic import op

from storage.sqlite.statements import statements

revision = "0020"
down_revision = "0019"

CHANGES = """
CREATE TABLE inits (
    device INTEGER PRIMARY KEY REFERENCES devices,
    epoch INTEGER NOT NULL,
    number INTEGER NOT NULL,
    expires_on INTEGER NOT NULL,
    at_ms INTEGER NOT NULL
) STRICT;
PRAGMA user_version=21;
"""


def upgrade() -> None:
    for statement in statements(CHANGES):
        op.execute(statement)
