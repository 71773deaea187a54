"""service.playback.hls: the rules of RFC 8216 as properties, and a stock ffmpeg as the player.

`parsed` is a small reader of its own, by the RFC and not by the renderer. For live playlists the tests hold
the successive playlists of one viewing next to each other, as a player does.
"""

from __future__ import annotations

import re
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import imageio_ffmpeg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.media import Media, duration_ms
from service.playback.hls import EMPTY_TARGET_S, TURN_MS, entries, mixes_sound, playlist, rfc3339
from service.playback.live import MAX_ENTRIES, LiveList, Window, appended, begun
from service.timeline import ListedChunk, Span, spans
from storage.days import MAX_TIME_MS
from storage.media_facts import Codec, KeyFrame, MediaFacts, Times
from storage.rows.recordings import NOTHING_STORED

FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
GAP_MS = 1000


def ts(capture_ms: int, duration_ms: int = 4000, length_bytes: int = 1) -> ListedChunk:
    return ListedChunk(capture_ms, duration_ms, length_bytes, Media.MPEG_TS)


@st.composite
def chunk_lists(draw: st.DrawFn, only_ts: bool = False) -> list[ListedChunk]:
    """Ascending chunks: mostly contiguous, some with gaps, overlaps, odd lengths; some MP4."""
    now_ms = draw(st.integers(0, 2**42))
    made = []
    media = st.just(Media.MPEG_TS) if only_ts else st.sampled_from([Media.MPEG_TS] * 4 + [Media.MP4])
    for _ in range(draw(st.integers(0, 40))):
        length_ms = draw(st.sampled_from([1, 499, 500, 1499, 1500, 2000, 4000, 4000, 4499, 4500, 9999]))
        made.append(ListedChunk(now_ms, length_ms, draw(st.integers(1, 9)), draw(media)))
        shift_ms = draw(st.sampled_from([0, 0, 0, 0, 7, -7, GAP_MS, GAP_MS + 1, -GAP_MS, -GAP_MS - 1, 10**6]))
        now_ms = max(now_ms + length_ms + shift_ms, now_ms + 1)
    return made


@dataclass(frozen=True, slots=True)
class Entry:
    uri: str
    extinf: str
    at: str
    sequence: int
    discontinuity: int
    header: str | None = None


@dataclass(frozen=True, slots=True)
class Parsed:
    tags: dict[str, str]
    entries: list[Entry]


def parsed(text: str) -> Parsed:
    lines = text.split("\n")
    assert lines[0] == "#EXTM3U"
    assert lines[-1] == "", "the last line ends too"
    tags: dict[str, str] = {}
    entries: list[Entry] = []
    discontinuity: int | None = None
    per_chunk: dict[str, str] = {}
    header: str | None = None
    for line in lines[1:-1]:
        assert line.isascii()
        assert line.isprintable()
        name, _, value = line.partition(":")
        if name in ("#EXTINF", "#EXT-X-PROGRAM-DATE-TIME", "#EXT-X-DISCONTINUITY"):
            assert name not in per_chunk
            per_chunk[name] = value
        elif name == "#EXT-X-MAP":  # of all chunks behind it, until the next one (§4.3.2.5)
            uri = re.fullmatch(r'URI="([^"?]+)\?token=[^"]*"', value)
            assert uri is not None, value
            header = uri[1]
        elif line.startswith("#"):
            # What is about the whole list comes before its first chunk, and once (§4.3.3); but the end.
            assert name not in tags
            assert name == "#EXT-X-ENDLIST" or not entries
            tags[name] = value
        else:
            if discontinuity is None:
                discontinuity = int(tags.get("#EXT-X-DISCONTINUITY-SEQUENCE", "0"))
            discontinuity += "#EXT-X-DISCONTINUITY" in per_chunk
            sequence = int(tags["#EXT-X-MEDIA-SEQUENCE"]) + len(entries)
            at = per_chunk["#EXT-X-PROGRAM-DATE-TIME"]
            entries.append(Entry(line, per_chunk["#EXTINF"], at, sequence, discontinuity, header))
            per_chunk = {}
    assert not per_chunk
    return Parsed(tags, entries)


def ended(chunks: list[ListedChunk], token: str = "t") -> Parsed:
    return parsed(playlist(entries(chunks, GAP_MS), token=token, ended=True))


# ---- one playlist


