"""Cuts fragmented MP4 into chunks (ISO/IEC 14496-12): its header once, and fragments, parted before key frames. Pure.

Fragments are taken as they are, but for two things that say where in the whole file something is, which is elsewhere in
a chunk: indexes (`sidx`, `mfra`) are left out, and the place of a track's samples, where it is counted from the file's
begin (as ffmpeg writes it without `default_base_moof`), is counted from the fragment's.
"""

from __future__ import annotations

import struct
from contextlib import suppress
from typing import Final

from ingest import mp4
from ingest.mp4_boxes import HEADER_BYTES, Boxes, Unreadable
from ingest.resumable.cutting import CLEAN_KEY, PICTURE, NotCuttable, Place, Places
from storage.media_facts import KeyFrame

MAX_HEADER_BYTES: Final = 64 * 1024
"""Of `ftyp` and `moov` together: as `inits.MAX_INIT_BYTES`."""
MAX_BEFORE_FRAGMENTS_BYTES: Final = 2 * MAX_HEADER_BYTES
"""In which the header is, with what else stands before its end."""
MAX_BOX_BYTES: Final = 1024 * 1024
"""Of a box that is looked at as a whole: a `moof` of 10 s has some 20 KiB."""
MAX_GROUP_BYTES: Final = MAX_BOX_BYTES
"""Of the boxes before a fragment that are kept with it: only at the fragment is it known whether a chunk ends there."""
MAX_FRAGMENTS: Final = 50_000
"""Of one upload: each takes 0.1 ms of CPU. One for each frame is 14 minutes at 60 a second."""
MAX_BOXES: Final = 6 * MAX_FRAGMENTS
"""Of one upload, outside of others."""
FRAGMENTS: Final = 200
"""Of a chunk, after which it ends at the next key frame: its boxes are counted (`mp4_boxes.MAX_BOXES`)."""

_IN_HEADER: Final = (b"ftyp", b"moov")
_BEFORE_FRAGMENT: Final = (b"styp", b"prft", b"emsg", b"uuid")
"""Boxes that are kept with the fragment behind them."""
_LEFT_OUT: Final = (b"sidx", b"ssix", b"mfra", b"free", b"skip", b"wide", b"meta", b"pdin")

_TFHD_BASE: Final = 0x000001
_TFHD_BASE_IS_MOOF: Final = 0x020000
_TRUN_PLACE: Final = 0x000001
_FREE: Final = b"\0\0\0\x08free"


