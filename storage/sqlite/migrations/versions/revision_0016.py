"""The list of hosts that serve this home (`user_version` 17).

Revision ID: 0016
Revises: 0015
"""

from alembic import op

from storage.sqlite.statements import statements

revision = "0016"
down_revision = "0015"

CHANGES = """
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
PRAGMA user_version=17;
"""


def upgrade() -> None:
    for statement in statements(CHANGES):
        op.execute(statement)
