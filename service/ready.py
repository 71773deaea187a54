"""What a service needs in order to store chunks, asked without storing one."""

from __future__ import annotations

from service.folder import Opened
from storage.disk import DISK_FULL, looks_full, make_room
from storage.errors import WorldError

PROBE_PREFIX = "health/"
"""Below it, each worker puts one object when it has to find out whether its store takes any, and deletes it again. No
segment: neither sweeps nor checks look there."""
PROBE_BYTES = 1024


def require_files(opened: Opened) -> None:
    """Make sure that what is written now will be found after a restart. Blocks for some ten µs.

    Raises:
        WorldError: `catalog_replaced`, `key_store_replaced`, `bitmap_replaced`: a file is open that lost its name.
        CorruptError: a key file is gone, or another one.
    """
    opened.catalog.require_files()
    opened.vault.require_files()
    opened.bitmap.require_file()


def require_answers(opened: Opened) -> None:
    """Make sure that files, disk, catalog and store can be used. The store is only read. Blocks.

    Raises:
        ClipkeepError: what keeps chunks from being stored.
    """
    require_files(opened)
    root = opened.folder.root
    if looks_full(root):
        raise WorldError(make_room(opened.folder.bitmap), subject=str(root), code=DISK_FULL)
    _ = opened.catalog.closed_through
    opened.store.server_time_s()
