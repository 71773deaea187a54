"""Rows of many devices at once: the rules are those of `retention.compile`, asked once for each set of plans.

Devices of a fleet have few sets of plans between them: what was compiled of one is kept for the next. So a device costs
one look-up, where a row by itself costs dates, plans and an integer of 384 bits.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from retention.bitmap import ERASED, PRESENT, SUSPENDED, TERMINATED
from retention.compile import compile_row
from retention.plans import Plan, PlanKind
from retention.row import EPOCH_BITS, ROW, pack
from storage.days import to_date
from storage.errors import CallerError
from storage.rows.devices import NO_END, PLAN_COLUMNS

MOST_KNOWN = 100_000
"""Sets of plans that are kept, some 30 MB. More than that begin anew."""
_DAYS_OF_PLAN = [name for name in PLAN_COLUMNS.names or () if name != "device"]
_PLAN_BYTES = 8 * len(_DAYS_OF_PLAN)


class BulkCompiler:
    """Compiles rows for one day.

    Args:
        on: the day number that entitlement is judged by.
    """

    def __init__(self, on: int) -> None:
        self.on = on
        self._known: dict[bytes, tuple[bytes, bool]] = {}
        """By the plans' bytes: the row of a device that has nothing else, and whether a plan covers `on` or later."""

    def rows(self, devices: NDArray[np.void], plans: NDArray[np.void]) -> NDArray[np.void]:
        """What `retention.entitlements.bitmap_row` says of each device.

        Args:
            devices: (n,) of DEVICE_COLUMNS.
            plans: (m,) of PLAN_COLUMNS, theirs, in order of device.

        Returns:
            (n,) of ROW.

        Raises:
            CallerError: `bad_row`, a field is outside its bounds.
        """
        days = np.stack([plans[name] for name in _DAYS_OF_PLAN], axis=1).tobytes()
        first = (np.searchsorted(plans["device"], devices["device"]) * _PLAN_BYTES).tolist()
        last = (np.searchsorted(plans["device"], devices["device"], "right") * _PLAN_BYTES).tolist()
        found = [self._of(days[start:stop]) for start, stop in zip(first, last, strict=True)]
        rows = np.frombuffer(b"".join(raw for raw, _ in found), ROW).copy()
        entitled = np.array([runs for _, runs in found], bool)
        for name in ("token_generation", "viewer_generation"):
            rows[name] = _fitting(devices[name], 8 * rows[name].itemsize)
        rows["epoch_and_limits"] |= _fitting(devices["erase_epoch"], EPOCH_BITS).astype("<u4")
        terminated = devices["terminated"] != 0
        erased = (devices["erase_state"] != 0) & (terminated | ~entitled)
        for flag, where in (
            (SUSPENDED, devices["suspended"] != 0),
            (TERMINATED, terminated),
            (ERASED, erased),
        ):
            rows["flags"][where] |= flag
        return rows

    def _of(self, days: bytes) -> tuple[bytes, bool]:
        known = self._known.get(days)
        if known is None:
            if len(self._known) >= MOST_KNOWN:
                self._known.clear()
            known = self._known[days] = self._compiled(days)
        return known

    def _compiled(self, days: bytes) -> tuple[bytes, bool]:
        plans = []
        runs = False
        columns = np.frombuffer(days, "<i8").reshape(-1, len(_DAYS_OF_PLAN)).tolist()
        for starts_on, ends_on, retention_days, limit_class in columns:
            has_end = ends_on != NO_END
            runs |= not has_end or ends_on >= max(self.on, starts_on)
            # Of which kind it is makes no difference to a row.
            last = to_date(ends_on) if has_end else None
            first = to_date(starts_on)
            plans.append(Plan(PlanKind.MONTHLY, first, retention_days, last, limit_class=limit_class))
        return pack(compile_row(plans, today=self.on, flags=PRESENT, token_generation=0, erase_epoch=0)), runs


def _fitting(values: NDArray[np.int64], bits: int) -> NDArray[np.int64]:
    """Raises CallerError `bad_row`: one does not fit into so many bits."""
    if len(values) and not 0 <= values.min() <= values.max() < 1 << bits:
        raise CallerError("a generation or an erase epoch is outside its bounds", code="bad_row")
    return values
