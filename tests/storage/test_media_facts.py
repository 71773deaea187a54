"""What is kept of a chunk's media: packed and read back, and what follows from two chunks' facts."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.media_facts import (
    CLOCK_TICKS,
    CONTINUES_WITHIN_TICKS,
    FACTS_BYTES,
    MAX_SPAN_TICKS,
    NOTHING_KNOWN,
    Codec,
    KeyFrame,
    MediaFacts,
    Times,
    continues,
    distance_ms,
    ticks_between,
    unpack_facts,
)

SECOND = 90_000
FRAME = 3600
times = st.none() | st.builds(Times, st.integers(0, CLOCK_TICKS - 1), st.integers(0, MAX_SPAN_TICKS))
facts = st.builds(
    MediaFacts,
    video_times=times,
    audio_times=times,
    video=st.sampled_from(Codec),
    audio=st.sampled_from(Codec),
    tracks=st.integers(0, 2**16 - 1),
    parameters=st.integers(0, 2**32 - 1),
    width=st.integers(0, 2**16 - 1),
    height=st.integers(0, 2**16 - 1),
    key_frame=st.sampled_from(KeyFrame),
)


@given(facts)
def test_packed_facts_read_back(these: MediaFacts) -> None:
    packed = these.pack()
    assert len(packed) == FACTS_BYTES == 29
    assert unpack_facts(packed) == these


def test_nothing_known_is_zeros_or_nothing() -> None:
    assert NOTHING_KNOWN.pack() == bytes(FACTS_BYTES)
    assert unpack_facts(b"") == unpack_facts(bytes(FACTS_BYTES)) == NOTHING_KNOWN


@given(st.binary(max_size=40))
def test_any_bytes_are_some_facts(packed: bytes) -> None:
    found = unpack_facts(packed)
    assert found.may_begin in (True, False)
    continues(found, found)


@given(st.integers(0, CLOCK_TICKS - 1), st.integers(-(CLOCK_TICKS // 2), CLOCK_TICKS // 2 - 1))
def test_distances_go_the_short_way_round_the_clock(start: int, ticks: int) -> None:
    assert ticks_between(start, (start + ticks) % CLOCK_TICKS) == ticks


@dataclass(frozen=True)
class Case:
    """Two chunks of 4 s at 25 frames/s: what differs in the second, and what is right."""

    why: str
    wanted: bool | None
    first: int = 4 * SECOND
    """Of the second; the first one begins at 0, and its last frame at 4 s less one frame."""
    changes: dict[str, object] | None = None


CASES = [
    Case("runs on", True),
    Case("a frame was lost", True, first=4 * SECOND + FRAME),
    Case("a time lapse's next frame", True, first=4 * SECOND - FRAME + CONTINUES_WITHIN_TICKS),
    Case("shown before the key frame", True, first=4 * SECOND - 2 * FRAME),
    Case("the encoder started again", False, first=0),
    Case("the clock was set back a second", False, first=3 * SECOND - FRAME),
    Case("the clock was set ahead", False, first=4 * SECOND + CONTINUES_WITHIN_TICKS),
    Case("half a clock away", False, first=CLOCK_TICKS // 2),
    Case("other tracks", False, changes={"tracks": 8}),
    Case("another codec", False, changes={"video": Codec.H265}),
    Case("another decoder", False, changes={"parameters": 8}),
    Case("another size", False, changes={"width": 320}),
    Case("no parameter sets in it", True, changes={"parameters": 0, "width": 0, "height": 0}),
    Case("no times", None, changes={"video_times": None}),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.why)
@pytest.mark.parametrize("origin", [0, 1_000_000, CLOCK_TICKS - 2 * SECOND], ids=["0", "later", "wraps"])
def test_what_continues(case: Case, origin: int) -> None:
    previous = MediaFacts(
        Times(origin, 4 * SECOND - FRAME), None, Codec.H264, tracks=7, parameters=7, width=640, height=360
    )
    again = Times((origin + case.first) % CLOCK_TICKS, 4 * SECOND - FRAME)
    following = previous._replace(**{"video_times": again, **(case.changes or {})})
    assert continues(previous, following) is case.wanted
    if case.wanted:
        assert distance_ms(previous, following) == case.first // 90
    else:
        assert distance_ms(previous, following) is None


def test_each_track_runs_on_by_its_own_clock() -> None:
    previous = MediaFacts(Times(0, SECOND), Times(SECOND, SECOND), Codec.H264, Codec.AAC)
    runs_on = previous._replace(video_times=Times(SECOND + FRAME, 0), audio_times=Times(2 * SECOND + 1920, 0))
    assert continues(previous, runs_on) is True
    assert continues(previous, runs_on._replace(audio_times=Times(SECOND, SECOND))) is False
    assert continues(previous, runs_on._replace(audio_times=None)) is True


def test_single_frames_continue_only_forwards() -> None:
    """The encoder of a time lapse that starts again gives the same time again: that is no step."""
    frame = MediaFacts(Times(126_000, 0), None, Codec.H264)
    assert continues(frame, frame) is False
    later = frame._replace(video_times=Times(126_000 + SECOND, 0))
    assert (continues(frame, later), distance_ms(frame, later)) == (True, 1000)
    assert continues(later, frame) is False


def test_facts_that_are_not_known_tell_nothing() -> None:
    known = MediaFacts(Times(0, 0), None, Codec.H264)
    assert continues(NOTHING_KNOWN, known) is None
    assert continues(known, NOTHING_KNOWN) is None
    assert NOTHING_KNOWN.may_begin
    assert not known._replace(key_frame=KeyFrame.NO).may_begin
