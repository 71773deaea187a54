"""Chunks of a device that spreads them over many expiry days wait for others of their day. Synchronous and pure.

Each expiry day has a segment of its own, so chunks that are spread over many days make an object of every few of them,
and the operator pays for each put. A device whose chunks of the last `wait_s` are for `days` days at most opens
segments at will, as any camera does, also one that catches up after an outage. Of one that spreads them over more, each
joins what is open for its day, or waits in a *lot* with others of its class and day, whichever devices sent them. A lot
is due when it has `chunks` chunks or `LOT_BYTES`, when a segment of its day is opened, or when its first chunk has
waited `wait_s`. So in T seconds chunks for D days that wait make at most

    chunks / `chunks` + bytes / `LOT_BYTES` + D * (T / `wait_s` + 1)

objects. What waits has `bytes_` together, at most one chunk more; past it the oldest lot is due.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from itertools import islice

from ingest.budget import REQUEST_BYTES

GATHER_DAYS = 4
"""One that catches up sends day after day, and needs two of them around a midnight."""
GATHER_WAIT_S = 5.0
"""Most clients wait 10 s and longer for an answer."""
GATHER_CHUNKS = 16
GATHER_BYTES = 8 * 1024 * 1024
LOT_BYTES = 1024 * 1024
"""A put costs a quarter of what storing so much for a month does: more saves little."""

Place = tuple[int, int]
"""(class_days, expires_on): what shares a segment."""
Pack = Callable[[], Awaitable[None]]
"""Puts one chunk into its segment and ends its waiting, whatever becomes of it. Raises nothing but Cancelled."""


class Lot:
    """Chunks of one place that wait together. `waiting`: how to pack each, in the order in which they came."""

    def __init__(self, place: Place, began_s: float) -> None:
        self.place = place
        self.began_s = began_s
        self.size = 0
        """Bytes, as they count."""
        self.waiting: list[Pack] = []


class Gathering:
    """See the module docstring. Times are monotonic seconds.

    Args:
        days: for how many days a device opens segments at will within `wait_s`.
        wait_s: how long a chunk waits for others at most; 0: none ever waits.
        chunks: with so many a lot is due.
        bytes_: most that wait together, each chunk counted with `REQUEST_BYTES`.
    """

    def __init__(
        self,
        *,
        days: int = GATHER_DAYS,
        wait_s: float = GATHER_WAIT_S,
        chunks: int = GATHER_CHUNKS,
        bytes_: int = GATHER_BYTES,
    ) -> None:
        self._days = days
        self._wait_s = wait_s
        self._chunks = chunks
        self._bytes = bytes_
        self._recent: OrderedDict[int, dict[Place, float]] = OrderedDict()
        """When each device last opened a segment of which places, or wanted to, the latest last: `days` of them and one
        more. As long as is asked for it, so no more than were opened, and wait, in `wait_s`."""
        self._lots: dict[Place, Lot] = {}
        """In the order in which they began."""
        self._due: dict[Place, None] = {}
        """Those that are due before their time, in this order."""
        self.waiting_bytes = 0

    # --- who opens segments -------------------------------------------------------------------------------------

    def may_open(self, device: int, place: Place, now_s: float) -> bool:
        """Whether the device may open a segment for this place at once. Changes nothing."""
        recent = self._recent.get(device)
        if recent is None:
            return True
        since_s = now_s - self._wait_s
        return sum(at_s > since_s and other != place for other, at_s in recent.items()) < self._days

    def opened(self, device: int, place: Place, now_s: float) -> None:
        """The device has opened one. Who waits for others of this place may join it."""
        if place in self._lots:
            self._due[place] = None
        self._note(device, place, now_s)

    def _note(self, device: int, place: Place, now_s: float) -> None:
        recent = self._recent.setdefault(device, {})
        recent.pop(place, None)
        recent[place] = now_s
        if len(recent) > self._days + 1:
            del recent[next(iter(recent))]
        self._recent.move_to_end(device)
        for other, places in list(islice(self._recent.items(), 2)):  # so it shrinks faster than it grows
            if max(places.values()) <= now_s - self._wait_s:
                del self._recent[other]

    # --- who waits ------------------------------------------------------------------------------------------------

    @property
    def is_full(self) -> bool:
        return self.waiting_bytes >= self._bytes

    def hold(self, device: int, place: Place, length: int, pack: Pack, now_s: float) -> bool:
        """Let a chunk of so many bytes wait with others of its place. Returns False when there is no room."""
        if self.is_full or not self._wait_s:
            return False
        self._note(device, place, now_s)
        lot = self._lots.get(place)
        if lot is None:
            lot = self._lots[place] = Lot(place, now_s)
        lot.waiting.append(pack)
        lot.size += length + REQUEST_BYTES
        self.waiting_bytes += length + REQUEST_BYTES
        if len(lot.waiting) >= self._chunks or lot.size >= LOT_BYTES:
            self._due[place] = None
        if self.waiting_bytes >= self._bytes:
            self._due[next(iter(self._lots))] = None
        return True

    def next_due_s(self) -> float:
        """When a lot is due next; infinity when none waits."""
        if self._due:
            return -math.inf
        return next(iter(self._lots.values())).began_s + self._wait_s if self._lots else math.inf

    def take_due(self, now_s: float) -> Lot | None:
        """A lot that is due, which is the caller's from here on; None when there is none."""
        if self.next_due_s() > now_s:
            return None
        place = next(iter(self._due or self._lots))
        self._due.pop(place, None)
        lot = self._lots.pop(place)
        self.waiting_bytes -= lot.size
        return lot

    def stop(self) -> None:
        """From now on nobody waits, and what waits is due."""
        self._wait_s = 0.0
        self._due = dict.fromkeys(self._lots)
