"""What `storage.catalog.reading.ReadingCatalog` promises."""

from __future__ import annotations

import itertools
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage.catalog import Catalog
from storage.contracts.given import (
    CONFLICT,
    DAY,
    DELETED,
    DUPLICATE,
    ENDS,
    EXPIRED,
    MONTH,
    NOON,
    NOW,
    STORED,
    WEEK,
    OnCatalog,
    Upload,
    add_device,
    captures,
    commit,
    erase,
    lease,
    segment_of,
    segments,
    verdicts,
)
from storage.days import MS_PER_DAY, day_of_ms, ms_of_day
from storage.rows.devices import EraseState, PlanRow
from storage.rows.recordings import (
    FIRST_PART_MS,
    MAX_CLOCK_AHEAD_MS,
    NOTHING_STORED,
    LiveListRow,
    SegmentCommit,
    SegmentMark,
    Verdict,
)


class ReadingContract(OnCatalog):
    """See the module docstring."""

    def test_an_init_segment_is_no_chunk_of_a_time(self, catalog: Catalog) -> None:
        """More is in `InitsContract`."""
        device = add_device(catalog)
        assert commit(catalog, Upload(device, -7), Upload(device, NOON)) == [STORED, STORED]
        found = catalog.init(device, 7, ENDS)
        assert found is not None
        assert found.capture_ms == -7
        assert catalog.init(device, 8, ENDS) is None
        assert captures(catalog.chunks(device, 0, 1 << 50, limit=9)) == [NOON]

    def test_parts_of_a_day_are_found_by_their_times_below_0(self, catalog: Catalog) -> None:
        device, other = add_device(catalog), add_device(catalog)
        first, above = FIRST_PART_MS, FIRST_PART_MS + 1
        uploads = [Upload(device, first - i) for i in (0, 1, 1000)] + [
            Upload(device, NOON),
            Upload(other, first),
        ]
        assert commit(catalog, *uploads) == [STORED] * 5
        for since, limit, expected in (
            (first - 1000, 9, [first - 1000, first - 1, first]),
            (first - 1000, 2, [first - 1000, first - 1]),
            (first - 999, 9, [first - 1, first]),
        ):
            assert captures(catalog.parts(device, since, above, ENDS, limit=limit)) == expected
        assert captures(catalog.parts(device, first - 1, first, ENDS, limit=9)) == [first - 1]
        assert catalog.parts(device, first - 1000, above, ENDS + 1, limit=9) == []
        erase(catalog, device)
        assert catalog.parts(device, first - 1000, above, ENDS, limit=9) == []

    def test_a_range_is_half_open_sorted_and_bounded(self, catalog: Catalog, sound: None) -> None:
        device = add_device(catalog, WEEK, MONTH)
        for i in range(5):  # in turns on two expiry days
            commit(catalog, Upload(device, NOON + i), expires_on=ENDS if i % 2 else DAY + MONTH + 1)
        times = [NOON + i for i in range(5)]
        assert captures(catalog.chunks(device, NOON, NOON + 5, limit=9)) == times
        assert captures(catalog.chunks(device, NOON + 1, NOON + 4, limit=9)) == times[1:4]
        for limit in range(1, 7):  # whichever day the earliest or newest ones are on
            assert captures(catalog.chunks(device, 0, 1 << 62, limit=limit)) == times[:limit]
            assert captures(catalog.latest_chunks(device, limit=limit)) == times[-limit:]
        assert catalog.chunks(device, NOON + 2, NOON + 2, limit=9) == []
        assert catalog.chunks(device, NOON + 3, NOON + 2, limit=9) == []
        assert catalog.chunks(device, NOON, NOON + 5, limit=0) == []
        assert catalog.latest_chunks(device, limit=0) == []

    def test_the_newest_before_a_time(self, catalog: Catalog, sound: None) -> None:
        device = add_device(catalog, WEEK, MONTH)
        for i in range(5):
            commit(catalog, Upload(device, NOON + i), expires_on=ENDS if i % 2 else DAY + MONTH + 1)
        for before in range(6):
            times = [NOON + i for i in range(before)]
            for limit in (1, 2, 9):
                found = catalog.latest_chunks(device, limit=limit, before_ms=NOON + before)
                assert captures(found) == times[-limit:]

    def test_what_was_stored_since_a_segment(self, catalog: Catalog, sound: None) -> None:
        device, other = add_device(catalog), add_device(catalog)
        assert catalog.segment_mark() == NOTHING_STORED
        commit(catalog, Upload(device, NOON + 5), Upload(device, NOON + 7))
        before = catalog.segment_mark()
        assert before == SegmentMark(segments(catalog)[-1].segment_id)
        commit(catalog, Upload(device, NOON + 2), Upload(device, NOON + 6), Upload(other, NOON + 3))
        found = catalog.chunks_stored_after(device, before, 0, NOON + 9, limit=9)
        assert captures(found) == [NOON + 2, NOON + 6]
        assert found == [row for row in catalog.chunks(device, 0, NOON + 9, limit=9) if row in found]
        assert captures(catalog.chunks_stored_after(device, before, NOON + 3, NOON + 9, limit=9)) == [
            NOON + 6
        ]
        assert captures(catalog.chunks_stored_after(device, before, 0, NOON + 9, limit=1)) == [NOON + 2]
        assert catalog.chunks_stored_after(device, catalog.segment_mark(), 0, NOON + 9, limit=9) == []

    def test_what_was_stored_since_under_a_number_prepared_before(
        self, catalog: Catalog, sound: None
    ) -> None:
        device = add_device(catalog)
        first, *late, last = (segment_of(catalog, Upload(device, NOON + i)) for i in range(5))
        catalog.commit([first], now_ms=NOW)
        catalog.commit([last], now_ms=NOW)
        mark = catalog.segment_mark()
        assert mark == SegmentMark(last.segment_id, ((first.segment_id + 1, last.segment_id - 1),))
        catalog.commit(late, now_ms=NOW)
        found = catalog.chunks_stored_after(device, mark, 0, NOON + 9, limit=9)
        assert captures(found) == [NOON + 1, NOON + 2, NOON + 3]
        assert catalog.segment_mark() == SegmentMark(last.segment_id)

    def test_a_live_list_is_changed_by_who_saw_the_last_change(self, catalog: Catalog, sound: None) -> None:
        device = add_device(catalog)
        assert catalog.live_list(device) is None
        assert not catalog.put_live_list(device, LiveListRow(2, 0, "b"))
        assert catalog.put_live_list(device, LiveListRow(1, 0, "a"))
        assert not catalog.put_live_list(device, LiveListRow(1, 0, "other"))
        assert catalog.put_live_list(device, LiveListRow(2, 0, "b"))
        assert not catalog.put_live_list(device, LiveListRow(2, 0, "other"))
        assert not catalog.put_live_list(device, LiveListRow(4, 0, "other"))
        assert catalog.live_list(device) == LiveListRow(2, 0, "b")
        assert not catalog.put_live_list(device + 1, LiveListRow(1, 0, "a"))

    def test_a_live_list_goes_with_the_recordings(self, catalog: Catalog, sound: None) -> None:
        device = add_device(catalog)
        assert catalog.put_live_list(device, LiveListRow(1, 0, "a"))
        erase(catalog, device)
        assert catalog.live_list(device) is None
        assert not catalog.put_live_list(device, LiveListRow(1, 0, "a"))
        assert not catalog.put_live_list(device, LiveListRow(2, 0, "a"))
        assert catalog.put_live_list(device, LiveListRow(1, 1, "a"))

    def test_the_newest_chunk_may_expire_first(self, catalog: Catalog, sound: None) -> None:
        """Just past midnight, a camera that was ahead: its chunk is on the day before, and still the newest."""
        device = add_device(catalog)
        midnight = ms_of_day(DAY)
        commit(catalog, Upload(device, midnight + 1))
        commit(catalog, Upload(device, midnight + 2), expires_on=ENDS - 1)
        assert captures(catalog.latest_chunks(device, limit=1)) == [midnight + 2]
        assert captures(catalog.chunks(device, 0, 1 << 62, limit=1)) == [midnight + 1]

    model_ops = st.lists(
        st.one_of(
            st.tuples(
                st.just("commit"),
                st.lists(
                    st.tuples(
                        st.integers(0, 1),  # device
                        st.sampled_from([WEEK, MONTH]),
                        st.sampled_from([0, 1, 2, 9]),  # capture day
                        st.sampled_from([0, 1, MAX_CLOCK_AHEAD_MS - 1, MAX_CLOCK_AHEAD_MS, MS_PER_DAY - 1]),
                        st.booleans(),  # the camera's clock is ahead of the server's by 10 minutes
                        st.integers(0, 1),  # content
                    ),
                    min_size=1,
                    max_size=6,
                ),
            ),
            st.tuples(st.just("erase"), st.integers(0, 1)),
            st.tuples(st.just("unindex"), st.integers(0, 1)),
            st.tuples(st.just("delete"), st.integers(0, 1), st.integers(0, 3), st.integers(1, 3)),
            st.tuples(st.just("close"), st.integers(0, 12)),
        ),
        max_size=8,
    )

    bases = itertools.count(DAY, 100)

    @settings(
        max_examples=40,
        deadline=None,
        # The suite is run by a class for each implementation: hypothesis takes those for one.
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
    )
    @given(ops=model_ops, limit=st.integers(1, 5))
    def test_it_equals_a_dict(
        self, catalog: Catalog, sound: None, ops: list[tuple[Any, ...]], limit: int
    ) -> None:
        """Whatever is committed, erased, deleted and closed: what is served is what a dict would hold."""
        base = next(self.bases)  # each example has its own days: a closed one stays closed
        plans = [PlanRow(0, "monthly", base, None, days) for days in (WEEK, MONTH)]
        devices = [d.device for d in catalog.add_devices(2, account=1, plans=plans, now_ms=NOW)]
        epochs = [0, 0]
        model: dict[tuple[int, int], tuple[int, int]] = {}  # (device, capture) -> (content, expires_on)
        deleted: list[tuple[int, int, int]] = []
        closed = base - 50
        fence = lease(catalog, now_ms=NOW + base * MS_PER_DAY)
        for op, *args in ops:
            if op == "commit":
                by_day: dict[int, list[tuple[int, int, int]]] = {}
                for which, days, day, into_day_ms, ahead, content in args[0]:
                    capture_ms = ms_of_day(base + day) + into_day_ms
                    server_ms = capture_ms - MAX_CLOCK_AHEAD_MS if ahead else capture_ms
                    expires_on = day_of_ms(min(capture_ms, server_ms)) + days + 1
                    by_day.setdefault(expires_on, []).append((which, capture_ms, content))
                batch: list[SegmentCommit] = []
                wanted: list[list[Verdict]] = []
                for expires_on, chunks in by_day.items():
                    uploads = [Upload(devices[w], t, content, epochs[w]) for w, t, content in chunks]
                    batch.append(segment_of(catalog, *uploads, expires_on=expires_on))
                    wanted.append([])
                    for which, t, content in chunks:
                        if expires_on <= closed:
                            wanted[-1].append(EXPIRED)
                        elif any(w == which and start <= t < end for w, start, end in deleted):
                            wanted[-1].append(DELETED)
                        elif (which, t) in model:
                            same = model[which, t][0] == content
                            wanted[-1].append(DUPLICATE if same else CONFLICT)
                        else:
                            wanted[-1].append(STORED)
                            model[which, t] = (content, expires_on)
                assert [verdicts(v) for v in catalog.commit(batch, now_ms=NOW)] == wanted
            elif op == "erase":
                erase(catalog, devices[args[0]], EraseState.ERASED)
                epochs[args[0]] += 1
                model = {k: v for k, v in model.items() if k[0] != args[0]}
            elif op == "unindex":
                catalog.unindex_device(devices[args[0]], fence=fence, now_ms=NOW, delete_after_ms=NOW)
            elif op == "delete":
                which, day, length = args
                start, end = ms_of_day(base + day), ms_of_day(base + day + length)
                catalog.delete_range(
                    devices[which], start, end, reason="r", who="w", now_ms=NOW, delete_after_ms=NOW
                )
                deleted.append((which, start, end))
                model = {k: v for k, v in model.items() if k[0] != which or not start <= k[1] < end}
            else:
                day = base + args[0] + WEEK
                for each in (*(d.expires_on for d in catalog.open_days(day)), day):
                    catalog.close_day(each, fence=fence, now_ms=ms_of_day(day), delete_after_ms=NOW)
                closed = max(closed, day)
                model = {k: v for k, v in model.items() if v[1] > closed}
        for which, device in enumerate(devices):
            times = sorted(t for w, t in model if w == which)
            found = catalog.chunks(device, 0, 1 << 62, limit=1000)
            assert [(r.capture_ms, r.length - 1000, r.expires_on) for r in found] == [
                (t, *model[which, t]) for t in times
            ]
            assert captures(catalog.chunks(device, 0, 1 << 62, limit=limit)) == times[:limit]
            assert captures(catalog.latest_chunks(device, limit=limit)) == times[-limit:]
            middle = ms_of_day(base + 1)
            wanted_times = [t for t in times if middle <= t < middle + 2 * MS_PER_DAY]
            assert captures(catalog.chunks(device, middle, middle + 2 * MS_PER_DAY, limit=99)) == wanted_times
            for t in times:
                row = catalog.chunk(device, t)
                assert row is not None
                assert row.length == 1000 + model[which, t][0]

    def test_whether_anything_was_deleted_of_a_part_of_a_range(self, catalog: Catalog) -> None:
        device, other = add_device(catalog), add_device(catalog)
        catalog.delete_range(device, NOON, NOON + 5, reason="", who="", now_ms=NOW, delete_after_ms=NOW)
        for from_ms, to_ms, wanted in (
            (-9, 0, False),
            (-9, 1, True),
            (1, 2, True),
            (4, 9, True),
            (5, 9, False),
        ):
            assert catalog.has_deletions(device, NOON + from_ms, NOON + to_ms) is wanted
            assert not catalog.has_deletions(other, NOON + from_ms, NOON + to_ms)

    def test_what_was_deleted_of_a_range_is_told_joined(self, catalog: Catalog) -> None:
        device, other = add_device(catalog), add_device(catalog)
        for from_ms, to_ms in ((20, 30), (0, 5), (5, 8), (25, 28), (40, 60), (900, 901)):
            catalog.delete_range(
                device, NOON + from_ms, NOON + to_ms, reason="", who="", now_ms=NOW, delete_after_ms=NOW
            )

        def told(from_ms: int, to_ms: int, limit: int = 99) -> list[tuple[int, int]]:
            found = catalog.deleted_ranges(device, NOON + from_ms, NOON + to_ms, limit=limit)
            return [(first - NOON, last - NOON) for first, last in found]

        assert told(3, 50) == [(3, 8), (20, 30), (40, 50)]
        assert told(8, 20) == []
        assert told(0, 99, limit=3) == [(0, 8), (20, 30)]
        assert catalog.deleted_ranges(other, NOON, NOON + 99, limit=99) == []
