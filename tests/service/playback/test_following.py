"""Live playlists out of the catalog: the same numbers from every process, whatever comes late, goes or jumps."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from ingest.keys_ahead import BLOCK_KEYS
from ingest.media import Media
from service.playback import LivePlaylist, PlaybackServices, Viewer
from service.playback.following import FORGOTTEN_MS, TAIL_ROWS, Following
from service.playback.gate import Gate
from service.playback.used import Used
from tests.servers.catalogs import catalog_of
from tests.service.world import CHUNK_MS, HOUR_MS, NOON_MS, Clip, World, clips, playing

LIMITS: dict[str, float] = {"live_window_ms": 12_000, "live_wait_s": 0.0}


def parsed(text: str) -> tuple[int, int, int, list[int]]:
    """Media sequence, discontinuity sequence, target duration and capture times."""
    tags = dict(line.split(":", 1) for line in text.splitlines() if line.startswith("#EXT") and ":" in line)
    times = [
        int(line[len("chunks/") : line.index(".")])
        for line in text.splitlines()
        if line.startswith("chunks/")
    ]
    sequence, breaks = int(tags["#EXT-X-MEDIA-SEQUENCE"]), int(tags["#EXT-X-DISCONTINUITY-SEQUENCE"])
    return sequence, breaks, int(tags["#EXT-X-TARGETDURATION"]), times


class Watching:
    """A player that reloads, and notes what RFC 8216 §6.2.1 and §6.2.2 promise it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.viewer = Viewer(1, world.token(hours=100))
        self.by_number: dict[int, int] = {}
        self.targets: set[int] = set()
        self.last = (0, 0)

    async def reload(self, from_ms: int | None = None, **limits: int) -> list[int]:
        """Each time by another process: nothing is left of the one before but what is stored."""
        async with playing(self.world, **LIMITS | limits) as playback:
            live = await playback.listings.live(self.viewer, from_ms, finish=lambda live: live)
        sequence, breaks, target_s, times = parsed(live.text)
        for number, capture_ms in enumerate(times, sequence):
            assert self.by_number.setdefault(number, capture_ms) == capture_ms
        if from_ms is None:
            assert sequence >= self.last[0]
            assert breaks >= self.last[1]
            self.last = sequence, breaks
        self.targets.add(target_s)
        return times

    def keep(self, *made: Clip) -> None:
        self.world.keep(*made)
        self.world.clock.ms = max(self.world.clock.ms, made[-1].capture_ms + made[-1].duration_ms)


@pytest.fixture
def watching(world: World) -> Watching:
    return Watching(world)


async def test_numbers_start_at_0_and_name_each_chunk_once(watching: Watching) -> None:
    for made in clips(60, start_ms=NOON_MS):
        watching.keep(made)
        assert (await watching.reload())[-1] == made.capture_ms
    assert watching.by_number == {i: NOON_MS + i * CHUNK_MS for i in range(60)}
    assert watching.targets == {4}


async def test_a_late_chunk_is_in_the_recording_and_not_in_what_was_listed(watching: Watching) -> None:
    made = clips(8, start_ms=NOON_MS)
    for clip in (*made[:3], made[4]):
        watching.keep(clip)
        await watching.reload()
    watching.keep(made[3])
    for clip in made[5:]:
        watching.keep(clip)
        await watching.reload()
    del made[3]
    assert list(watching.by_number.values()) == [clip.capture_ms for clip in made]
    async with playing(watching.world) as playback:
        text = await playback.listings.recorded(watching.viewer, NOON_MS, NOON_MS + HOUR_MS, finish=str)
    assert text.count("#EXTINF") == 8


async def test_what_is_deleted_or_swept_shifts_no_number(watching: Watching) -> None:
    made = clips(9, start_ms=NOON_MS)
    for clip in made[:6]:
        watching.keep(clip)
        await watching.reload(live_window_ms=60_000)
    watching.world.delete(made[2])  # listed
    watching.world.delete(made[4])
    watching.world.clock.ms += 1000
    assert await watching.reload(live_window_ms=60_000) == [made[5].capture_ms]
    for clip in made[6:]:
        watching.keep(clip)
        await watching.reload(live_window_ms=60_000)
    assert watching.by_number == {i: clip.capture_ms for i, clip in enumerate(made)}
    watching.world.delete(made[8])  # the newest
    assert await watching.reload(live_window_ms=60_000) == []
    [more] = clips(1, start_ms=NOON_MS + 9 * CHUNK_MS)
    watching.keep(more)
    assert await watching.reload(live_window_ms=60_000) == [more.capture_ms]
    assert watching.by_number[9] == more.capture_ms
    assert watching.last[1] == 1, "what comes after a gap starts a discontinuity"


