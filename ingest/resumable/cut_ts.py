"""Cuts a transport stream into chunks (ISO/IEC 13818-1): between packets, where a picture begins. Pure.

Chunks one after the other are the stream, byte for byte, but for what stands before each that does not begin with
program tables: the ones that were sent last. Packets are looked at in bulk; only those in which a unit starts are read.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from ingest import mpegts
from ingest.mpegts import PACKET_BYTES, SYNC_BYTE
from ingest.pictures import first_picture
from ingest.resumable.cutting import CLEAN_KEY, KEY, PICTURE, NotCuttable, Place, Places
from ingest.ts_edges import payload_at, pts_at
from ingest.ts_tables import AUDIO_CODECS, NO_PID, VIDEO_CODECS, map_pid, program
from storage.media_facts import Codec, KeyFrame

AHEAD_PACKETS: Final = 1024
"""Looked at behind a picture's begin, 188 KiB: for its slices, the rest of a table, and whether sound goes on in it."""
PICTURE_PACKETS: Final = 24
"""As `ts_edges.PICTURE_PACKETS`."""
MAP_PACKETS: Final = 6
"""Of a program map, which has 1,024 bytes."""
_TABLES: Final = frozenset((0x00, 0x01, 0x10, 0x11, 0x12, 0x14))
"""PIDs of tables that may stand together before a picture."""
MAX_LOOKS: Final = 500
"""At pictures of a chunk, to find a key frame where packets do not mark them: 20 s at 25 a second."""
APART_BYTES: Final = 16 * 1024
"""Between places of a kind that are told, for a stream may have a unit in every packet."""
MAX_STRAYS: Final = 1024
"""Of an upload: so many times something else than a packet is met, or 64 KiB of that go on."""
TABLES_TOGETHER: Final = 16
"""Packets of tables before a picture that are looked at."""
NULL_PID: Final = 0x1FFF