class Mp4Cutter:
    """See `cutting.Cutter`. Its chunks are fragments, to be read by `header`.

    Args:
        most_bytes: of a chunk.
    """

    def __init__(self, most_bytes: int) -> None:
        self.header = b""
        """The init segment, once it has come."""
        self._movie: mp4.Movie | None = None
        self._has_picture = False
        self._places = Places(most_bytes)
        self._rest = b""
        """Was fed, and is of a box that is not complete."""
        self._read_at = 0
        """Of the source, where that begins."""
        self._pass_bytes = 0
        """Of a box's content still to come, as it is."""
        self._keeps = False
        """Whether that is kept."""
        self._chunk = bytearray()
        self._start = Place(0, PICTURE)
        self._group_at: int | None = None
        """In what is given, where the boxes begin that come before the next fragment."""
        self._boxes = self._fragments = 0
        self._of_chunk = 0

    def feed(self, data: bytes | memoryview) -> list[bytes]:
        self._rest += data
        found: list[bytes] = []
        at = 0
        while True:
            if self._pass_bytes:
                size = min(self._pass_bytes, len(self._rest) - at)
                if self._keeps:
                    self._chunk += memoryview(self._rest)[at : at + size]
                    found += self._cut_at(list(self._places.before(self._kept)))
                self._pass_bytes -= size
                at += size
            if self._pass_bytes or not (size := self._next_box(at, found)):
                break
            at += size
        self._rest = self._rest[at:]
        self._read_at += at
        return found

    def end(self) -> list[bytes]:
        if self._movie is None or not self._fragments:
            raise NotCuttable("there is no fragment in it")
        if self._rest:
            raise NotCuttable("its last box is cut")
        found = self._cut_at(list(self._places.before(self._kept)))
        return [*found, bytes(self._chunk)] if self._chunk else found

    @property
    def _kept(self) -> int:
        """Bytes of what is given, so far."""
        return self._start.position + len(self._chunk)

    def _cut_at(self, cuts: list[Place]) -> list[bytes]:
        found = []
        for place in cuts:
            size = place.position - self._start.position
            found.append(bytes(memoryview(self._chunk)[:size]))
            del self._chunk[:size]
            self._start = place
            self._of_chunk = 0
        return found

    # --- boxes ------------------------------------------------------------------------------------------------

    def _next_box(self, at: int, found: list[bytes]) -> int:
        """Take the box that begins there in what was fed: all of it, or its header. Returns the bytes that were taken;
        0: more has to come."""
        view = memoryview(self._rest)[at:]
        if len(view) < HEADER_BYTES:
            return 0
        size, kind = struct.unpack_from(">I4s", view)
        header_bytes = HEADER_BYTES
        if size == 1:
            if len(view) < HEADER_BYTES + 8:
                return 0
            (size,) = struct.unpack_from(">Q", view, HEADER_BYTES)
            header_bytes += 8
        elif size == 0:
            size = 1 << 62  # to the end
        self._boxes += 1
        if self._boxes > MAX_BOXES:
            raise NotCuttable(f"it has more than {MAX_BOXES} boxes")
        if size < header_bytes:
            raise NotCuttable("a box of it has no size that can be")
        if self._movie is None:
            return self._of_header(view, at, size, kind)
        if kind == b"mdat":
            if not self._fragments:
                raise NotCuttable("its header has pictures of its own before the first fragment")
            return self._pass(view, size, header_bytes, keeps=True)
        if kind in _LEFT_OUT:
            return self._pass(view, size, header_bytes, keeps=False)
        if kind != b"moof" and kind not in _BEFORE_FRAGMENT:
            raise NotCuttable(f"a box {_text(kind)} is between its fragments")
        if size > MAX_BOX_BYTES:
            raise NotCuttable(f"a box {_text(kind)} of it has {size} bytes")
        if len(view) < size:
            return 0
        if self._group_at is None:
            self._group_at = self._kept
        box = bytes(view[:size])
        if kind == b"moof":
            box = self._fragment(box, self._read_at + at, self._movie, found)
            self._chunk += box
            found += self._cut_at(list(self._places.before(self._kept)))
        else:
            self._chunk += box
            if self._kept - self._group_at > MAX_GROUP_BYTES:
                raise NotCuttable(f"more than {MAX_GROUP_BYTES} bytes of boxes are before a fragment of it")
        return int(size)

    def _pass(self, view: memoryview, size: int, header_bytes: int, *, keeps: bool) -> int:
        if keeps:
            self._chunk += view[:header_bytes]
        self._pass_bytes, self._keeps = size - header_bytes, keeps
        return header_bytes

    def _of_header(self, view: memoryview, at: int, size: int, kind: bytes) -> int:
        if kind in (b"mdat", b"moof"):
            raise NotCuttable("it is MP4 whose header does not come first")
        if size > MAX_HEADER_BYTES:
            raise NotCuttable(
                f"its header has a box {_text(kind)} of {size} bytes: it is MP4 without fragments"
            )
        if self._read_at + at + size > MAX_BEFORE_FRAGMENTS_BYTES:
            raise NotCuttable(f"its header does not come in its first {MAX_BEFORE_FRAGMENTS_BYTES} bytes")
        if kind in _IN_HEADER and len(self.header) + size > MAX_HEADER_BYTES:
            raise NotCuttable(f"its header has more than {MAX_HEADER_BYTES} bytes")
        if len(view) < size:
            return 0
        if kind in _IN_HEADER:
            self.header += view[:size]
        if kind == b"moov":
            read = mp4.read(self.header)
            if read.part is not mp4.Part.INIT or read.movie is None:
                raise NotCuttable("it is MP4 without fragments")
            self._movie = read.movie
            self._has_picture = any(track.video for track in read.movie.tracks)
        return size

    def _fragment(self, box: bytes, read_at: int, movie: mp4.Movie, found: list[bytes]) -> bytes:
        """A `moof`, as it is kept. Perhaps a chunk ends before it."""
        self._fragments += 1
        self._of_chunk += 1
        if self._fragments > MAX_FRAGMENTS:
            raise NotCuttable(f"it has more than {MAX_FRAGMENTS} fragments: make them longer")
        facts = mp4.read_fragment(box, movie).facts
        times = facts.video_times if self._has_picture else facts.times
        assert self._group_at is not None, "it is in one"
        if times is not None:  # else of sound, and no place of its own beside pictures
            rank = CLEAN_KEY if facts.key_frame is KeyFrame.YES else PICTURE
            place = Place(self._group_at, rank, times.first_ticks)
            found += self._cut_at(list(self._places.at(place, must=self._of_chunk > FRAGMENTS)))
        self._group_at = None
        return rebased(box, read_at)


def _text(kind: bytes) -> str:
    return "".join(chr(c) if 0x20 < c < 0x7F else "." for c in kind)


def rebased(moof: bytes, read_at: int) -> bytes:
    """A `moof` whose samples' places are counted from itself, of the same size: what becomes shorter is filled with an
    empty box.

    Args:
        read_at: where it was in the file.

    Raises:
        NotCuttable: it can't be said where its samples are.
    """
    changed = bytearray(moof)
    boxes = Boxes(memoryview(moof))
    with suppress(struct.error, Unreadable):
        for _, traf, traf_end in boxes.only(b"traf", HEADER_BYTES, len(moof)):
            _rebase_track(boxes, changed, traf, traf_end, read_at)
    return bytes(changed)


def _rebase_track(boxes: Boxes, changed: bytearray, start: int, end: int, read_at: int) -> None:
    moved: int | None = None
    for kind, inner, inner_end in boxes.boxes(start, end):
        if kind == b"tfhd":
            flags = boxes.u32(inner, inner_end)
            if not flags & _TFHD_BASE:
                return
            moved = boxes.u64(inner + 8, inner_end) - read_at
            struct.pack_into(">I", changed, inner, flags & ~_TFHD_BASE | _TFHD_BASE_IS_MOOF)
            struct.pack_into(">I", changed, inner - HEADER_BYTES, inner_end - inner + HEADER_BYTES - 8)
            changed[inner + 8 : inner_end] = changed[inner + 16 : inner_end] + _FREE
        elif kind == b"trun" and moved:
            if not boxes.u32(inner, inner_end) & _TRUN_PLACE:
                raise NotCuttable("its fragments do not say where their samples are")
            place = int.from_bytes(changed[inner + 8 : inner + 12], "big", signed=True) + moved
            struct.pack_into(">i", changed, inner + 8, place)
