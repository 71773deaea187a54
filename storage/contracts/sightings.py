"""What `storage.catalog.sightings.SightingsCatalog` promises."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from storage.catalog import Catalog
from storage.contracts.given import DAY, NOW, OnCatalog, add_device
from storage.rows.sightings import Refused, Sighting


class SightingsContract(OnCatalog):
    """See the module docstring."""

    def test_of_a_device_that_was_never_seen_there_is_nothing(self, catalog: Catalog) -> None:
        assert catalog.sightings([7, 7]) == {7: Sighting(7)}
        assert catalog.sightings([]) == {}
        catalog.note_sightings({}, {})

    def test_times_never_go_back_and_counts_add_up(self, catalog: Catalog) -> None:
        one, other = (add_device(catalog) for _ in range(2))
        catalog.note_sightings({one: NOW}, {(one, "expired"): (3, NOW + 5), (one, "no_frames"): (1, NOW + 9)})
        catalog.note_sightings({one: NOW - 1, other: 1}, {(one, "expired"): (1 << 33, NOW)})
        expired = Refused("expired", (1 << 33) + 3, NOW + 5)
        assert catalog.sightings([other, one]) == {
            one: Sighting(one, NOW, (Refused("no_frames", 1, NOW + 9), expired)),
            other: Sighting(other, 1),
        }
        assert catalog.sightings([one])[one].refusals == expired.count + 1
        catalog.note_sightings({one: NOW + 10}, {})
        assert catalog.sightings([one])[one].seen_ms == NOW + 10

    def test_devices_that_are_not_there_leave_no_row(self, catalog: Catalog) -> None:
        catalog.note_sightings({99: NOW}, {(99, "expired"): (1, NOW)})
        assert catalog.sightings([99]) == {99: Sighting(99)}

    def test_many_devices_at_once(self, catalog: Catalog) -> None:
        first = catalog.add_devices(1100, account=1, plans=(), now_ms=NOW)[0].device
        seen = {device: NOW + device for device in range(first, first + 1100)}
        catalog.note_sightings(seen, {(device, "expired"): (1, NOW) for device in seen})
        found = catalog.sightings(list(seen))
        assert {device: one.seen_ms for device, one in found.items()} == seen
        assert {one.refusals for one in found.values()} == {1}

    def test_nothing_is_lost_of_what_several_workers_saw_at_once(self, catalog: Catalog) -> None:
        devices = [add_device(catalog) for _ in range(4)]

        def note(turn: int) -> None:
            seen = dict.fromkeys(devices, NOW + turn)
            catalog.note_sightings(seen, {(device, "expired"): (1, NOW + turn) for device in devices})

        with ThreadPoolExecutor(4) as threads:
            list(threads.map(note, range(20)))
        for device, found in catalog.sightings(devices).items():
            assert found == Sighting(device, NOW + 19, (Refused("expired", 20, NOW + 19),))

    def test_silent_is_who_may_record_and_does_not(self, catalog: Catalog) -> None:
        def silent(**more: int) -> list[tuple[int, int | None]]:
            return catalog.silent(day=DAY, before_ms=NOW, **more)

        never, before, since, ended, suspended = (add_device(catalog) for _ in range(5))
        catalog.add_devices(1, account=1, plans=(), now_ms=NOW)
        catalog.note_sightings({before: NOW - 1, since: NOW}, {})
        catalog.update_device(
            ended, lambda facts: replace(facts, terminated_ms=NOW), what="terminated", now_ms=NOW
        )
        catalog.update_device(
            suspended, lambda facts: replace(facts, suspended=True), what="suspended", now_ms=NOW
        )
        assert silent() == [(never, None), (before, NOW - 1)]
        assert silent(limit=1) == [(never, None)]
        assert silent(after=never) == [(before, NOW - 1)]
        assert catalog.silent(day=DAY - 10_000, before_ms=NOW) == [], "nobody had a plan then"

    def test_what_belongs_to_the_living_is_not_dropped(self, catalog: Catalog) -> None:
        device = add_device(catalog)
        catalog.note_sightings({device: NOW}, {(device, "expired"): (1, NOW)})
        assert catalog.drop_sightings() == 0
        assert catalog.sightings([device])[device].refusals == 1