async def test_from_leaves_numbers_as_they_are(watching: Watching) -> None:
    made = clips(6, start_ms=NOON_MS)
    for clip in made:
        watching.keep(clip)
        await watching.reload()
    assert await watching.reload(made[4].capture_ms) == [made[4].capture_ms, made[5].capture_ms]
    assert await watching.reload(made[4].capture_ms + 1) == [made[5].capture_ms]
    assert await watching.reload(NOON_MS + HOUR_MS) == []


async def test_nobody_saw_it_for_long(watching: Watching) -> None:
    """The list goes on under the next numbers, and may have another target duration: no player is left."""
    for clip in clips(12, start_ms=NOON_MS):
        watching.keep(clip)
    await watching.reload()
    seen = set(watching.by_number)
    after = [Clip(NOON_MS + 2 * FORGOTTEN_MS + i * 2000, b"G" * 188, duration_ms=2000) for i in range(2000)]
    watching.keep(*after)
    times = await watching.reload()
    assert times == [clip.capture_ms for clip in after[-6:]]
    assert min(set(watching.by_number) - seen) == max(seen) + 1
    assert watching.last[1] == 1
    assert watching.targets == {4, 2}


@pytest.mark.parametrize(
    ("lengths_s", "target_s"), [((2, 2, 2), 2), ((1, 2, 2), 2), ((2, 2), 4), ((2, 1, 2), 4), ((6, 2, 2), 6)]
)
async def test_the_first_chunks_tell_the_target_duration_when_they_are_alike(
    watching: Watching, lengths_s: tuple[int, ...], target_s: int
) -> None:
    at_ms = NOON_MS
    for length_s in lengths_s:
        watching.keep(Clip(at_ms, b"G" * 188, duration_ms=1000 * length_s))
        at_ms += 1000 * length_s
    await watching.reload()
    assert watching.targets == {target_s}


async def test_a_viewer_that_slept_a_little_skips_to_what_is_new(watching: Watching) -> None:
    for clip in clips(12, start_ms=NOON_MS):
        watching.keep(clip)
    await watching.reload()
    watching.keep(*[Clip(NOON_MS + 60_000 + i * 1000, b"G" * 188, duration_ms=1000) for i in range(2000)])
    assert TAIL_ROWS < 2000
    assert (await watching.reload())[-1] == NOON_MS + 60_000 + 1999_000
    assert watching.targets == {4}


@pytest.mark.parametrize("block_keys", [1, BLOCK_KEYS])
async def test_a_clock_that_was_set_back_is_followed(watching: Watching, block_keys: int) -> None:
    """The issue's camera: its clock goes back by an hour, it sends on, and the playlist goes on. Also while the worker
    uses segment numbers that it prepared before."""
    watching.world.block_keys = block_keys
    before = clips(10, start_ms=NOON_MS)
    for clip in before:
        watching.keep(clip)
        await watching.reload()
    back = clips(30, start_ms=NOON_MS + 9 * CHUNK_MS - HOUR_MS)
    for clip in back:
        watching.world.keep(clip)
        watching.world.clock.ms += CHUNK_MS
        await watching.reload()
    listed = list(watching.by_number.values())
    assert len(listed) > 30, (
        "a few leave before they are listed, in the half minute after which it is noticed"
    )
    assert listed[:10] == [clip.capture_ms for clip in before]
    assert listed[-5:] == [clip.capture_ms for clip in back[-5:]]
    assert listed[10:] == [clip.capture_ms for clip in back][-len(listed[10:]) :]
    assert watching.last[1] == 1
    # And forth again: what was listed before is not listed once more.
    forth = clips(5, start_ms=watching.world.clock.ms)
    for clip in forth:
        watching.keep(clip)
        await watching.reload()
    assert list(watching.by_number.values()) == listed + [clip.capture_ms for clip in forth]


