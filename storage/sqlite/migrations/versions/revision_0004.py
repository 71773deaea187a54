"""What continued use, new passwords and unanswered payments leave in the catalog (`user_version` 5).

All but the indexes are new columns with a constant default, which SQLite adds without touching a row.

Revision ID: 0004
Revises: 0003
"""

from alembic import op

from storage.sqlite.statements import statements

revision = "0004"
down_revision = "0003"

CHANGES = """
ALTER TABLE accounts ADD COLUMN used_version INTEGER NOT NULL DEFAULT 0;
ALTER TABLE devices ADD COLUMN used_version INTEGER NOT NULL DEFAULT 0;
ALTER TABLE devices ADD COLUMN viewer_generation INTEGER NOT NULL DEFAULT 0;
ALTER TABLE payments ADD COLUMN attempts INTEGER NOT NULL DEFAULT 0;
ALTER TABLE payments ADD COLUMN next_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE answers ADD COLUMN holder TEXT NOT NULL DEFAULT '';
DROP INDEX payments_pending;
CREATE INDEX payments_pending ON payments (next_ms, payment_id) WHERE state = 'pending';
CREATE INDEX payments_refused ON payments (payment_id) WHERE kind = 'refund' AND state = 'failed';
CREATE INDEX notices_codes ON notices (next_ms)
    WHERE state = 'queued' AND purpose IN ('activate', 'email', 'mobile', 'password');
CREATE INDEX plans_trials ON plans (ends_on) WHERE kind = 'trial';
"""


def upgrade() -> None:
    for statement in statements(CHANGES):
        op.execute(statement)
    op.execute("PRAGMA user_version=5")
