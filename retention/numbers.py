"""Numbers and tokens that are never given twice, by a restored catalog neither.

A device's number and token generation make its token, a plan's number the reference of its payments: a catalog that was
restored from a backup would give those of a lost device to a new one. So the catalog gives only numbers that the store
was told of first, in blocks (`sweep/numbers`), and one that may be older than what was given starts above the block:

- this host's bitmap is new and no other host serves, so nobody remembers how far the catalog was;
- the catalog is behind the mark of the last sweep;
- the store's block is another than the catalog's.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from retention.bitmap import EntitlementBitmap
from retention.filelock import holding
from retention.sweep.highwater import HighWater, read_mark
from storage.catalog.continuity import ContinuityCatalog
from storage.catalog.hosts import HostsCatalog
from storage.catalog.leases import LeasesCatalog
from storage.checksums import crc32
from storage.errors import CorruptError, ObjectMissing, WorldError
from storage.objects import ObjectStore

KEY = "sweep/numbers"
BLOCKS = {
    "device": 1000,
    "account": 1000,
    "generation": 1000,
    "plan": 10_000,
    "payment": 10_000_000,
    "notice": 10_000_000,
}
"""Numbers reserved at once: what a restore leaves unused at most. Devices have rows in the bitmap, so few of those; one
announcement is a notice for each account."""
LOCK_WAIT_S = 30.0
LEASE = "numbers"
LEASE_MS = 60_000
"""Far longer than who reserves takes; who was killed meanwhile is waited for no longer."""
SERVES_MS = 5000
"""Home has heard a host that serves within this time."""
LEASE_POLL_S = 0.1
_BYTES = 512
_PAIR = re.compile(r"([a-z]+)=(\d{1,18})")


class NumbersCatalog(ContinuityCatalog, HostsCatalog, LeasesCatalog, Protocol):
    """What gives numbers, who else serves it, and who reserves."""


def read_ceilings(store: ObjectStore) -> dict[str, int]:
    """By kind the highest number that was ever reserved; empty when none was.

    Raises:
        CorruptError: `numbers_corrupt`.
        WorldError: the store cannot be read.
    """
    try:
        words = store.get_range(KEY, 0, _BYTES).decode("ascii", "replace").split()
    except ObjectMissing:
        return {}
    pairs = [_PAIR.fullmatch(word) for word in words[1:]]
    if not words or words[0] != "clipkeep-numbers:" or None in pairs:
        raise CorruptError(
            "this is not what reserves numbers; who else writes here? Remove it when nothing was ever restored",
            subject=KEY,
            code="numbers_corrupt",
        )
    return {pair[1]: int(pair[2]) for pair in pairs if pair is not None}


def settle(
    catalog: NumbersCatalog,
    bitmap: EntitlementBitmap,
    store: ObjectStore,
    *,
    lock: Path,
    ask_store: bool = False,
    more: Mapping[str, int] | None = None,
) -> bool:
    """Reserve numbers ahead of need, and start above what may be out where this catalog may be an older one.

    Cheap when there is nothing to do: the store is then not asked.

    Args:
        lock: a file for the host's one who reserves at a time.
        ask_store: compare with the store in any case: at a start.
        more: by kind how many are to be given at once.

    Returns:
        Whether it starts above what may be out.

    Raises:
        WorldError: the store did not answer; `bitmap_busy`, a change takes long; `numbers_busy`, another one reserves.
            Nothing was changed.
    """
    new_here = _is_new_here(catalog, bitmap)
    if not (ask_store or new_here or _low(catalog, more or {})):
        return False
    with holding(lock, LOCK_WAIT_S, name="numbers"), _leased(catalog):
        stored, mark, own = read_ceilings(store), read_mark(store), catalog.ceilings()
        known = HighWater.of(catalog)
        is_older = known.raised_to(mark) != known
        behind = is_older or any(own.get(k, 0) < top for k, top in stored.items())
        restored = bool(stored) and (new_here or behind)
        if is_older:
            catalog.note_doubt(True)  # before it goes on, and past that mark
        if restored:
            catalog.start_above(stored)
        if restored or _low(catalog, more or {}):
            _reserve(catalog, store, stored, more or {})
        return restored


@contextmanager
def _leased(catalog: NumbersCatalog) -> Iterator[None]:
    """One at a time of all hosts: who reads the store's ceilings and raises them."""
    holder = secrets.token_hex(8)
    for _ in range(round(LOCK_WAIT_S / LEASE_POLL_S)):
        _, now_ms = catalog.hosts()
        fence = catalog.acquire_lease(LEASE, holder=holder, ttl_ms=LEASE_MS, now_ms=now_ms)
        if fence is not None:
            try:
                yield
            finally:
                catalog.release_lease(LEASE, fence=fence)
            return
        time.sleep(LEASE_POLL_S)
    raise WorldError("another host reserves numbers; try again", code="numbers_busy")


def _is_new_here(catalog: NumbersCatalog, bitmap: EntitlementBitmap) -> bool:
    if bitmap.last_change or not catalog.newest_change() or _is_served(catalog):
        return False
    with bitmap.locked():  # whoever makes the first change holds this until the bitmap has it too
        return bitmap.last_change == 0


def _is_served(catalog: NumbersCatalog) -> bool:
    """Whether a host follows this catalog now. It has its changes, so it would have seen that the catalog is older."""
    hosts, now_ms = catalog.hosts()
    newest = catalog.newest_change()  # after: they may have gone on meanwhile
    return any(now_ms - host.asked_ms <= SERVES_MS and 0 < host.applied <= newest for host in hosts)


def _low(catalog: ContinuityCatalog, more: Mapping[str, int]) -> bool:
    own = catalog.ceilings()
    given = catalog.numbers_given().items()
    return any(own.get(kind, 0) < highest + more.get(kind, 0) + BLOCKS[kind] // 2 for kind, highest in given)


def _reserve(
    catalog: ContinuityCatalog, store: ObjectStore, stored: Mapping[str, int], more: Mapping[str, int]
) -> None:
    """The store first: what it does not know of is never given."""
    ceilings = {
        kind: max(stored.get(kind, 0), highest + more.get(kind, 0) + BLOCKS[kind])
        for kind, highest in catalog.numbers_given().items()
    }
    words = " ".join(f"{kind}={top}" for kind, top in sorted(ceilings.items()))
    body = bytearray(f"clipkeep-numbers: {words}".ljust(_BYTES - 1).encode() + b"\n")
    store.put(KEY, body, crc32(body))
    catalog.raise_ceilings(ceilings)
