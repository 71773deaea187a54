"""What stays of payments when their account is erased; payments by time, and open ones by device (`user_version` 12).

Revision ID: 0011
Revises: 0010
"""

from alembic import op

from storage.sqlite.statements import statements

revision = "0011"
down_revision = "0010"

CHANGES = """
CREATE INDEX payments_open ON payments (device) WHERE state = 'pending' AND kind = 'charge';
CREATE INDEX payments_by_time ON payments (at_ms, payment_id);
CREATE TABLE closed_payments (
    payment_id INTEGER PRIMARY KEY,
    kind TEXT NOT NULL,
    state TEXT NOT NULL,
    currency TEXT NOT NULL,
    minor INTEGER NOT NULL,
    day INTEGER NOT NULL,
    reference_hash BLOB NOT NULL UNIQUE
) STRICT;
CREATE INDEX closed_payments_by_day ON closed_payments (day, payment_id);
PRAGMA user_version=12;
"""


def upgrade() -> None:
    for statement in statements(CHANGES):
        op.execute(statement)
