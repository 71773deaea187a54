"""Entitlement, asked of all of playback: who may read what, at every moment (invariant 2)."""

from __future__ import annotations

import pytest
import structlog

from retention.bitmap import ERASED, PRESENT, SUSPENDED, TERMINATED
from retention.freshness import Freshness
from retention.tokens import mint_device_token, mint_viewer_token
from service.playback import (
    Gate,
    Viewer,
)
from service.playback.used import Used
from storage.clock import boottime_ns
from storage.days import MAX_TIME_MS, month_of_day, ms_of_day
from storage.vault import KeyId
from tests.service.world import (
    EXPIRES_ON,
    HOUR_MS,
    NOON_MS,
    TODAY,
    World,
    clips,
    exported,
    fetched,
    listed,
    playing,
    refused,
)

STALE_NS = 600_000_000_000
"""Far longer than a test takes."""


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"flags": PRESENT | SUSPENDED}, "suspended"),
        ({"flags": PRESENT | TERMINATED}, "terminated"),
        ({"flags": PRESENT | ERASED}, "erased"),
        ({"days": 1}, "plan_lapsed"),  # entitled yesterday only
        ({"token_generation": 2}, "bad_token"),
        ({"viewer_generation": 1}, "bad_token"),
        ({"flags": 0}, "bad_token"),
        ({"flags": PRESENT | SUSPENDED | TERMINATED, "days": 0}, "suspended"),
        ({"flags": PRESENT | SUSPENDED, "token_generation": 2}, "bad_token"),
        ({"erase_epoch": 1}, "not_found"),
    ],
)
@pytest.mark.parametrize("moment", ["before", "after the row was found", "while it is fetched"])
async def test_every_denial_wins_at_every_moment(
    world: World, fields: dict[str, int], code: str, moment: str
) -> None:
    world.keep(*clips(1))
    viewer, at_ms = world.viewer(), clips(1)[0].capture_ms
    async with playing(world) as playback:
        assert await fetched(playback, viewer, at_ms) == clips(1)[0].data  # the key is in the cache now
        row = await playback.chunks.find(viewer, at_ms)
        if moment == "while it is fetched":
            world.during_next_fetch(lambda: world.change(**fields))
        else:
            world.change(**fields)
        with refused(code):
            if moment == "before":
                await playback.chunks.find(viewer, at_ms)
            await playback.chunks.read(viewer, row)
        if moment == "after the row was found":
            with refused(code):
                await playback.chunks.readable(viewer, row)
        if code != "not_found":
            with refused(code):
                await listed(playback, viewer)


async def test_a_device_of_another_epoch_lists_nothing(world: World) -> None:
    """Rows of before an erasure, though the catalog that answers has not heard of it yet."""
    world.keep(*clips(3))
    async with playing(world) as playback:
        assert len(await listed(playback, world.viewer())) == 3
        world.change(erase_epoch=1)
        assert await listed(playback, world.viewer()) == []
        assert "chunks/" not in await playback.listings.recorded(world.viewer(), 0, MAX_TIME_MS, finish=str)
        with refused("not_found"):
            await exported(playback, world.viewer())


async def test_tokens_are_of_one_device_one_generation_and_one_time(world: World) -> None:
    other = world.add_device()
    world.keep(*clips(1))
    at_ms, secret = clips(1)[0].capture_ms, world.vault.token_secret
    bad = [
        "",
        "nonsense",
        world.token(other),
        world.token(generation=0),
        world.token(generation=2),
        world.token()[:-1] + "!",
        mint_device_token(secret, 1, 1),
        mint_viewer_token(b"another secret of 32 bytes......", 1, 1, 2**40),
    ]
    async with playing(world) as playback:
        for token in bad:
            with refused("bad_token"):
                await playback.chunks.find(Viewer(1, token), at_ms)
        for device in (0, 2**32 - 1, other):
            with refused("bad_token"):
                await playback.chunks.find(Viewer(device, world.token()), at_ms)
        with refused("bad_token"):  # no device has this number: its row is all zero
            await playback.chunks.find(Viewer(999, world.token(999, generation=0)), at_ms)
        viewer = Viewer(1, world.token(hours=1))
        world.clock.ms += HOUR_MS - 1
        await playback.chunks.find(viewer, at_ms)
        world.clock.ms += 1
        with refused("bad_token"):
            await playback.chunks.find(viewer, at_ms)
        with world.bitmap.locked():
            world.bitmap.raise_closed_through(TODAY + 1)
        world.clock.ms = NOON_MS  # invariant 12: no token comes back either
        with refused("bad_token"):
            await playback.chunks.find(viewer, at_ms)


