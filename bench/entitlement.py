"""What one entitlement check costs: `EntitlementBitmap.probe` on a large bitmap, at random.

Random devices are the honest case: with a fleet larger than the processor's caches every check misses them.
The figure includes the loop around the call; what an empty loop costs is given beside it.
"""

from __future__ import annotations

import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.errors import BenchError

BATCH = 1000
"""Checks between two looks at the clock, which costs some 50 ns."""
RETENTION_DAYS = 30
SEED = 1


@dataclass(frozen=True, slots=True)
class EntitlementResult:
    """Nanoseconds per check, over batches of `BATCH`."""

    rows: int
    checks: int
    best_ns: float
    median_ns: float
    p99_ns: float
    loop_ns: float

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def measure_entitlement(rows: int, checks: int) -> EntitlementResult:
    """Fill a bitmap of `rows` devices in a temporary folder, all entitled today, and ask it at random.

    Args:
        rows: 1 to 20 million (64 bytes each).
        checks: how many, rounded up to whole batches; at most 100 million.

    Raises:
        BenchError: an argument is out of bounds, or a check denied an entitled device.
    """
    if not (1 <= rows <= 20_000_000 and 1 <= checks <= 100_000_000):
        raise BenchError("rows must be 1 to 20 million, checks 1 to 100 million", subject="entitlement")
    from retention.bitmap import PRESENT, EntitlementBitmap, Row

    today = int(time.time() // 86_400)
    row = Row(
        flags=PRESENT,
        class_days=RETENTION_DAYS,
        first_day=today - RETENTION_DAYS,
        token_generation=1,
        erase_epoch=0,
        days=(1 << 2 * RETENTION_DAYS) - 1,
    )
    with tempfile.TemporaryDirectory(prefix="clipkeep-bench-") as folder:
        path = Path(folder) / "entitlement.bitmap"
        EntitlementBitmap.create(path, rows + 1)  # row 0 is no device
        with EntitlementBitmap.open(path, writable=True) as bitmap, bitmap.locked(), bitmap.writing():
            for device in range(1, rows + 1):
                bitmap.write(device, row)
        with EntitlementBitmap.open(path) as bitmap:
            return _time(bitmap.probe, rows, checks, today)


def _time(
    probe: Callable[[int, int, int], Sequence[Any]], rows: int, checks: int, today: int
) -> EntitlementResult:
    choose = random.Random(SEED)
    batches = -(-checks // BATCH)
    costs_ns, loops_ns = [], []
    for _ in range(batches):
        devices = [choose.randint(1, rows) for _ in range(BATCH)]
        began_ns = time.perf_counter_ns()
        for device in devices:
            probe(device, today, today)
        ended_ns = time.perf_counter_ns()
        for _ in devices:
            pass
        loops_ns.append((time.perf_counter_ns() - ended_ns) / BATCH)
        costs_ns.append((ended_ns - began_ns) / BATCH)
        *_, today_ok, capture_ok, _ = probe(devices[0], today, today)
        if not (today_ok and capture_ok):
            raise BenchError("the bitmap denied a device that it was told to entitle", subject="entitlement")
    return EntitlementResult(
        rows=rows,
        checks=batches * BATCH,
        best_ns=min(costs_ns),
        median_ns=statistics.median(costs_ns),
        p99_ns=sorted(costs_ns)[min(batches - 1, int(batches * 0.99))],
        loop_ns=statistics.median(loops_ns),
    )
