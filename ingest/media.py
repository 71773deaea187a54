"""What a chunk's bytes are, how long they play, and what playback must know of them. Pure.

Devices are trusted no further than this: the first bytes decide what a body is (`sniff`), and `inspect` reads from it
what there is to be played, without decoding anything. What no player could ever play is told, for an acknowledgement
means that the recording can be watched. A chunk that lies about itself harms only its own playback.
"""

from __future__ import annotations

from dataclasses import replace
from enum import IntEnum
from typing import Final

from ingest import mp4, mpegts, ts_edges, ts_quick
from ingest.mp4_boxes import HEADER_BYTES
from storage.media_facts import TICKS_PER_MS

MAX_DURATION_MS: Final = 3_600_000
"""Longest duration a chunk is listed with: one hour. A chunk is a few seconds of video; 16 MiB, its largest
size, is an hour at 37 kbit/s, below any camera. What claims more is damaged or lying."""

SNIFF_PACKETS: Final = 5
"""Sync bytes looked at. Each is one chance in 256 to be right by accident, five are one in 10**12."""

_SYNC_BYTES: Final = bytes([mpegts.SYNC_BYTE]) * SNIFF_PACKETS
_MP4_BOXES = frozenset(b"ftyp styp moov moof mdat free skip wide sidx emsg prft uuid pnot".split())
"""Boxes that a file of this family may begin with (ISO/IEC 14496-12 table 1; `wide` and `pnot` are QuickTime's)."""

_TOLD = (  # what is often sent by mistake: how it begins, what it is
    (b"\x1aE\xdf\xa3", "Matroska or WebM"),
    (b"FLV", "Flash video"),
    (b"RIFF", "AVI or WAV"),
    (b"OggS", "Ogg"),
    (b"\0\0\1\xba", "an MPEG program stream"),
    (b"\0\0\0\1", "a bare H.264 or H.265 stream"),
    (b"\0\0\1", "a bare video stream"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"\x89PNG", "a PNG picture"),
    (b"GIF8", "a GIF picture"),
    (b"ID3", "MP3"),
    (b"\xff\xf1", "a bare AAC stream"),
    (b"\x1f\x8b", "gzip"),
    (b"PK\3\4", "a zip archive"),
    (b"#EXTM3U", "a playlist"),
    (b"<", "HTML or XML"),
    (b"{", "JSON"),
    (b"--", "a multipart form: send the file as the body itself"),
)


class Media(IntEnum):
    """Container of a chunk. The numbers are stored in the catalog and in segments: never renumber."""

    UNKNOWN = 0
    MPEG_TS = 1
    MP4 = 2
    FMP4 = 3
    """Fragments whose header, the init segment, came before them; at a capture time below 0 such an init segment. The
    catalog has two bits for this number."""


MPEG_TS: Final = Media.MPEG_TS


class Found:
    """What a chunk is. Made once a chunk."""

    __slots__ = ("duration_ms", "facts", "is_init", "media", "missing", "what")

    def __init__(
        self,
        media: Media,
        duration_ms: int = 0,
        facts: bytes = b"",
        missing: str = "",
        what: str = "",
        is_init: bool = False,
    ) -> None:
        self.media = media
        self.duration_ms = duration_ms
        """0 < ms <= MAX_DURATION_MS; 0: it does not tell, as of a single frame."""
        self.facts = facts
        """Packed: `storage.media_facts`."""
        self.missing = missing
        """Why it can't be played, a word that `answers.unplayable` knows; empty when it can."""
        self.what = what
        """For people: what it looks like, or what is missing."""
        self.is_init = is_init
        """Of FMP4: it is an init segment."""


def sniff(data: bytes | bytearray | memoryview) -> Media:
    """Tell the container from the first bytes. Any content is fine; work is bounded by `mpegts.MAX_JUNK_BYTES`.

    MPEG-TS: every one of the first packets that are wholly there starts with the sync byte (at least one packet of 188
    bytes), or does so behind some junk. MP4: the first box is one that a file of its family may begin with.

    Args:
        data: the whole chunk, or at least its first `MAX_JUNK_BYTES + SNIFF_PACKETS * 188` bytes.
    """
    if _begins_with_packets(data):
        return Media.MPEG_TS
    if len(data) >= HEADER_BYTES and bytes(data[4:8]) in _MP4_BOXES:
        return Media.MP4
    return Media.MPEG_TS if mpegts.junk_bytes(data) else Media.UNKNOWN


