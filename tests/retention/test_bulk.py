"""Rows of many devices at once are those that each would have by itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retention import bulk
from retention.bitmap import EntitlementBitmap
from retention.bulk import BulkCompiler
from retention.entitlements import bitmap_row
from retention.row import ROW, pack, unpack
from storage.errors import CallerError
from storage.rows.devices import DEVICE_COLUMNS, NO_END, PLAN_COLUMNS, DeviceFacts, EraseState, PlanRow

TODAY = 20_600
NOW_MS = TODAY * 86_400_000


def plan_rows() -> st.SearchStrategy[PlanRow]:
    def plan(starts_on: int, length: int | None, retention_days: int, limit_class: int) -> PlanRow:
        kind, ends_on = ("monthly", None) if length is None else ("annual", starts_on + length)
        return PlanRow(0, kind, starts_on, ends_on, retention_days, limit_class=limit_class)

    return st.builds(
        plan,
        st.integers(TODAY - 700, TODAY + 200),
        st.none() | st.integers(-1, 400),
        st.integers(1, 255),
        st.integers(0, 127),
    )


def facts() -> st.SearchStrategy[DeviceFacts]:
    return st.builds(
        DeviceFacts,
        device=st.just(1),
        account=st.just(1),
        token_generation=st.integers(0, 2**32 - 1),
        erase_epoch=st.integers(0, 2**24 - 1),
        suspended=st.booleans(),
        terminated_ms=st.none() | st.just(5),
        erase_state=st.sampled_from(EraseState),
        account_suspended=st.booleans(),
        viewer_generation=st.integers(0, 2**16 - 1),
        plans=st.lists(plan_rows(), max_size=4).map(tuple),
    )


def columns_of(fleet: list[DeviceFacts]) -> tuple[np.ndarray, np.ndarray]:
    devices = [
        (
            one.device,
            one.token_generation,
            one.viewer_generation,
            one.erase_epoch,
            int(one.suspended or one.account_suspended),
            int(one.terminated_ms is not None),
            int(one.erase_state),
        )
        for one in fleet
    ]
    plans = [
        (
            one.device,
            plan.starts_on,
            NO_END if plan.ends_on is None else plan.ends_on,
            plan.retention_days,
            plan.limit_class,
        )
        for one in fleet
        for plan in one.plans
    ]
    return np.array(devices, DEVICE_COLUMNS), np.array(plans, PLAN_COLUMNS)


@given(st.lists(facts(), max_size=30))
@settings(deadline=None)
def test_the_same_as_one_by_one(fleet: list[DeviceFacts]) -> None:
    fleet = [replace(one, device=3 * number + 1) for number, one in enumerate(fleet)]
    rows = BulkCompiler(TODAY).rows(*columns_of(fleet))
    assert [unpack(row.tobytes()) for row in rows] == [bitmap_row(one, TODAY) for one in fleet]


def test_more_sets_of_plans_than_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "MOST_KNOWN", 3)
    fleet = [
        DeviceFacts(n, 1, 1, 0, plans=(PlanRow(0, "monthly", TODAY - n % 7, None, 30),)) for n in range(1, 50)
    ]
    compiler = BulkCompiler(TODAY)
    rows = compiler.rows(*columns_of(fleet))
    assert [unpack(row.tobytes()) for row in rows] == [bitmap_row(one, TODAY) for one in fleet]
    assert len(compiler._known) <= 3


def test_what_fits_no_row_is_refused() -> None:
    with pytest.raises(CallerError, match="generation"):
        BulkCompiler(TODAY).rows(*columns_of([DeviceFacts(1, 1, 1 << 32, 0)]))


@given(st.lists(st.integers(1, 99_999), unique=True, max_size=700), st.data())
@settings(deadline=None, max_examples=20)
def test_many_rows_at_once(
    tmp_path_factory: pytest.TempPathFactory, numbers: list[int], data: st.DataObject
) -> None:
    """Into any places, over rows that are there, and over a seq that comes round."""
    path: Path = tmp_path_factory.mktemp("bitmap") / "b"
    EntitlementBitmap.create(path, 100_000)
    row = bitmap_row(DeviceFacts(1, 1, 7, 3, plans=(PlanRow(0, "monthly", TODAY, None, 30),)), TODAY)
    with EntitlementBitmap.open(path, writable=True) as bitmap, bitmap.locked():
        bitmap.write(50, row)
        bitmap._rows["seq"][50] = 0xFFFE
        rows = np.zeros(len(numbers), ROW)
        for at, number in enumerate(numbers):
            rows[at] = np.frombuffer(pack(replace(row, token_generation=number)), ROW)[0]
        bitmap.write_rows(np.array(numbers, np.int64), rows)
        assert all(bitmap.read(n) == replace(row, token_generation=n) for n in numbers)
        assert 50 in numbers or bitmap.read(50) == row
        assert {int(seq) & 1 for seq in bitmap._rows["seq"][numbers or [50]]} == {0}
        with pytest.raises(CallerError):
            bitmap.write_rows(np.array([100_000]), np.zeros(1, ROW))
        with pytest.raises(CallerError):
            bitmap.write_rows(np.array([0]), np.zeros(1, ROW))
    with EntitlementBitmap.open(path, writable=True) as bitmap, pytest.raises(CallerError):
        bitmap.write_rows(np.array([1]), np.zeros(1, ROW))
