"""The destruction of keys, as far as it must be remembered, repeated and proved.

The catalog says which keys are to be gone; the key store remembers by its floors which are. A key store that was
restored from a backup has forgotten floors and has keys again, so the catalog's word is repeated before it is used:
at every start of the service and in every sweep. That costs a read of the erasure records, and nothing else when
nothing was forgotten.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from retention.account_keys import destroy_ended
from storage.catalog.account_keys import AccountKeysCatalog
from storage.catalog.continuity import ContinuityCatalog
from storage.catalog.erasures import ErasuresCatalog
from storage.days import month_before, month_of_day
from storage.rows.devices import DeviceFacts
from storage.vault import Vault

KEY_CACHE_S = 1.0
"""How long workers keep a destroyed key in memory, from the moment that the device was marked: they look once a
second. (The API looks every `[api] purge_every_s`.)"""
REPLAY_BATCH_DEVICES = 1000
"""Devices in one transaction of the key store, while those who make keys wait: 60 ms, with keys of 12 months."""


def replay_destructions(catalog: ErasuresCatalog, vault: Vault, *, now_ms: int) -> int:
    """Destroy anew what a restored key store has forgotten (invariants 9 and 10). Safe beside everything: what it
    destroys was destroyed before, and no renewal brings it back.

    Erasures of devices whose keys were there again wait once more to be cleared: a backup outlived its window, and
    others may.

    Returns:
        How many keys it destroyed.
    """
    destroyed = after = 0
    while epochs := catalog.erased_epochs(after=after, limit=REPLAY_BATCH_DEVICES):
        after = max(epochs)
        forgotten = vault.behind(epochs)
        if not forgotten:
            continue
        before = vault.count_of(forgotten, below_epochs=forgotten)
        destroyed += vault.destroy_devices(forgotten)
        if back := [device for device, count in before.items() if count.live]:
            catalog.reopen_erasures(back, now_ms=now_ms)
    return destroyed


def last_month_over(expired_through: int) -> int:
    """The last month (yyyymm) of which every expiry day is over: its data keys are destroyed."""
    return month_before(month_of_day(expired_through + 1))


def last_month_destroyed(catalog: ContinuityCatalog) -> int:
    """The last month (yyyymm) whose data keys are to be gone, by the catalog's word: all its days are closed, or it was
    destroyed before its time. 0 before the first sweep."""
    closed, first = catalog.closed_through, catalog.first_key_month
    return max(last_month_over(closed) if closed else 0, month_before(first) if first else 0)


class DestroyedCatalog(ErasuresCatalog, AccountKeysCatalog, Protocol):
    """Erasures, and keys of kept clips, which end with the epoch of their device."""


def note_destroyed(
    catalog: DestroyedCatalog, vault: Vault, devices: Iterable[DeviceFacts], *, fence: int | None, now_ms: int
) -> None:
    """Destroy the keys of kept clips that ended with these devices' epochs; then write into the erasure records that
    the keys of these devices are gone, and how many data keys they were.

    Counted in the key store itself, so that whoever was killed after the destruction loses no count.

    Args:
        fence: of a sweep's lease; None outside of one.
    """
    destroy_ended(catalog, vault)
    epochs = {facts.device: facts.erase_epoch for facts in devices}
    counts = vault.count_of(epochs, below_epochs=epochs)
    catalog.note_keys_destroyed(
        {device: (epoch, counts[device].destroyed) for device, epoch in epochs.items()},
        fence=fence,
        now_ms=now_ms,
    )
