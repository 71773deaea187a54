"""What `storage.catalog.hosts.HostsCatalog` promises."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

from storage.catalog import Catalog
from storage.contracts.given import OnCatalog, Opener
from storage.rows.hosts import Beat


class HostsContract(OnCatalog):
    """See the module docstring."""

    def test_a_host_is_listed_from_when_it_registers_until_it_leaves(self, catalog: Catalog) -> None:
        assert catalog.hosts()[0] == []
        catalog.register_host("b2", name="b", release="1.2", max_stale_ms=5000)
        catalog.register_host("a1", name="a", release="1.3", max_stale_ms=5000)
        [a, b], now_ms = catalog.hosts()
        assert (a.host, a.name, a.release, a.applied, a.max_stale_ms) == ("a1", "a", "1.3", 0, 5000)
        assert (b.host, b.name) == ("b2", "b")
        assert b.registered_ms <= b.asked_ms <= a.asked_ms <= now_ms
        catalog.leave_host("b2")
        catalog.leave_host("b2")
        assert catalog.hosts()[0] == [a]

    def test_a_beat_says_what_home_knows_and_is_in_the_list(self, catalog: Catalog) -> None:
        catalog.register_host("a1", name="a", release="1", max_stale_ms=5000)
        [registered], _ = catalog.hosts()
        time.sleep(0.005)
        before_ms = catalog.hosts()[1]
        first = beat(catalog, "a1", applied=7)
        assert first is not None
        assert registered.asked_ms < before_ms <= first.now_ms
        assert first.closed_through == catalog.closed_through
        assert first.newest_change == catalog.newest_change()
        catalog.add_devices(1, account=1, plans=[], now_ms=1)
        now = beat(catalog, "a1", applied=8)
        assert now is not None
        assert now.newest_change == catalog.newest_change() > first.newest_change
        second = beat(catalog, "a1", applied=9)
        assert second is not None
        assert second.now_ms >= first.now_ms
        [a], now_ms = catalog.hosts()
        assert (a.applied, a.load_pct, a.lag_ms) == (9, 30, 250)
        assert a.asked_ms == second.now_ms <= now_ms
        assert a.registered_ms == registered.registered_ms

    def test_home_tells_how_far_a_hosts_clock_is_off(self, catalog: Catalog) -> None:
        catalog.register_host("a1", name="a", release="1", max_stale_ms=5000)
        home_ms = catalog.hosts()[1]
        assert beat(catalog, "a1", clock_ms=home_ms + 3_600_000) is not None
        [a], later_ms = catalog.hosts()
        assert 3_600_000 - (later_ms - home_ms) - 1 <= a.offset_ms <= 3_600_000

    def test_homes_clock_goes_on(self, catalog: Catalog) -> None:
        """What leases and grants of rights go by is what a beat and the list tell."""
        before_ms = catalog.home_ms()
        listed_ms = catalog.hosts()[1]
        assert before_ms <= listed_ms <= catalog.home_ms()

    def test_who_is_not_listed_is_told_so(self, catalog: Catalog) -> None:
        assert beat(catalog, "a1") is None
        assert catalog.hosts()[0] == []
        catalog.register_host("a1", name="a", release="1", max_stale_ms=5000)
        catalog.leave_host("a1")
        assert beat(catalog, "a1") is None

    def test_one_that_registers_again_is_heard_now_and_keeps_how_far_it_was(self, catalog: Catalog) -> None:
        catalog.register_host("a1", name="a", release="1", max_stale_ms=5000)
        beat(catalog, "a1", applied=5)
        [before], _ = catalog.hosts()
        time.sleep(0.005)
        catalog.register_host("a1", name="a", release="2", max_stale_ms=5000)
        [after], _ = catalog.hosts()
        assert (after.release, after.applied) == ("2", 5)
        assert after.asked_ms > before.asked_ms

    def test_hosts_unseen_for_long_are_forgotten(self, catalog: Catalog) -> None:
        catalog.register_host("a1", name="a", release="1", max_stale_ms=5000)
        time.sleep(0.02)
        catalog.register_host("b2", name="b", release="1", max_stale_ms=5000)
        assert catalog.forget_hosts(unseen_ms=3_600_000) == 0
        beat(catalog, "b2")
        assert catalog.forget_hosts(unseen_ms=10) <= 1  # a slow machine may forget both
        time.sleep(0.02)
        catalog.forget_hosts(unseen_ms=10)
        assert catalog.hosts()[0] == []

    def test_hosts_beat_beside_each_other_and_are_seen_by_every_connection(
        self, catalog: Catalog, opener: Opener
    ) -> None:
        names = [f"h{n}" for n in range(4)]
        for name in names:
            catalog.register_host(name, name=name, release="1", max_stale_ms=5000)

        def beats(name: str) -> None:
            for number in range(1, 11):
                assert beat(catalog, name, applied=number) is not None

        with ThreadPoolExecutor(4) as threads:
            list(threads.map(beats, names))
        other = opener()
        try:
            assert {host.host: host.applied for host in other.hosts()[0]} == dict.fromkeys(names, 10)
        finally:
            other.close()


def beat(catalog: Catalog, host: str, *, applied: int = 0, clock_ms: int | None = None) -> Beat | None:
    now_ms = catalog.hosts()[1] if clock_ms is None else clock_ms
    return catalog.beat(host, applied=applied, load_pct=30, lag_ms=250, clock_ms=now_ms)
