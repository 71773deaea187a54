"""Records of the recording gateway (`user_version` 19).

Revision ID: 0018
Revises: 0017
"""

from alembic import op

from storage.sqlite.statements import statements

revision = "0018"
down_revision = "0017"

CHANGES = """
CREATE TABLE payment_records (
    reference TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    minor INTEGER NOT NULL,
    currency TEXT NOT NULL,
    outcome TEXT NOT NULL,
    detail TEXT NOT NULL,
    of_reference TEXT NOT NULL
) STRICT, WITHOUT ROWID;
PRAGMA user_version=19;
"""


def upgrade() -> None:
    for statement in statements(CHANGES):
        op.execute(statement)
