"""The object store interface: few methods, each with its atomicity promise.

Implementations: `storage.local` (files), `storage.memory`, `storage.s3`; wrappers (`storage.faults`)
are stores too. `storage/contracts/store.py` is the conformance suite: a new implementation
subclasses it and gets every test.

All methods block; async callers run them in threads. All are safe to call from several threads.
Keys are relative to the store's own prefix: `/`-separated, each part `[A-Za-z0-9._-]+`, no part `.` or
`..`, at most 512 characters. A malformed key is a `CallerError` before anything is touched.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from storage.errors import CallerError

_PART = re.compile(r"[A-Za-z0-9._-]+")

MAX_KEY_CHARS = 512
DELETE_BATCH_KEYS = 1000
"""Most keys in one `delete_many` call: the limit of S3's DeleteObjects."""


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """What a store tells of an object without its bytes. `modified_s` is Unix seconds by the store's clock."""

    key: str
    size_bytes: int
    modified_s: float


def checked_key(key: str) -> str:
    """Return `key` when it is well formed.

    Raises:
        CallerError: it is empty, too long, or has a part that could leave the store's prefix.
    """
    parts = key.split("/")
    if len(key) > MAX_KEY_CHARS or any(p in (".", "..") or not _PART.fullmatch(p) for p in parts):
        raise CallerError("not a well-formed object key", subject=repr(key), code="bad_key")
    return key


class ObjectStore(ABC):
    """A flat namespace of immutable objects."""

    @abstractmethod
    def put(self, key: str, body: bytearray, crc32: int) -> None:
        """Store `body` as a whole, durably.

        When this returns, the object survives a crash of the store's host as far as the store can promise
        that. A reader sees all of it or nothing. Keys are written once: callers never reuse one, and a
        second put of the same bytes (a retry) is harmless.

        Args:
            key: well-formed key.
            body: the exact bytes. Not modified, and not kept after the call returns.
            crc32: CRC-32 (ISO-HDLC, as zlib's) of `body`; the store verifies it where it can.

        Raises:
            StoreUnavailable: nothing is promised: the object may exist or not (a time-out after the effect).
            StoreFull: no space; nothing is left behind.
            StoreDenied: credentials, bucket or permission.
            CorruptError: the store found other bytes than `crc32` promises.
        """

    @abstractmethod
    def get_range(self, key: str, start: int, length: int) -> bytes:
        """Return exactly `length` bytes from `start`.

        Raises:
            ObjectMissing: no such object.
            CorruptError: the object ends before `start + length`.
            StoreUnavailable, StoreDenied: as for `put`.
        """

    @abstractmethod
    def delete_many(self, keys: Sequence[str]) -> dict[str, str | None]:
        """Delete up to `DELETE_BATCH_KEYS` objects in one call.

        Returns:
            One entry per distinct key: None when the object is gone (a missing object counts as deleted),
            else a short error code of the store. A failure of the whole call raises; one key's failure
            never hides another's result.

        Raises:
            CallerError: more than `DELETE_BATCH_KEYS` keys.
            StoreUnavailable, StoreDenied: as for `put`; any subset may have been deleted.
        """

    @abstractmethod
    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield every object whose key starts with `prefix` (may be empty), in bounded pages.

        In key order, as far as the store's server keeps it: one that lists folder by folder has `a/1` before `a-1`. So
        what is told from the order alone is looked at again (`head`) before anybody acts on it.
        """

    @abstractmethod
    def head(self, key: str) -> ObjectInfo:
        """Describe one object without its bytes.

        Raises:
            ObjectMissing: no such object.
            StoreUnavailable, StoreDenied: as for `put`.
        """

    @abstractmethod
    def server_time_s(self) -> float | None:
        """The store's own clock in Unix seconds, None for a store without one. Also the cheapest liveness
        probe: it raises `StoreUnavailable` or `StoreDenied` when the store cannot be used."""

    def close(self) -> None:  # noqa: B027 - most stores hold nothing
        """Release connections. The store must not be used afterwards."""