def inspect(data: bytes | bytearray | memoryview) -> Found:
    """What a whole chunk holds. Raises nothing, on any content.

    Args:
        data: bytes, one-dimensional, contiguous. Read in place, and no view of it is left when this returns, so that a
            bytearray can be resized afterwards.

    Returns:
        Of FMP4 no more than that it is, and which of the two: `fragment` and `init_segment` read it.
    """
    quick = ts_quick.read(data)
    if quick is not None:
        return Found(MPEG_TS, _ms(quick.duration_ticks, TICKS_PER_MS * 1000), quick.facts)
    if _begins_with_packets(data):
        return _transport_stream(data, 0)
    if len(data) >= HEADER_BYTES and bytes(data[4:8]) in _MP4_BOXES:
        return _clip(data)
    junk = mpegts.junk_bytes(data)
    if junk:
        return _transport_stream(data, junk)
    return Found(Media.UNKNOWN, what=_looks_like(data))


def part_of_stream(data: bytes | bytearray | memoryview) -> Found:
    """As `inspect`, of a piece that was cut out of a long transport stream: sound is looked for in all of it. A muxer
    puts a third of a second of it into one unit, which comes late, and each piece has to say the same of its tracks."""
    return _transport_stream(data, 0 if _begins_with_packets(data) else mpegts.junk_bytes(data), len(data))


def duration_ms(data: bytes | bytearray | memoryview, media: Media) -> int | None:
    """How long the chunk plays, in ms, `0 < ms <= MAX_DURATION_MS`, or None when it does not tell: see `inspect`."""
    found = inspect(data)
    return found.duration_ms or None if found.media is media else None


def _begins_with_packets(data: bytes | bytearray | memoryview) -> bool:
    packets = min(len(data) // mpegts.PACKET_BYTES, SNIFF_PACKETS)
    starts = bytes(data[: packets * mpegts.PACKET_BYTES : mpegts.PACKET_BYTES])
    return packets > 0 and starts == _SYNC_BYTES[:packets]


def _transport_stream(data: bytes | bytearray | memoryview, junk_bytes: int, reach_bytes: int = 0) -> Found:
    """`reach_bytes`: see `ts_edges.read`; 0: as far as ordinary chunks are looked at."""
    packets = mpegts.aligned(data, junk_bytes)
    read = ts_edges.read(packets, reach_bytes) if reach_bytes else ts_edges.read(packets)
    if read is None:
        return Found(
            Media.MPEG_TS,
            missing="frames",
            what="no frame starts in it: tables or null packets alone, or scrambled",
        )
    return Found(Media.MPEG_TS, _ms(read.duration_ticks, TICKS_PER_MS * 1000), read.facts.pack())


def _clip(data: bytes | bytearray | memoryview) -> Found:
    read = mp4.read(data)
    if read.part is not mp4.Part.CLIP:
        return Found(Media.FMP4, is_init=read.part is mp4.Part.INIT)
    return _found(Media.MP4, read)


def init_segment(data: bytes | bytearray | memoryview) -> tuple[Found, mp4.Movie | None]:
    """What an init segment says, and what its fragments are read by; None where it is no init segment."""
    read = mp4.read(data)
    return _found(Media.FMP4, read), read.movie


def fragment(data: bytes | bytearray | memoryview, movie: mp4.Movie, init: int) -> Found:
    """What fragments hold.

    Args:
        movie: of their init segment.
        init: number of that: `parameters` of their facts.
    """
    read = mp4.read_fragment(data, movie)
    return _found(Media.FMP4, replace(read, facts=read.facts._replace(parameters=init)))


def _found(kind: Media, read: mp4.Clip) -> Found:
    missing, what = _FAULTS[read.fault] if read.fault is not None else ("", "")
    if read.entry:
        what = f"{what}: {read.entry}"
    return Found(kind, _ms(read.ticks, read.timescale), read.facts.pack(), missing, what)


NOT_ITS_INIT: Final = "init"
"""`Found.missing` of fragments with a track that their init segment does not have."""

_FAULTS = {
    mp4.Fault.NO_HEADER: (
        "header",
        "moov is missing or cut; send whole clips, or fragments with their header before them",
    ),
    mp4.Fault.NO_FRAMES: ("frames", "a header without a frame behind it, or cut before the first one"),
    mp4.Fault.OTHER_INIT: (
        NOT_ITS_INIT,
        "these fragments have a track that is not in the init segment that was sent last; send theirs, then them",
    ),
    mp4.Fault.ENCRYPTED: ("clear", "its samples are encrypted"),
    mp4.Fault.UNKNOWN_CODEC: ("codec", "the sample entry of a track"),
}


def _ms(ticks: int, per_second: int) -> int:
    """Milliseconds, at least 1 and at most MAX_DURATION_MS; 0 when it is not known."""
    if ticks <= 0:
        return 0
    return min(max((ticks * 1000 + per_second // 2) // per_second, 1), MAX_DURATION_MS)


def _looks_like(data: bytes | bytearray | memoryview) -> str:
    other = mpegts.other_packet_bytes(data)
    if other:
        return f"MPEG-TS in packets of {other} bytes, as in M2TS files and on discs; send packets of 188"
    head = bytes(data[:16])
    for start, name in _TOLD:
        if head.startswith(start):
            return f"this looks like {name}"
    return ""
