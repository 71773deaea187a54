"""What a chunk's media holds (`user_version` 4): a column of every chunk table, empty for what is already stored.

Adding it rewrites no row: a transaction of milliseconds, whatever is stored.

Revision ID: 0003
Revises: 0002
"""

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    days = op.get_bind().exec_driver_sql("SELECT expires_on FROM days ORDER BY expires_on").fetchall()
    for (day,) in days:
        op.execute(f"ALTER TABLE chunks_{int(day)} ADD COLUMN facts BLOB NOT NULL DEFAULT x''")
    op.execute("PRAGMA user_version=4")
