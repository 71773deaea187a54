"""Pauses after failures: none at first, doubling, bounded, forgotten."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from retention.throttle import MAX_COUNT, Throttle, failed, take, wait_ms
from storage.rows.accounts import AttemptsRow

LIMITS = Throttle(free=5, lock_ms=30_000, max_lock_ms=3_600_000)
DAY_MS = 86_400_000


def after(failures: int, throttle: Throttle = LIMITS, row: AttemptsRow | None = None) -> AttemptsRow:
    for _ in range(failures):
        row = failed(row, "login:account:5", throttle, now_ms=1000)
    assert row is not None
    return row


def test_the_first_failures_cost_nothing_and_then_the_pause_doubles() -> None:
    waits = [wait_ms(after(n), LIMITS, now_ms=1000) for n in range(1, 15)]
    assert waits[:5] == [0] * 5
    assert waits[5:] == [30_000, 60_000, 120_000, 240_000, 480_000, 960_000, 1_920_000, 3_600_000, 3_600_000]
    assert wait_ms(None, LIMITS, now_ms=0) == 0


def test_a_pause_runs_out() -> None:
    row = after(6)
    assert wait_ms(row, LIMITS, now_ms=1000 + 29_999) == 1
    assert wait_ms(row, LIMITS, now_ms=1000 + 30_000) == 0


def test_old_failures_are_forgotten_by_halves() -> None:
    row = after(8)
    assert failed(row, "", LIMITS, now_ms=1000 + DAY_MS - 1).count == 9
    assert failed(row, "", LIMITS, now_ms=1000 + DAY_MS).count == 5
    assert failed(row, "", LIMITS, now_ms=1000 + 4 * DAY_MS).count == 1
    assert failed(row, "", LIMITS, now_ms=10**18).count == 1


def test_a_clock_set_back_locks_nobody_out_for_longer_than_the_bound() -> None:
    row = after(30)
    assert wait_ms(row, LIMITS, now_ms=-(10**12)) == LIMITS.max_lock_ms
    assert failed(row, "", LIMITS, now_ms=0).locked_until_ms == LIMITS.max_lock_ms


def test_the_count_is_bounded() -> None:
    row = AttemptsRow("x", MAX_COUNT, 0, 0)
    assert failed(row, "x", LIMITS, now_ms=1).count == MAX_COUNT


@given(st.integers(1, 20), st.integers(1, 10**6), st.integers(1, 10**9), st.integers(0, 200))
def test_pauses_never_shrink_and_never_exceed_the_bound(
    free: int, lock: int, most: int, failures: int
) -> None:
    throttle = Throttle(free, lock, most)
    row: AttemptsRow | None = None
    waits = []
    for _ in range(failures):
        row = failed(row, "x", throttle, now_ms=5)
        waits.append(wait_ms(row, throttle, now_ms=5))
    assert waits == sorted(waits)
    assert all(wait == 0 for wait in waits[:free])
    assert all(0 < wait <= most for wait in waits[free:])


def test_so_many_in_a_window_and_then_no_more_until_it_is_over() -> None:
    row, waits = None, []
    for now_ms in (0, 10, 20, 30, 99, 100, 101):
        taken = take(row, "register", most=3, window_ms=100, now_ms=now_ms)
        row = taken.row
        waits.append(taken.wait_ms)
    assert waits == [0, 0, 0, 70, 1, 0, 0]
    assert row is not None
    assert (row.count, row.first_ms) == (2, 100)


@given(st.lists(st.integers(-50, 300), max_size=60), st.integers(1, 5))
def test_no_window_has_more_than_its_most(steps: list[int], most: int) -> None:
    """Also when the clock goes back: a window then begins anew, and nobody waits longer than one."""
    row, now_ms, granted = None, 0, []
    for step in steps:
        now_ms += abs(step)
        taken = take(row, "x", most=most, window_ms=100, now_ms=now_ms)
        row = taken.row
        assert 0 <= taken.wait_ms <= 100
        if not taken.wait_ms:
            granted.append((row.first_ms, now_ms))
    for first_ms in {first for first, _ in granted}:
        assert sum(first == first_ms for first, _ in granted) <= most
    back = take(row, "x", most=most, window_ms=100, now_ms=-(10**6))
    assert back.wait_ms == 0