@given(
    chunks=chunk_lists(), token=st.text(max_size=20), is_ended=st.booleans(), sequence=st.integers(0, 2**63)
)
def test_playlist_tells_each_chunk_once_in_order(
    chunks: list[ListedChunk], token: str, is_ended: bool, sequence: int
) -> None:
    text = playlist(entries(chunks, GAP_MS), token=token, ended=is_ended, media_sequence=sequence)
    got = parsed(text)
    as_streams = all(c.media is Media.MPEG_TS for c in chunks)
    assert len(got.entries) == len(chunks)
    for chunk, entry in zip(chunks, got.entries, strict=True):
        path, _, query = entry.uri.partition("?")
        assert path == f"chunks/{chunk.capture_ms}.{'ts' if as_streams else 'm4s'}"
        assert (entry.header is None) is as_streams
        assert parse_qs(query, keep_blank_values=True, strict_parsing=True) == {"token": [token]}
        assert entry.extinf == f"{chunk.duration_ms / 1000:.3f},"
        assert datetime.fromisoformat(entry.at) - EPOCH == timedelta(milliseconds=chunk.capture_ms)
    assert got.tags["#EXT-X-VERSION"] == ("3" if as_streams else "7")
    assert got.tags["#EXT-X-MEDIA-SEQUENCE"] == str(sequence)
    assert ("#EXT-X-ENDLIST" in got.tags) is is_ended
    assert got.tags.get("#EXT-X-PLAYLIST-TYPE") == ("VOD" if is_ended else None)
    assert ("#EXT-X-DISCONTINUITY-SEQUENCE" in got.tags) is not is_ended, "§6.2.2: where chunks may leave"


@given(chunk_lists(only_ts=True))
def test_target_is_the_least_that_no_rounded_duration_passes(chunks: list[ListedChunk]) -> None:
    target_s = int(ended(chunks).tags["#EXT-X-TARGETDURATION"])
    rounded = [int(c.duration_ms / 1000 + 0.5) for c in chunks]
    assert all(r <= target_s for r in rounded)
    assert target_s == (max(1, *rounded, 1) if rounded else EMPTY_TARGET_S)


def test_target_rounds_to_nearest_and_is_never_below_what_the_caller_keeps() -> None:
    for length_ms, target_s in ((1, 1), (499, 1), (1499, 1), (1500, 2), (4004, 4), (4499, 4), (4500, 5)):
        assert f"#EXT-X-TARGETDURATION:{target_s}\n" in playlist(
            entries([ts(0, length_ms)], 0), token="", ended=True
        )
    for least_s, target_s in ((0, 4), (4, 4), (9, 9)):
        assert f"#EXT-X-TARGETDURATION:{target_s}\n" in playlist(
            entries([ts(0)], 0), token="", ended=False, target_s=least_s
        )


@given(chunk_lists(only_ts=True))
def test_discontinuity_exactly_where_a_chunk_does_not_follow(chunks: list[ListedChunk]) -> None:
    numbers = [e.discontinuity for e in ended(chunks).entries]
    assert numbers[:1] in ([], [0]), "none before the first"
    for i in range(1, len(chunks)):
        off_ms = chunks[i].capture_ms - (chunks[i - 1].capture_ms + chunks[i - 1].duration_ms)
        assert numbers[i] - numbers[i - 1] == (abs(off_ms) > GAP_MS)


def test_what_nobody_can_play_is_left_out_and_leaves_a_discontinuity() -> None:
    chunks = [ts(0), ListedChunk(4000, 4000, 1, Media.UNKNOWN), ts(8000)]
    assert [e.discontinuity for e in ended(chunks).entries] == [0, 1]


# ---- as fMP4

H264 = MediaFacts(Times(0, 90_000), None, Codec.H264, parameters=7, width=640, height=360)


FIRST_MS = 10_000


def fragments(*parts: tuple[int, dict[str, Any]]) -> list[ListedChunk]:
    """Chunks of a second, with what is different of each: its `media`, or a field of its facts."""
    found = []
    for capture_ms, changes in parts:
        media = changes.pop("media", Media.FMP4)
        times = Times(changes.pop("ticks", capture_ms * 90) % 2**33, 90_000 - 3600)
        found.append(
            ListedChunk(FIRST_MS + capture_ms, 1000, 1, media, H264._replace(video_times=times, **changes))
        )
    return found


