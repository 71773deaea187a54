"""The key files of the key store, and the errors that its modules share.

A key file is `magic 8s, count u32`, then `count` times `id u64, secret 32s`, oldest first, then `crc32 u32` of all
that precedes it; big-endian. The checksum finds accidents; whoever could forge it could read the secret.
"""

from __future__ import annotations

import os
import stat
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

from storage.disk import DISK_FULL, is_full, looks_full, make_room
from storage.errors import CallerError, CorruptError, WorldError

SECRET_BYTES = 32
MAX_ENTRIES = 16
"""Most secrets in one file: a rotation needs two, an interrupted one or two more."""

MAX_READS = 10
"""Of a file that is replaced each time: a rotation replaces it twice, and takes longer than a read."""

MASTER_MAGIC = b"CKMASTR1"
TOKENS_MAGIC = b"CKTOKEN1"

_HEAD = struct.Struct(">8sI")
_ENTRY = struct.Struct(f">Q{SECRET_BYTES}s")
_CRC = struct.Struct(">I")


def write_key_file(path: Path, magic: bytes, entries: Sequence[tuple[int, bytes]]) -> None:
    """Write a key file that is not there yet, mode 0600, durable but for its folder. Raises OSError."""
    body = _HEAD.pack(magic, len(entries)) + b"".join(_ENTRY.pack(*entry) for entry in entries)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(body + _CRC.pack(zlib.crc32(body)))
        file.flush()
        os.fsync(file.fileno())


def replace_key_file(path: Path, magic: bytes, entries: Sequence[tuple[int, bytes]]) -> None:
    """Write a key file in place of the one that is there, durably, and overwrite the bytes of that one.

    At every moment `path` is the old file or the new one, whole. A crash leaves files beside it, which the next call,
    or `shred_leftovers`, overwrites and removes. Raises OSError.
    """
    shred_leftovers(path)
    fresh, old = _beside(path)
    write_key_file(fresh, magic, entries)
    os.link(path, old)  # so that its bytes can still be reached behind the new one
    os.replace(fresh, path)
    fsync(path.parent)
    shred_leftovers(path)


def shred_leftovers(path: Path) -> bool:
    """Overwrite and remove what `replace_key_file` leaves beside `path`. Returns whether that included a file
    which had been replaced. Raises OSError."""
    fresh, old = _beside(path)
    replaced = False
    for leftover in (fresh, old):
        if not leftover.exists():
            continue
        if not leftover.samefile(path):  # killed before the new one was in place: then it is the file in use
            replaced = replaced or leftover == old
            with leftover.open("r+b") as file:
                file.write(bytes(leftover.stat().st_size))
                file.flush()
                os.fsync(file.fileno())
        leftover.unlink()
        fsync(path.parent)
    return replaced


def has_leftovers(path: Path) -> bool:
    """Whether a file is there that `shred_leftovers` removes: of a process that was killed, or is at work."""
    return any(leftover.exists() for leftover in _beside(path))


def _beside(path: Path) -> tuple[Path, Path]:
    return path.with_suffix(".new"), path.with_suffix(".old")


def read_key_file(path: Path, magic: bytes) -> list[tuple[int, bytes]]:
    """The entries `(id, secret)` of a key file, oldest first, at least one.

    Raises:
        CorruptError: missing, cut, or with a field that is wrong.
        CallerError: others may read it.
        WorldError: it cannot be read.
    """
    check_private(path)
    data = _read_in_use(path)
    if len(data) < _HEAD.size:
        raise corrupt(path, f"field magic: the file is cut to {len(data)} bytes", RESTORE_FILE)
    found, count = _HEAD.unpack_from(data)
    if found != magic:
        raise corrupt(
            path, f"field magic: {found!r} instead of {magic!r}, so this is another file", RESTORE_FILE
        )
    if not 1 <= count <= MAX_ENTRIES:
        raise corrupt(path, f"field count: {count} is not from 1 to {MAX_ENTRIES}", RESTORE_FILE)
    end = _HEAD.size + count * _ENTRY.size
    if len(data) != end + _CRC.size:
        raise corrupt(
            path,
            f"field count: {count} entries take {end + _CRC.size} bytes, and the file has {len(data)}",
            RESTORE_FILE,
        )
    if _CRC.unpack_from(data, end)[0] != zlib.crc32(data[:end]):
        raise corrupt(path, "field crc32: the content is not what was written", RESTORE_FILE)
    return list(_ENTRY.iter_unpack(data[_HEAD.size : end]))


def _read_in_use(path: Path) -> bytes:
    """The bytes of the file that is at `path` after they were read. One that was replaced meanwhile is being
    overwritten with zeros: what was read of it is read again from its successor. Raises WorldError."""
    try:
        for _ in range(MAX_READS):
            with path.open("rb") as file:
                data = file.read()
                if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                    return data
    except OSError as error:
        raise unavailable(path, error) from error
    raise unavailable(path, f"it was replaced {MAX_READS} times while it was being read")


def check_private(path: Path) -> None:
    """Make sure that the file is there and its owner's alone. Goes by path and opens nothing: closing a
    descriptor on a database would drop the locks that SQLite holds on it in this process.

    Raises:
        CorruptError: it is missing.
        CallerError: `key_store_permissions`.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError as error:
        raise corrupt(path, "the file is missing") from error
    except OSError as error:
        raise unavailable(path, error) from error
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise CallerError(
            f"others on this machine may use it (mode {stat.S_IMODE(mode):04o}); run: chmod 600 {path}",
            subject=str(path),
            code="key_store_permissions",
        )


def fsync(path: Path) -> None:
    """Make a file, or the names in a folder, durable. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


RESTORE_FOLDER = "restore the whole key store folder from its backup"
RESTORE_FILE = (
    f"{RESTORE_FOLDER}. Where the vault is a database, put this file alone back: from its copy, or from another"
    " host"
)
RESTORE_DATABASE = (
    "restore the vault's database from its backup, and master.key from the copy of the same time; on a host that"
    " another rotation did not reach, copy keys/master.key from one of the others"
)


def corrupt(subject: object, what: str, remedy: str = RESTORE_FOLDER) -> CorruptError:
    """The error for data at rest that is not what was written."""
    return CorruptError(
        f"{what}; {remedy}",
        subject=str(subject),
        code="key_store_corrupt",
    )


def unavailable(subject: object, what: object) -> WorldError:
    """The error for what passes by itself, or when a person makes room."""
    path = Path(str(subject))
    if is_full(what) if isinstance(what, OSError) else looks_full(path):
        return WorldError(f"{make_room(path)} ({what})", subject=str(subject), code=DISK_FULL)
    return WorldError(
        f"{what}; look for a full disk, a wrong owner or a process that hangs. Trying again is safe",
        subject=str(subject),
        code="key_store_unavailable",
    )
