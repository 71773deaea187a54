"""Rates of what workers count, from looks some time apart."""

from __future__ import annotations

from typing import Any

from service.rates import LOOKS, Rates, Watch, Worker


def counts(chunks: int, refused: int = 0, **more: Any) -> dict[str, Any]:
    answers = [[200, "stored", chunks], [403, "plan_lapsed", refused]]
    base = {"at_ms": 1000, "problem": "", "connections": 1, "failed_segments": 0}
    return base | {"chunks": chunks, "chunk_bytes": 10 * chunks, "answers": answers} | more


def test_two_looks_make_a_rate() -> None:
    now_s = [100.0]
    watch = Watch(dict, lambda: now_s[0])
    assert watch.rates() == Rates()
    watch.note({"w0": counts(50, 5)})
    assert watch.rates() == Rates()
    now_s[0] += 10
    watch.note({"w0": counts(150, 8), "w1": counts(20, failed_segments=2)})
    assert watch.rates() == Rates(10.0, 12.0, 120.0, 2, ((403, "plan_lapsed", 3),))


def test_a_worker_that_began_anew_counts_from_then() -> None:
    now_s = [0.0]
    watch = Watch(dict, lambda: now_s[0])
    watch.note({"w0": counts(1000, 50)})
    now_s[0] = 5.0
    watch.note({"w0": counts(10, 1)})
    assert watch.rates().chunks_per_s == 2.0
    assert watch.rates().refusals == ((403, "plan_lapsed", 1),)


def test_old_looks_are_forgotten() -> None:
    now_s = [0.0]
    watch = Watch(dict, lambda: now_s[0])
    for number in range(LOOKS + 5):
        now_s[0] = float(number)
        watch.note({"w0": counts(0 if number < 5 else 100)})
    assert watch.rates() == Rates(LOOKS - 1.0)


def test_a_worker_is_up_while_it_reports_no_problem_and_is_heard() -> None:
    watch = Watch(dict, lambda: 0.0)
    assert watch.workers(1000, 10_000) == []
    watch.note(
        {"a": counts(1), "b": counts(1, problem="store_full: no space"), "c": counts(1, at_ms=-20_000)}
    )
    assert watch.workers(1000, 10_000) == [
        Worker("a", True, "", 1, 1000),
        Worker("b", False, "store_full", 1, 1000),
        Worker("c", False, "", 1, -20_000),
    ]
