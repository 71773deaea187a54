"""Limits of packages, what devices upload in a day, and fees that running plans are told of (`user_version` 14).

What was sold and bought by earlier releases has no limits, and keeps its fee until a newer one is applied to it.

Revision ID: 0013
Revises: 0012
"""

from alembic import op

from storage.sqlite.statements import statements

revision = "0013"
down_revision = "0012"

CHANGES = """
ALTER TABLE packages ADD COLUMN max_bytes_per_day INTEGER NOT NULL DEFAULT 0;
ALTER TABLE packages ADD COLUMN max_chunks_per_s INTEGER NOT NULL DEFAULT 0;
ALTER TABLE packages ADD COLUMN limit_class INTEGER NOT NULL DEFAULT 0;
ALTER TABLE packages ADD COLUMN applied_ms INTEGER;
ALTER TABLE plans ADD COLUMN limit_class INTEGER NOT NULL DEFAULT 0;
ALTER TABLE subscriptions ADD COLUMN fee_version INTEGER NOT NULL DEFAULT 0;
ALTER TABLE subscriptions ADD COLUMN next_fee_version INTEGER NOT NULL DEFAULT 0;
ALTER TABLE subscriptions ADD COLUMN next_fee_minor INTEGER NOT NULL DEFAULT 0;
ALTER TABLE subscriptions ADD COLUMN next_fee_on INTEGER NOT NULL DEFAULT 0;
CREATE TABLE daily_uploads (
    day INTEGER NOT NULL,
    device INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    chunks INTEGER NOT NULL,
    PRIMARY KEY (day, device)
) STRICT, WITHOUT ROWID;
CREATE INDEX subscriptions_told ON subscriptions (plan_id) WHERE next_fee_version <> 0;
PRAGMA user_version=14;
"""


def upgrade() -> None:
    for statement in statements(CHANGES):
        op.execute(statement)
