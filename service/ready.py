"""What a service needs in order to store chunks, asked without storing one."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from service.folder import Opened
from storage.disk import DISK_FULL, looks_full, make_room
from storage.errors import (
    CatalogUnavailable,
    ClipkeepError,
    StoreFull,
    StoreUnavailable,
    StoreUnconfirmed,
    WorldError,
)

PROBE_PREFIX = "health/"
"""Below it, each worker puts one object when it has to find out whether its store takes any, and deletes it again. No
segment: neither sweeps nor checks look there."""
PROBE_BYTES = 1024
VaultUnavailable = partial(WorldError, code="key_store_unavailable")


def probe_bytes(problem: ClipkeepError | None, segment_bytes: int) -> int:
    """How large that object is: as a segment where a small one may be taken though a segment is not. A store that is
    full has room for a small one, and an answer to a head alone shows itself by a body that takes its time.

    Args:
        problem: what is known to be wrong.
    """
    return segment_bytes if isinstance(problem, StoreFull | StoreUnconfirmed) else PROBE_BYTES


def require_files(opened: Opened) -> None:
    """Make sure that what is written now will be found after a restart. Blocks for some ten µs.

    Raises:
        WorldError: `catalog_replaced`, `key_store_replaced`, `bitmap_replaced`: a file is open that lost its name.
        CorruptError: a key file is gone, or another one.
    """
    opened.catalog.require_files()
    opened.vault.require_files()
    opened.bitmap.require_file()


class Question:
    """What is being asked, for those who do not wait for the answer."""

    def __init__(self) -> None:
        self._of: Callable[[str], WorldError] = CatalogUnavailable

    def unanswered(self, after_s: float) -> ClipkeepError:
        """What is wrong when there is no answer."""
        return self._of(f"has not answered for {after_s:g} s")

    def ask(self, opened: Opened, *, put: Callable[[], None] | None = None) -> None:
        """Make sure that files, disk, catalog, vault and store can be used. Blocks.

        Args:
            put: puts an object. Without it the store and the catalog are only read. With it the vault is not asked: a
                worker stores what it has keys for, and refuses the rest chunk by chunk.

        Raises:
            ClipkeepError: what keeps chunks from being stored.
        """
        # Of the files only a master.key that is new here waits for anybody: the vault is asked whether it is its.
        self._of = VaultUnavailable
        _require_room(opened)
        self._of = CatalogUnavailable
        if put is None:
            _ = opened.catalog.closed_through
            self._of = VaultUnavailable
            opened.vault.require_usable()
        else:
            opened.catalog.require_writable()
        self._of = StoreUnavailable
        opened.store.server_time_s()
        if put is not None:
            put()


def _require_room(opened: Opened) -> None:
    require_files(opened)
    root = opened.folder.root
    if looks_full(root):
        raise WorldError(make_room(opened.folder.bitmap), subject=str(root), code=DISK_FULL)
