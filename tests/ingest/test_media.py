"""ingest.media, mpegts and mp4: real chunks from a stock ffmpeg, hand-made packets and boxes, hostile bytes.

What a real chunk should last is counted by the same ffmpeg: frames decoded, times the frame rate it was
asked for.
"""

from __future__ import annotations

import random
import re
import struct
import subprocess
import tracemalloc
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import imageio_ffmpeg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest import mp4_boxes, mpegts
from ingest.media import MAX_DURATION_MS, Media, duration_ms, sniff

FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()

VIDEO = "-f lavfi -i testsrc2=size=160x120:rate={rate}"
SOUND = "-f lavfi -i sine=frequency=440:sample_rate=48000"
H264 = "-c:v libx264 -preset veryfast -g 25 -bf 3 -pix_fmt yuv420p"
AAC = "-c:a aac -b:a 48k"
# A PTS that wraps its 33 bits half a second to a second and a half into the clip (the muxer adds a delay).
BEFORE_WRAP_S = 2**33 / 90_000 - 2

# name: (frames per second, arguments, file name)
RECIPES = {
    "b_frames": ("25", f"{VIDEO} -t 4 {H264}", "b.ts"),
    "with_sound": ("25", f"{VIDEO} {SOUND} -t 4 {H264} {AAC}", "av.ts"),
    "ntsc": ("30000/1001", f"{VIDEO} {SOUND} -t 2 {H264} {AAC}", "ntsc.ts"),
    "time_lapse": ("1/20", f"{VIDEO} -frames:v 5 {H264}", "lapse.ts"),
    "wrapped": ("25", f"{VIDEO} {SOUND} -t 4 {H264} {AAC} -output_ts_offset {BEFORE_WRAP_S}", "wrap.ts"),
    "hls": ("25", f"{VIDEO} {SOUND} -t 6 {H264} {AAC} -f hls -hls_time 2 -hls_list_size 0", "hls.m3u8"),
    "mp4": ("25", f"{VIDEO} -t 3 {H264}", "plain.mp4"),
    "mp4_faststart": ("25", f"{VIDEO} -t 3 {H264} -movflags +faststart", "fast.mp4"),
    "mp4_empty_moov": (
        "25",
        f"{VIDEO} {SOUND} -t 3 {H264} {AAC} -movflags frag_keyframe+empty_moov",
        "e.mp4",
    ),
    "mp4_moov_and_fragments": ("25", f"{VIDEO} {SOUND} -t 3 {H264} {AAC} -movflags frag_keyframe", "f.mp4"),
    "mp4_ntsc": ("30000/1001", f"{VIDEO} -t 2 {H264} -movflags frag_keyframe+empty_moov", "n.mp4"),
}


@dataclass(frozen=True, slots=True)
class Clip:
    data: bytes
    expected_ms: int


