"""Account keys go into the vault; the catalog keeps which account has which (`user_version` 8).

The keys stay the same, so nothing is sealed anew. Where they were in the file they are overwritten, in their place; the
log, and what the page of each held before, is cut by the next `overwrite_erased`, which `migrate` calls for.

Revision ID: 0007
Revises: 0006
"""

from alembic import context, op

from storage.sql.moving_keys import moved_to_vault
from storage.sqlite.statements import statements

revision = "0007"
down_revision = "0006"

CHANGES = """
CREATE TABLE new_account_keys (
    key_id BLOB PRIMARY KEY,
    account INTEGER UNIQUE,  -- NULL: it has ended; the vault destroys it
    destroyed INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
"""
LAST = """
UPDATE account_keys SET key = zeroblob(32);
DROP TABLE account_keys;
ALTER TABLE new_account_keys RENAME TO account_keys;
CREATE INDEX account_keys_ended ON account_keys (key_id) WHERE account IS NULL AND destroyed = 0;
INSERT INTO meta VALUES ('erased_left_in_log', 1) ON CONFLICT DO NOTHING;
PRAGMA user_version=8;
"""


def upgrade() -> None:
    connection, attributes = op.get_bind(), context.config.attributes
    connection.exec_driver_sql("PRAGMA secure_delete=ON")
    rows = connection.exec_driver_sql("SELECT account, key FROM account_keys ORDER BY account").fetchall()
    for statement in statements(CHANGES):
        op.execute(statement)
    for key_id, account in moved_to_vault(attributes["vault"], rows, now_ms=attributes["now_ms"]):
        connection.exec_driver_sql(
            "INSERT INTO new_account_keys (key_id, account) VALUES (?, ?)", (key_id, account)
        )
    for statement in statements(LAST):
        op.execute(statement)
