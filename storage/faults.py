"""A store that fails as told: what tests and simulations put around another store.

A plan is asked once for every call (and once for every key of a delete), with the operation, the key and
how many such questions came before. It answers with the `Fault` to inject, or None. Plans are plain
functions, so a failing test is a lambda, and a simulation is `random_plan(seed, …)`: the same seed and the
same order of calls give the same faults.

No fault breaks the interface: what comes out is what `ObjectStore` allows a store to do on a bad day. The
one exception is `FLIP`, the silent damage that checksums and GCM tags are there to catch.
"""

from __future__ import annotations

import enum
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from storage._arguments import checked_batch
from storage.errors import CorruptError, ObjectMissing, StoreDenied, StoreFull, StoreUnavailable
from storage.objects import ObjectInfo, ObjectStore


class FaultKind(enum.Enum):
    """What goes wrong. Where a kind makes no sense for an operation, it counts as `BEFORE`."""

    NONE = "none"
    """Nothing: for a fault that is only latency."""
    BEFORE = "before"
    """`StoreUnavailable`, and nothing has happened."""
    AFTER = "after"
    """It has happened, and then `StoreUnavailable`: an answer lost on its way."""
    SLOW_DOWN = "slow_down"
    """`StoreUnavailable` with code `slow_down`, and nothing has happened."""
    FULL = "full"
    """`StoreFull` (put)."""
    DENIED = "denied"
    """`StoreDenied`, and nothing has happened."""
    MISSING = "missing"
    """`ObjectMissing`, although it is there (get_range, head)."""
    SHORT = "short"
    """`CorruptError`, as of an object that was cut (get_range)."""
    FLIP = "flip"
    """The right number of bytes with one bit wrong (get_range)."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing to inject.

    Args:
        kind: what goes wrong.
        latency_s: slept before anything else happens.
        code: for `delete_key`, what the key's result says; `kind` then says no more than whether the object
            is gone all the same (`AFTER`).
    """

    kind: FaultKind = FaultKind.NONE
    latency_s: float = 0.0
    code: str = "InternalError"


Plan = Callable[[str, str, int], Fault | None]
"""`(op, key, nth)` to the fault to inject. `op` is a method's name, or `delete_key` for each key of a
`delete_many`; `key` is the key, the prefix of a `list`, and empty for `delete_many` and `server_time_s`; `nth`
counts the questions about this `op` from 0, whatever the key."""

_GOES_WRONG_IN = {
    FaultKind.FULL: {"put"},
    FaultKind.MISSING: {"get_range", "head"},
    FaultKind.SHORT: {"get_range"},
    FaultKind.FLIP: {"get_range"},
}


def no_faults(op: str, key: str, nth: int) -> Fault | None:
    """The plan of a good day; also how a simulation heals its store."""
    return None


def random_plan(
    seed: int,
    rates: Mapping[FaultKind, float],
    *,
    delete_key_rate: float = 0.0,
    latency_s: tuple[float, float] = (0.0, 0.0),
) -> Plan:
    """A plan by chance, the same for the same seed whatever else draws random numbers.

    Args:
        seed: names the run.
        rates: of each kind, per call, 0 to 1; their sum at most 1. A kind that an operation can't have is
            no fault there.
        delete_key_rate: how often one key of a delete fails, 0 to 1; half of those are gone all the same.
        latency_s: the least and the most, of every call.
    """
    assert sum(rates.values()) <= 1.0 + 1e-9

    def plan(op: str, key: str, nth: int) -> Fault | None:
        # Seeded by a string: hashed with SHA-512 by `random`, so independent of PYTHONHASHSEED and of threads.
        draw = random.Random(f"{seed}/{op}/{key}/{nth}")
        if op == "delete_key":
            if draw.random() >= delete_key_rate:
                return None
            return Fault(draw.choice((FaultKind.BEFORE, FaultKind.AFTER)))
        delay_s = draw.uniform(*latency_s)
        chance = draw.random()
        for kind, rate in rates.items():
            chance -= rate
            if chance < 0:
                possible = op in _GOES_WRONG_IN.get(kind, {op})
                return Fault(kind if possible else FaultKind.NONE, delay_s)
        return Fault(latency_s=delay_s) if delay_s else None

    return plan


