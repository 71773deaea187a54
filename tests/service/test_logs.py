"""The log: what clients can cause is sampled."""

from __future__ import annotations

import structlog

from service.logs import SAMPLE_EVERY_S, Sampled


def test_one_line_of_a_kind_and_how_many_more_there_were() -> None:
    now_s = 0.0
    sampled = Sampled(structlog.get_logger(), lambda: now_s)
    with structlog.testing.capture_logs() as logs:
        for code in ("a", "b", "a", "a"):
            sampled.warning("unavailable", code)
        sampled.error("failed", "a", detail="x")
        now_s = SAMPLE_EVERY_S
        sampled.warning("unavailable", "a")
        sampled.warning("unavailable", "a")
        now_s = 2 * SAMPLE_EVERY_S
        sampled.warning("unavailable", "a")
    assert logs == [
        {"event": "unavailable", "log_level": "warning", "code": "a"},
        {"event": "unavailable", "log_level": "warning", "code": "b"},
        {"event": "failed", "log_level": "error", "code": "a", "detail": "x"},
        {"event": "unavailable", "log_level": "warning", "code": "a", "more": 2},
        {"event": "unavailable", "log_level": "warning", "code": "a", "more": 1},
    ]
