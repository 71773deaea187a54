"""On which kind of file system a folder lies, before anything is made there that it can't bear.

A catalog in the folder and the bitmap are mapped into shared memory, the locks are `flock`: none of them holds between
the hosts of a network file system, nor through its server's failures. Objects of a `file:` store may lie on one: they
are written once, under a name of their own.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from storage.errors import CallerError

NETWORK = {
    0x6969: "NFS",
    0x517B: "SMB",
    0xFF534D42: "SMB (cifs)",
    0xFE534D42: "SMB 2",
    0x01021997: "9P",
    0x5346414F: "AFS",
    0x00C36400: "Ceph",
    0x0BD00BD0: "Lustre",
    0x01161970: "GFS2",
    0x7461636F: "OCFS2",
}
"""File systems that several hosts share, by the number that `statfs` gives (statfs(2))."""
FUSE = 0x65735546
_STATFS_BYTES = 256
"""More than any system's `struct statfs`; its first word is the kind."""


def file_system(path: Path) -> int | None:
    """The number of the file system that `path`, or the next folder above that is there, lies on; None where the system
    does not say."""
    while not path.exists() and path != path.parent:
        path = path.parent
    try:
        statfs = ctypes.CDLL(None, use_errno=True).statfs
    except (OSError, AttributeError):
        return None
    buffer = ctypes.create_string_buffer(_STATFS_BYTES)
    if statfs(os.fsencode(path), buffer) != 0:
        return None
    return ctypes.c_ulong.from_buffer(buffer).value & 0xFFFFFFFF


def require_local(path: Path, kind: int | None) -> None:
    """Refuse a network file system for a data folder.

    Args:
        kind: of `file_system(path)`.

    Raises:
        CallerError: `network_file_system`.
    """
    if kind in NETWORK:
        raise CallerError(
            f"this is on {NETWORK[kind]}: keys/, entitlements.bitmap, a catalog that is a file and their locks need a"
            " disk of this host. Choose a local folder; the objects may lie there: --store file:///folder",
            subject=str(path),
            code="network_file_system",
        )


def warning(kind: int | None) -> str | None:
    """What to say of a file system that may or may not be a network's."""
    if kind == FUSE:
        return (
            "this is on a file system in user space (FUSE). When other hosts are behind it, as with sshfs, s3fs or"
            " GlusterFS, the catalog and the bitmap will be damaged: use a disk of this host then"
        )
    return None
