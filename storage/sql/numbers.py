"""Numbers that are never given twice, by a restored catalog neither; see `storage.catalog.continuity`."""

from __future__ import annotations

from collections.abc import Mapping

from storage.errors import WorldError
from storage.sql.connection import Connection
from storage.sql.meta import number, put_number

_SEQUENCES = {"device": "devices", "plan": "plans", "payment": "payments", "notice": "notices"}
"""Kinds that the engine itself counts, and their tables."""
_HIGHEST = {"account": "highest_account", "generation": "highest_generation"}
"""Kinds that are counted in `meta`."""
KINDS = (*_SEQUENCES, *_HIGHEST)


def highest_given(connection: Connection, kind: str) -> int:
    """The highest number of a kind that was given, or that may have been."""
    if kind in _SEQUENCES:
        return connection.last_number(_SEQUENCES[kind])
    found = number(connection, _HIGHEST[kind]) or 0
    if kind == "account":
        found = max(found, connection.execute("SELECT max(account) FROM accounts").fetchone()[0])
    return found


def ceiling(connection: Connection, kind: str) -> int | None:
    """What the store allows; None when nothing was ever reserved."""
    return number(connection, f"ceiling_{kind}")


def raise_ceiling(connection: Connection, kind: str, to: int) -> None:
    put_number(connection, f"ceiling_{kind}", max(to, ceiling(connection, kind) or 0))


def start_above(connection: Connection, ceilings: Mapping[str, int]) -> None:
    """Give no number up to these any more, and end all log-ins, operators' tokens, share links and codes: those that
    ended since are here again."""
    for kind, highest in ceilings.items():
        if highest <= highest_given(connection, kind):
            continue
        if kind in _HIGHEST:
            put_number(connection, _HIGHEST[kind], highest)
            if kind == "generation":
                put_number(connection, "lost_generations", highest)
            continue
        connection.start_above(_SEQUENCES[kind], highest)
    connection.execute("DELETE FROM sessions")
    connection.execute("DELETE FROM shares")
    connection.execute("DELETE FROM operator_tokens")
    connection.execute("DELETE FROM codes")


def require_room(connection: Connection, kind: str, highest: int) -> None:
    """Raises WorldError `numbers_used_up`: this number has not been reserved in the store."""
    allowed = ceiling(connection, kind)
    if allowed is not None and highest > allowed:
        raise WorldError(
            f"{kind} number {highest} is not reserved in the store: is it away? A running service reserves numbers by"
            " itself once it answers; try again then",
            subject="catalog",
            code="numbers_used_up",
        )


def next_generation(connection: Connection, asked: int) -> int:
    """The token generation to give in place of `asked`: one that no token of a lost catalog can have."""
    given = highest_given(connection, "generation")
    found = max(asked, (number(connection, "lost_generations") or 0) + 1)
    require_room(connection, "generation", found)
    if found > given:
        put_number(connection, _HIGHEST["generation"], found)
    return found
