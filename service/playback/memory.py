"""The bound on plaintext that one process holds for its readers."""

from __future__ import annotations

import trio

from ingest import answers
from service.playback.refusals import Refused


class Memory:
    """Bytes of chunks under way, bounded: who finds no room waits, and is refused in the end."""

    def __init__(self, total_bytes: int, wait_s: float) -> None:
        self.total_bytes = total_bytes
        self.held_bytes = 0
        self._wait_s = wait_s
        self._lot = trio.lowlevel.ParkingLot()

    async def take(self, size: int) -> None:
        """Charge `size` bytes. A chunk above the total is let in alone, so that it is not refused for ever.

        Raises:
            Refused: `overloaded`, no room for `wait_s`. Nothing is charged then, nor on cancellation.
        """
        with trio.move_on_after(self._wait_s) as waiting:
            while self.held_bytes and self.held_bytes + size > self.total_bytes:
                await self._lot.park()
        if waiting.cancelled_caught:
            raise Refused.by(answers.OVERLOADED)
        self.held_bytes += size

    def give(self, size: int) -> None:
        self.held_bytes -= size
        assert self.held_bytes >= 0, "gave back more than was taken"
        self._lot.unpark_all()
