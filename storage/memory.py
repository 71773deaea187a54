"""Objects in a dict: the store of unit tests and simulations, and the shortest reading of the interface.

Nothing survives the process, so nothing here is durable; every other promise of `ObjectStore` holds.
Bodies are copied once, on `put`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence

from storage._arguments import checked_batch, checked_range
from storage.checksums import verify_crc32
from storage.errors import CorruptError, ObjectMissing
from storage.objects import ObjectInfo, ObjectStore, checked_key


class MemoryStore(ObjectStore):
    """A store that lives as long as the process.

    Args:
        now_s: the store's own clock in Unix seconds. Without one, `server_time_s` is None and every
            object's `modified_s` is 0.

    Attributes:
        objects: key to bytes, for tests to look into and to damage. Nothing else should.
    """

    def __init__(self, *, now_s: Callable[[], float] | None = None) -> None:
        self.objects: dict[str, bytes] = {}
        self._modified_s: dict[str, float] = {}
        self._now_s = now_s
        self._lock = threading.Lock()

    def put(self, key: str, body: bytearray, crc32: int) -> None:
        checked_key(key)
        verify_crc32(key, body, crc32)
        kept = bytes(body)
        now_s = self.server_time_s() or 0.0
        with self._lock:
            self.objects[key] = kept
            self._modified_s[key] = now_s

    def get_range(self, key: str, start: int, length: int) -> bytes:
        checked_range(key, start, length)
        body = self._body(key)
        if start + length > len(body):
            raise CorruptError(
                f"has {len(body)} bytes, {length} were asked for from {start}",
                subject=key,
                code="short_object",
            )
        return body[start : start + length]

    def delete_many(self, keys: Sequence[str]) -> dict[str, str | None]:
        distinct = checked_batch(keys)
        with self._lock:
            for key in distinct:
                self.objects.pop(key, None)
                self._modified_s.pop(key, None)
        return dict.fromkeys(distinct)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        with self._lock:
            keys = sorted(key for key in self.objects if key.startswith(prefix))
        for key in keys:
            try:
                yield self.head(key)
            except ObjectMissing:
                continue  # deleted since the names were read: as with any store, a listing is no snapshot

    def head(self, key: str) -> ObjectInfo:
        body = self._body(checked_key(key))
        return ObjectInfo(key, len(body), self._modified_s.get(key, 0.0))

    def server_time_s(self) -> float | None:
        return self._now_s() if self._now_s is not None else None

    def _body(self, key: str) -> bytes:
        with self._lock:
            body = self.objects.get(key)
        if body is None:
            raise ObjectMissing("no such object", subject=key)
        return body