def headers(chunks: list[ListedChunk]) -> list[int]:
    """The capture time of the chunk that each header is named by, less FIRST_MS."""
    found = [re.fullmatch(r"chunks/(\d+)\.map\.mp4", entry.header or "") for entry in ended(chunks).entries]
    return [int(name[1]) - FIRST_MS for name in found if name is not None]


def near(chunks: list[ListedChunk]) -> list[int | None]:
    found = [parse_qs(urlsplit(entry.uri).query) for entry in ended(chunks).entries]
    return [int(query["near"][0]) if "near" in query else None for query in found]


def test_a_header_is_named_where_the_set_up_changes_and_nowhere_else() -> None:
    chunks = fragments(
        (0, {}), (1000, {}), (2000, {"parameters": 8}), (3000, {"parameters": 8}), (9000, {"parameters": 8})
    )
    assert headers(chunks) == [0, 0, 2000, 2000, 2000]
    assert [entry.discontinuity for entry in ended(chunks).entries] == [0, 0, 1, 1, 2]


def test_each_container_has_a_header_of_its_own() -> None:
    chunks = fragments((0, {}), (1000, {"media": Media.MPEG_TS}), (2000, {"media": Media.MP4, "ticks": 0}))
    assert headers(chunks) == [0, 1000, 2000]
    assert near(chunks)[2] is None, "a clip's clock begins with it"


def test_a_chunk_that_does_not_tell_how_it_is_set_up_is_played_by_what_the_last_one_told() -> None:
    same = fragments((0, {}), (1000, {"parameters": 0}), (2000, {}))
    other = fragments((0, {}), (1000, {"parameters": 0}), (2000, {"parameters": 8}))
    assert headers(same) == [0, 0, 0]
    assert headers(other) == [0, 0, 2000]


