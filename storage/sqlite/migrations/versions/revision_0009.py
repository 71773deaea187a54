"""What is sold: packages, in versions; a plan names the one that it is of (`user_version` 10).

Plans of earlier releases are of the packages that the next opening makes of config.toml, named as kinds of plans.

Revision ID: 0009
Revises: 0008
"""

from alembic import op

from storage.sqlite.statements import statements

revision = "0009"
down_revision = "0008"

CHANGES = """
CREATE TABLE packages (
    package TEXT NOT NULL,
    version INTEGER NOT NULL,
    kind TEXT NOT NULL,
    months INTEGER NOT NULL,
    days INTEGER NOT NULL,
    retention_days INTEGER NOT NULL,
    max_devices INTEGER NOT NULL,
    sold_from INTEGER NOT NULL,
    sold_until INTEGER,
    made_ms INTEGER NOT NULL,
    prices TEXT NOT NULL,  -- JSON
    PRIMARY KEY (package, version)
) STRICT, WITHOUT ROWID;
ALTER TABLE plans ADD COLUMN package TEXT NOT NULL DEFAULT '';
ALTER TABLE plans ADD COLUMN package_version INTEGER NOT NULL DEFAULT 0;
UPDATE plans SET package = kind, package_version = 1;
PRAGMA user_version=10;
"""


def upgrade() -> None:
    for statement in statements(CHANGES):
        op.execute(statement)
