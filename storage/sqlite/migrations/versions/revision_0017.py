"""The newest run of each job of the schedule (`user_version` 18).

Revision ID: 0017
Revises: 0016
"""

from alembic import op

from storage.sqlite.statements import statements

revision = "0017"
down_revision = "0016"

CHANGES = """
CREATE TABLE scheduled_runs (
    job TEXT PRIMARY KEY,
    host TEXT NOT NULL,
    began_ms INTEGER NOT NULL,
    ended_ms INTEGER,
    outcome TEXT NOT NULL,
    detail TEXT NOT NULL
) STRICT, WITHOUT ROWID;
PRAGMA user_version=18;
"""


def upgrade() -> None:
    for statement in statements(CHANGES):
        op.execute(statement)
