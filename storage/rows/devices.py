"""Devices: what decides what they may do, and how far their recordings are erased."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np


class EraseState(IntEnum):
    """How far the destruction of a device's recordings has come."""

    NONE = 0
    ERASING = 1  # decided; keys are to be destroyed next
    ERASED = 2  # keys are gone


@dataclass(frozen=True, slots=True)
class PlanRow:
    """A plan as stored. Days are day numbers; `ends_on` is the last entitled day, None while it renews itself.
    `package` and `package_version` say what it was started from; "" and 0: of none."""

    plan_id: int  # 0 for a row that is not stored yet
    kind: str
    starts_on: int
    ends_on: int | None
    retention_days: int
    cancelled_on: int | None = None
    package: str = ""
    package_version: int = 0
    limit_class: int = 0  # of the package: see `PackageRow`


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    """All that decides what a device may do."""

    device: int
    account: int
    token_generation: int
    erase_epoch: int
    suspended: bool = False
    terminated_ms: int | None = None
    erase_state: EraseState = EraseState.NONE
    erase_reason: str = ""
    plans: tuple[PlanRow, ...] = ()
    account_suspended: bool = (
        False  # its account is suspended or cancelled; changed through `Books.put_account` only
    )
    viewer_generation: int = (
        0  # viewer tokens of another one are void; 0..MAX_VIEWER_GENERATION, then 0 again
    )


@dataclass(frozen=True, slots=True)
class DeviceName:
    """What an owner calls a device. Both are sealed with the account's key, and may be empty."""

    device: int
    account: int
    name: str = ""
    label: str = ""


@dataclass(frozen=True, slots=True)
class ErasureRecord:
    """One erasure, step by step. Times are Unix ms, None until the step is done."""

    erasure_id: int
    device: int
    epoch: int
    """The erase epoch that began with it: keys of lower ones are what it is about."""
    why: str
    """`lapsed`, `terminated`, …; never what a person wrote."""
    who: str
    """`sweep`, `operator` or `owner`."""
    marked_ms: int
    keys_destroyed_ms: int | None
    keys_destroyed: int
    unindexed_ms: int | None
    unindexed_chunks: int
    cleared_ms: int | None
    """When nothing was left that decrypts: keys, caches and backups (invariant 10)."""
    verified_ms: int | None
    verified: str
    """How: what was tried, in numbers."""

    @property
    def state(self) -> str:
        """How far it has come, in a word."""
        if self.cleared_ms is not None:
            return "cleared"
        if self.keys_destroyed_ms is None:
            return "marked"
        return "keys destroyed" if self.unindexed_ms is None else "unindexed"


MAX_DEVICE = (1 << 32) - 1
NO_END = -1
"""`ends_on` in PLAN_COLUMNS of a plan that renews itself."""
DEVICE_COLUMNS = np.dtype(
    [
        (name, "<i8")
        for name in (
            "device",
            "token_generation",
            "viewer_generation",
            "erase_epoch",
            "suspended",
            "terminated",
            "erase_state",
        )
    ]
)
"""What the entitlement bitmap needs of a device. `suspended`: it or its account, 0 or 1. `terminated`: 0 or 1."""
PLAN_COLUMNS = np.dtype(
    [(name, "<i8") for name in ("device", "starts_on", "ends_on", "retention_days", "limit_class")]
)
"""What the entitlement bitmap needs of a plan, as in `PlanRow`."""
