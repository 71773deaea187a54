"""How much is kept by day: counted in a bounded time, remembered, and never after it was deleted."""

from __future__ import annotations

from collections.abc import Sequence

from service.agreement import kept, kept_counts, recordings
from service.agreement.kept_counts import COUNT_S, PAST_TRUSTED_S, STEP_DAYS, TRUSTED_S, KeptCounts
from storage.rows.kept import KeptDay, KeptState
from tests.service.agreement.office import NOON, Office, owner

TODAY = 20_000


class Rows:
    """A catalog of sums. `costs` is how long counting a step takes."""

    def __init__(self, devices: Sequence[int], days: int) -> None:
        self.clock_s, self.cost_s = 1000.0, 0.0
        self.states = {
            device: KeptState(0, 0, 0, tuple(TODAY + 8 - ago for ago in range(days))) for device in devices
        }
        self.chunks = 1
        self.counted: list[tuple[int, list[int]]] = []

    def kept_states(self, devices: Sequence[int]) -> dict[int, KeptState]:
        return {device: self.states[device] for device in devices}

    def kept(self, device: int, expiry_days: Sequence[int]) -> dict[int, list[KeptDay]]:
        self.counted.append((device, list(expiry_days)))
        self.clock_s += self.cost_s
        return {day: [KeptDay(day - 8, self.chunks, 10, 2000)] for day in expiry_days}

    def ask(self, counts: KeptCounts) -> kept_counts.Kept:
        self.counted.clear()
        return counts.of(self, list(self.states), today=TODAY)


def begin(devices: Sequence[int], days: int) -> tuple[Rows, KeptCounts]:
    rows = Rows(devices, days)
    return rows, KeptCounts(now_s=lambda: rows.clock_s)


def test_sums_of_all_devices_by_day_and_of_each() -> None:
    rows, counts = begin([1, 2], 3)
    found = rows.ask(counts)
    assert found.is_complete
    assert found.days == tuple(KeptDay(TODAY - ago, 2, 20, 4000) for ago in (2, 1, 0))
    assert found.devices == {device: KeptDay(TODAY, 3, 30, 6000) for device in (1, 2)}


def test_what_was_counted_is_trusted_for_a_while() -> None:
    rows, counts = begin([1], 4)
    rows.ask(counts)
    rows.clock_s += TRUSTED_S - 1
    rows.ask(counts)
    assert rows.counted == []
    rows.clock_s += 1
    rows.ask(counts)
    assert rows.counted == [(1, [TODAY + 8, TODAY + 7])], "today and yesterday"
    rows.clock_s += PAST_TRUSTED_S
    rows.ask(counts)
    assert rows.counted == [(1, [TODAY + 8 - ago for ago in range(4)])]


def test_a_request_counts_for_a_bounded_time_and_the_next_ones_go_on() -> None:
    rows, counts = begin([1, 2], 3 * STEP_DAYS)
    rows.cost_s = COUNT_S / 1.5
    found = rows.ask(counts)
    assert [(device, days[0]) for device, days in rows.counted] == [(1, TODAY + 8), (2, TODAY + 8)]
    assert not found.is_complete
    assert len(found.days) == STEP_DAYS
    rows.clock_s += TRUSTED_S
    rows.ask(counts)
    assert rows.counted[0][1][0] == TODAY + 8 - STEP_DAYS, "before what is to be counted again"
    assert rows.ask(counts).is_complete


def test_a_deletion_and_an_erasure_are_seen_at_once() -> None:
    rows, counts = begin([1], 1)
    rows.ask(counts)
    for state in (KeptState(0, 5, 1, (TODAY + 8,)), KeptState(0, 5, 0, (TODAY + 8,)), KeptState(1, 5, 0, ())):
        rows.states[1] = state
        rows.chunks += 1
        found = rows.ask(counts)
        assert found.devices[1].chunks == (rows.chunks if state.expiry_days else 0)


def test_so_much_is_remembered() -> None:
    rows, counts = begin(range(7), 8000)
    while not rows.ask(counts).is_complete and len(counts._known) < kept_counts.MAX_REMEMBERED:
        pass
    rows.ask(counts)
    assert len(counts._known) == kept_counts.MAX_REMEMBERED


def test_of_an_owners_recordings(office: Office) -> None:
    row = office.active()
    device, other = office.device(row.account), office.device(row.account)
    office.keep([(device, NOON), (device, NOON + 500_000), (other, NOON)])
    of_account = kept.of_account(office.desk, owner(row), row.account)
    [day] = of_account.days
    assert day.chunks == 3
    assert [of_account.devices[number].chunks for number in (device, other)] == [2, 1]
    assert kept.of_account(office.desk, owner(row), row.account, limit=1).devices.keys() == {device}
    recordings.delete(office.desk, owner(row), device, NOON, NOON + 1, why="", delete_delay_ms=0)
    one = kept.of_device(office.desk, owner(row), device)
    assert (one.devices[device].chunks, one.is_complete) == (1, True)
