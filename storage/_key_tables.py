"""The tables of keys.db, as the modules of the key store read them; `storage.keys` says why they are so."""

from __future__ import annotations

import re
import sqlite3

from storage._key_database import whole_number
from storage._key_wrapping import WRAPPED_BYTES

ZEROS = f"zeroblob({WRAPPED_BYTES})"
"""What stands in place of a destroyed key."""

_MONTH_TABLE = re.compile(r"month_[0-9]{6}")


def months_of(connection: sqlite3.Connection) -> list[int]:
    """The months that have a table, in order."""
    names = {
        str(name) for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
    }
    months = names - {"state", "floors", "account_keys"}
    if not all(map(_MONTH_TABLE.fullmatch, months)):
        raise sqlite3.DatabaseError("a table of another name")
    return sorted(int(name.removeprefix("month_")) for name in months)


def month_floor_of(connection: sqlite3.Connection) -> int:
    """The last month that was destroyed."""
    return whole_number(connection, "SELECT month_floor FROM state")


def current_wrapping_key(connection: sqlite3.Connection) -> int:
    """The id of the wrapping key that new rows take."""
    return whole_number(connection, "SELECT wrapping_key_id FROM state")
