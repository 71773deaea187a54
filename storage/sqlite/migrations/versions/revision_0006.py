"""Numbers without gaps, and privileges, on PostgreSQL: here nothing but the number (`user_version` 7).

Revision ID: 0006
Revises: 0005
"""

from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.execute("PRAGMA user_version=7")
