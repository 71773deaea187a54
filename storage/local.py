"""Objects as files below one folder: the store of a single machine, and the default.

How a put is durable and whole: the body goes to a file in a hidden folder of the same file system, is
fsynced, renamed to its key (rename is atomic: a reader sees all or nothing), and then every folder from the
key's up to the root is fsynced, because a folder made by a neighbour a moment ago may not be on disk yet.
That chain costs nothing measurable beside the fsync of the data (8 MiB took 23 ms with and without it).

The hidden folder, `TEMP_NAME`, doubles as the mark of a store. It is made once, by `create=True`; where it
is missing the store is gone (a disk not mounted, a folder moved away), and every call says so with
`StoreUnavailable` rather than making a new store in an empty mount point, or telling a sweep that
everything it wanted deleted is deleted.

Considerations:
- Permissions: read, write and search on the root and all below it, for every process of the service.
- Names outside the key alphabet (`lost+found`, the hidden folder) are never listed and never touched.
- A file system can't hold both `a` and `a/b`, nor a part of more than 255 bytes: such a put is a
  `CallerError`. Clipkeep's own keys do neither.
- A process that dies in a put leaves its temporary file; opening the store removes those older than
  `LEFTOVER_AGE_S`.
- Several processes may use one root. On a network file system the promises are those of its fsync and rename.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from secrets import token_hex

from storage._arguments import checked_batch, checked_range
from storage.checksums import verify_crc32
from storage.errors import (
    CallerError,
    ClipkeepError,
    CorruptError,
    ObjectMissing,
    StoreDenied,
    StoreFull,
    StoreUnavailable,
)
from storage.objects import ObjectInfo, ObjectStore, checked_key

TEMP_NAME = ".tmp~"
"""Folder of bodies on their way in. `~` is not in the key alphabet, so that no key can reach into it."""
LEFTOVER_AGE_S = 3600.0
"""Temporary files untouched for this long belong to a dead process: far longer than any put takes."""
FOLDER_ATTEMPTS = 16
"""How often a put makes its folder again when a concurrent delete has pruned it. Each loss takes a delete
that emptied the folder in the microseconds between mkdir and rename, so a guess far above what can happen."""

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})  # EFBIG: the process's own file size limit
_DENIED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_IMPOSSIBLE = frozenset({errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ENOTEMPTY})
# What unlink says where there is no such object: no file, a parent that is a file, a name no file can have,
# a folder. (POSIX wants EPERM for a folder, Linux says EISDIR.)
_ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.EISDIR})


class LocalStore(ObjectStore):
    """An object store in a folder.

    Args:
        root: the folder.
        create: make the folder and its mark when they are not there. Only what makes a new installation
            says so; a running service never does.

    Its files and folders are their owner's alone, whatever the umask: names tell who recorded when.

    Opening one whose disk is not mounted succeeds; its operations raise StoreUnavailable until it is.

    Raises:
        StoreDenied, StoreFull, StoreUnavailable: it could not be created.
    """

    def __init__(self, root: Path, *, create: bool = False) -> None:
        self._root = os.path.abspath(root)
        self._temp = os.path.join(self._root, TEMP_NAME)
        if create:
            try:
                for folder in (self._root, self._temp):  # what makedirs makes on the way has the umask's mode
                    os.makedirs(folder, 0o700, exist_ok=True)
                self._sync_folders(self._temp)
            except OSError as error:
                raise _from_os(error, self._root) from error
            with suppress(PermissionError):  # the parent may be someone else's, who lets us only pass through
                _sync_folder(os.path.dirname(self._root))
        # A store that is away at the start is like one that goes away later: every operation says so, until it is back.
        with suppress(StoreUnavailable):
            self._require_root()
            self._remove_leftovers()

    # The interface

    def put(self, key: str, body: bytearray, crc32: int) -> None:
        """As promised by `ObjectStore.put`. An empty body is an object of 0 bytes."""
        target = self._path(key)
        verify_crc32(key, body, crc32)
        temp = os.path.join(self._temp, token_hex(16))
        try:
            try:
                self._write(temp, body)
                self._publish(temp, target)
            except BaseException:
                with suppress(OSError):
                    os.unlink(temp)
                raise
        except OSError as error:
            self._require_root()
            raise _from_put(error, key) from error
        try:
            self._sync_folders(os.path.dirname(target))
        except (
            OSError
        ) as error:  # it is visible, perhaps not durable: never StoreFull, which promises absence
            raise StoreUnavailable(f"could not make it durable: {error.strerror}", subject=key) from error

    def get_range(self, key: str, start: int, length: int) -> bytes:
        checked_range(key, start, length)
        try:
            descriptor = os.open(self._path(key), os.O_RDONLY | os.O_CLOEXEC)
            try:
                size_bytes = _file_status(descriptor).st_size
                if start + length > size_bytes:
                    raise CorruptError(
                        f"has {size_bytes} bytes, {length} were asked for from {start}",
                        subject=key,
                        code="short_object",
                    )
                return _read(descriptor, start, length)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise self._from_read(error, key) from error

    def delete_many(self, keys: Sequence[str]) -> dict[str, str | None]:
        """As promised by `ObjectStore.delete_many`; a key's error code is the name of its errno.

        Each folder is fsynced once, after all its unlinks, and before any of its keys counts as deleted.
        Folders that are empty then are removed.
        """
        distinct = checked_batch(keys)
        results: dict[str, str | None] = {}
        folders: dict[str, list[str]] = {}
        for key in distinct:
            path = self._path(key)
            results[key] = _unlink(path)
            if results[key] is None:
                folders.setdefault(os.path.dirname(path), []).append(key)
        # Asked after the unlinks: with the root gone every one of them said "no such file".
        self._require_root()
        for folder, emptied in folders.items():
            try:
                self._sync_folders(folder)
            except OSError as error:
                results.update(dict.fromkeys(emptied, _name(error)))
        for folder in folders:
            self._prune(folder)
        return results

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """As promised by `ObjectStore.list`; a page is one folder. What is put or deleted meanwhile may or
        may not appear."""
        self._require_root()
        yield from self._walk("", prefix)

    def head(self, key: str) -> ObjectInfo:
        path = self._path(key)
        try:
            status = _checked_file(os.stat(path))
        except OSError as error:
            raise self._from_read(error, key) from error
        return ObjectInfo(key, status.st_size, status.st_mtime)

    def server_time_s(self) -> float | None:
        """None: the files' clock is this machine's. Raises when the root is gone or can't be read."""
        self._require_root()
        return None

    # Steps of a put

    def _write(self, temp: str, body: bytearray) -> None:
        descriptor = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            # Both views are released here: a caller may resize its bytearray as soon as `put` returns.
            with memoryview(body) as view:
                written = 0
                while written < len(view):
                    with view[written:] as rest:
                        written += os.write(descriptor, rest)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _publish(self, temp: str, target: str) -> None:
        """Rename into place, making the folders; a prune that takes the folder away is answered by another."""
        folder = os.path.dirname(target)
        for attempt in range(FOLDER_ATTEMPTS):
            try:
                os.rename(temp, target)
                return
            except FileNotFoundError:
                if attempt == FOLDER_ATTEMPTS - 1 or not os.path.exists(temp):
                    raise
            self._make_folders(folder)

    def _make_folders(self, folder: str) -> None:
        """Make `folder` and its parents below the root, but never the root itself."""
        if folder == self._root:
            return
        try:
            os.mkdir(folder, 0o700)
        except FileExistsError:
            pass
        except FileNotFoundError:
            self._make_folders(os.path.dirname(folder))
            # Losing to a prune once more is `_publish`'s business.
            with suppress(FileExistsError, FileNotFoundError):
                os.mkdir(folder, 0o700)

    def _sync_folders(self, folder: str) -> None:
        """Make the entries of `folder`, and of every folder from there up to the root, durable.

        A folder that a delete has pruned is passed over: what must reach the disk then is its removal, which
        the next folder up knows about. (Else a crash could bring it back, with objects reported deleted.)
        """
        while True:
            try:
                _sync_folder(folder)
            except OSError as error:
                if error.errno not in _ABSENT or folder == self._root:
                    raise
            if folder == self._root:
                return
            folder = os.path.dirname(folder)

    # Steps of a delete

    def _prune(self, folder: str) -> None:
        """Remove `folder` and its parents as long as they are empty. Not fsynced: an empty folder that a
        crash brings back harms nobody."""
        while folder != self._root:
            try:
                os.rmdir(folder)
            except FileNotFoundError:
                pass  # someone else has; its parent may be empty now
            except OSError:
                return
            folder = os.path.dirname(folder)

    # Reading folders

    def _walk(self, folder_key: str, prefix: str) -> Iterator[ObjectInfo]:
        """Yield objects below `folder_key` (empty, or ending in `/`) in key order."""
        try:
            with os.scandir(os.path.join(self._root, folder_key)) as entries:
                # A folder sorts as its name and `/`, which is how its keys compare with its neighbours'.
                names = sorted(
                    entry.name + "/" if entry.is_dir(follow_symlinks=False) else entry.name
                    for entry in entries
                    if _is_key(entry.name)
                )
        except FileNotFoundError:
            self._require_root()
            return  # pruned since its parent was read
        except OSError as error:
            raise _from_os(error, folder_key) from error
        for name in names:
            key = folder_key + name
            if name.endswith("/"):
                if key.startswith(prefix) or prefix.startswith(key):
                    yield from self._walk(key, prefix)
            elif key.startswith(prefix):
                with suppress(ObjectMissing):  # deleted since the folder was read
                    yield self.head(key)

    def _path(self, key: str) -> str:
        return os.path.join(self._root, checked_key(key))

    # The root and its mark

    def _require_root(self) -> None:
        try:
            os.stat(self._temp)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise StoreUnavailable(
                "this is not an object store: mount the disk, or correct the path; "
                "a new store is made by initialising one, never by using it",
                subject=self._root,
                code="store_gone",
            ) from error
        except OSError as error:
            raise _from_os(error, self._root) from error

    def _remove_leftovers(self) -> None:
        """Remove the temporary files of dead processes. Best effort: a store that can only be read opens.

        Ages are by the file system's own clock, read by touching the folder: the host's may differ on a
        network file system, and a file still being written must never look old.
        """
        with suppress(OSError):
            os.utime(self._temp)
            now_s = os.stat(self._temp).st_mtime
            with os.scandir(self._temp) as entries:
                for entry in entries:
                    if now_s - entry.stat(follow_symlinks=False).st_mtime > LEFTOVER_AGE_S:
                        with suppress(OSError):
                            os.unlink(entry.path)

    def _from_read(self, error: OSError, key: str) -> ClipkeepError:
        if error.errno not in _ABSENT:
            return _from_os(error, key)
        self._require_root()
        return ObjectMissing("no such object", subject=key)


