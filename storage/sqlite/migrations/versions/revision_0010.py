"""Payment methods of an account, and disputes among payments (`user_version` 11).

Revision ID: 0010
Revises: 0009
"""

from alembic import op

from storage.sqlite.statements import statements

revision = "0010"
down_revision = "0009"

CHANGES = """
CREATE INDEX payments_disputed ON payments (payment_id) WHERE kind = 'dispute' AND state = 'open';
CREATE TABLE methods (
    reference TEXT PRIMARY KEY,
    account INTEGER NOT NULL REFERENCES accounts,
    state TEXT NOT NULL,
    made_ms INTEGER NOT NULL,
    method BLOB NOT NULL,
    label BLOB NOT NULL,
    url BLOB NOT NULL,
    until_ms INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX methods_of_account ON methods (account);
PRAGMA user_version=11;
"""


def upgrade() -> None:
    for statement in statements(CHANGES):
        op.execute(statement)