def ffmpeg(arguments: str, *files: Path) -> str:
    done = subprocess.run(
        [FFMPEG, "-nostdin", "-y", *arguments.split(), *map(str, files)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stderr


def decoded_frames(path: Path) -> int:
    log = subprocess.run(
        [FFMPEG, "-nostdin", "-i", str(path), "-map", "0:v", "-fps_mode", "passthrough", "-f", "null", "-"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stderr
    return int(re.findall(r"frame=\s*(\d+)", log)[-1])


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("media")


@pytest.fixture(scope="session")
def clips(folder: Path) -> dict[str, Clip]:
    """Real chunks by name; `hls` becomes `hls0`, `hls1`, `hls2`."""
    made: dict[str, Clip] = {}
    for name, (rate, arguments, file_name) in RECIPES.items():
        ffmpeg(arguments.format(rate=rate), folder / file_name)
        paths = sorted(folder.glob("hls*.ts")) if name == "hls" else [folder / file_name]
        for i, path in enumerate(paths):
            expected_ms = round(decoded_frames(path) / Fraction(rate) * 1000)
            made[name if len(paths) == 1 else f"{name}{i}"] = Clip(path.read_bytes(), expected_ms)
    return made


ALL_NAMES = [n for n in RECIPES if n != "hls"] + ["hls0", "hls1", "hls2"]


# ---- real chunks


@pytest.mark.parametrize("name", ALL_NAMES)
def test_real_chunk_lasts_as_long_as_its_decoded_frames(clips: dict[str, Clip], name: str) -> None:
    clip = clips[name]
    media = sniff(clip.data)
    assert media is (Media.MP4 if name.startswith("mp4") else Media.MPEG_TS)
    got_ms = duration_ms(clip.data, media)
    assert got_ms is not None
    # One millisecond for rounding. Segments of a 30000/1001 source are as exact.
    assert abs(got_ms - clip.expected_ms) <= 1, (got_ms, clip.expected_ms)


def test_the_wrapped_chunk_does_wrap_and_hls_does_not_start_at_zero(clips: dict[str, Clip]) -> None:
    assert {p >> 32 for p in video_pts(clips["wrapped"].data)} == {0, 1}
    assert min(video_pts(clips["hls2"].data)) > 4 * 90_000
    pts = video_pts(clips["b_frames"].data)
    assert pts != sorted(pts), "no B-frames: the test would show less than it says"


def test_sound_alone_is_right_to_one_packet_of_sound(folder: Path) -> None:
    ffmpeg(f"{SOUND} -t 4 {AAC}", folder / "sound.ts")
    data = (folder / "sound.ts").read_bytes()
    got_ms = duration_ms(data, Media.MPEG_TS)
    assert sniff(data) is Media.MPEG_TS
    # A PES packet carries several AAC frames under one timestamp, and the last one fewer than usual.
    assert got_ms is not None
    assert abs(got_ms - 4000) < 500
    ffmpeg(f"{SOUND} -t 4 {AAC}", folder / "sound.m4a")
    got_ms = duration_ms((folder / "sound.m4a").read_bytes(), Media.MP4)
    assert got_ms is not None
    assert abs(got_ms - 4000) < 50


def test_fragment_per_frame_whose_writer_leaves_durations_at_zero(folder: Path) -> None:
    path = folder / "each.mp4"
    flags = "-movflags +cmaf+empty_moov+frag_every_frame"
    ffmpeg(f"{VIDEO} {SOUND} -t 4 {H264} {AAC} {flags}".format(rate=25), path)
    assert duration_ms(path.read_bytes(), Media.MP4) == 4000


@pytest.mark.parametrize("name", ["b_frames", "mp4", "mp4_empty_moov"])
def test_any_buffer_and_any_alignment_gives_the_same_and_no_view_is_left(
    clips: dict[str, Clip], name: str
) -> None:
    clip = clips[name]
    media = sniff(clip.data)
    expected = duration_ms(clip.data, media)
    for shift in range(4):
        shifted = bytearray(shift) + clip.data
        view = memoryview(shifted)[shift:]
        assert sniff(view) is media
        assert duration_ms(view, media) == expected
        assert duration_ms(view.toreadonly(), media) == expected
        view.release()
        shifted.append(0)  # BufferError, were a view left
    whole = bytearray(clip.data)
    assert duration_ms(whole, media) == expected
    whole.append(0)
    assert duration_ms(whole, media) == expected, "a trailing byte that is no packet changes nothing"


# ---- sniff


def test_sniff_ts_by_as_many_sync_bytes_as_there_are() -> None:
    packet = b"\x47" + bytes(187)
    assert sniff(packet) is Media.MPEG_TS
    assert sniff(packet[:-1]) is Media.UNKNOWN
    assert sniff(packet * 2 + b"\x47") is Media.MPEG_TS
    for i in range(4):
        assert sniff(packet * i + b"\x48" + bytes(187) + packet * 2) is Media.UNKNOWN
    assert sniff(packet * 5 + b"\x48" * 188) is Media.MPEG_TS, "no more than five are looked at"


def test_sniff_mp4_by_its_first_box() -> None:
    assert sniff(b"\0\0\0\x14ftypisom\0\0\0\0") is Media.MP4
    assert sniff(b"\0\0\0\x14stypmsdh\0\0\0\0") is Media.MP4
    assert sniff(b"\0\0\0\x08ftyp") is Media.MP4
    assert sniff(b"\0\0\0\x08fty") is Media.UNKNOWN
    for first in (b"moof", b"free", b"skip", b"wide", b"mdat", b"moov", b"sidx"):
        assert sniff(b"\0\0\0\x14" + first + bytes(12)) is Media.MP4
    assert sniff(b"\0\0\0\x14what" + bytes(12)) is Media.UNKNOWN
    assert sniff(b"") is Media.UNKNOWN
    assert sniff(b"\x1a\x45\xdf\xa3" + bytes(400)) is Media.UNKNOWN  # Matroska


def test_unknown_media_has_no_duration(clips: dict[str, Clip]) -> None:
    assert duration_ms(clips["b_frames"].data, Media.UNKNOWN) is None
    assert duration_ms(clips["b_frames"].data, Media.MP4) is None
    assert duration_ms(clips["mp4"].data, Media.MPEG_TS) is None
    assert [int(m) for m in Media] == [0, 1, 2, 3]


# ---- MPEG-TS made by hand


def pes_packet(
    pts: int | None, *, pid: int = 256, stream: int = 0xE0, field: int | None = None, head: int = 0x4000
) -> bytes:
    """One packet that starts a PES packet. `field`: length byte of an adaptation field. `head`: flag bits."""
    packet = struct.pack(">BHB", 0x47, head | pid, 0x10 if field is None else 0x30)
    if field is not None:
        packet += bytes([field]) + b"\xff" * field
    packet += struct.pack(">IH", 0x100 | stream, 0)
    if pts is None:
        packet += b"\x80\x00\x00"
    else:
        packet += b"\x80\x80\x05" + struct.pack(
            ">BHH", 0x21 | (pts >> 29 & 0xE), (pts >> 14 & 0xFFFE) | 1, (pts << 1 & 0xFFFE) | 1
        )
    return packet.ljust(188, b"\xff")[:188]


def video_pts(data: bytes) -> list[int]:
    """The plain way: each packet in turn."""
    found = []
    for at in range(0, len(data) - 187, 188):
        packet = data[at : at + 188]
        if packet[1] & 0x40 and packet[3] & 0x10:
            pes = packet[4 + (1 + packet[4] if packet[3] & 0x20 else 0) :]
            if pes[:3] == b"\0\0\1" and pes[3] & 0xF0 == 0xE0 and pes[7] & 0x80:
                high, middle, low = struct.unpack(">BHH", pes[9:14])
                found.append((high >> 1 & 7) << 30 | (middle >> 1) << 15 | low >> 1)
    return found


def ts_ms(packets: Iterable[bytes]) -> int | None:
    return duration_ms(b"".join(packets), Media.MPEG_TS)


@given(
    first=st.integers(0, 2**33 - 1),
    interval=st.integers(90, 450_000),
    frames=st.integers(2, 60),
    seed=st.integers(0, 2**32),
    field=st.none() | st.integers(0, 100),
)
def test_ts_lasts_frames_times_interval_wherever_the_clock_starts_in_any_order(
    first: int, interval: int, frames: int, seed: int, field: int | None
) -> None:
    order = list(range(frames))
    random.Random(seed).shuffle(order)
    packets = [pes_packet((first + i * interval) % 2**33, field=field) for i in order]
    filler = b"\x47\x01\x00\x10" + bytes(184)
    expected_ms = min(round(Fraction(frames * interval, 90)), MAX_DURATION_MS)
    got_ms = ts_ms(p + filler for p in packets)
    assert got_ms is not None
    assert abs(got_ms - expected_ms) <= 1
    assert video_pts(b"".join(packets)) == [(first + i * interval) % 2**33 for i in order]


def test_ts_video_is_asked_before_sound_and_the_first_video_before_others() -> None:
    video = [pes_packet(i * 3600) for i in range(10)]
    other = [pes_packet(i * 9000, pid=300, stream=0xE1) for i in range(40)]
    sound = [pes_packet(i * 1800, pid=257, stream=0xC0) for i in range(60)]
    private = [pes_packet(i * 900, pid=258, stream=0xBD) for i in range(70)]
    assert ts_ms(private + sound + video + other) == 400
    for pid in (0x0201, 0x0101, 0x1100, 0x1FFF):
        others = [pes_packet(i * 9000, pid=pid) for i in range(40)]
        assert ts_ms(video + others) == 400, "all 13 bits of the PID tell streams apart"
    assert ts_ms(private + sound + video[:1]) == 1200, "one frame tells nothing, the sound does"
    assert ts_ms(private + sound) == 1200
    assert ts_ms(private) == 700


def test_ts_that_tells_nothing() -> None:
    assert ts_ms([]) is None
    assert ts_ms([pes_packet(5)]) is None
    assert ts_ms([pes_packet(5)] * 9) is None, "all at one time"
    assert ts_ms([pes_packet(None)] * 9) is None
    assert ts_ms([pes_packet(0, pid=1), pes_packet(9000, pid=2)]) is None, "two streams of one frame each"
    assert ts_ms([pes_packet(i * 3600, head=0xC000) for i in range(9)]) is None, "error indicator"
    assert ts_ms([pes_packet(i * 3600, head=0) for i in range(9)]) is None, "no unit starts"
    assert ts_ms([pes_packet(i * 3600, field=200) for i in range(9)]) is None, "field past the packet"
    assert ts_ms([pes_packet(i * 3600, field=170) for i in range(9)]) is None, "no room for a PTS"
    assert ts_ms([pes_packet(i * 3600, field=169) for i in range(9)]) == 360


def test_ts_clock_set_inside_the_chunk_is_not_time() -> None:
    early = [pes_packet(i * 3600) for i in range(50)]
    late = [pes_packet(90_000 * 5000 + i * 3600) for i in range(50)]
    assert ts_ms(early + late) == 4000
    assert ts_ms(late + early) == 4000
    assert ts_ms(early + [pes_packet(90_000 * 9 + i * 3600) for i in range(50)]) == 11_000, "a pause is"


def test_ts_every_packet_a_frame_is_read_within_the_memory_bound() -> None:
    data = b"".join(pes_packet(i * 3600) for i in range(20_000))
    tracemalloc.start()
    try:
        assert duration_ms(data, Media.MPEG_TS) == 800_000
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak_bytes < 0.75 * len(data)


# ---- MP4 made by hand


def box(kind: bytes, *content: bytes) -> bytes:
    body = b"".join(content)
    return struct.pack(">I4s", 8 + len(body), kind) + body


def full(kind: bytes, flags: int, *numbers: int, more: bytes = b"") -> bytes:
    return box(kind, struct.pack(f">{1 + len(numbers)}I", flags, *numbers), more)


def mvhd(timescale: int, duration: int, *, long: bool = False) -> bytes:
    if long:
        return full(b"mvhd", 1 << 24, more=struct.pack(">QQIQ", 0, 0, timescale, duration) + bytes(80))
    return full(b"mvhd", 0, 0, 0, timescale, duration, more=bytes(80))


def trak(track_id: int, timescale: int, handler: bytes = b"vide", stts: bytes = b"") -> bytes:
    return box(
        b"trak",
        full(b"tkhd", 0, 0, 0, track_id, 0),
        box(
            b"mdia",
            full(b"mdhd", 0, 0, 0, timescale, 0),
            full(b"hdlr", 0, 0, more=handler),
            box(b"minf", box(b"stbl", stts)),
        ),
    )


FTYP = box(b"ftyp", b"isom\0\0\0\0")
TREX = full(b"trex", 0, 1, 1, 40, 0, 0)
MVEX = box(b"mvex", TREX)
MOOV = box(b"moov", mvhd(600, 0), trak(2, 48_000, b"soun"), trak(1, 1000), MVEX)


def moof(*inside: bytes, track_id: int = 1) -> bytes:
    return box(b"moof", full(b"mfhd", 0, 1), box(b"traf", full(b"tfhd", 0, track_id), *inside))


def mp4_ms(*boxes: bytes) -> int | None:
    data = FTYP + b"".join(boxes)
    assert sniff(data) is Media.MP4
    return duration_ms(data, Media.MP4)


@pytest.mark.parametrize("long", [False, True])
def test_mp4_movie_header(long: bool) -> None:
    assert mp4_ms(box(b"moov", mvhd(600, 2400, long=long))) == 4000
    assert mp4_ms(box(b"mdat", bytes(99)), box(b"moov", mvhd(3, 1, long=long))) == 333
    assert mp4_ms(box(b"moov", mvhd(90_000, 1, long=long))) == 1, "less than a millisecond counts as one"
    assert mp4_ms(box(b"moov", mvhd(1, 3601, long=long))) == MAX_DURATION_MS
    assert mp4_ms(box(b"moov", mvhd(0, 2400, long=long))) is None
    assert mp4_ms(box(b"moov", mvhd(600, 0, long=long))) is None
    assert mp4_ms(box(b"moov", mvhd(600, 2 ** (64 if long else 32) - 1, long=long))) is None, "«unknown»"


def test_mp4_without_movie_header_duration_uses_the_video_tracks_samples() -> None:
    stts = full(b"stts", 0, 2, 10, 40, 5, 80)
    tracks = trak(2, 48_000, b"soun", full(b"stts", 0, 1, 9, 1024)) + trak(1, 1000, stts=stts)
    assert mp4_ms(box(b"moov", mvhd(600, 0), tracks)) == 800
    assert mp4_ms(box(b"moov", mvhd(600, 0), tracks, MVEX), moof(full(b"trun", 0, 5))) == 1000
    assert mp4_ms(box(b"moov", trak(1, 1000, b"soun", stts))) == 800, "no video: the first track"


def test_mp4_fragments() -> None:
    assert mp4_ms(MOOV) is None
    assert mp4_ms(moof(full(b"trun", 0, 25))) is None, "no moov: no clock"
    assert mp4_ms(MOOV, moof(full(b"trun", 0, 25)), moof(full(b"trun", 0, 25))) == 2000, "default of trex"
    assert mp4_ms(MOOV, moof(full(b"trun", 0, 25)), moof(full(b"trun", 0, 90), track_id=2)) == 1000
    own = box(b"traf", full(b"tfhd", 0x00002A, 1, 7, 20, 0), full(b"trun", 0, 25))
    assert mp4_ms(MOOV, box(b"moof", own)) == 500, "default of tfhd, behind an optional field"
    run = full(b"trun", 0x000305, 3, 0, 0, 30, 1, 40, 1, 50, 1)
    assert mp4_ms(MOOV, moof(run)) == 120, "its own durations, beside sizes"
    assert mp4_ms(moof(run), MOOV) == 120, "moov last"


def test_mp4_fragments_by_their_start_times_when_samples_say_less() -> None:
    def at(ticks: int, run: bytes = full(b"trun", 0x000100, 1, 0)) -> bytes:
        return moof(full(b"tfdt", 1 << 24, 0, ticks), run)

    assert mp4_ms(MOOV, at(7000), at(7040), at(7080)) == 120, "writer left durations at 0"
    assert mp4_ms(MOOV, at(7000), at(7040), at(7080, full(b"trun", 0, 2))) == 160
    assert mp4_ms(MOOV, *[at(t, full(b"trun", 0, 2)) for t in (0, 80, 4080)]) == 4160, "a pause"
    assert mp4_ms(MOOV, *[at(t, full(b"trun", 0, 2)) for t in (0, 80, 4_000_080)]) == 240, "a clock set"
    assert mp4_ms(MOOV, *[at(t, full(b"trun", 0, 2)) for t in (900, 80)]) == 160, "and set back"


def test_mp4_declared_fragment_duration_only_without_fragments() -> None:
    for mehd in (full(b"mehd", 0, 2400), full(b"mehd", 1 << 24, 0, 2400)):
        moov = box(b"moov", mvhd(600, 0), trak(1, 1000), box(b"mvex", mehd, TREX))
        assert mp4_ms(moov, box(b"mdat")) == 4000
        assert mp4_ms(moov, moof(full(b"trun", 0, 25))) == 1000


def test_mp4_box_sizes() -> None:
    moov = box(b"moov", mvhd(600, 2400))
    assert mp4_ms(struct.pack(">I4s", 0, b"moov") + moov[8:]) == 4000, "0: to the end"
    assert mp4_ms(struct.pack(">I4sQ", 1, b"free", 20) + b"1234" + moov) == 4000, "1: 64 bits"
    assert mp4_ms(struct.pack(">I4s", 2**32 - 1, b"moov") + moov[8:]) == 4000, "past the end: cut there"
    assert mp4_ms(struct.pack(">I4s", 7, b"free") + moov) is None
    assert mp4_ms(struct.pack(">I4sQ", 1, b"free", 15) + moov) is None
    assert mp4_ms(struct.pack(">I4s", 1, b"free")) is None
    assert mp4_ms(moov[:-90]) is None, "cut inside the movie header"


def test_mp4_bounds_on_boxes_and_samples() -> None:
    moov = box(b"moov", mvhd(600, 2400))
    free = box(b"free")
    # ftyp, moov and mvhd are boxes as well.
    assert mp4_ms(free * (mp4_boxes.MAX_BOXES - 3), moov) == 4000
    assert mp4_ms(free * (mp4_boxes.MAX_BOXES - 2), moov) is None
    assert mp4_ms(MOOV, moof(full(b"trun", 0, mp4_boxes.MAX_SAMPLES))) == MAX_DURATION_MS
    assert mp4_ms(MOOV, moof(full(b"trun", 0, mp4_boxes.MAX_SAMPLES + 1))) is None
    assert mp4_ms(MOOV, moof(full(b"trun", 0x000100, 2**32 - 1, 40))) is None, "more than there are"
    assert mp4_ms(MOOV, moof(full(b"trun", 0x000100, 2, 40))) is None
    assert mp4_ms(MOOV, moof(full(b"trun", 0x000100, 0))) is None
    greedy = full(b"stts", 0, 2**32 - 1, 9, 9)
    assert mp4_ms(box(b"moov", mvhd(600, 0), trak(1, 1000, stts=greedy))) is None
    huge = full(b"stts", 0, 2, *[2**32 - 1] * 4)
    assert mp4_ms(box(b"moov", mvhd(600, 0), trak(1, 1000, stts=huge))) == MAX_DURATION_MS


# ---- hostile bytes


def assert_harmless(data: bytes) -> None:
    sniff(data)
    for media in Media:
        got_ms = duration_ms(data, media)
        assert got_ms is None or 0 < got_ms <= MAX_DURATION_MS


@given(st.binary(max_size=2000))
def test_random_bytes_never_raise(data: bytes) -> None:
    assert_harmless(data)
    assert_harmless(b"\x47\x40\x00\x10\x00\x00\x01\xe0" + data)
    assert_harmless(FTYP + data)
    assert_harmless(FTYP + box(b"moov", data))
    assert_harmless(FTYP + MOOV + moof(full(b"trun", 0xF05, more=data)))


fuzz = settings(max_examples=60)


@pytest.mark.parametrize("name", ["with_sound", "wrapped", "mp4", "mp4_empty_moov", "mp4_moov_and_fragments"])
@fuzz
@given(data=st.data())
def test_real_chunks_cut_and_damaged_never_raise(
    clips: dict[str, Clip], name: str, data: st.DataObject
) -> None:
    whole = clips[name].data
    cut = data.draw(st.integers(0, len(whole)))
    assert_harmless(whole[:cut])
    damaged = bytearray(whole)
    # Half of the hits where the structure is: MP4 headers are in the first and last 2 KB.
    where = (
        st.integers(0, len(whole) - 5) | st.integers(0, 2000) | st.integers(len(whole) - 2000, len(whole) - 5)
    )
    for _ in range(data.draw(st.integers(1, 20))):
        at = data.draw(where)
        damaged[at : at + 4] = data.draw(st.binary(min_size=1, max_size=4) | st.just(b"\xff" * 4))
    assert_harmless(bytes(damaged))


@fuzz
@given(seed=st.integers(0, 2**32))
def test_bit_flips_never_raise(clips: dict[str, Clip], seed: int) -> None:
    rng = random.Random(seed)
    for name in ("b_frames", "mp4_empty_moov"):
        damaged = bytearray(clips[name].data)
        for _ in range(rng.randrange(1, 400)):
            damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        assert_harmless(bytes(damaged))


def test_constants_agree() -> None:
    assert MAX_DURATION_MS * mpegts.TICKS_PER_MS < 2**33 // 2, "an hour fits half the clock: wraps are told"
