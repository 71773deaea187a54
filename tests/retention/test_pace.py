"""The pace of deleting: lowered by the store, raised by success, held by the operator."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retention.sweep.pace import LEAST_PER_S, STEP_PER_S, DeletePace
from storage.objects import DELETE_BATCH_KEYS


def test_nothing_limits_it_until_somebody_does() -> None:
    pace = DeletePace()
    for _ in range(3):
        assert pace.batch_keys == DELETE_BATCH_KEYS
        assert pace.succeeded(1000, 0.01) == 0


def test_a_word_of_the_store_halves_it_and_success_raises_it_step_by_step() -> None:
    pace = DeletePace()
    assert pace.slowed(1000, 0.1) > 0
    assert (pace.rate_per_s, pace.batch_keys) == (500, 500)
    pace.slowed(500, 0.1)
    assert pace.rate_per_s == 250
    assert pace.succeeded(250, 0.25) == 0.75
    assert pace.rate_per_s == 250 + STEP_PER_S


@pytest.mark.parametrize("max_per_s", [1.0, 7.5, 250.0, 5000.0])
def test_an_operators_limit_holds(max_per_s: float) -> None:
    pace = DeletePace(max_per_s)
    now_s, sent = 0.0, 0
    for _ in range(200):
        keys = pace.batch_keys
        now_s += pace.succeeded(keys, 0.01) + 0.01
        sent += keys
    assert sent <= max_per_s * now_s + 1e-6
    assert sent >= 0.7 * min(max_per_s, DELETE_BATCH_KEYS / 0.011) * now_s


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 300))), st.none() | st.floats(1, 10_000))
def test_it_stays_within_bounds_whatever_happens(
    story: list[tuple[bool, float]], max_per_s: float | None
) -> None:
    pace = DeletePace(max_per_s)
    for slow, took_s in story:
        keys = pace.batch_keys
        assert 1 <= keys <= DELETE_BATCH_KEYS
        wait_s = pace.slowed(keys, took_s) if slow else pace.succeeded(keys, took_s)
        assert 0 <= wait_s <= 1.0
        if pace.rate_per_s is not None:
            assert pace.rate_per_s >= LEAST_PER_S
            assert max_per_s is None or pace.rate_per_s <= max_per_s
