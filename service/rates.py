"""What this host's workers do now: chunks and bytes a second, refusals by code, from what they publish.

Workers count since they began; two looks some time apart make a rate. Looks are taken whether somebody asks or not, so
that whoever opens the page sees the last minutes at once: a read of a small file for each worker every `LOOK_EVERY_S`.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import trio

LOOK_EVERY_S = 10.0
LOOKS = 31
"""Five minutes of them."""
MAX_CODES = 50
"""Of refusals, in one answer: those that came most often. There are some forty codes."""

Published = Callable[[], Mapping[str, Mapping[str, Any]]]
"""What every worker published last, by its name (`service.metrics.published`). Blocks for less than a ms."""


@dataclass(frozen=True, slots=True)
class Worker:
    name: str
    is_up: bool
    problem: str
    connections: int
    at_ms: int


@dataclass(frozen=True, slots=True)
class Rates:
    """Of the last `over_s` seconds; nothing is known yet when that is 0.

    Args:
        refusals: by (status, code), the most frequent first: how many in that time.
    """

    over_s: float = 0.0
    chunks_per_s: float = 0.0
    bytes_per_s: float = 0.0
    failed_segments: int = 0
    refusals: tuple[tuple[int, str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class _Look:
    at_s: float
    workers: Mapping[str, Mapping[str, Any]]


class Watch:
    """Keeps looks at the workers.

    Args:
        published: see `Published`.
        now_s: a clock that only goes forward.
    """

    def __init__(self, published: Published, now_s: Callable[[], float] = time.monotonic) -> None:
        self._published = published
        self._now_s = now_s
        self._looks: deque[_Look] = deque(maxlen=LOOKS)

    async def run(self) -> None:
        """The task that looks."""
        while True:
            self.note(await trio.to_thread.run_sync(self._published))
            await trio.sleep(LOOK_EVERY_S)

    def note(self, workers: Mapping[str, Mapping[str, Any]]) -> None:
        self._looks.append(_Look(self._now_s(), workers))

    def rates(self) -> Rates:
        """Between the oldest look that is kept and the newest. A worker that began anew in between counts from then."""
        if len(self._looks) < 2:
            return Rates()
        first, last = self._looks[0], self._looks[-1]
        chunks = size = failed = 0
        refusals: Counter[tuple[int, str]] = Counter()
        for name, now in last.workers.items():
            before = first.workers.get(name, {})
            if (
                not before
                or now["chunks"] < before["chunks"]
                or _answers(now).total() < _answers(before).total()
            ):
                before = {"chunks": 0, "chunk_bytes": 0, "failed_segments": 0, "answers": []}
            chunks += now["chunks"] - before["chunks"]
            size += now["chunk_bytes"] - before["chunk_bytes"]
            failed += now["failed_segments"] - before["failed_segments"]
            refusals += _answers(now) - _answers(before)
        over_s = last.at_s - first.at_s
        most = [(*key, count) for key, count in refusals.most_common(MAX_CODES) if key[0] >= 400]
        return Rates(over_s, chunks / over_s, size / over_s, failed, tuple(most))

    def workers(self, now_ms: int, stale_ms: int) -> list[Worker]:
        """As they were at the newest look."""
        if not self._looks:
            return []
        return [
            Worker(
                name,
                not values["problem"] and abs(now_ms - values["at_ms"]) < stale_ms,
                values["problem"].partition(":")[0],
                values["connections"],
                values["at_ms"],
            )
            for name, values in self._looks[-1].workers.items()
        ]


def _answers(values: Mapping[str, Any]) -> Counter[tuple[int, str]]:
    return Counter({(status, code): count for status, code, count in values.get("answers", ())})
