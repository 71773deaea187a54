"""What a worker sees of its devices: when each was last acknowledged a chunk, and what was refused, for the catalog.

Pure: no I/O, no clock. It is counted in memory and at once, of requests alone whose token was right, so nobody else
makes the catalog grow. Every `FLUSH_EVERY_S` the worker tells the catalog what is *due*, `FLUSHED_AT_ONCE` devices at
most: who was not told of for `TELL_EVERY_S`. So a device costs the catalog a row in half a minute, whatever it sends,
and one that is refused a row for each code. A worker that is killed forgets what was not told yet.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import TypeVar

FLUSH_EVERY_S = 5.0
FLUSHED_AT_ONCE = 2000
"""Devices, and refusals, in one transaction of the catalog: some 10 ms, for which commits may wait. 24,000 devices of a
worker are told of within a minute; those of a larger one come later."""
TELL_EVERY_S = 30.0
"""Between two rows about a device, or about one code of it."""
MAX_SEEN = 30_000
"""Devices that wait to be told of, and as many codes of devices: 10 MB at most. Past it whoever comes is left out,
until others have been told of."""

K = TypeVar("K")


class Sightings:
    """See the module docstring. One per worker. `now_s` is monotonic everywhere."""

    __slots__ = ("_refused", "_seen", "_told_refused", "_told_seen")

    def __init__(self) -> None:
        self._seen: dict[int, float] = {}
        """When devices were acknowledged their newest chunk, as far as it was not told."""
        self._refused: dict[tuple[int, str], tuple[int, float]] = {}
        """By device and code: how many requests, and when the newest was refused, as far as it was not told."""
        self._told_seen: dict[int, float] = {}
        self._told_refused: dict[tuple[int, str], float] = {}
        """When the catalog was told, within the last `TELL_EVERY_S`."""

    def seen(self, device: int, now_s: float) -> None:
        """A chunk of the device was acknowledged."""
        seen = self._seen
        if device in seen or len(seen) < MAX_SEEN:
            seen[device] = now_s

    def refused(self, device: int, code: str, now_s: float) -> None:
        """A request was refused that came with the device's token."""
        refused, key = self._refused, (device, code)
        counted = refused.get(key)
        if counted is not None:
            refused[key] = (counted[0] + 1, now_s)
        elif len(refused) < MAX_SEEN:
            refused[key] = (1, now_s)

    def due(
        self, now_s: float, now_ms: int, *, before_s: float | None = None
    ) -> tuple[dict[int, int], dict[tuple[int, str], tuple[int, int]]]:
        """What the catalog is to be told next. It stays due until it is `told`.

        Args:
            now_ms: the server's clock, Unix ms.
            before_s: who was not told of since then is due, instead of since `TELL_EVERY_S` ago.

        Returns:
            As `SightingsCatalog.note_sightings` takes it.
        """
        if before_s is None:
            before_s = now_s - TELL_EVERY_S
        _forget(self._told_seen, now_s - TELL_EVERY_S)
        _forget(self._told_refused, now_s - TELL_EVERY_S)
        devices = (device for device in self._seen if self._told_seen.get(device, before_s) <= before_s)
        codes = (key for key in self._refused if self._told_refused.get(key, before_s) <= before_s)
        seen = {
            device: now_ms - round((now_s - self._seen[device]) * 1000)
            for device in islice(devices, FLUSHED_AT_ONCE)
        }
        refused = {
            key: (self._refused[key][0], now_ms - round((now_s - self._refused[key][1]) * 1000))
            for key in islice(codes, FLUSHED_AT_ONCE)
        }
        return seen, refused

    def told(
        self, seen: Mapping[int, int], refused: Mapping[tuple[int, str], tuple[int, int]], asked_s: float
    ) -> None:
        """The catalog has what was `due` at `asked_s`. What came since stays, to be told later."""
        for device in seen:
            self._told_seen[device] = asked_s
            last_s = self._seen.pop(device)
            if last_s > asked_s:
                self._seen[device] = last_s  # behind those that wait for their first turn
        for key, (count, _) in refused.items():
            self._told_refused[key] = asked_s
            counted, last_s = self._refused.pop(key)
            if counted > count:
                self._refused[key] = (counted - count, last_s)


def _forget(told: dict[K, float], before_s: float) -> None:
    """What was told as long ago as that holds nothing back any more."""
    for key in [key for key, told_s in told.items() if told_s <= before_s]:
        del told[key]
