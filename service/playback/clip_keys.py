"""Keys of kept clips in memory, for a minute each: one for each clip that is being watched."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import trio
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from storage.catalog.clips import ClipsCatalog
from storage.errors import KeyDestroyed
from storage.vault import KeyId, Vault

KEPT_S = 60.0
"""As long as account keys stay (`storage.account_keys`), which these are kept among. A clip that was deleted has no
rows, so its key is not used meanwhile."""
MAX_KEPT = 512
"""Keys in memory, 1.4 MB. Past it the one that was read first makes way."""


class _Kept(NamedTuple):
    cipher: AESGCM
    key_id: KeyId
    """Device and epoch that it lives with."""
    read_s: float


class ClipKeys:
    """See the module docstring. For one loop."""

    def __init__(self, catalog: ClipsCatalog, vault: Vault) -> None:
        self._catalog = catalog
        self._vault = vault
        self._kept: OrderedDict[int, _Kept] = OrderedDict()

    async def load(self, key_id: KeyId, clip: int, *, limiter: trio.CapacityLimiter) -> AESGCM:
        """The cipher of a clip.

        Args:
            key_id: device and epoch that it is of; the month counts for nothing.
            limiter: of the threads that may ask.

        Raises:
            KeyDestroyed: the clip has ended; WorldError: catalog or vault can't be asked.
        """
        kept = self._kept.get(clip)
        if kept is not None and kept.key_id == key_id and trio.current_time() - kept.read_s < KEPT_S:
            return kept.cipher
        read_s = trio.current_time()
        key = await trio.to_thread.run_sync(partial(self._read, clip), limiter=limiter)
        cipher = AESGCM(key)
        while len(self._kept) >= MAX_KEPT:
            self._kept.popitem(last=False)
        self._kept[clip] = _Kept(cipher, key_id, read_s)
        return cipher

    def purge(self, is_live: Callable[[KeyId], bool]) -> None:
        """Let go of keys that are old, or of devices that were erased."""
        oldest_s = trio.current_time() - KEPT_S
        for clip, kept in list(self._kept.items()):
            if kept.read_s < oldest_s or not is_live(kept.key_id):
                del self._kept[clip]

    def _read(self, clip: int) -> bytes:
        id_ = self._catalog.clip_key(clip)
        key = self._vault.account_keys([id_]).get(id_) if id_ is not None else None
        if key is None:
            raise KeyDestroyed("this clip was deleted", subject=f"clip {clip}")
        return key
