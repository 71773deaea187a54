"""Which chunks wait for others of their day, how long, and how many objects that makes."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.budget import REQUEST_BYTES
from ingest.gathering import LOT_BYTES, Gathering, Pack

LINGER_S = 0.1


async def pack() -> None:
    raise AssertionError("these are only counted")


class Objects:
    """Counts the objects that chunks make, on a clock of its own: each open segment lives for the linger."""

    def __init__(self, gathering: Gathering) -> None:
        self.gathering = gathering
        self.made = 0
        self.waited = 0
        self.lots = 0
        self._open: dict[int, float] = {}

    def send(self, now_s: float, day: int, *, device: int = 1, length: int = 188, pack: Pack = pack) -> None:
        self.pass_time(now_s)
        if day in self._open:
            return
        if self.gathering.may_open(device, (30, day), now_s):
            self.gathering.opened(device, (30, day), now_s)
            self._open[day] = now_s
            self.made += 1
        else:
            assert self.gathering.hold(device, (30, day), length, pack, now_s)

    def pass_time(self, now_s: float) -> None:
        self._open = {day: since_s for day, since_s in self._open.items() if now_s - since_s < LINGER_S}
        while lot := self.gathering.take_due(now_s):
            self.waited += len(lot.waiting)
            self.lots += 1
            self.made += lot.place[1] not in self._open

    def end(self, now_s: float) -> int:
        self.pass_time(now_s)
        assert self.gathering.next_due_s() == math.inf
        assert self.gathering.waiting_bytes == 0
        return self.made


def per_thousand(days: Iterable[int], every_s: float) -> float:
    objects = Objects(Gathering())
    for number, day in enumerate(sent := list(days)):
        objects.send(number * every_s, day)
    return objects.end(len(sent) * every_s + 5.0) * 1000 / len(sent)


@pytest.mark.parametrize("every_s", [0.0, 0.001, 0.01])
def test_chunks_spread_over_58_days_make_few_objects(every_s: float) -> None:
    """They made 432 of 1000, and then 1000. 16 chunks share one; what is left of each day makes one more."""
    assert per_thousand((n % 58 for n in range(5000)), every_s) < 120
    few = random.Random(1)
    assert per_thousand((few.randrange(58) for _ in range(5000)), every_s) < 120
    assert per_thousand((few.randrange(7) for _ in range(5000)), every_s) < 120


@given(
    st.lists(st.tuples(st.integers(1, 3), st.integers(0, 30), st.integers(1, LOT_BYTES)), max_size=200),
    st.floats(0.001, 0.5),
)
def test_what_waits_makes_no_more_than_the_formula_says(
    chunks: list[tuple[int, int, int]], every_s: float
) -> None:
    gathering = Gathering(bytes_=10**12)
    objects = Objects(gathering)
    for number, (device, day, length) in enumerate(chunks):
        objects.send(number * every_s, day, device=device, length=length)
    took_s = len(chunks) * every_s
    size = sum(length + REQUEST_BYTES for _, _, length in chunks)
    most = len(chunks) / 16 + size / LOT_BYTES + len({day for _, day, _ in chunks}) * (took_s / 5.0 + 1)
    objects.end(took_s + 5.0)
    assert objects.lots <= most


def test_a_camera_that_catches_up_never_waits() -> None:
    objects = Objects(Gathering())
    for number in range(3000):
        objects.send(number * 0.01, number // 1000)
        objects.send(number * 0.01, 3, device=1)  # and goes on recording
    assert objects.end(100.0) > 0
    assert objects.waited == 0


def test_a_chunk_waits_so_long_and_no_longer() -> None:
    gathering = Gathering(wait_s=5.0)
    assert gathering.hold(1, (30, 1), 188, pack, 10.0)
    assert gathering.hold(1, (30, 1), 188, pack, 14.0)
    assert gathering.next_due_s() == 15.0
    assert gathering.take_due(14.999) is None
    lot = gathering.take_due(15.0)
    assert lot is not None
    assert lot.place == (30, 1)
    assert len(lot.waiting) == 2
    assert gathering.next_due_s() == math.inf


def test_a_device_that_spreads_no_longer_opens_at_will_again() -> None:
    gathering = Gathering()
    for day in range(4):
        assert gathering.may_open(1, (30, day), 0.0)
        gathering.opened(1, (30, day), 0.0)
    assert gathering.hold(1, (30, 4), 188, pack, 1.0)
    assert not gathering.may_open(1, (30, 0), 1.0), "all of its days wait now, those it had opened too"
    assert gathering.may_open(2, (30, 4), 1.0), "others open what they want"
    assert gathering.may_open(1, (30, 0), 5.0)


def test_enough_chunks_or_bytes_are_due_at_once() -> None:
    gathering = Gathering()
    for _ in range(15):
        assert gathering.hold(1, (30, 1), 188, pack, 0.0)
    assert gathering.take_due(0.0) is None
    assert gathering.hold(1, (30, 1), 188, pack, 0.0)
    assert gathering.take_due(0.0) is not None
    assert gathering.hold(1, (30, 2), LOT_BYTES - REQUEST_BYTES, pack, 0.0)
    assert gathering.take_due(0.0) is not None


def test_what_waits_is_bounded_and_a_full_room_opens_its_oldest_lot() -> None:
    gathering = Gathering(bytes_=10 * (1000 + REQUEST_BYTES))
    for day in range(10):
        assert not gathering.is_full
        assert gathering.hold(1, (30, day), 1000, pack, 0.0)
    assert gathering.is_full
    assert not gathering.hold(1, (30, 99), 1, pack, 0.0)
    lot = gathering.take_due(0.0)
    assert lot is not None
    assert lot.place == (30, 0)
    assert not gathering.is_full
    assert gathering.take_due(0.0) is None


def test_who_has_opened_what_is_forgotten_in_time() -> None:
    gathering = Gathering()
    for device in range(10_000):
        gathering.opened(device, (30, device % 9), device * 0.01)
    assert len(gathering._recent) <= 501, "5 s at 100 a second"


def test_nobody_waits_when_the_server_stops_or_where_it_is_turned_off() -> None:
    stopped, off = Gathering(), Gathering(wait_s=0.0)
    assert stopped.hold(1, (30, 1), 188, pack, 0.0)
    stopped.stop()
    assert stopped.take_due(0.0) is not None
    for gathering in (stopped, off):
        for day in range(100):
            assert gathering.may_open(1, (30, day), 0.0)
            gathering.opened(1, (30, day), 0.0)
            assert not gathering.hold(1, (30, day), 188, pack, 0.0)
