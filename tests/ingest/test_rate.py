"""The per-device rate limit."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ingest import rate
from ingest.rate import BURST, DeviceRate


def test_off_by_default() -> None:
    limit = DeviceRate(0.0)
    assert all(limit.allows(1, 0.0) for _ in range(1000))


def test_a_burst_then_the_rate() -> None:
    limit = DeviceRate(2.0)
    assert [limit.allows(1, 100.0) for _ in range(BURST + 1)] == [True] * BURST + [False]
    assert limit.allows(2, 100.0), "each device has a limit of its own"
    assert not limit.allows(1, 100.4)
    assert limit.allows(1, 100.5)
    assert not limit.allows(1, 100.5)
    assert [limit.allows(1, 200.0) for _ in range(BURST + 1)] == [True] * BURST + [False], (
        "a pause refills it"
    )


def test_a_refusal_costs_nothing() -> None:
    limit = DeviceRate(1.0)
    for _ in range(BURST + 100):
        limit.allows(1, 0.0)
    assert limit.allows(1, 1.0)


@given(st.lists(st.floats(0, 3), max_size=200))
def test_never_more_than_the_burst_and_the_rate(gaps: list[float]) -> None:
    limit = DeviceRate(1.0)
    now_s = allowed = 0.0
    for gap in gaps:
        now_s += gap
        allowed += limit.allows(1, now_s)
        assert allowed <= BURST + now_s + 1e-6


def test_the_devices_remembered_are_bounded() -> None:
    """However many devices are within their limit at once."""
    limit = DeviceRate(0.001)
    for device in range(rate.MAX_DEVICES + 500):
        assert limit.allows(device, 0.0)
    assert len(limit._next_s) <= rate.MAX_DEVICES
    assert device - 1 in limit._next_s, "the most recent ones are kept"
