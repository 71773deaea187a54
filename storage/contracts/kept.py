"""What `storage.catalog.kept.KeptCatalog` promises."""

from __future__ import annotations

import numpy as np

from storage.catalog import Catalog
from storage.contracts.given import (
    AFTER,
    DAY,
    ENDS,
    MONTH,
    NOON,
    NOW,
    WEEK,
    OnCatalog,
    Upload,
    add_device,
    commit,
    erase,
    index_of,
    lease,
    segment_of,
)
from storage.days import MS_PER_DAY
from storage.media_facts import Codec, MediaFacts
from storage.rows.kept import KeptDay
from storage.rows.recordings import FMP4


class KeptContract(OnCatalog):
    """See the module docstring."""

    def test_sums_by_expiry_day_and_capture_day(self, catalog: Catalog) -> None:
        device, other = add_device(catalog), add_device(catalog)
        assert catalog.kept(device, [ENDS]) == {}, "no table yet"
        midnight = NOON + MS_PER_DAY // 2
        commit(catalog, *(Upload(device, NOON + at, at) for at in range(3)), Upload(other, NOON))
        commit(catalog, Upload(device, midnight), Upload(device, midnight + 1), expires_on=ENDS + 1)
        commit(catalog, Upload(device, midnight + 2, 5))
        assert catalog.kept(device, [ENDS, ENDS + 1, ENDS + 2]) == {
            ENDS: [KeptDay(DAY, 3, 3003, 6000), KeptDay(DAY + 1, 1, 1005, 2000)],
            ENDS + 1: [KeptDay(DAY + 1, 2, 2000, 4000)],
        }
        assert catalog.kept(other, [ENDS + 1, ENDS]) == {ENDS: [KeptDay(DAY, 1, 1000, 2000)], ENDS + 1: []}
        assert catalog.kept(99, [ENDS]) == {ENDS: []}
        assert catalog.kept(device, []) == {}
        state = catalog.kept_states([device, 99])
        assert state.keys() == {device}
        assert state[device].expiry_days == (ENDS + 1, ENDS)

    def test_what_is_deleted_or_erased_is_not_kept(self, catalog: Catalog) -> None:
        device = add_device(catalog)
        commit(catalog, Upload(device, NOON), Upload(device, NOON + 1), Upload(device, NOON + 2))
        before = catalog.kept_states([device])[device]
        catalog.delete_range(device, NOON, NOON + 1, reason="", who="owner", now_ms=NOW, delete_after_ms=NOW)
        assert catalog.kept(device, [ENDS])[ENDS] == [KeptDay(DAY, 2, 2000, 4000)]
        after = catalog.kept_states([device])[device]
        assert after.deletions > before.deletions
        assert after.unfinished == 0
        erase(catalog, device)
        assert catalog.kept(device, [ENDS])[ENDS] == []
        assert catalog.kept_states([device])[device].epoch == 1

    def test_a_day_that_was_swept_is_left_out(self, catalog: Catalog) -> None:
        device = add_device(catalog, WEEK, MONTH)
        later = ENDS + MONTH - WEEK
        commit(catalog, Upload(device, NOON))
        commit(catalog, Upload(device, NOON + 1), expires_on=later)
        catalog.close_day(ENDS, fence=lease(catalog, now_ms=AFTER), now_ms=AFTER, delete_after_ms=AFTER)
        assert catalog.kept_states([device])[device].expiry_days == (later,)
        assert catalog.kept(device, [ENDS, later]) == {later: [KeptDay(DAY, 1, 1000, 2000)]}

    def test_an_init_segment_is_no_recording(self, catalog: Catalog) -> None:
        """It is stored as a chunk at a time below 0."""
        device = add_device(catalog)
        index = index_of(Upload(device, -7), Upload(device, NOON))
        index["media"] = FMP4
        index["facts"] = np.void(MediaFacts(video=Codec.H264, parameters=7).pack())
        catalog.commit([segment_of(catalog, index=index)], now_ms=NOW)
        assert catalog.kept(device, [ENDS])[ENDS] == [KeptDay(DAY, 1, 1000, 2000)]
