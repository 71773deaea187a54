"""Connections on which no request has been admitted yet: what a worker keeps of strangers is bounded for all together.

A camera is a stranger for the moment in which its first head comes, and next to nothing is kept of it meanwhile. Who
stays one and is in the way of others goes first, the longest known first.
"""

from __future__ import annotations

from ingest import answers
from ingest.outbox import Outbox

STRANGER_BYTES = 64 * 1024 * 1024
"""The default of `ingest.stranger_bytes`: 4000 half heads of the largest size, an eighth of the default budget."""


class Strangers:
    """Who they are, in the order of their coming, and what is held of them. Synchronous.

    Args:
        most_bytes: held of all of them together. The bytes are charged to the budget too.
    """

    def __init__(self, most_bytes: int = STRANGER_BYTES) -> None:
        self._most_bytes = most_bytes
        self._connections: dict[Outbox, None] = {}
        self._held: dict[Outbox, int] = {}
        """Bytes of those of whom some are held, in the order in which that began."""
        self.held_bytes = 0

    def add(self, connection: Outbox) -> None:
        """A connection was accepted."""
        self._connections[connection] = None

    def forget(self, connection: Outbox) -> None:
        """It has shown a token, or ended. Twice is harmless."""
        self._connections.pop(connection, None)
        self.hold(connection, 0)

    def hold(self, connection: Outbox, size: int) -> None:
        """So many bytes are now held of it. Past the bound those are let go of whom some were held for longest."""
        known_bytes = self._held.get(connection, 0)
        if size:
            self._held[connection] = size
        elif known_bytes:
            del self._held[connection]
        self.held_bytes += size - known_bytes
        while self.held_bytes > self._most_bytes:
            oldest = next(iter(self._held))
            self.held_bytes -= self._held.pop(oldest)
            oldest.evict(answers.OVERLOADED)

    def make_room(self) -> bool:
        """Let the longest known one go, for somebody new. Returns whether there was one."""
        if not self._connections:
            return False
        oldest = next(iter(self._connections))
        self.forget(oldest)
        oldest.cut_off()
        return True