class FaultyStore(ObjectStore):
    """`inner`, with the faults that `plan` asks for.

    Args:
        inner: the store that does the work. Look around the faults through it.
        plan: see `Plan`.
        sleep: how latency passes; a simulation hands in its own clock.

    Attributes:
        plan: may be replaced at any time; `no_faults` heals.
        asked: how often the plan was asked, per operation.
    """

    def __init__(self, inner: ObjectStore, plan: Plan = no_faults, *, sleep: Callable[[float], None]) -> None:
        self.inner = inner
        self.plan = plan
        self.asked: Counter[str] = Counter()
        self._sleep = sleep
        self._lock = threading.Lock()

    def put(self, key: str, body: bytearray, crc32: int) -> None:
        fault = self._before("put", key)
        self.inner.put(key, body, crc32)
        _after(fault, key)

    def get_range(self, key: str, start: int, length: int) -> bytes:
        fault = self._before("get_range", key)
        data = self.inner.get_range(key, start, length)
        _after(fault, key)
        if fault.kind is FaultKind.FLIP and data:
            flipped = bytearray(data)
            bit = (start + 7 * self.asked["get_range"]) % (8 * len(data))
            flipped[bit // 8] ^= 1 << bit % 8
            return bytes(flipped)
        return data

    def delete_many(self, keys: Sequence[str]) -> dict[str, str | None]:
        distinct = checked_batch(keys)
        fault = self._before("delete_many", "")
        planned = {key: self._ask("delete_key", key) for key in distinct}
        failed = {key: found for key, found in planned.items() if found is not None}
        kept = {key for key, found in failed.items() if found.kind is not FaultKind.AFTER}
        results = self.inner.delete_many([key for key in distinct if key not in kept])
        _after(fault, "")
        codes = {key: found.code for key, found in failed.items()}
        return {key: codes[key] if key in codes else results[key] for key in distinct}

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        fault = self._before("list", prefix)
        yield from self.inner.list(prefix)
        _after(fault, prefix)

    def head(self, key: str) -> ObjectInfo:
        fault = self._before("head", key)
        info = self.inner.head(key)
        _after(fault, key)
        return info

    def server_time_s(self) -> float | None:
        fault = self._before("server_time_s", "")
        now_s = self.inner.server_time_s()
        _after(fault, "")
        return now_s

    def close(self) -> None:
        self.inner.close()

    def _ask(self, op: str, key: str) -> Fault | None:
        with self._lock:
            nth = self.asked[op]
            self.asked[op] += 1
        return self.plan(op, key, nth)

    def _before(self, op: str, key: str) -> Fault:
        """Let the latency pass and raise what prevents the call; else return what is left to do after it."""
        fault = self._ask(op, key) or Fault()
        if fault.latency_s:
            self._sleep(fault.latency_s)
        kind = fault.kind
        if op not in _GOES_WRONG_IN.get(kind, {op}):
            kind = FaultKind.BEFORE
        match kind:
            case FaultKind.BEFORE:
                raise StoreUnavailable("injected: nothing happened", subject=key)
            case FaultKind.SLOW_DOWN:
                raise StoreUnavailable("injected: asks for fewer requests", subject=key, code="slow_down")
            case FaultKind.FULL:
                raise StoreFull("injected: no space left", subject=key)
            case FaultKind.DENIED:
                raise StoreDenied("injected: permission refused", subject=key)
            case FaultKind.MISSING:
                raise ObjectMissing("injected: no such object", subject=key)
            case FaultKind.SHORT:
                raise CorruptError("injected: the object is cut", subject=key, code="short_object")
        return fault


def _after(fault: Fault, key: str) -> None:
    if fault.kind is FaultKind.AFTER:
        raise StoreUnavailable("injected: it happened, the answer was lost", subject=key)
