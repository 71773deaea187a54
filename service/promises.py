"""What an acknowledged chunk survives, by the settings of the servers that hold catalog and keys: said, and held to."""

from __future__ import annotations

from collections.abc import Mapping

from service.config import HomeSettings
from storage.errors import CallerError
from storage.open_catalog import promise_at
from storage.open_vault import is_server
from storage.promise import Promise, Survives


def promises_of(home: HomeSettings) -> dict[str, Promise]:
    """What the catalog and, on a server of its own, the vault promise now.

    Raises:
        CatalogUnavailable: a server does not answer.
    """
    found = {"catalog": promise_at(home.catalog)}
    if is_server(home.vault):
        found["vault"] = promise_at(home.vault)
    return found


def require_promises(home: HomeSettings) -> Mapping[str, Promise]:
    """The promises, when they are what the configuration asks for.

    Raises:
        CallerError: `unsafe_server`.
        CatalogUnavailable: a server does not answer.
    """
    least = Survives[home.survives.upper()]
    found = promises_of(home)
    for whose, promise in found.items():
        if promise.survives < least:
            raise CallerError(
                f'the server of the {whose} does not promise what [home] survives = "{least.word}" asks for:'
                f' {promise.said}. Or, knowing that, set [home] survives = "{promise.survives.word}" (at'
                f" `init`: CLIPKEEP_HOME_SURVIVES={promise.survives.word})",
                subject=whose,
                code="unsafe_server",
            )
    return found