class TsCutter:
    """See `cutting.Cutter`.

    Args:
        most_bytes: of a chunk.
    """

    def __init__(self, most_bytes: int) -> None:
        self._places = Places(most_bytes)
        self._buffer = bytearray()
        """From the chunk's begin on."""
        self._start = Place(0, KEY)
        """Where that is."""
        self._looked = 0
        """Bytes of the buffer that were looked at."""
        self._run_at = 0
        """In the buffer, where the packets began that go on from there."""
        self._association = b""
        self._map = b""
        self._map_pid = NO_PID
        self._main_pid = NO_PID
        self._codec = Codec.OTHER
        self._is_sound = False
        """There is no picture: it is cut where sound begins."""
        self._strays = 0
        self._looks = 0
        """At pictures of this chunk, for what they are."""
        self._key_at = self._picture_at = -APART_BYTES
        """Where the last key frame, and the last other picture, is that was told to `_places`."""
        self._marks_keys = False
        """A packet was marked as one to begin at: key frames are told by that alone."""

    def feed(self, data: bytes | memoryview) -> list[bytes]:
        self._buffer += data
        return self._go_on(AHEAD_PACKETS)

    def end(self) -> list[bytes]:
        found = self._go_on(0)
        found += self._cut_at(list(self._places.before(self._start.position + len(self._buffer))))
        found.append(self._start.tables + bytes(self._buffer))
        return found

    def _go_on(self, ahead: int) -> list[bytes]:
        """Look at what was fed but for so many packets."""
        cuts: list[Place] = []
        while self._look(ahead, cuts) and self._skip(ahead):
            pass
        cuts += self._places.before(self._start.position + self._looked)
        return self._cut_at(cuts)

    def _cut_at(self, cuts: list[Place]) -> list[bytes]:
        found = []
        for place in cuts:
            size = place.position - self._start.position
            found.append(self._start.tables + bytes(memoryview(self._buffer)[:size]))
            del self._buffer[:size]
            self._looked -= size
            self._run_at = max(self._run_at - size, 0)
            self._start = place
            self._looks = 0
        return found

    # --- packets ----------------------------------------------------------------------------------------------

    def _look(self, ahead: int, cuts: list[Place]) -> bool:
        """Look at the packets that follow. Returns whether something else than a packet was met."""
        count = (len(self._buffer) - self._looked) // PACKET_BYTES
        behind = min((self._looked - self._run_at) // PACKET_BYTES, TABLES_TOGETHER)
        base = self._looked - behind * PACKET_BYTES
        packets = np.frombuffer(self._buffer, np.uint8, (behind + count) * PACKET_BYTES, base)
        packets = packets.reshape(-1, PACKET_BYTES)
        wrong = np.flatnonzero(packets[behind:, 0] != SYNC_BYTE)
        sound = int(wrong[0]) if wrong.size else count
        stop = sound if wrong.size else max(count - ahead, 0)
        window = _Window(packets[: behind + sound], base)
        for at in window.starts(behind, behind + stop):
            pid = int(window.pids[at])
            if pid == 0:
                self._on_association(window.packet(at))
            elif pid == self._map_pid:
                self._on_map(window, at)
            elif self._main_pid in (NO_PID, pid):
                place = self._place(window, at, pid)
                if place is not None:
                    cuts.extend(self._places.at(place))
        self._looked += stop * PACKET_BYTES
        return bool(wrong.size)

    def _skip(self, ahead: int) -> bool:
        """Pass over what is no packet; it stays in its chunk. Returns whether packets go on behind it."""
        self._strays += 1
        if self._strays > MAX_STRAYS:
            raise NotCuttable("what comes is not packets of 188 bytes")
        rest = memoryview(self._buffer)[self._looked :]
        at = mpegts.next_packet(rest, 1, mpegts.MAX_STRAY_BYTES)
        if at >= 0:
            self._looked += at
            self._run_at = self._looked
            return True
        reached = mpegts.MAX_STRAY_BYTES if ahead else len(rest)
        self._looked += min(reached, max(len(rest) - mpegts.CONFIRMED_BYTES, 1))
        self._run_at = self._looked
        return len(rest) > mpegts.MAX_STRAY_BYTES + mpegts.CONFIRMED_BYTES

    def _on_association(self, packet: bytes) -> None:
        pid = map_pid(packet[payload_at(packet, 0) :])
        if pid != NO_PID:
            self._association, self._map_pid = packet, pid

    def _on_map(self, window: _Window, at: int) -> None:
        packet = window.packet(at)
        payload = packet[payload_at(packet, 0) :]
        read = program(payload)
        if read is None:
            return
        start = 1 + payload[0]
        section_bytes = 3 + ((payload[start + 1] & 0x0F) << 8 | payload[start + 2])
        more = -(-max(start + section_bytes - len(payload), 0) // (PACKET_BYTES - 4))
        places = window.following(at + 1, self._map_pid, min(more, MAP_PACKETS - 1))
        self._map = packet + b"".join(window.packet(place) for place in places)
        self._is_sound = not read.has_video
        kinds = AUDIO_CODECS if self._is_sound else VIDEO_CODECS
        of_kind = [(pid, codec) for pid, codec in read.codecs.items() if codec in kinds]
        if of_kind and of_kind[0][0] != self._main_pid:
            self._main_pid, self._codec = of_kind[0]
            self._marks_keys = False

    def _place(self, window: _Window, at: int, pid: int) -> Place | None:
        """A place to cut, before the unit that starts in this packet. None: it is not of what is gone by."""
        packet = window.packet(at)
        offset = payload_at(packet, 0)
        ticks = pts_at(packet, offset, PACKET_BYTES)
        if self._main_pid == NO_PID:  # without tables: the first stream of pictures
            if ticks < 0 or packet[offset + 3] & 0xF0 != 0xE0:
                return None
            self._main_pid = pid
        position = self._start.position + window.base + at * PACKET_BYTES
        rank = PICTURE
        if self._is_key(window, at, packet, position, ticks):
            if position - self._key_at < APART_BYTES:
                return None
            self._key_at = position
            rank = CLEAN_KEY if window.is_clean(at, pid, self._map_pid) else KEY
        elif position - self._picture_at < APART_BYTES:
            return None
        else:
            self._picture_at = position
        begin, tables = at, self._association + self._map
        before = window.tables_before(at, self._map_pid)
        if before is not None:
            begin, tables = before, b""
        position = self._start.position + window.base + begin * PACKET_BYTES
        return Place(position, rank, ticks if ticks >= 0 else None, tables)

    def _is_key(self, window: _Window, at: int, packet: bytes, position: int, ticks: int) -> bool:
        if self._is_sound:
            return True
        if packet[3] & 0x20 and packet[4] and packet[5] & 0x40:
            self._marks_keys = True
            return True
        if self._marks_keys or self._codec not in (Codec.H264, Codec.H265):
            return False
        if self._looks >= MAX_LOOKS or not self._places.is_enough(position, ticks if ticks >= 0 else None):
            return False
        self._looks += 1
        data = b""
        for place in [at, *window.following(at + 1, self._main_pid, PICTURE_PACKETS - 1)]:
            found = window.packet(place)
            data += found[payload_at(found, 0) :]
        return len(data) > 9 and first_picture(data[9 + data[8] :], self._codec).key_frame is KeyFrame.YES


class _Window:
    """Packets in a row.

    Args:
        packets: (n, 188) of uint8.
        base: bytes of the cutter's buffer before them.
    """

    def __init__(self, packets: np.ndarray, base: int) -> None:
        self._packets = packets
        self.base = base
        self.pids = (packets[:, 1].astype(np.int32) & 0x1F) << 8 | packets[:, 2]

    def starts(self, begin: int, stop: int) -> list[int]:
        """The packets from `begin` to `stop`, sound ones, in which a unit starts."""
        found: list[int] = (np.flatnonzero(self._packets[begin:stop, 1] & 0xC0 == 0x40) + begin).tolist()
        return found

    def packet(self, at: int) -> bytes:
        return bytes(self._packets[at])

    def following(self, at: int, pid: int, count: int) -> list[int]:
        """Up to so many packets of a stream from `at` on, as far as is looked ahead."""
        found: list[int] = (np.flatnonzero(self.pids[at : at + AHEAD_PACKETS] == pid)[:count] + at).tolist()
        return found

    def tables_before(self, at: int, map_pid: int) -> int | None:
        """Where the tables begin that stand right before a packet; None where there are not both of them."""
        begin = at
        while begin and at - begin < TABLES_TOGETHER and int(self.pids[begin - 1]) in (*_TABLES, map_pid):
            begin -= 1
        seen = set(self.pids[begin:at].tolist())
        return begin if {0, map_pid} <= seen else None

    def is_clean(self, at: int, pid: int, map_pid: int) -> bool:
        """Whether what comes of each other stream begins with a unit: none is in two pieces."""
        ahead = self.pids[at : at + AHEAD_PACKETS]
        pids, first = np.unique(ahead, return_index=True)
        return all(
            self._packets[at + place, 1] & 0x40
            for other, place in zip(pids.tolist(), first.tolist(), strict=True)
            if other not in (pid, map_pid, NULL_PID, *_TABLES) and self._packets[at + place, 3] & 0x10
        )
