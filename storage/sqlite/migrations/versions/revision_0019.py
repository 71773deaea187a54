"""Names of devices, and what workers saw of them (`user_version` 20).

Revision ID: 0019
Revises: 0018
"""

from alembic import op

from storage.sqlite.statements import statements

revision = "0019"
down_revision = "0018"

CHANGES = """
CREATE TABLE device_names (
    device INTEGER PRIMARY KEY REFERENCES devices,
    account INTEGER NOT NULL REFERENCES accounts,
    name BLOB NOT NULL,
    label BLOB NOT NULL
) STRICT;
CREATE INDEX device_names_of_account ON device_names (account, device);
CREATE TABLE sightings (device INTEGER PRIMARY KEY, seen_ms INTEGER NOT NULL) STRICT;
CREATE TABLE refusals (
    device INTEGER NOT NULL,
    code TEXT NOT NULL,
    count INTEGER NOT NULL,
    last_ms INTEGER NOT NULL,
    PRIMARY KEY (device, code)
) STRICT, WITHOUT ROWID;
PRAGMA user_version=20;
"""


def upgrade() -> None:
    for statement in statements(CHANGES):
        op.execute(statement)
