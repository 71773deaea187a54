"""What `storage.catalog.devices.DevicesCatalog` promises."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace

import pytest

from storage.catalog import Catalog
from storage.contracts.given import (
    DAY,
    MONTH,
    NOON,
    NOW,
    STORED,
    WEEK,
    OnCatalog,
    Opener,
    Upload,
    add_device,
    captures,
    commit,
    everything,
    refused,
    segments,
)
from storage.errors import CallerError, NotFound
from storage.rows.devices import (
    DEVICE_COLUMNS,
    NO_END,
    PLAN_COLUMNS,
    DeviceFacts,
    EraseState,
    PlanRow,
)
from storage.rows.packages import PackageRow
from storage.rows.recordings import (
    SegmentState,
    Unindexed,
)


class DevicesContract(OnCatalog):
    """See the module docstring."""

    def test_many_devices_at_once(self, catalog: Catalog, sound: None) -> None:
        plans = [PlanRow(0, "trial", DAY, DAY + 13, WEEK), PlanRow(0, "monthly", DAY + 14, None, MONTH)]
        added = catalog.add_devices(1000, account=1, plans=plans, now_ms=NOW)
        first = added[0].device
        assert [d.device for d in added] == list(range(first, first + 1000))
        ids = [p.plan_id for d in added for p in d.plans]
        assert len(set(ids)) == 2000
        assert 0 not in ids
        for facts in added[:: len(added) - 1]:
            assert [replace(p, plan_id=0) for p in facts.plans] == plans
            assert facts == DeviceFacts(facts.device, 1, 1, 0, plans=facts.plans)
            assert catalog.device(facts.device) == facts
        assert catalog.devices(after=first + 10, limit=3) == added[11:14]
        assert catalog.changes_after(0) == ([d.device for d in added], catalog.newest_change())
        assert catalog.totals().devices == 1000

    def test_the_columns_of_many_devices(self, catalog: Catalog) -> None:
        plans = [
            PlanRow(0, "trial", DAY, DAY + 13, WEEK),
            PlanRow(0, "monthly", DAY + 14, None, MONTH, limit_class=3),
        ]
        first = catalog.add_devices(3, account=1, plans=plans, now_ms=NOW)[0].device
        bare = catalog.add_devices(1, account=1, plans=[], now_ms=NOW)[0].device
        catalog.update_device(
            first + 1,
            lambda old: replace(old, token_generation=9, viewer_generation=5, suspended=True),
            what="test",
            now_ms=NOW,
        )
        catalog.update_device(
            first + 2,
            lambda old: replace(old, terminated_ms=NOW, erase_state=EraseState.ERASING, erase_epoch=1),
            what="test",
            now_ms=NOW,
        )
        devices, found = catalog.device_columns(after=first - 1)
        assert devices.dtype == DEVICE_COLUMNS
        assert devices.tolist() == [
            (first, 1, 0, 0, 0, 0, 0),
            (first + 1, 9, 5, 0, 1, 0, 0),
            (first + 2, 1, 0, 1, 0, 1, 1),
            (bare, 1, 0, 0, 0, 0, 0),
        ]
        each = [(DAY, DAY + 13, WEEK, 0), (DAY + 14, NO_END, MONTH, 3)]
        assert found.dtype == PLAN_COLUMNS
        assert found.tolist() == [(first + n, *days) for n in range(3) for days in each]
        page, of_page = catalog.device_columns(after=first, limit=1)
        assert page["device"].tolist() == [first + 1]
        assert of_page["device"].tolist() == [first + 1] * 2
        some, of_some = catalog.device_columns(numbers=[bare, first + 1, bare + 7, first])
        assert some.tolist() == [devices[0].item(), devices[1].item(), devices[3].item()]
        assert of_some.tolist() == found.tolist()[:4]
        assert all(not len(nothing) for nothing in catalog.device_columns(numbers=[]))
        for nothing in catalog.device_columns(after=bare):
            assert len(nothing) == 0

    def test_each_class_of_limits_is_told_once(self, catalog: Catalog) -> None:
        row = PackageRow(
            "large", 1, "trial", 0, 14, 7, 0, DAY, None, NOW, max_bytes_per_day=5_000_000, limit_class=2
        )
        assert catalog.upload_limits() == []
        catalog.transact(lambda books: books.add_package(row))
        catalog.transact(lambda books: books.add_package(replace(row, version=2)))
        catalog.transact(
            lambda books: books.add_package(replace(row, package="small", limit_class=1, max_chunks_per_s=3))
        )
        catalog.transact(
            lambda books: books.add_package(replace(row, package="any", limit_class=0, max_bytes_per_day=0))
        )
        assert catalog.upload_limits() == [(1, 5_000_000, 3), (2, 5_000_000, 0)]

    def test_devices_without_plans_and_none_at_all(self, catalog: Catalog) -> None:
        assert catalog.add_devices(0, account=1, plans=[], now_ms=NOW) == []
        assert catalog.newest_change() == 0
        [facts] = catalog.add_devices(1, account=1, plans=[], now_ms=NOW)
        assert facts.plans == ()

    def test_what_does_not_exist_is_not_found(self, catalog: Catalog) -> None:
        before = everything(catalog)
        calls: list[Callable[[], object]] = [
            lambda: catalog.device(99),
            lambda: catalog.update_device(99, lambda old: old, what="", now_ms=NOW),
            lambda: catalog.delete_range(99, 0, 1, reason="", who="", now_ms=NOW, delete_after_ms=NOW),
            lambda: catalog.add_devices(1, account=99, plans=[], now_ms=NOW),
        ]
        for call in calls:
            with pytest.raises(NotFound):
                call()
        assert everything(catalog) == before

    def test_all_facts_of_a_device_can_change_and_come_back(self, catalog: Catalog) -> None:
        device = add_device(catalog, WEEK)
        old = catalog.device(device)
        new = replace(
            old,
            token_generation=2,
            erase_epoch=3,
            suspended=True,
            terminated_ms=NOW,
            erase_state=EraseState.ERASED,
            erase_reason="asked for",
            plans=(
                replace(old.plans[0], ends_on=DAY + 5, cancelled_on=DAY + 2),
                PlanRow(0, "annual", DAY + 6, None, MONTH),
            ),
        )
        stored, number = catalog.update_device(device, lambda _: new, what="all", now_ms=NOW)
        assert stored == catalog.device(device)
        assert stored.plans[0] == new.plans[0]
        assert stored.plans[1].plan_id not in (0, stored.plans[0].plan_id)
        assert replace(stored, plans=()) == replace(new, plans=())
        assert number == catalog.newest_change()
        fewer, later = catalog.update_device(
            device, lambda f: replace(f, plans=f.plans[1:]), what="fewer", now_ms=NOW
        )
        assert fewer.plans == stored.plans[1:]
        assert later > number

    def test_changes_are_numbered_and_each_device_told_once(self, catalog: Catalog) -> None:
        a, b = add_device(catalog), add_device(catalog)
        seen = catalog.newest_change()
        assert catalog.changes_after(seen) == ([], seen)
        numbers = [
            catalog.update_device(d, lambda f: replace(f, suspended=not f.suspended), what="", now_ms=NOW)[1]
            for d in (b, a, b)
        ]
        assert numbers == sorted(set(numbers))
        assert numbers[0] > seen
        assert catalog.changes_after(seen) == ([a, b], numbers[-1])
        assert catalog.changes_after(numbers[1]) == ([b], numbers[-1])

    def test_the_change_log_is_read_page_by_page(self, catalog: Catalog) -> None:
        a, b = add_device(catalog), add_device(catalog)
        seen = catalog.newest_change()
        for device in (b, a, b):
            catalog.update_device(
                device, lambda f: replace(f, suspended=not f.suspended), what="", now_ms=NOW
            )
        assert catalog.changes_after(seen, 1) == ([b], seen + 1)
        assert catalog.changes_after(seen, 2) == ([a, b], seen + 2)
        assert catalog.changes_after(seen + 2, 2) == ([b], seen + 3)
        assert catalog.changes_after(seen + 3, 2) == ([], seen + 3)
        assert catalog.changes_after(seen + 9, 2) == ([], seen + 3), "of an older catalog"

    def test_who_reads_changes_up_to_a_number_misses_none_that_is_committed_late(
        self, catalog: Catalog
    ) -> None:
        """Numbers without gaps, seen in the order in which they are given, however long a writer takes, whichever way
        it writes, and though another was undone."""
        numbers = [add_device(catalog) for _ in range(24)]
        first = seen = catalog.newest_change()
        told: list[int] = []

        def slowly(old: DeviceFacts, new: DeviceFacts) -> None:
            time.sleep(old.device % 4 * 0.003)
            if new.erase_reason == "undone":
                raise CallerError("as the bitmap might")

        def by_itself(device: int, suspended: DeviceFacts) -> None:
            catalog.update_device(
                device, lambda old: suspended, what="suspend", now_ms=NOW, before_commit=slowly
            )

        def in_books(device: int, suspended: DeviceFacts) -> None:
            catalog.transact(
                lambda books: books.change_device(device, lambda old: suspended, what="suspend"),
                before_change=slowly,
                now_ms=NOW,
            )

        def change(device: int) -> None:
            write = in_books if device % 3 == 0 else by_itself
            new = replace(catalog.device(device), suspended=True)
            with suppress(CallerError):
                write(device, replace(new, erase_reason="undone"))
            write(device, new)

        with ThreadPoolExecutor(4) as threads:
            changing = [threads.submit(change, device) for device in numbers]
            while seen < first + len(numbers):
                for each in changing:
                    assert not each.done() or each.exception() is None
                devices, newest = catalog.changes_after(seen)
                assert len(devices) == newest - seen, "each number up to the newest is there"
                told += devices
                seen = newest
        assert sorted(told) == numbers
        assert catalog.newest_change() == first + len(numbers)

    def test_the_same_facts_change_nothing(self, catalog: Catalog) -> None:
        device = add_device(catalog)
        called = []
        facts, number = catalog.update_device(
            device,
            lambda old: replace(old),
            what="",
            now_ms=NOW,
            before_commit=lambda *_: called.append(1),
        )
        assert (facts, number, called) == (catalog.device(device), 0, [])
        assert catalog.changes_after(0) == ([device], 1)

    def test_a_refusal_changes_nothing(self, catalog: Catalog) -> None:
        device, other = add_device(catalog), add_device(catalog)
        before = everything(catalog)
        foreign = catalog.device(other).plans

        def refuse(old: DeviceFacts) -> DeviceFacts:
            raise CallerError("no", code="refused")

        changes: list[Callable[[DeviceFacts], DeviceFacts]] = [
            refuse,
            lambda old: replace(old, device=other),
            lambda old: replace(old, account=2),
            lambda old: replace(old, suspended=True, plans=foreign),
        ]
        for change in changes:
            with pytest.raises(CallerError):
                catalog.update_device(device, change, what="", now_ms=NOW)
            assert everything(catalog) == before

    def test_before_commit_is_told_inside_the_transaction_and_can_undo_it(
        self, catalog: Catalog, opener: Opener
    ) -> None:
        """A revocation is in the bitmap before it is committed (design §3)."""
        device = add_device(catalog)
        before = everything(catalog)
        other = opener()
        told: list[tuple[DeviceFacts, DeviceFacts, DeviceFacts]] = []

        def tell(old: DeviceFacts, new: DeviceFacts) -> None:
            told.append((old, new, other.device(device)))

        def fail(old: DeviceFacts, new: DeviceFacts) -> None:
            raise OSError("the bitmap is full")

        plan = PlanRow(0, "annual", DAY, None, MONTH)

        def change(old: DeviceFacts) -> DeviceFacts:
            return replace(old, suspended=True, plans=(*old.plans, plan))

        with pytest.raises(OSError, match="the bitmap is full"):
            catalog.update_device(device, change, what="", now_ms=NOW, before_commit=fail)
        assert everything(catalog) == before
        new, _ = catalog.update_device(device, change, what="", now_ms=NOW, before_commit=tell)
        [(old, announced, seen_by_others)] = told
        assert announced == new
        assert announced.plans[-1].plan_id != 0
        assert seen_by_others == old
        assert other.device(device) == new
        other.close()

    def test_devices_changing_on_a_day(self, catalog: Catalog) -> None:
        def with_plan(starts_on: int, ends_on: int | None) -> int:
            plans = [PlanRow(0, "monthly", starts_on, ends_on, WEEK)]
            return catalog.add_devices(1, account=1, plans=plans, now_ms=NOW)[0].device

        with_plan(DAY - 9, None)
        starts, ended = with_plan(DAY, DAY + 5), with_plan(DAY - 9, DAY - 1)
        with_plan(DAY + 1, DAY + 2)
        with_plan(DAY - 9, DAY)
        assert sorted(catalog.devices_changing_on(DAY)) == [starts, ended]

    def test_a_deleted_range_is_unserved_and_its_neighbours_are_not(
        self, catalog: Catalog, sound: None
    ) -> None:
        a, b = add_device(catalog, WEEK, MONTH), add_device(catalog)
        commit(catalog, *(Upload(a, NOON + i) for i in range(4)), Upload(b, NOON + 1))
        commit(catalog, Upload(a, NOON + 4), expires_on=DAY + MONTH + 1)
        gone = catalog.delete_range(
            a, NOON + 1, NOON + 5, reason="asked", who="owner", now_ms=NOW, delete_after_ms=NOW + 9
        )
        assert gone == Unindexed(chunks=4, size_bytes=4000, dead_segments=1)
        assert captures(catalog.chunks(a, 0, 1 << 62, limit=9)) == [NOON]
        assert catalog.chunk(b, NOON + 1) is not None
        half, dead = segments(catalog)
        assert (half.state, half.live_chunks, refused(half)) == (SegmentState.COMMITTED, 2, [1, 2, 3])
        assert (dead.state, dead.live_chunks, refused(dead)) == (SegmentState.DELETING, 0, [0])
        assert catalog.due_tombstones(NOW + 8, after_id=0, limit=9) == []
        assert [t.segment_id for t in catalog.due_tombstones(NOW + 9, after_id=0, limit=9)] == [
            dead.segment_id
        ]
        again = catalog.delete_range(
            a, NOON + 1, NOON + 5, reason="", who="", now_ms=NOW, delete_after_ms=NOW
        )
        assert again == Unindexed()

    def test_an_empty_range_is_not_deleted(self, catalog: Catalog) -> None:
        device = add_device(catalog)
        for end in (NOON, NOON - 1):
            with pytest.raises(CallerError):
                catalog.delete_range(device, NOON, end, reason="", who="", now_ms=NOW, delete_after_ms=NOW)
        assert commit(catalog, Upload(device, NOON)) == [STORED]

    def test_devices_by_number(self, catalog: Catalog) -> None:
        numbers = [add_device(catalog) for _ in range(4)]
        asked = [numbers[3], 999, numbers[1]]
        assert catalog.devices_numbered(asked) == [catalog.device(numbers[1]), catalog.device(numbers[3])]
        assert catalog.devices_numbered([]) == []
