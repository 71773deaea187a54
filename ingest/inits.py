"""Init segments: the headers that the fragments of fMP4 are read by. Each device sends its own once, at its start.

Stock ffmpeg sends it, and each fragment, on a connection of its own, so any worker of any host may get the one or the
other. What was sent is stored like a chunk, and noted as what its device sent last, before it is answered; whoever
gets a fragment on a connection that knows no init segment asks for that note.

A fragment that says that it is the first one (`mp4.is_first`) may be here before the init segment that was sent just
before it. It waits until one is noted that was sent within FRESH_MS of it, and that has its tracks.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Protocol

import trio

from ingest import media, mp4
from ingest.keyring import Keyring
from ingest.packing import Init
from ingest.stored import StoredBelow
from storage import checksums
from storage.catalog.ingest import IngestCatalog
from storage.catalog.reading import ReadingCatalog
from storage.errors import CorruptError
from storage.objects import ObjectStore
from storage.rows.recordings import SentInit

MAX_INIT_BYTES = 64 * 1024
"""Of an init segment. Stock ones have 1 to 3 kB."""
HELD_BYTES = 8 * 1024 * 1024
"""Of all init segments that a worker remembers together, each counted with what it was read as: a few thousand. Beside
the budget, as the memories of tables and pictures are."""
READ_BYTES = 2048
"""What an init segment was read as, at most: tracks and numbers."""
FRESH_MS = 2000
"""A first fragment's init segment was sent no longer than this before it began to come, or it waits for one for WAIT_S:
a camera that was started anew may have other tracks, or another size. Stock encoders send it at once before."""
WAIT_S = 3.0
"""How long a fragment waits for an init segment: some puts and commits of another worker, of a store that is slow."""
ASK_EVERY_S = 0.1
LOOK_UPS = 4
"""At once, of a worker. Each is a thread."""


class InitsCatalog(IngestCatalog, ReadingCatalog, Protocol):
    """What is noted, and where it lies."""


class KnownInit:
    """An init segment, read."""

    def __init__(self, init: Init, movie: mp4.Movie) -> None:
        self.init = init
        self.movie = movie


class InitInUse:
    """What the fragments of one connection are read by, as long as they follow on one another. Others ask anew: a proxy
    may put what a device sends on connections of whatever age, so another init segment came on another one."""

    __slots__ = ("known", "next_sequence")

    def __init__(self, known: KnownInit, next_sequence: int | None = None) -> None:
        self.known = known
        self.next_sequence = next_sequence
        """Number of the fragment that follows; None: the init segment was what came last, so whatever comes does."""

    def follow(self, device: int, data: memoryview) -> bool:
        """Whether these fragments follow, and from now on those behind them."""
        numbers = mp4.sequence_numbers(data)
        if numbers is None or device != self.known.init.device:
            return False
        if self.next_sequence is not None and numbers[0] != self.next_sequence:
            return False
        self.next_sequence = numbers[1] + 1
        return True


class Inits:
    """The init segments of one worker's devices: those that it remembers, and the way to the others."""

    def __init__(self, store: ObjectStore, catalog: InitsCatalog, keyring: Keyring) -> None:
        self._catalog = catalog
        self._threads = trio.CapacityLimiter(LOOK_UPS)
        self._stored = StoredBelow(store, catalog, keyring, self._threads)
        self._known: OrderedDict[tuple[int, int], KnownInit] = OrderedDict()
        self._held_bytes = 0

    def remember(self, known: KnownInit) -> KnownInit:
        """Keep one, and let go of those that were not asked for for longest, for `HELD_BYTES`. Returns the one that
        stands for it from now on."""
        key = (known.init.device, known.init.number)
        mine = self._known.get(key)
        if mine is not None:
            self._known.move_to_end(key)
            return mine
        self._known[key] = known
        self._held_bytes += len(known.init.data) + READ_BYTES
        while self._held_bytes > HELD_BYTES:
            _, old = self._known.popitem(last=False)
            self._held_bytes -= len(old.init.data) + READ_BYTES
        return known

    async def note(self, device: int, sent: SentInit) -> None:
        """A device sent it, and it is stored.

        Raises:
            CatalogUnavailable: it may be noted or not.
        """
        await trio.to_thread.run_sync(self._catalog.note_init, device, sent, limiter=self._threads)

    async def sent_by(
        self, device: int, epoch: int, *, first: bool, head_ms: int, other_than: int = 0
    ) -> KnownInit | None:
        """What the fragments of a device are read by now; None: it never sent one, or that is gone.

        Args:
            first: they say that they are the first ones.
            head_ms: when they began to come.
            other_than: number of the one that does not fit: another may be on its way.

        Raises:
            CorruptError, WorldError: it can't be read now.
        """
        deadline_s = trio.current_time() + WAIT_S
        while True:
            sent = await trio.to_thread.run_sync(self._catalog.sent_init, device, limiter=self._threads)
            fits = sent is not None and sent.epoch == epoch and sent.number != other_than
            if sent is not None and fits and not (first and sent.at_ms < head_ms - FRESH_MS):
                break
            if trio.current_time() >= deadline_s:
                if sent is None or not fits:
                    return None
                break  # its encoder counts anew, and sent no other header: it has gone on with the one of before
            await trio.sleep(ASK_EVERY_S)
        known = self._known.get((device, sent.number))
        if known is not None:
            return self.remember(known)
        return await self._read(device, sent)

    async def _read(self, device: int, sent: SentInit) -> KnownInit | None:
        row = await self._stored.row(device, -sent.number, sent.expires_on)
        if row is None:
            return None
        data = await self._stored.read(row)
        known = read(device, data)
        if isinstance(known, media.Found):
            raise CorruptError("what is stored is no init segment", code="chunk_corrupt")
        known.init.stored(row.epoch, row.expires_on)
        return self.remember(known)


def read(device: int, data: bytes) -> KnownInit | media.Found:
    """An init segment that a device sent; or what is wrong with it."""
    found, movie = media.init_segment(data)
    if movie is None or found.missing:
        return found
    crc64 = checksums.crc64nvme(data)
    init = Init(device, crc64 & 0xFFFF_FFFF or 1, data, checksums.crc32(data), crc64, found.facts)
    return KnownInit(init, movie)