def _is_key(name: str) -> bool:
    try:
        checked_key(name)
    except CallerError:
        return False
    return True


def _checked_file(status: os.stat_result) -> os.stat_result:
    """`status` when it is a file's. A folder is no object, however well its name is formed."""
    if not stat.S_ISREG(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    return status


def _file_status(descriptor: int) -> os.stat_result:
    return _checked_file(os.fstat(descriptor))


def _read(descriptor: int, start: int, length: int) -> bytes:
    """Exactly `length` bytes, which the file was just seen to have. One call, unless a signal or a huge
    range cuts it short."""
    parts: list[bytes] = []
    missing = length
    while missing:
        part = os.pread(descriptor, missing, start + length - missing)
        if not part:
            raise OSError(errno.EIO, "the file shrank while it was read")
        parts.append(part)
        missing -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _unlink(path: str) -> str | None:
    """Remove a file; None when it is gone, else the errno's name."""
    try:
        os.unlink(path)
    except OSError as error:
        return None if error.errno in _ABSENT else _name(error)
    return None


def _sync_folder(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _name(error: OSError) -> str:
    return errno.errorcode.get(error.errno or 0, "EIO")


def _from_put(error: OSError, key: str) -> ClipkeepError:
    if error.errno in _IMPOSSIBLE:
        return CallerError(f"no file can have this name here: {error.strerror}", subject=key, code="bad_key")
    return _from_os(error, key)


def _from_os(error: OSError, subject: str) -> ClipkeepError:
    """Whose fault an operating system's error is, and what to do about it."""
    reason = error.strerror or str(error)
    if error.errno in _FULL:
        return StoreFull(f"no space left ({reason}): free some or grow the disk", subject=subject)
    if error.errno in _DENIED:
        return StoreDenied(
            f"{reason}: give the service read and write access to the object folder", subject=subject
        )
    return StoreUnavailable(f"{reason} ({_name(error)})", subject=subject)