async def test_what_was_found_for_one_viewer_is_not_read_for_another(world: World) -> None:
    other = world.add_device()
    world.keep(*clips(1))
    async with playing(world) as playback:
        row = await playback.chunks.find(world.viewer(), clips(1)[0].capture_ms)
        for read in (playback.chunks.read, playback.chunks.readable):
            with refused("not_found"):
                await read(world.viewer(other), row)


@pytest.mark.parametrize("moment", ["before", "after the row was found", "while it is fetched"])
async def test_a_host_that_does_not_hear_home_gives_nothing_at_any_moment(world: World, moment: str) -> None:
    """Neither does it refuse anybody for a reason: the reason may be over."""
    world.keep(*clips(1))
    viewer, at_ms = world.viewer(), clips(1)[0].capture_ms
    over_ns = boottime_ns() - STALE_NS - 1
    async with playing(world, max_stale_ns=STALE_NS) as playback:
        with refused("host_stale"):  # its feed has never asked
            await playback.chunks.find(viewer, at_ms)
        world.bitmap.stamp(boottime_ns())
        row = await playback.chunks.find(viewer, at_ms)
        if moment == "while it is fetched":
            world.during_next_fetch(lambda: world.bitmap.stamp(over_ns))
        else:
            world.bitmap.stamp(over_ns)
            world.change(flags=PRESENT | SUSPENDED)
        with refused("host_stale"):
            if moment == "before":
                await playback.chunks.find(viewer, at_ms)
            await playback.chunks.read(viewer, row)
        world.change(flags=PRESENT)
        world.bitmap.stamp(boottime_ns())
        assert await fetched(playback, viewer, at_ms) == clips(1)[0].data


def test_a_host_that_does_not_hear_home_keeps_no_key(world: World) -> None:
    freshness = Freshness(world.bitmap, STALE_NS)
    gate = Gate(world.bitmap, world.clock, world.vault.token_secret, Used(), freshness)
    key_id = KeyId(1, 0, month_of_day(EXPIRES_ON))
    assert not gate.key_is_live()(key_id)
    world.bitmap.stamp(boottime_ns())
    assert gate.key_is_live()(key_id)


async def test_the_last_millisecond_of_the_last_day(world: World) -> None:
    """Rows, objects and keys are all still there (invariant 2)."""
    device = world.add_device(days=4)  # yesterday to the day after tomorrow
    world.keep(*clips(1), device=device)
    viewer = Viewer(device, world.token(device, hours=1000))
    async with playing(world) as playback:
        world.clock.ms = ms_of_day(TODAY + 3) - 1
        assert await fetched(playback, viewer, clips(1)[0].capture_ms) == clips(1)[0].data
        row = await playback.chunks.find(viewer, clips(1)[0].capture_ms)
        world.clock.ms += 1
        with refused("plan_lapsed"):
            await playback.chunks.read(viewer, row)
        world.clock.ms -= 1
        world.during_next_fetch(lambda: setattr(world.clock, "ms", ms_of_day(TODAY + 3)))
        with refused("plan_lapsed"):
            await playback.chunks.read(viewer, row)


