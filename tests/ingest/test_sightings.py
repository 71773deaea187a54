"""What a worker tells the catalog of its devices: bounded, and of no more than half a minute ago."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest import sightings
from ingest.sightings import FLUSHED_AT_ONCE, TELL_EVERY_S, Sightings

NOW = 1_700_000_000_000


def flush(seen: Sightings, now_s: float) -> tuple[dict[int, int], dict[tuple[int, str], tuple[int, int]]]:
    due = seen.due(now_s, NOW + round(now_s * 1000))
    seen.told(*due, now_s)
    return due


def test_a_device_is_told_of_at_once_and_then_every_half_minute() -> None:
    seen = Sightings()
    told = []
    for second in range(100):
        seen.seen(7, float(second))
        if second % 5 == 0 and (due := flush(seen, float(second))[0]):
            told.append((second, due))
    assert told == [(at, {7: NOW + at * 1000}) for at in (0, 30, 60, 90)]
    assert flush(seen, 200.0) == ({7: NOW + 99_000}, {}), "the last time is not lost"
    assert flush(seen, 300.0) == ({}, {})


def test_refusals_add_up_by_code() -> None:
    seen = Sightings()
    for at in range(3):
        seen.refused(7, "expired", float(at))
    seen.refused(7, "no_frames", 1.0)
    assert flush(seen, 5.0)[1] == {(7, "expired"): (3, NOW + 2000), (7, "no_frames"): (1, NOW + 1000)}
    seen.refused(7, "expired", 6.0)
    assert flush(seen, 10.0) == ({}, {})
    assert flush(seen, 5.0 + TELL_EVERY_S)[1] == {(7, "expired"): (1, NOW + 6000)}


def test_what_comes_while_the_catalog_is_told_is_told_later() -> None:
    seen = Sightings()
    seen.seen(7, 0.0)
    seen.refused(7, "expired", 0.0)
    due = seen.due(1.0, NOW)
    seen.seen(7, 2.0)
    seen.refused(7, "expired", 2.0)
    seen.told(*due, 1.0)
    assert seen.due(40.0, NOW) == ({7: NOW - 38_000}, {(7, "expired"): (1, NOW - 38_000)})


def test_what_could_not_be_told_stays_due() -> None:
    seen = Sightings()
    seen.refused(7, "expired", 0.0)
    assert seen.due(1.0, NOW)[1] == {(7, "expired"): (1, NOW - 1000)}
    seen.refused(7, "expired", 1.0)
    assert seen.due(2.0, NOW)[1] == {(7, "expired"): (2, NOW - 1000)}


def test_a_worker_that_ends_tells_all_of_it_once() -> None:
    seen = Sightings()
    seen.seen(7, 0.0)
    flush(seen, 1.0)
    seen.seen(7, 2.0)
    assert seen.due(3.0, NOW)[0] == {}
    due = seen.due(3.0, NOW, before_s=3.0)
    assert due[0] == {7: NOW - 1000}
    seen.told(*due, 3.0)
    assert seen.due(3.0, NOW, before_s=3.0) == ({}, {})


def test_so_many_at_once_and_each_gets_its_turn() -> None:
    seen = Sightings()
    for device in range(3 * FLUSHED_AT_ONCE):
        seen.seen(device, 0.0)
        seen.refused(device, "expired", 0.0)
    told: list[int] = []
    for turn in range(3):
        devices, refused = flush(seen, TELL_EVERY_S * turn)
        assert len(devices) == len(refused) == FLUSHED_AT_ONCE
        told += devices
        for device in devices:
            seen.seen(device, TELL_EVERY_S * turn + 1)  # they are due again before the others were told of
    assert sorted(told) == list(range(3 * FLUSHED_AT_ONCE))


def test_who_waits_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    most = sightings.MAX_SEEN
    seen = Sightings()
    for device in range(most + 5):
        seen.seen(device, 0.0)
        seen.refused(device, "expired", 0.0)
    seen.seen(1, 1.0)
    found: dict[int, int] = {}
    refused = 0
    while due := seen.due(2.0, NOW)[0]:
        found |= due
        refused += len(flush(seen, 2.0)[1])
    assert len(found) == refused == most
    assert found[1] == NOW - 1000, "who waits already is counted on"


@given(st.lists(st.tuples(st.integers(1, 3), st.sampled_from(["seen", "a", "b", "flush"]))))
def test_no_refusal_is_lost_or_told_twice(steps: list[tuple[int, str]]) -> None:
    seen, counted, told, newest = Sightings(), {}, {}, {}
    for at, (device, what) in enumerate(steps):
        if what == "flush":
            for key, (count, _) in flush(seen, float(at))[1].items():
                told[key] = told.get(key, 0) + count
        elif what == "seen":
            seen.seen(device, float(at))
            newest[device] = at
        else:
            seen.refused(device, what, float(at))
            counted[device, what] = counted.get((device, what), 0) + 1
    end = float(len(steps)) + TELL_EVERY_S
    last, refused = seen.due(end, 0)
    for key, (count, _) in refused.items():
        told[key] = told.get(key, 0) + count
    assert told == counted
    assert all(ms == round((newest[device] - end) * 1000) for device, ms in last.items())
