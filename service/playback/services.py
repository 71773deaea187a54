"""What playback stands on, and every limit it has."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Protocol

from retention.bitmap import EntitlementBitmap
from service.playback.sharing import Shares
from service.playback.used import Used
from service.remuxing.limits import RemuxLimits
from storage.catalog.clips import ClipsCatalog
from storage.catalog.devices import DevicesCatalog
from storage.catalog.reading import ReadingCatalog
from storage.catalog.shares import SharesCatalog
from storage.clock import Clock
from storage.objects import ObjectStore
from storage.vault import Vault


class PlaybackCatalog(ReadingCatalog, DevicesCatalog, SharesCatalog, ClipsCatalog, Protocol):
    """Chunks, whose device it is, share links, and kept clips."""


@dataclass(frozen=True, kw_only=True)
class PlaybackServices:
    """What playback stands on, and its limits."""

    catalog: PlaybackCatalog
    store: ObjectStore
    vault: Vault
    bitmap: EntitlementBitmap
    clock: Clock
    token_secret: bytes
    max_stale_ns: int = 0
    """How long ago the feed may have asked home; 0: home is on this host. See `retention.freshness`."""
    used: Used = field(default_factory=Used)
    """Where it is noted which devices were played back."""

    gap_ms: int = 1000
    """More than this between two chunks is a gap: a new span, a discontinuity in a playlist."""
    page_chunks: int = 1000
    """Chunks in a page of a listing, unless fewer are asked for."""
    max_listed_chunks: int = 100_000
    """Most chunks of one playlist or export: four days of 4 s chunks, some 30 MB while it is made."""
    live_window_ms: int = 60_000
    """What a live playlist lists, at least: enough to start with and to pause for a moment."""
    live_wait_s: float = 10.0
    """How long a live playlist of a camera that has just begun waits for its first chunks."""
    listing_threads: int = 2
    """Listings made at once. They hold the interpreter; more would only slow the reads down."""
    lookup_threads: int = 4
    """Look-ups of single chunks at once: as many as the catalog keeps connections."""
    store_threads: int = 16
    """Chunks being fetched and decrypted at once, by all requests together."""
    max_bytes_held: int = 256 * 1024 * 1024
    """Plaintext of chunks read or being sent. Ciphertext comes on top, one chunk per store thread."""
    memory_wait_s: float = 5.0
    """How long a read waits for that memory before it is refused as overload. An export under way waits on."""
    account_share: float = 0.5
    """Of memory, threads and exports: what one account may have of that which others leave. See `sharing`."""
    viewer_share: float = 0.5
    """Of that, what one viewer may have of what the account's others leave."""
    max_exports: int = 8
    """Exports at once. Each holds its list of chunks, 15 MB at `max_listed_chunks`."""
    read_ahead_chunks: int = 4
    """Chunks that an export reads ahead of what it sends: hides the store's latency."""
    read_ahead_bytes: int = 8 * 1024 * 1024
    """Bytes of them, unless one chunk alone is more."""
    answer_s: float = 20.0
    """How long a reader waits for a thread that asks the catalog, and for a data key. Where the catalog is opened its
    answer is bounded by the same."""
    max_keys: int = 4096
    """Data keys kept in memory: 11 MB, and a purge takes some 5 ms of the loop."""
    max_still_bytes: int = 16 * 1024 * 1024
    """Pictures of recordings, kept in memory: some 1000 of 320 pixels."""
    remux: RemuxLimits = field(default_factory=RemuxLimits)
    """Of what puts recordings into MP4, and makes pictures."""
    purge_every_s: float = 5.0
    """How soon the keys of erased devices and past months leave memory. They are never used in between."""

    def shares(self, total: int, *, max_waiting: float = math.inf) -> Shares:
        """So much of something, shared out as these settings say."""
        return Shares(
            total,
            account_share=self.account_share,
            viewer_share=self.viewer_share,
            max_waiting=max_waiting,
        )