async def test_a_camera_without_recordings_and_one_with_mp4_only(watching: Watching) -> None:
    assert await watching.reload() == []
    watching.keep(*[replace(clip, media=Media.MP4) for clip in clips(3)])
    assert len(await watching.reload()) == 3
    watching.keep(*clips(3, start_ms=NOON_MS))
    watching.world.clock.ms = NOON_MS + 20_000
    assert len(await watching.reload()) == 3
    assert len(watching.by_number) == 6


async def test_nothing_new_says_where_the_recordings_are(world: World) -> None:
    made = clips(20, start_ms=NOON_MS)
    world.keep(*made)
    world.clock.ms = made[-1].capture_ms + CHUNK_MS
    viewer = Viewer(1, world.token())

    async def ask() -> LivePlaylist:
        async with playing(world) as playback:
            return await playback.listings.live(viewer, None, finish=lambda live: live)

    assert (await ask()).recorded is None
    world.clock.ms += 12 * HOUR_MS
    live = await ask()
    end_ms = made[-1].capture_ms + CHUNK_MS
    assert live.recorded == (end_ms - HOUR_MS, end_ms)
    comments = [line for line in live.text.splitlines() if line.startswith("# ")]
    assert "nothing new since 2026-07-06T12:01:20.000Z" in comments[0]
    assert f"playlist.m3u8?from={end_ms - HOUR_MS}&to={end_ms}" in comments[1]
    assert parsed(live.text)[3][-1] == made[-1].capture_ms, "still valid, for players that wait"


async def test_a_camera_that_has_just_begun_is_waited_for(world: World) -> None:
    """Chromium's own player gives up on fewer than three chunks."""
    made = clips(3, start_ms=NOON_MS)
    world.keep(made[0])
    world.clock.ms = NOON_MS + CHUNK_MS
    timer = threading.Timer(
        0.3, lambda: (setattr(world.clock, "ms", NOON_MS + 12_000), world.keep(*made[1:]))
    )
    async with playing(world, live_wait_s=20.0) as playback:
        timer.start()
        viewer = Viewer(1, world.token())
        text = await playback.listings.live(viewer, None, finish=lambda live: live.text)
    timer.join()
    assert len(parsed(text)[3]) == 3


async def test_the_first_chunk_is_waited_for(world: World) -> None:
    """Some players give up on an empty playlist."""
    made = clips(3, start_ms=NOON_MS)
    timer = threading.Timer(0.3, lambda: (setattr(world.clock, "ms", NOON_MS + 12_000), world.keep(*made)))
    async with playing(world, live_wait_s=20.0) as playback:
        timer.start()
        viewer = Viewer(1, world.token())
        text = await playback.listings.live(viewer, None, finish=lambda live: live.text)
    timer.join()
    assert len(parsed(text)[3]) == 3


def test_processes_that_move_a_list_at_once_agree(world: World) -> None:
    """Each with a catalog of its own; every answer is one of a single row of numbers."""
    made = clips(40, start_ms=NOON_MS)
    by_number: dict[int, int] = {}
    wrong: list[object] = []
    start = threading.Barrier(5)

    def watch() -> None:
        catalog = catalog_of(world.folder)
        services = PlaybackServices(**world.parts() | {"catalog": catalog})
        gate = Gate(services.bitmap, services.clock, services.token_secret, Used())
        grant = gate.ask(Viewer(1, world.token()))
        following = Following(services)
        start.wait()
        while True:
            live = following.follow(grant)
            for number, entry in enumerate(live.entries if live else (), live.media_sequence if live else 0):
                if by_number.setdefault(number, entry.capture_ms) != entry.capture_ms:
                    wrong.append((number, entry))
            if live is not None and live.entries[-1].capture_ms == made[-1].capture_ms:
                break
        catalog.close()

    watchers = [threading.Thread(target=watch) for _ in range(4)]
    for watcher in watchers:
        watcher.start()
    start.wait()
    for clip in made:
        world.keep(clip)
        world.clock.ms += CHUNK_MS
    for watcher in watchers:
        watcher.join(60)
        assert not watcher.is_alive()
    assert not wrong
    assert len({capture_ms - number * CHUNK_MS for number, capture_ms in by_number.items()}) == 1
