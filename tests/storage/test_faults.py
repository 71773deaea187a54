"""Each fault does what its name says, and a seed names a run."""

from __future__ import annotations

import pytest

from storage.contracts.store import put
from storage.errors import (
    ClipkeepError,
    CorruptError,
    ObjectMissing,
    StoreDenied,
    StoreFull,
    StoreUnavailable,
)
from storage.faults import Fault, FaultKind, FaultyStore, Plan, no_faults, random_plan
from storage.memory import MemoryStore


def faulty(plan: Plan) -> FaultyStore:
    slept: list[float] = []
    return FaultyStore(MemoryStore(), plan, sleep=slept.append)


def only(op: str, kind: FaultKind) -> Plan:
    return lambda asked, key, nth: Fault(kind) if asked == op else None


def objects(store: FaultyStore) -> dict[str, bytes]:
    assert isinstance(store.inner, MemoryStore)
    return store.inner.objects


@pytest.mark.parametrize(
    ("kind", "error", "code", "happened"),
    [
        (FaultKind.BEFORE, StoreUnavailable, "store_unavailable", False),
        (FaultKind.AFTER, StoreUnavailable, "store_unavailable", True),
        (FaultKind.SLOW_DOWN, StoreUnavailable, "slow_down", False),
        (FaultKind.FULL, StoreFull, "store_full", False),
        (FaultKind.DENIED, StoreDenied, "store_denied", False),
        (FaultKind.MISSING, StoreUnavailable, "store_unavailable", False),  # no such fault of a put
    ],
)
def test_a_put_fails_before_or_after_the_effect(
    kind: FaultKind, error: type[ClipkeepError], code: str, happened: bool
) -> None:
    store = faulty(only("put", kind))
    with pytest.raises(error) as caught:
        put(store, "a", b"x")
    assert (type(caught.value), caught.value.code) == (error, code)
    assert ("a" in objects(store)) is happened


@pytest.mark.parametrize(
    ("kind", "error"), [(FaultKind.MISSING, ObjectMissing), (FaultKind.SHORT, CorruptError)]
)
def test_a_read_fails_as_told(kind: FaultKind, error: type[ClipkeepError]) -> None:
    store = faulty(only("get_range", kind))
    put(store, "a", b"body")
    with pytest.raises(error):
        store.get_range("a", 0, 4)


def test_a_flip_is_one_bit_and_not_at_rest() -> None:
    store = faulty(only("get_range", FaultKind.FLIP))
    put(store, "a", bytes(100))
    flipped = store.get_range("a", 0, 100)
    assert len(flipped) == 100
    assert sum(byte.bit_count() for byte in flipped) == 1
    assert store.get_range("a", 0, 0) == b""
    store.plan = no_faults
    assert store.get_range("a", 0, 100) == bytes(100)


def test_nth_counts_calls_of_one_operation() -> None:
    asked: list[tuple[str, str, int]] = []

    def plan(op: str, key: str, nth: int) -> Fault | None:
        asked.append((op, key, nth))
        return Fault(FaultKind.BEFORE) if (op, nth) == ("put", 1) else None

    store = faulty(plan)
    put(store, "a", b"x")
    with pytest.raises(StoreUnavailable):
        put(store, "b", b"x")
    put(store, "c", b"x")
    list(store.list("p"))
    store.delete_many(["a", "c"])
    store.server_time_s()
    assert asked == [
        ("put", "a", 0),
        ("put", "b", 1),
        ("put", "c", 2),
        ("list", "p", 0),
        ("delete_many", "", 0),
        ("delete_key", "a", 0),
        ("delete_key", "c", 1),
        ("server_time_s", "", 0),
    ]


def test_a_delete_can_fail_for_some_keys() -> None:
    faults = {"b": Fault(FaultKind.BEFORE), "c": Fault(FaultKind.AFTER, code="SlowDown")}
    store = faulty(lambda op, key, nth: faults.get(key) if op == "delete_key" else None)
    for key in ("a", "b", "c", "d"):
        put(store, key, b"x")
    assert store.delete_many(["a", "b", "c"]) == {"a": None, "b": "InternalError", "c": "SlowDown"}
    assert sorted(objects(store)) == ["b", "d"]


def test_a_delete_can_lose_its_answer() -> None:
    store = faulty(only("delete_many", FaultKind.AFTER))
    put(store, "a", b"x")
    with pytest.raises(StoreUnavailable):
        store.delete_many(["a"])
    assert objects(store) == {}


def test_a_listing_can_break_off_at_its_end() -> None:
    store = faulty(only("list", FaultKind.AFTER))
    put(store, "a", b"x")
    listing = store.list("")
    assert next(listing).key == "a"
    with pytest.raises(StoreUnavailable):
        next(listing)


def drawn(seed: int) -> list[Fault | None]:
    rates = {FaultKind.BEFORE: 0.2, FaultKind.AFTER: 0.2, FaultKind.FLIP: 0.2}
    plan = random_plan(seed, rates, delete_key_rate=0.3, latency_s=(0.0, 1.0))
    ops = ("put", "get_range", "delete_key", "server_time_s")
    return [plan(op, f"k/{nth}", nth) for op in ops for nth in range(200)]


def test_a_seed_names_a_run() -> None:
    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)


def test_chances_are_about_what_was_asked_for() -> None:
    puts = drawn(3)[:200]
    assert 60 < sum(fault is not None and fault.kind is not FaultKind.NONE for fault in puts) < 100
    assert not any(fault is not None and fault.kind is FaultKind.FLIP for fault in puts)
    gone = [fault for fault in drawn(3)[400:600] if fault is not None]
    assert 30 < len(gone) < 90
    assert {fault.kind for fault in gone} == {FaultKind.BEFORE, FaultKind.AFTER}
