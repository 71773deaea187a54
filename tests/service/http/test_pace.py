"""Patience with a reader: a rate, and a time in which nothing may come."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from service.http.pace import Patience

RATE, GRACE_S = 1000.0, 10.0


def patience() -> Patience:
    return Patience(min_bytes_per_s=RATE, grace_s=GRACE_S)


@given(st.floats(0.01, 5), st.integers(1, 500))
def test_who_keeps_the_rate_is_waited_for_without_an_end(step_s: float, steps: int) -> None:
    reader = patience()
    for _ in range(steps):
        reader.waited(step_s)
        reader.took(round(step_s * RATE) + 1)
    assert reader.left_s > 0


@given(st.floats(0.01, 1), st.floats(0, 0.9))
def test_who_does_not_is_let_go_in_the_end(step_s: float, part: float) -> None:
    reader = patience()
    waited_s = 0.0
    while reader.left_s > 0:
        reader.waited(step_s)
        waited_s += step_s
        reader.took(int(step_s * RATE * part))
    assert waited_s <= GRACE_S / (1 - part) + 2 * step_s


def test_nothing_that_was_taken_before_buys_more_than_the_grace() -> None:
    reader = patience()
    reader.took(10**12)
    reader.waited(GRACE_S)
    assert reader.left_s == 0