async def test_a_chunk_expires_at_midnight_and_a_clock_set_back_does_not_bring_it_back(world: World) -> None:
    early, late = clips(1, expires_on=TODAY + 2)[0], clips(1, start_ms=NOON_MS)[0]
    world.keep(early)
    world.keep(late)
    viewer = Viewer(1, world.token(hours=1000))
    async with playing(world) as playback:
        world.clock.ms = ms_of_day(TODAY + 2) - 1
        row = await playback.chunks.find(viewer, early.capture_ms)
        assert await listed(playback, viewer) == [early.capture_ms, late.capture_ms]
        world.clock.ms += 1
        with refused("expired"):
            await playback.chunks.read(viewer, row)
        with refused("expired"):
            await playback.chunks.find(viewer, early.capture_ms)
        assert await listed(playback, viewer) == [late.capture_ms]
        assert await exported(playback, viewer) == late.data
        assert str(early.capture_ms) not in await playback.listings.recorded(
            viewer, 0, MAX_TIME_MS, finish=str
        )
        with world.bitmap.locked():
            world.bitmap.raise_closed_through(TODAY + 2)
        world.clock.ms = NOON_MS  # invariant 12
        with refused("expired"):
            await playback.chunks.read(viewer, row)


async def test_a_row_being_written_is_asked_again_later(world: World) -> None:
    world.keep(*clips(1))
    viewer = world.viewer()
    async with playing(world) as playback:
        at = (4096 + 64) // 2  # the sequence number of row 1
        world.bitmap._seqs[at] |= 1
        with refused("overloaded"):
            await playback.chunks.find(viewer, clips(1)[0].capture_ms)
        world.bitmap._seqs[at] += 1
        await playback.chunks.find(viewer, clips(1)[0].capture_ms)


async def test_what_is_deleted_is_not_found_any_more(world: World) -> None:
    kept = clips(3)
    world.keep(*kept)
    world.delete(kept[1])
    async with playing(world) as playback:
        assert await listed(playback, world.viewer()) == [kept[0].capture_ms, kept[2].capture_ms]
        with refused("not_found"):
            await playback.chunks.find(world.viewer(), kept[1].capture_ms)


async def test_what_a_sweep_has_dropped_has_expired(world: World) -> None:
    """Its row is gone with its day, and still the answer is that of before: expired, not unknown (invariant 2)."""
    world.keep(*clips(1))
    [clip] = clips(1)
    world.clock.ms = ms_of_day(clip.expires_on)
    async with playing(world) as playback:
        with refused("expired"):
            await playback.chunks.find(world.viewer(), clip.capture_ms)
        fence = world.catalog.acquire_lease("sweep", holder="t", ttl_ms=1000, now_ms=world.clock.ms)
        assert fence is not None
        world.catalog.close_day(
            clip.expires_on, fence=fence, now_ms=world.clock.ms, delete_after_ms=world.clock.ms
        )
        assert world.catalog.chunk(1, clip.capture_ms) is None
        with refused("expired"):
            await playback.chunks.find(world.viewer(), clip.capture_ms)
        with refused("not_found"):  # of the first day that is still kept
            await playback.chunks.find(world.viewer(), ms_of_day(TODAY + 1))


async def test_what_is_deleted_on_its_way_is_not_given(world: World) -> None:
    world.keep(*clips(3))
    async with playing(world) as playback:
        row = await playback.chunks.find(world.viewer(), clips(1)[0].capture_ms)
        world.during_next_fetch(lambda: world.delete(clips(1)[0]))
        with refused("not_found"):
            await playback.chunks.read(world.viewer(), row)
        with refused("not_found"):
            await playback.chunks.readable(world.viewer(), row)


@pytest.mark.parametrize("gone", ["key", "object"])
async def test_an_erasure_on_its_way_is_told_as_such_and_is_no_fault(world: World, gone: str) -> None:
    """However far it has come: what was erased can't be read, and nobody need be woken for that."""
    world.keep(*clips(1))
    viewer = world.viewer()
    async with playing(world) as playback:
        row = await playback.chunks.find(viewer, clips(1)[0].capture_ms)
        if gone == "object":
            world.during_next_fetch(lambda: (world.terminate(), world.objects.objects.clear()))
        else:
            world.terminate()
        with structlog.testing.capture_logs() as logs, refused("terminated"):
            await playback.chunks.read(viewer, row)
        assert logs == []
