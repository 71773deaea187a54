"""What the API stands on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from service.playback import PlaybackServices


@dataclass(frozen=True, kw_only=True)
class ApiServices(PlaybackServices):
    """What the API stands on: playback with its limits, and what operators ask for."""

    ready: Callable[[], Awaitable[dict[str, str]]]
    """What is wrong, by component; empty when the service can do its work. Bounds its own time."""
    metrics: Callable[[], bytes]
    """The text of `/metrics`. May block: it is called in a thread."""
