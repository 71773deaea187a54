"""What all parts of the catalog stand on."""

from __future__ import annotations

from storage.sql.connection import Database


class OnDatabase:
    """A part of the catalog on its engine's database."""

    def __init__(self, database: Database) -> None:
        self.db = database
