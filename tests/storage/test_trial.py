"""A store is tried before anything depends on it."""

from __future__ import annotations

import time

import pytest

from storage.faults import Fault, FaultKind, FaultyStore
from storage.memory import MemoryStore
from storage.trial import IGNORES, try_store


class Ignoring(MemoryStore):
    """Keeps whatever it gets."""

    def verifies(self, key: str) -> bool:
        return False


def test_a_good_store_passes_and_keeps_nothing() -> None:
    store = MemoryStore()
    assert try_store(store) == []
    assert list(store.list("")) == []


def test_one_that_ignores_checksums_is_found_out() -> None:
    assert try_store(Ignoring()) == [IGNORES]


@pytest.mark.parametrize("op", ["server_time_s", "put", "get_range", "head", "list", "delete_many"])
def test_whatever_it_refuses_is_told(op: str) -> None:
    store = FaultyStore(
        MemoryStore(),
        lambda called, key, nth: Fault(FaultKind.DENIED) if called == op else None,
        sleep=time.sleep,
    )
    [problem] = try_store(store)
    assert "store_denied" in problem


def test_what_it_reads_is_compared() -> None:
    store = FaultyStore(
        MemoryStore(),
        lambda called, key, nth: Fault(FaultKind.FLIP) if called == "get_range" else None,
        sleep=time.sleep,
    )
    assert "not the bytes" in try_store(store)[0]


def test_a_key_that_cannot_be_deleted_is_told() -> None:
    store = FaultyStore(
        MemoryStore(),
        lambda called, key, nth: Fault(code="AccessDenied") if called == "delete_key" else None,
        sleep=time.sleep,
    )
    assert "AccessDenied" in try_store(store)[0]
