"""What `storage.catalog.leases.LeasesCatalog` promises, and every change under a fence."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from storage.catalog import Catalog
from storage.contracts.given import (
    AFTER,
    ENDS,
    NOON,
    NOW,
    OnCatalog,
    Opener,
    Upload,
    add_device,
    commit,
    erase,
    everything,
    lease,
    segment_of,
    segments,
)
from storage.days import MS_PER_DAY
from storage.errors import LeaseLost
from storage.rows.devices import EraseState


class LeasesContract(OnCatalog):
    """See the module docstring."""

    def test_one_holder_at_a_time_and_tokens_that_only_grow(self, catalog: Catalog) -> None:
        """Invariant 8."""

        def acquire(holder: str, now_ms: int, name: str = "sweep") -> int | None:
            return catalog.acquire_lease(name, holder=holder, ttl_ms=100, now_ms=now_ms)

        first = acquire("a", 0)
        assert first is not None
        assert acquire("b", 99) is None
        assert acquire("a", 50) == first  # renewed, until 150
        assert acquire("b", 149) is None
        second = acquire("b", 150)
        assert second is not None
        assert second > first
        assert acquire("a", 151) is None
        catalog.release_lease("sweep", fence=first)  # no longer ours to give back
        assert acquire("a", 151) is None
        catalog.release_lease("sweep", fence=second)
        third = acquire("a", 151)
        assert third is not None
        assert third > second
        assert acquire("b", 151, name="another") is not None

    @pytest.mark.parametrize("how", ["never held", "taken over", "given back"])
    def test_a_stale_fence_changes_nothing(self, catalog: Catalog, sound: None, how: str) -> None:
        """Invariant 8, for every method that takes a fence."""
        device = add_device(catalog)
        commit(catalog, Upload(device, NOON), Upload(device, NOON + 1))
        commit(catalog, Upload(device, NOON))
        erase(catalog, device, EraseState.ERASED)
        prepared, dead = segment_of(catalog).segment_id, segments(catalog)[1].segment_id
        stale = 1
        if how != "never held":
            stale = lease(catalog, "a")
        if how == "taken over":
            lease(catalog, "b", NOW + 60_000)
        if how == "given back":
            catalog.release_lease("sweep", fence=stale)
        before = everything(catalog)
        late = AFTER + MS_PER_DAY
        calls: list[Callable[[], object]] = [
            lambda: catalog.close_day(ENDS, fence=stale, now_ms=late, delete_after_ms=late),
            lambda: catalog.advance_closed_through(ENDS, fence=stale),
            lambda: catalog.reclaim([prepared], fence=stale, now_ms=late),
            lambda: catalog.deleted([dead], fence=stale, now_ms=late, again_at_ms=late),
            lambda: catalog.delete_failed({dead: "denied"}, fence=stale, retry_at_ms=late),
            lambda: catalog.unindex_device(device, fence=stale, now_ms=late, delete_after_ms=late),
        ]
        for call in calls:
            with pytest.raises(LeaseLost):
                call()
            assert everything(catalog) == before
        assert [d.device for d in catalog.erasing_devices()] == [device]

    def test_nobody_takes_the_lease_while_a_step_outside_is_done(
        self, catalog: Catalog, opener: Opener
    ) -> None:
        """Invariant 8: keys are destroyed while the lease is held, whatever its time says."""
        mine = lease(catalog, "a")
        other = opener()
        done: list[str] = []

        def take_over() -> None:
            lease(other, "b", NOW + 60_000)
            done.append("taken")

        with ThreadPoolExecutor(1) as threads:
            with catalog.holding_lease(fence=mine):
                taking = threads.submit(take_over)
                with suppress(TimeoutError):
                    taking.result(timeout=0.3)
                done.append("step")
            taking.result()
        other.close()
        assert done == ["step", "taken"]
        with pytest.raises(LeaseLost), catalog.holding_lease(fence=mine):
            done.append("never")
        assert done == ["step", "taken"]