def test_decode_times_run_on_through_the_wrap_of_the_clock() -> None:
    late = 2**33 - 90_000  # a second before the clock begins anew
    chunks = fragments(*((1000 * i, {"ticks": late + 90_000 * i}) for i in range(4)))
    times = near(chunks)
    steps = [b - a for a, b in pairwise(times) if a is not None and b is not None]
    assert len(steps) == 3
    assert all(abs(step - 1000) <= 1 for step in steps)
    again = fragments((0, {"ticks": late}), (1000, {"ticks": 90_000 * 60}))  # started anew: no wrap
    assert near(again) == [late // 90 + TURN_MS, 60_000 + TURN_MS]


def test_h265_in_a_transport_stream_is_fmp4_and_h264_stays_as_it_came() -> None:
    for codec, version in ((Codec.H264, "3"), (Codec.H265, "7")):
        chunks = fragments(*((1000 * i, {"media": Media.MPEG_TS, "video": codec}) for i in range(3)))
        assert ended(chunks).tags["#EXT-X-VERSION"] == version


def test_a_transport_stream_without_its_set_up_is_in_no_playlist_of_fmp4() -> None:
    without = {"media": Media.MPEG_TS, "parameters": 0, "key_frame": KeyFrame.NO}
    streams = fragments((0, {"media": Media.MPEG_TS}), (1000, dict(without)))
    assert len(ended(streams).entries) == 2
    chunks = fragments((0, {"media": Media.MPEG_TS}), (1000, dict(without)), (2000, {}))
    assert len(ended(chunks).entries) == 2


def test_a_live_list_of_fmp4_keeps_its_headers_and_times() -> None:
    chunks = fragments(*((1000 * i, {}) for i in range(6)))
    window = Window(60_000, GAP_MS)
    live = begun(chunks[:2], window, now_ms=2000, mark=NOTHING_STORED)
    for i in range(2, 6):
        live = LiveList.from_text(live.to_text())
        live = appended(live, chunks[i - 1], [chunks[i]], window, now_ms=1000 * i, mark=NOTHING_STORED)
    assert live == LiveList.from_text(live.to_text())
    text = playlist(live.entries, token="t", ended=False)
    assert text == playlist(entries(chunks, GAP_MS), token="t", ended=False)


def test_a_live_list_of_an_earlier_release_is_read() -> None:
    text = "[4,0,0,5000,[0,[]],[0,[]],[[1000,4000,0],[5000,4000,1]]]"
    live = LiveList.from_text(text)
    assert [entry.is_stream for entry in live.entries] == [True, True]
    assert live.to_text() == text


@given(st.integers(0, MAX_TIME_MS))
def test_rfc3339_is_read_back(unix_ms: int) -> None:
    text = rfc3339(unix_ms)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", text)
    assert (datetime.fromisoformat(text) - EPOCH) // timedelta(milliseconds=1) == unix_ms


def test_exact_text() -> None:
    chunks = [ts(1_782_907_200_250), ts(1_782_907_204_250, 3960), ts(1_782_993_599_999)]
    assert playlist(entries(chunks, 500), token="a+b/c=&", ended=True, media_sequence=7) == (
        "#EXTM3U\n"
        "#EXT-X-VERSION:3\n"
        "#EXT-X-TARGETDURATION:4\n"
        "#EXT-X-MEDIA-SEQUENCE:7\n"
        "#EXT-X-PLAYLIST-TYPE:VOD\n"
        "#EXT-X-PROGRAM-DATE-TIME:2026-07-01T12:00:00.250Z\n"
        "#EXTINF:4.000,\n"
        "chunks/1782907200250.ts?token=a%2Bb%2Fc%3D%26\n"
        "#EXT-X-PROGRAM-DATE-TIME:2026-07-01T12:00:04.250Z\n"
        "#EXTINF:3.960,\n"
        "chunks/1782907204250.ts?token=a%2Bb%2Fc%3D%26\n"
        "#EXT-X-DISCONTINUITY\n"
        "#EXT-X-PROGRAM-DATE-TIME:2026-07-02T11:59:59.999Z\n"
        "#EXTINF:4.000,\n"
        "chunks/1782993599999.ts?token=a%2Bb%2Fc%3D%26\n"
        "#EXT-X-ENDLIST\n"
    )


@pytest.mark.parametrize("chunks", [[ts(5), ts(5)], [ts(5), ts(4)], [ts(0), ts(9), ts(8)]])
def test_chunks_out_of_order_are_refused(chunks: list[ListedChunk]) -> None:
    with pytest.raises(ValueError, match="ascend"):
        ended(chunks)
    with pytest.raises(ValueError, match="ascend"):
        spans(chunks, 0)


def test_capture_time_past_the_calendar_is_refused() -> None:
    ended([ts(MAX_TIME_MS)])
    with pytest.raises(ValueError, match=r"year|ordinal"):
        ended([ts(MAX_TIME_MS + 1)])


# ---- spans


@given(chunks=chunk_lists(), gap_ms=st.sampled_from([0, 6, 7, GAP_MS, 10**7]))
def test_spans_hold_all_chunks_once_and_part_only_at_gaps(chunks: list[ListedChunk], gap_ms: int) -> None:
    found = spans(chunks, gap_ms)
    assert sum(s.chunk_count for s in found) == len(chunks)
    assert sum(s.length_bytes for s in found) == sum(c.length_bytes for c in chunks)
    assert all(b.from_ms - a.to_ms > gap_ms for a, b in pairwise(found))
    rest = iter(chunks)
    for span in found:
        inside = [next(rest) for _ in range(span.chunk_count)]
        assert span.from_ms == inside[0].capture_ms
        assert span.to_ms == max(c.capture_ms + c.duration_ms for c in inside)
        end_ms = span.from_ms
        for chunk in inside:
            assert chunk.capture_ms - end_ms <= gap_ms
            end_ms = max(end_ms, chunk.capture_ms + chunk.duration_ms)


def test_spans_by_example() -> None:
    assert spans([], 0) == []
    long = ListedChunk(0, 10_000, 5, Media.MP4)
    # The short chunk ends before the long one: the span's end does not go back.
    assert spans([long, ts(1000, 10), ts(10_100), ts(14_201)], 100) == [
        Span(0, 14_100, 3, 7),
        Span(14_201, 18_201, 1, 1),
    ]


# ---- live


CLOCK = {"now_ms": 0, "mark": NOTHING_STORED}


def shown(now: LiveList) -> Parsed:
    text = playlist(
        now.entries,
        token="t",
        ended=False,
        media_sequence=now.media_sequence,
        discontinuity_sequence=now.discontinuity_sequence,
        target_s=now.target_s,
    )
    return parsed(text)


@settings(max_examples=60)
@given(chunks=chunk_lists(only_ts=True), window_ms=st.sampled_from([0, 5000, 30_000]), data=st.data())
def test_successive_live_playlists_keep_every_number(
    chunks: list[ListedChunk], window_ms: int, data: st.DataObject
) -> None:
    """§6.2.1 and §6.2.2, over the whole of a viewing: each playlist is made of what was stored of the one before and of
    the new chunks, in any portions."""
    window = Window(window_ms, GAP_MS)
    sequence_of: dict[str, int] = {}
    discontinuity_of: dict[str, int] = {}
    listed: list[str] = []
    stored, before, count = "", None, 0
    while count < len(chunks):
        more = data.draw(st.integers(1, 3))
        new = chunks[count : count + more]
        if not stored:
            live = begun(new, window, **CLOCK)
        else:
            live = appended(LiveList.from_text(stored), chunks[count - 1], new, window, **CLOCK)
        count += len(new)
        stored = live.to_text()
        assert LiveList.from_text(stored) == live
        now = shown(live)
        for entry in now.entries:
            assert sequence_of.setdefault(entry.uri, entry.sequence) == entry.sequence
            assert discontinuity_of.setdefault(entry.uri, entry.discontinuity) == entry.discontinuity
            if entry.uri not in listed:
                listed.append(entry.uri)
        assert now.entries[-1].uri == listed[-1], "what is new is at the end"
        target_s = int(now.tags["#EXT-X-TARGETDURATION"])
        kept_ms = sum(float(e.extinf[:-1]) for e in now.entries) * 1000
        if int(now.tags["#EXT-X-MEDIA-SEQUENCE"]) > 0:
            assert kept_ms + 0.5 >= max(window_ms, 3000 * target_s)
            assert len(now.entries) >= 3, "Chromium's own player gives up on fewer"
        if before is not None:
            for tag in ("#EXT-X-MEDIA-SEQUENCE", "#EXT-X-DISCONTINUITY-SEQUENCE"):
                assert int(now.tags[tag]) >= int(before.tags[tag]), tag
            assert now.tags["#EXT-X-TARGETDURATION"] == before.tags["#EXT-X-TARGETDURATION"]
        before = now
    # Every chunk under the next number, and the breaks between them as in the whole recording.
    whole = ended(chunks).entries
    assert [sequence_of[uri] for uri in listed] == list(range(len(listed)))
    assert listed == [entry.uri for entry in whole][-len(listed) :]
    known = [(e.uri, e.discontinuity) for e in whole][-len(listed) :]
    first = known[0][1] if known else 0
    assert [(uri, discontinuity_of[uri]) for uri in listed] == [(uri, n - first) for uri, n in known]


def test_a_live_list_by_example() -> None:
    chunks = [ts(i * 4000) for i in range(10)] + [ts(100_000 + i * 4000) for i in range(4)]
    now = begun(chunks[:5], Window(0, GAP_MS), **CLOCK)
    assert (now.media_sequence, now.discontinuity_sequence, now.target_s) == (0, 0, 4), "numbers start small"
    assert [e.capture_ms for e in now.entries] == [8000, 12_000, 16_000]
    now = appended(now, chunks[4], chunks[5:], Window(0, GAP_MS), **CLOCK)
    assert [e.capture_ms for e in now.entries] == [104_000, 108_000, 112_000]
    assert (now.media_sequence, now.discontinuity_sequence) == (9, 1), "two were never listed"
    longer = begun(chunks[:11], Window(16_001, GAP_MS), **CLOCK)
    assert [e.at_break for e in longer.entries] == [False, False, False, False, True]
    assert (longer.media_sequence, longer.discontinuity_sequence) == (0, 0), "the gap is still listed"


def test_the_target_duration_stays_when_longer_chunks_come() -> None:
    """They are listed with what it allows (§4.3.3.1)."""
    chunks = [ts(i * 2000, 2000) for i in range(12)]
    live = begun(chunks, Window(0, GAP_MS), **CLOCK)
    assert live.target_s == 2
    live = appended(live, chunks[-1], [ts(24_000, 10_000), ts(34_000, 2000)], Window(0, GAP_MS), **CLOCK)
    assert live.target_s == 2
    assert [e.duration_ms for e in live.entries] == [2000, 2499, 2000]
    assert [e.at_break for e in live.entries] == [False, False, False]


def test_one_chunk_that_lies_does_not_make_the_target_duration() -> None:
    chunks = [ts(i * 4000) for i in range(12)] + [ts(48_000, 3_600_000)]
    assert begun(chunks, Window(0, GAP_MS), **CLOCK).target_s == 4


def test_short_chunks_do_not_make_a_long_list() -> None:
    chunks = [ts(i * 10, 10) for i in range(2000)]
    live = begun(chunks, Window(60_000, GAP_MS), **CLOCK)
    assert len(live.entries) == MAX_ENTRIES
    live = appended(live, chunks[-1], [ts(20_000, 10)], Window(60_000, GAP_MS), **CLOCK)
    assert (len(live.entries), live.media_sequence) == (MAX_ENTRIES, 1)
    assert len(live.to_text()) < 15_000


def test_what_was_deleted_ends_the_list_before_it() -> None:
    """Numbers are consecutive, so a hole can't be listed."""
    chunks = [ts(i * 4000 + (i >= 3) * 60_000) for i in range(6)]
    live = begun(chunks, Window(60_000, GAP_MS), **CLOCK)
    times = [c.capture_ms for c in chunks]
    for gone, first in ((0, 1), (1, 2), (2, 3), (4, 5), (5, 6)):
        left = live.without_deleted(set(times) - {times[gone]})
        assert (left.media_sequence, left.discontinuity_sequence) == (first, int(first >= 3))
        assert [e.capture_ms for e in left.entries] == times[first:]
    assert live.without_deleted(times) is live
    assert live.from_time(times[2]).media_sequence == 2


# ---- a stock player

CHUNK_FRAMES = 25
RATE = 25


@pytest.fixture(scope="session")
def chunk_bytes(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """Two recordings of four one-second chunks with B-frames; the second starts its timestamps anew."""
    folder = tmp_path_factory.mktemp("hls")
    made: list[bytes] = []
    for name, offset_s in (("a", 0), ("b", 3000)):
        source = f"-f lavfi -i testsrc2=size=160x120:rate={RATE} -t 4"
        codec = f"-c:v libx264 -preset veryfast -bf 2 -g {CHUNK_FRAMES} -sc_threshold 0 -pix_fmt yuv420p"
        muxer = f"-output_ts_offset {offset_s} -f hls -hls_time 1 -hls_list_size 0"
        arguments = f"-nostdin -v error {source} {codec} {muxer}".split()
        subprocess.run([FFMPEG, *arguments, str(folder / f"{name}.m3u8")], check=True, timeout=60)
        made += [p.read_bytes() for p in sorted(folder.glob(f"{name}*.ts"))]
    assert len(made) == 8
    return made


@pytest.fixture(scope="session")
def recording(chunk_bytes: list[bytes]) -> list[ListedChunk]:
    """The chunks as a catalog would list them, a gap of a minute in the middle."""
    start_ms = 1_782_907_200_000
    listed = []
    for i, data in enumerate(chunk_bytes):
        length_ms = duration_ms(data, Media.MPEG_TS)
        assert length_ms == 1000
        listed.append(ts(start_ms + i * 1000 + (60_000 if i >= 4 else 0), length_ms, len(data)))
    return listed


@contextmanager
def served(answer: Callable[[str], bytes | None]) -> Iterator[str]:
    """A loopback HTTP server; `answer` gets path and query and gives the body, or None for 404."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = answer(self.path)
            self.send_response(404 if body is None else 200)
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def frames_played(url: str, *options: str) -> int:
    """Frames a stock ffmpeg decodes from a playlist; a chunk it missed or could not read fails the test.

    It calls the first packet after a discontinuity corrupt, for the continuity counters start anew there;
    it decodes it all the same, as the count shows.
    """
    command = [FFMPEG, "-nostdin", "-v", "warning", "-stats", *options, "-i", url]
    done = subprocess.run(
        [*command, "-fps_mode", "passthrough", "-f", "null", "-"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    for complaint in ("Invalid", "Failed", "expired", "skipping", "missing", "error while"):
        assert complaint not in done.stderr, done.stderr
    return int(re.findall(r"frame=\s*(\d+)", done.stderr)[-1])


TOKEN = "v1.a+b/c=="


def chunk_by_path(path: str, recording: list[ListedChunk], chunk_bytes: list[bytes]) -> bytes | None:
    """The body of `/chunks/{capture_ms}.ts?token=...`, for the right token only."""
    parts = urlsplit(path)
    if parse_qs(parts.query) != {"token": [TOKEN]}:
        return None
    names = [f"/chunks/{c.capture_ms}.ts" for c in recording]
    return chunk_bytes[names.index(parts.path)] if parts.path in names else None


def test_ffmpeg_plays_an_ended_playlist_over_http(
    recording: list[ListedChunk], chunk_bytes: list[bytes]
) -> None:
    text = playlist(entries(recording, GAP_MS), token=TOKEN, ended=True)
    assert text.count("#EXT-X-DISCONTINUITY\n") == 1

    def answer(path: str) -> bytes | None:
        if path == "/playlist.m3u8":
            return text.encode()
        return chunk_by_path(path, recording, chunk_bytes)

    with served(answer) as base:
        assert frames_played(f"{base}/playlist.m3u8") == 8 * CHUNK_FRAMES


def test_ffmpeg_plays_a_playlist_of_local_files(
    recording: list[ListedChunk], chunk_bytes: list[bytes], tmp_path: Path
) -> None:
    (tmp_path / "chunks").mkdir()
    for chunk, data in zip(recording, chunk_bytes, strict=True):
        (tmp_path / "chunks" / f"{chunk.capture_ms}.ts").write_bytes(data)
    text = playlist(entries(recording[:4], GAP_MS), token="t", ended=True)
    (tmp_path / "p.m3u8").write_text(text.replace("?token=t", ""))
    assert frames_played(str(tmp_path / "p.m3u8")) == 4 * CHUNK_FRAMES


def test_ffmpeg_follows_a_live_playlist_that_slides(
    recording: list[ListedChunk], chunk_bytes: list[bytes]
) -> None:
    """Each reload finds two chunks more and, from the second, two less; every frame is played once.

    The camera waits for the player, so that a slow machine does not make it fall out of the window.
    """
    shown = 2
    live: LiveList | None = None
    fetched: set[str] = set()
    numbers = []

    def answer(path: str) -> bytes | None:
        nonlocal shown, live
        if path != "/playlist.m3u8":
            fetched.add(urlsplit(path).path)
            return chunk_by_path(path, recording, chunk_bytes)
        if shown == 2 or f"/chunks/{recording[shown - 1].capture_ms}.ts" in fetched:
            shown = min(shown + 2, len(recording))
        window = Window(4000, GAP_MS)
        if live is None:
            live = begun(recording[:shown], window, target_s=1, **CLOCK)
        elif live.entries[-1].capture_ms < recording[shown - 1].capture_ms:
            live = appended(live, recording[shown - 3], recording[shown - 2 : shown], window, **CLOCK)
        now = live
        if (now.media_sequence, now.discontinuity_sequence) not in numbers:
            numbers.append((now.media_sequence, now.discontinuity_sequence))
        return playlist(
            now.entries,
            token=TOKEN,
            ended=shown == len(recording) and len(fetched) == len(recording),
            media_sequence=now.media_sequence,
            discontinuity_sequence=now.discontinuity_sequence,
            target_s=now.target_s,
        ).encode()

    with served(answer) as base:
        played = frames_played(f"{base}/playlist.m3u8", "-live_start_index", "0")
    assert played == 8 * CHUNK_FRAMES
    assert numbers == [(0, 0), (2, 0), (4, 1)]


@pytest.mark.parametrize(
    ("tracks", "mixed"),
    [
        ([], False),
        ([(Codec.H264, Codec.NONE)] * 2, False),
        ([(Codec.H264, Codec.AAC)] * 2, False),
        ([(Codec.NONE, Codec.NONE), (Codec.H264, Codec.AAC)], False),
        ([(Codec.H264, Codec.NONE), (Codec.H264, Codec.AAC)], True),
        ([(Codec.H264, Codec.NONE), (Codec.NONE, Codec.AAC)], True),
    ],
)
def test_silence_is_asked_for_where_some_have_sound(tracks: list[tuple[Codec, Codec]], mixed: bool) -> None:
    chunks = [
        ListedChunk(FIRST_MS + 1000 * i, 1000, 1, Media.FMP4, MediaFacts(video=video, audio=audio))
        for i, (video, audio) in enumerate(tracks)
    ]
    assert mixes_sound(chunks) is mixed
    text = playlist(entries(chunks, GAP_MS), token="t", ended=True, silence=mixed)
    named = [line for line in text.splitlines() if "chunks/" in line]
    assert all(("sound=1&token=t" in line) is mixed for line in named)
