"""service.playback.listing: pages, playlists and the numbers of live ones."""

from __future__ import annotations

import pytest

from retention.bitmap import PRESENT, SUSPENDED
from service.playback import (
    Page,
    Viewer,
)
from storage.days import MAX_TIME_MS, MS_PER_DAY, ms_of_day
from tests.service.world import (
    CHUNK_MS,
    HOUR_MS,
    NOON_MS,
    TODAY,
    World,
    captures,
    clips,
    exported,
    playing,
    refused,
)


async def test_pages_join_to_the_whole_and_spans_are_contiguous(world: World) -> None:
    kept = clips(5) + clips(6, start_ms=NOON_MS - HOUR_MS + 60_000)
    world.keep(*kept)
    async with playing(world) as playback:
        for limit in (1, 2, 4, 5, 6, 10, 11, 12):
            found: list[int] = []
            next_ms: int | None = 0
            while next_ms is not None:
                page = await playback.listings.page(
                    world.viewer(), next_ms, MAX_TIME_MS, limit=limit, finish=lambda page: page
                )
                for span, rows in page.spans:
                    assert span.chunk_count == len(rows)
                    assert (span.from_ms, span.to_ms) == (
                        rows[0].capture_ms,
                        rows[-1].capture_ms + CHUNK_MS,
                    )
                assert 1 <= len(captures(page)) <= limit
                found += captures(page)
                next_ms = page.next_ms
            assert found == [clip.capture_ms for clip in kept], limit
        whole = await playback.listings.page(
            world.viewer(), 0, MAX_TIME_MS, limit=50, finish=lambda page: page
        )
        assert [len(rows) for _, rows in whole.spans] == [5, 6]


async def test_ranges_include_what_they_begin_in_and_leave_out_their_end(world: World) -> None:
    kept = [clip.capture_ms for clip in clips(3)]
    world.keep(*clips(3))
    async with playing(world) as playback:
        for from_ms, to_ms, count in (
            (kept[0], kept[2], 2),
            (kept[0] + 1, kept[2], 2),  # what lies in it, of the first one too
            (kept[1], kept[2], 1),
            (kept[1] + 1, kept[1] + 2, 1),
            (kept[0], kept[2] + 1, 3),
            (kept[0] - 1, kept[2] - 1, 2),
        ):
            text = await playback.listings.recorded(world.viewer(), from_ms, to_ms, finish=str)
            assert text.count("#EXTINF") == count


async def test_a_listing_has_a_bound_that_it_may_reach(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.playback.listing.BATCH_ROWS", 3)
    world.keep(*clips(10))
    async with playing(world, max_listed_chunks=10) as playback:
        text = await playback.listings.recorded(world.viewer(), 0, MAX_TIME_MS, finish=str)
        assert text.count("#EXTINF") == 10
        world.keep(*clips(1, start_ms=NOON_MS))
        with refused("range_too_large"):
            await playback.listings.recorded(world.viewer(), 0, MAX_TIME_MS, finish=str)
        with refused("range_too_large"):
            await exported(playback, world.viewer())


async def test_an_end_of_entitlement_while_a_listing_is_made_wins(world: World) -> None:
    world.keep(*clips(2))
    async with playing(world) as playback:

        def meanwhile(page: Page) -> Page:
            world.change(flags=PRESENT | SUSPENDED)
            return page

        with refused("suspended"):
            await playback.listings.page(world.viewer(), 0, MAX_TIME_MS, limit=9, finish=meanwhile)
        world.change(flags=PRESENT)

        def midnight(text: str) -> str:
            world.clock.ms += MS_PER_DAY
            return text

        with refused("overloaded"):
            await playback.listings.recorded(
                Viewer(1, world.token(hours=100)), 0, MAX_TIME_MS, finish=midnight
            )


@pytest.mark.parametrize("batch_rows", [1, 2, 4096])
async def test_a_page_names_nothing_that_expired_not_even_as_the_next(
    world: World, batch_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows stay until the sweep comes (invariant 2), here between those that may be read."""
    monkeypatch.setattr("service.playback.listing.BATCH_ROWS", batch_rows)
    kept, over = clips(4), clips(6, start_ms=NOON_MS - HOUR_MS + 1, expires_on=TODAY + 2)
    world.keep(*kept)
    world.keep(*over)
    world.clock.ms = ms_of_day(TODAY + 2)
    wanted = [clip.capture_ms for clip in kept]
    async with playing(world) as playback:
        for limit in (1, 2, 3, 4, 5):
            found: list[int] = []
            next_ms: int | None = 0
            while next_ms is not None:
                assert next_ms in {0, *wanted}
                page = await playback.listings.page(
                    world.viewer(), next_ms, MAX_TIME_MS, limit=limit, finish=lambda page: page
                )
                found += captures(page)
                next_ms = page.next_ms
                assert next_ms is None or len(captures(page)) == limit
            assert found == wanted
