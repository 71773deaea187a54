"""service.timeline: durations, discontinuities and where playback begins, by what the media says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.media import Media
from service.playback.hls import entries
from service.timeline import (
    DEFAULT_DURATION_MS,
    ListedChunk,
    beginning,
    follows,
    spans,
    stretches,
    timed,
)
from storage.days import MAX_TIME_MS
from storage.media_facts import CLOCK_TICKS, Codec, KeyFrame, MediaFacts, Times
from storage.rows.recordings import ChunkRow
from tests.service.world import HOUR_MS, NOON_MS, Clip, World, exported, playing

GAP_MS = 1000
YES, NO, UNKNOWN = KeyFrame.YES, KeyFrame.NO, KeyFrame.UNKNOWN


def facts(first_ms: float, span_ms: float = 3960, key: KeyFrame = YES, tracks: int = 7) -> MediaFacts:
    """Video whose clock reads `first_ms` at its first frame and `span_ms` more at its last."""
    times = Times(round(first_ms * 90) % CLOCK_TICKS, round(span_ms * 90))
    return MediaFacts(times, video=Codec.H264, tracks=tracks, key_frame=key)


def chunk(capture_ms: int, known: MediaFacts, duration_ms: int = 4000) -> ListedChunk:
    return ListedChunk(capture_ms, duration_ms, 1, Media.MPEG_TS, known)


@pytest.mark.parametrize(
    ("capture_ms", "known", "wanted"),
    [
        (4000, facts(4000), True),
        (4000, facts(0), False),  # a camera that was restarted at once
        (4000, facts(4000, tracks=8), False),
        (4000, facts(CLOCK_TICKS / 90 + 4000), True),
        (4001, facts(4000), True),  # all at once after an outage, timed by arrival
        (1, facts(4000), True),
        (4000, facts(5001), False),  # something was lost
        (4000, facts(4900), True),
        (5001, facts(4000), False),  # the clock of the media stood still meanwhile
        (4000, facts(3_600_000), False),
    ],
)
def test_timestamps_and_tracks_say_what_follows(capture_ms: int, known: MediaFacts, wanted: bool) -> None:
    first, second = chunk(0, facts(0)), chunk(capture_ms, known)
    assert follows(first, second, GAP_MS) is wanted
    assert [entry.at_break for entry in entries([first, second], GAP_MS)] == [False, not wanted]


async def recorded(world: World, from_ms: int = 0, to_ms: int = MAX_TIME_MS) -> list[tuple[int, int]]:
    """Capture times, counted from NOON, and durations of a playlist."""
    async with playing(world) as playback:
        text = await playback.listings.recorded(world.viewer(), from_ms, to_ms, finish=str)
    times = [
        int(line.split("/")[1].split(".")[0]) - NOON_MS for line in text.splitlines() if "chunks/" in line
    ]
    lasts = [round(float(line[8:-1]) * 1000) for line in text.splitlines() if line.startswith("#EXTINF:")]
    return list(zip(times, lasts, strict=True))


@pytest.mark.parametrize(
    ("capture_ms", "media", "known", "wanted"),
    [
        (4000, Media.MP4, facts(0), True),  # each clip's clock begins anew
        (4900, Media.MP4, facts(0), True),
        (5001, Media.MP4, facts(0), False),
        (2900, Media.MP4, facts(0), False),
        (4000, Media.MP4, facts(0, tracks=6), False),
        (4000, Media.MPEG_TS, facts(4000), False),  # its clock is another than that of clips
    ],
)
def test_clips_follow_by_their_capture_times(
    capture_ms: int, media: Media, known: MediaFacts, wanted: bool
) -> None:
    first = chunk(0, facts(0))._replace(media=Media.MP4)
    second = chunk(capture_ms, known)._replace(media=media)
    assert follows(first, second, GAP_MS) is wanted


async def test_ten_seconds_of_time_lapse_are_ten_seconds(world: World) -> None:
    """One frame a chunk: neither the device nor the media tells how long it is shown."""
    world.keep(
        *[Clip(NOON_MS + i * 1000, b"G" * 188, duration_ms=0, facts=facts(i * 1000, 0)) for i in range(10)]
    )
    assert await recorded(world) == [(i * 1000, 1000) for i in range(10)]
    async with playing(world) as playback:
        page = await playback.listings.page(
            world.viewer(), 0, MAX_TIME_MS, limit=50, finish=lambda page: page
        )
        [(span, rows)] = page.spans
        assert (span.to_ms - span.from_ms, {row.duration_ms for row in rows}) == (10_000, {1000})
        text = await playback.listings.recorded(world.viewer(), 0, MAX_TIME_MS, finish=str)
        assert "#EXT-X-DISCONTINUITY\n" not in text


async def test_what_nobody_can_tell(world: World) -> None:
    """By capture time where the media says nothing; never into the next chunk."""
    times = [0, 2000, 4000, 14_001, 15_001]
    world.keep(*[Clip(NOON_MS + ms, b"G" * 188, duration_ms=0) for ms in times])
    assert [ms for _, ms in await recorded(world)] == [2000, 2000, 2000, 1000, 1000]
    world.keep(Clip(NOON_MS + HOUR_MS, b"G" * 188, duration_ms=0, facts=facts(0, 0)))
    assert (await recorded(world))[-1] == (HOUR_MS, DEFAULT_DURATION_MS)


async def test_a_one_frame_chunk_is_live_when_the_next_one_tells_how_long(world: World) -> None:
    made = [Clip(NOON_MS + i * 1000, b"G" * 188, duration_ms=0, facts=facts(i * 1000, 0)) for i in range(6)]
    seen = []
    async with playing(world, live_wait_s=0.0) as playback:
        for clip in made:
            world.keep(clip)
            world.clock.ms = clip.capture_ms
            text = await playback.listings.live(world.viewer(), None, finish=lambda live: live.text)
            seen.append((text.count("#EXTINF"), text.count("#EXTINF:1.000,")))
    assert seen == [(0, 0), (1, 1), (2, 2), (3, 3), (4, 4), (5, 5)]


KEYS = [YES, NO, NO, YES, NO, YES]


@pytest.mark.parametrize(
    ("from_ms", "first"),
    [(0, 0), (1, 0), (4000, 0), (9000, 0), (12_000, 3), (15_999, 3), (16_000, 3), (19_000, 3), (20_001, 5)],
)
async def test_a_range_begins_with_the_key_frame_that_it_needs(
    world: World, from_ms: int, first: int
) -> None:
    made = [
        Clip(NOON_MS + i * 4000, bytes([71, i]) * 94, facts=facts(i * 4000, key=key))
        for i, key in enumerate(KEYS)
    ]
    world.keep(*made)
    assert [ms for ms, _ in await recorded(world, NOON_MS + from_ms)] == [
        clip.capture_ms - NOON_MS for clip in made[first:]
    ]
    async with playing(world) as playback:
        export = await playback.exports.plan(world.viewer(), NOON_MS + from_ms, MAX_TIME_MS)
        assert (export.from_ms, export.length_bytes) == (made[first].capture_ms, 188 * len(made[first:]))
        assert await exported(playback, world.viewer()) == b"".join(clip.data for clip in made)


def test_without_that_key_frame_a_range_begins_at_the_next_one() -> None:
    def listed(*keys: KeyFrame) -> list[ListedChunk]:
        return [chunk(i * 4000, facts(i * 4000, key=key)) for i, key in enumerate(keys)]

    assert beginning(listed(NO, NO, YES), 4000, GAP_MS) == 2
    assert beginning(listed(NO, NO, NO), 4000, GAP_MS) == 1, "none is known to have one"
    assert beginning(listed(NO, UNKNOWN, NO), 8000, GAP_MS) == 1, "of an earlier release"
    assert beginning(listed(YES, YES), 8000, GAP_MS) == 2
    assert beginning([], 0, GAP_MS) == 0
    restarted = [chunk(0, facts(0)), chunk(4000, facts(90_000, key=NO)), chunk(8000, facts(94_000))]
    assert beginning(restarted, 4000, GAP_MS) == 2, "its key frame was lost; the one before is another's"


@given(
    st.lists(st.tuples(st.integers(1, 9000), st.sampled_from([4000, 4000, 1000, 0])), max_size=12),
    st.sampled_from([0, 1000]),
)
def test_stretches_are_the_spans_of_the_same_rows(steps: list[tuple[int, int]], gap_ms: int) -> None:
    rows, at_ms = [], 0
    for step_ms, duration_ms in steps:
        at_ms += step_ms
        rows.append(ChunkRow(1, at_ms, duration_ms, 9, 1, "", 0, 0, 9, 0, b"", int(Media.MPEG_TS), 0))
    assert stretches(rows, gap_ms) == [(one.from_ms, one.to_ms) for one in spans(timed(rows), gap_ms)]
