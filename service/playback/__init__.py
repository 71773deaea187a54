"""Reading recordings: who may, what there is, and the bytes. No HTTP in here.

`gate` is entitlement, `shared` knows which share links there are, `listing` says what there is (`service.timeline` how
long it plays and what follows from what, `live` and `following` what is live, `hls` writes playlists), `reading` is one
chunk (`fragments` as fMP4), `export` many (`mp4_export` as MP4, of which `film` says what lies where); `sharing` bounds
them and shares out what there is, `sharers` knows among whom, `services` has the limits.

Entitlement is asked at every read, and once more when the bytes have come back from the store, before each piece of
them is sent: a revocation during a read wins (invariant 2). Nothing that was found out before is trusted for
that: the row says which erase epoch and expiry day a chunk is of, the bitmap says which are served now.

Blocking calls run in threads, in three groups that don't wait for each other: listings, which take long,
look-ups of one chunk, and the store.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

import structlog
import trio

from ingest.keyring import Keyring
from retention.freshness import Freshness
from retention.tokens import SHARE_PREFIX
from service.playback.export import Export, Exports
from service.playback.fragments import Fragments, ReadFragment
from service.playback.gate import Gate, Grant, Viewer
from service.playback.listing import Listings, LivePlaylist, Page
from service.playback.mp4_export import Mp4Export, Mp4Exports
from service.playback.reading import ChunkReader, ReadChunk
from service.playback.refusals import Refused
from service.playback.services import PlaybackServices
from service.playback.shared import SharesInUse
from service.playback.sharers import Sharers
from service.playback.sharing import Sharer, Shares
from service.playback.sources import Sources
from service.playback.stills import Stills, Strip, Taken
from service.remuxing.remuxer import Remuxer
from storage.errors import WorldError
from storage.rows.recordings import ChunkRow
from storage.vault import KeyId

__all__ = [
    "JOBS_SHARE",
    "ChunkReader",
    "Export",
    "Exports",
    "Fragments",
    "Gate",
    "Grant",
    "Listings",
    "LivePlaylist",
    "Mp4Export",
    "Page",
    "Playback",
    "PlaybackServices",
    "ReadChunk",
    "ReadFragment",
    "Refused",
    "SharedRange",
    "Sharer",
    "Shares",
    "Strip",
    "Taken",
    "Viewer",
]


JOBS_SHARE = 2 / 3
"""Of the processes for media jobs that other accounts leave, what one account may have. Of three, an export has two,
and so uses two cores; whoever else comes has the third at once."""

_log = structlog.get_logger("playback")


@dataclass(frozen=True, slots=True)
class SharedRange:
    """What a share link is for: chunks that begin at `from_ms <= t < to_ms`, until `expires_ms` (Unix ms)."""

    viewer: Viewer
    share: int
    from_ms: int
    to_ms: int
    expires_ms: int


class Playback:
    """All reading of one process: `listings`, `chunks`, `fragments` and `exports`. `run` must be running. `remuxer`
    does media jobs for all of them, on the share of whom they are for."""

    def __init__(self, services: PlaybackServices) -> None:
        self.freshness = Freshness(services.bitmap, services.max_stale_ns)
        self._shares = SharesInUse(services.catalog, services.clock, wait_s=services.answer_s)
        self._gate = Gate(
            services.bitmap,
            services.clock,
            services.token_secret,
            services.used,
            self.freshness,
            self._shares,
        )
        self._keyring = Keyring(services.vault.get_each, max_keys=services.max_keys, wait_s=services.answer_s)
        self._purge_every_s = services.purge_every_s
        self._memory_wait_s = services.memory_wait_s
        self._sharers = Sharers(services.catalog, wait_s=services.answer_s)
        self.memory = services.shares(services.max_bytes_held)
        self.listings = Listings(services, self._gate, self._sharers)
        self.chunks = ChunkReader(services, self._gate, self._keyring, self.memory, self._sharers)
        remux = services.remux
        turns = Shares(
            remux.processes, account_share=JOBS_SHARE, viewer_share=1, max_waiting=remux.max_waiting
        )
        self.remuxer = Remuxer(remux, turns)
        self.fragments = Fragments(self.chunks, self.remuxer, services.memory_wait_s)
        self.exports = Exports(services, self.listings, self.chunks)
        self.sources = Sources(self.chunks)
        self.mp4_exports = Mp4Exports(self.exports, self.remuxer, self.sources)
        self.stills = Stills(services, self.listings, self.chunks, self.remuxer, self.sources)
        self.running = False

    async def admit(self, viewer: Viewer) -> Viewer:
        """Find out what the gate has to know of this viewer's token: of a share link's, whether there still is one.
        Anybody's token may be given: one that is not this service's costs a MAC.

        Raises:
            Refused: `overloaded`, `bad_token`; WorldError: the catalog can't be asked.
        """
        if viewer.token.startswith(SHARE_PREFIX):
            await self._shares.learn(self._gate.share_of(viewer.token))
        return viewer

    async def shared(self, token: str) -> SharedRange:
        """What the token of a share link is for, when it may be used now.

        Raises:
            Refused: as `Gate.ask`; WorldError: the catalog can't be asked.
        """
        viewer = await self.admit(Viewer(self._gate.share_of(token).device, token))
        grant = self._gate.ask(viewer)
        assert grant.share is not None
        return SharedRange(viewer, grant.share, grant.from_ms, grant.to_ms, grant.token_expires_ms)

    def note_open(self, viewer: Viewer) -> None:
        """A playlist or an export was given: by a share link that is an opening of it."""
        if viewer.token.startswith(SHARE_PREFIX):
            self._shares.note_open(self._gate.share_of(viewer.token).share)

    def confirming(self, viewer: Viewer, row: ChunkRow | None = None) -> Callable[[], object]:
        """What to call before each piece of an answer to this viewer, of one chunk or of several. It raises as `Gate`
        does when no more may be sent."""
        return partial(self._gate.ask, viewer) if row is None else partial(self._gate.check, viewer, row)

    @asynccontextmanager
    async def holding(self, viewer: Viewer, size: int) -> AsyncIterator[None]:
        """Have `size` bytes of an answer charged to this viewer, as chunks are.

        Raises:
            Refused: `overloaded`.
        """
        who = await self._sharers.of(viewer)
        await self.memory.take(who, size, wait_s=self._memory_wait_s)
        try:
            yield
        finally:
            self.memory.give(who, size)

    async def _forget_stills(self, is_live: Callable[[KeyId], bool]) -> None:
        try:
            await self.stills.purge(is_live)
        except (
            WorldError
        ):  # asked again at the next purge; nothing is given meanwhile without asking the catalog
            _log.warning("stills_not_purged")

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Own the key cache, what is known of share links and the remuxer's children, until cancelled. Keys that are
        over leave it every `purge_every_s`."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self._keyring.run)
            await nursery.start(self._shares.run)
            self.running = True
            try:
                task_status.started()
                while True:
                    await trio.sleep(self._purge_every_s)
                    is_live = self._gate.key_is_live()
                    self._keyring.purge(is_live)
                    await self._forget_stills(is_live)
                    self.chunks.clip_keys.purge(is_live)
            finally:
                self.running = False
                await self.remuxer.close()
