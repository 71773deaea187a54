"""What live playlists list (`user_version` 6).

Revision ID: 0005
Revises: 0004
"""

from alembic import op

revision = "0005"
down_revision = "0004"

LIVE_LISTS = """
CREATE TABLE live_lists (
    device INTEGER PRIMARY KEY REFERENCES devices,
    version INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    state TEXT NOT NULL
) STRICT
"""


def upgrade() -> None:
    op.execute(LIVE_LISTS)
    op.execute("PRAGMA user_version=6")
