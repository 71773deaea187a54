"""When a chunk was recorded that is timed by its arrival: its name tells no time, so its body's end and its length do.

A camera sends a chunk when it has recorded it, or while it does. So a chunk of 4 s whose body ended at 12:00:04 began
at 12:00:00, and no later than its request's head came. What the network adds to that is taken away by the next chunks
of the connection: they continue where the last one ended, as far as that fits.
"""

from __future__ import annotations

from storage.media_facts import NOTHING_KNOWN, MediaFacts, distance_ms, unpack_facts

ORDERED_MS = 1000
"""How far the last chunk's time may be ahead of the clock so that chunks keep their order: further ahead than any burst
gets, the clock was set back."""
LATE_MS = 10_000
"""How much later than it would follow on the last one a chunk may come and still continue it: a network that stalls.
With more, a camera that stopped for a while would be dated too early, if its own clock stopped too."""
EARLY_MS = 1000
"""How much earlier it may come: what delayed the last one. More is a burst of what was recorded before."""
SLEW_PER_MILLE = 1
"""How much of a chunk's length later than the last one's end it is dated when it came late: a camera's clock is up to
0.1 per mille wrong, and would run away from ours otherwise."""


class Arrivals:
    """Of one connection. Chunks of a device keep their order, also when several come within a millisecond."""

    __slots__ = ("_device", "_duration_ms", "_facts", "_start_ms")

    def __init__(self) -> None:
        self._device = 0
        self._start_ms = 0
        self._duration_ms = 0
        self._facts: MediaFacts = NOTHING_KNOWN

    def start_ms(self, device: int, head_ms: int, end_ms: int, duration_ms: int, packed_facts: bytes) -> int:
        """When the chunk began that has just come, Unix ms. The next one is measured by it.

        Args:
            head_ms, end_ms: when its head and the end of its body came, by the server's clock.
            duration_ms: 0 when it is not known.
        """
        facts = unpack_facts(packed_facts)
        start = min(end_ms - duration_ms, head_ms)
        last = self._start_ms
        if device == self._device and last - end_ms < ORDERED_MS:
            length = self._length_ms(facts)
            late = start - last - length
            if length and -EARLY_MS <= late <= LATE_MS:
                # Earlier than it follows: the last ones came late. Later: this one did, but for a clock that drifts.
                start = last + length + min(late, length * SLEW_PER_MILLE // 1000)
            start = max(start, last + 1)
        self._device, self._start_ms, self._duration_ms, self._facts = device, start, duration_ms, facts
        return start

    def _length_ms(self, following: MediaFacts) -> int:
        """From the last chunk's begin to that of one that follows on it; 0 when this one does not."""
        before, after = self._facts.times, following.times
        if before is None or after is None:
            return self._duration_ms
        return distance_ms(self._facts, following) or 0
