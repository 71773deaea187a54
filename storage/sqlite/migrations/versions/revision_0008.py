"""What people wrote is sealed with their account's key, hashed, or gone (`user_version` 9).

    changes.what      a code: the reason behind it goes (accounts' histories have the reasons, sealed)
    deletions.reason  sealed
    deletions.who     a role
    answers.key       a keyed hash of the idempotency key

The tables are made anew, so that `secure_delete` overwrites every page of the old ones, unused parts included. The log
is cut by the next `overwrite_erased`, which `migrate` calls for.

Revision ID: 0008
Revises: 0007
"""

from alembic import context, op

from storage.sql.moving_texts import ROLES, code_of, hashed_keys, sealed_reasons
from storage.sqlite.statements import statements

revision = "0008"
down_revision = "0007"

TABLES = """
CREATE TABLE new_changes (
    number INTEGER PRIMARY KEY AUTOINCREMENT, device INTEGER NOT NULL, what TEXT NOT NULL, at_ms INTEGER NOT NULL
) STRICT;
CREATE TABLE new_deletions (
    deletion_id INTEGER PRIMARY KEY,
    device INTEGER NOT NULL REFERENCES devices,
    from_ms INTEGER NOT NULL,
    to_ms INTEGER NOT NULL,
    reason BLOB NOT NULL DEFAULT x'',
    who TEXT NOT NULL,
    chunks INTEGER NOT NULL,
    at_ms INTEGER NOT NULL,
    done_ms INTEGER
) STRICT;
CREATE TABLE new_answers (
    account INTEGER NOT NULL REFERENCES accounts,
    key TEXT NOT NULL,
    request_sha256 BLOB NOT NULL,
    status INTEGER NOT NULL,
    body BLOB NOT NULL,
    at_ms INTEGER NOT NULL,
    holder TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (account, key)
) STRICT, WITHOUT ROWID;
"""
LAST = """
DELETE FROM sqlite_sequence WHERE name = 'new_changes';
UPDATE sqlite_sequence SET name = 'new_changes' WHERE name = 'changes';
DROP TABLE changes;
DROP TABLE deletions;
DROP TABLE answers;
ALTER TABLE new_changes RENAME TO changes;
ALTER TABLE new_deletions RENAME TO deletions;
ALTER TABLE new_answers RENAME TO answers;
CREATE INDEX changes_of_device ON changes (device);
CREATE INDEX deletions_of_device ON deletions (device);
CREATE INDEX deletions_unfinished ON deletions (device) WHERE done_ms IS NULL;
CREATE INDEX answers_by_time ON answers (at_ms);
INSERT INTO meta VALUES ('erased_left_in_log', 1) ON CONFLICT DO NOTHING;
PRAGMA user_version=9;
"""


def upgrade() -> None:
    connection, vault = op.get_bind(), context.config.attributes["vault"]
    connection.exec_driver_sql("PRAGMA secure_delete=ON")
    driver = connection.connection.driver_connection
    assert driver is not None
    driver.create_function("code_of", 1, code_of, deterministic=True)
    for statement in statements(TABLES):
        op.execute(statement)
    connection.exec_driver_sql(
        "INSERT INTO new_changes SELECT number, device, code_of(what), at_ms FROM changes"
    )
    roles = ", ".join(f"'{role}'" for role in ROLES)
    connection.exec_driver_sql(
        f"INSERT INTO new_deletions SELECT deletion_id, device, from_ms, to_ms, x'',"
        f" CASE WHEN who IN ({roles}) THEN who ELSE '' END, chunks, at_ms, done_ms FROM deletions"
    )
    reasons = connection.exec_driver_sql(
        "SELECT deletion_id, reason, key_id FROM deletions JOIN devices USING (device)"
        " LEFT JOIN account_keys USING (account)"
    ).fetchall()
    for number, sealed in sealed_reasons(vault, reasons):
        connection.exec_driver_sql(
            "UPDATE new_deletions SET reason = ? WHERE deletion_id = ?", (sealed, number)
        )
    answers = connection.exec_driver_sql("SELECT account, key FROM answers").fetchall()
    own = connection.exec_driver_sql("SELECT key_id FROM account_keys WHERE account = 0").scalar()
    for values in hashed_keys(vault, own, answers):
        connection.exec_driver_sql(
            "INSERT INTO new_answers SELECT account, ?, request_sha256, status, body, at_ms, holder FROM answers"
            " WHERE account = ? AND key = ?",
            values,
        )
    for statement in statements(LAST):
        op.execute(statement)
