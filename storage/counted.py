"""A store that counts what it is asked: what a bill counts, and what an operator watches."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from storage.errors import ClipkeepError
from storage.objects import ObjectInfo, ObjectStore

Result = TypeVar("Result")


class CountedStore(ObjectStore):
    """`inner`, counted by call and outcome. A list counts as one call, whatever its pages; so does a call that the
    implementation itself tried again. The lock is taken once a call, so never per chunk of an upload.

    Attributes:
        inner: the store that does the work.
    """

    def __init__(self, inner: ObjectStore) -> None:
        self.inner = inner
        self._calls: Counter[tuple[str, str]] = Counter()
        self._lock = threading.Lock()

    def calls(self) -> dict[tuple[str, str], int]:
        """How often, by (call, outcome): the outcome is `ok` or the code of the error. A copy."""
        with self._lock:
            return dict(self._calls)

    def put(self, key: str, body: bytearray, crc32: int) -> None:
        self._counted("put", lambda: self.inner.put(key, body, crc32))

    def get_range(self, key: str, start: int, length: int) -> bytes:
        return self._counted("get_range", lambda: self.inner.get_range(key, start, length))

    def delete_many(self, keys: Sequence[str]) -> dict[str, str | None]:
        return self._counted("delete_many", lambda: self.inner.delete_many(keys))

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        try:
            yield from self.inner.list(prefix)
        except ClipkeepError as error:
            self._count("list", error.code)
            raise
        self._count("list", "ok")

    def head(self, key: str) -> ObjectInfo:
        return self._counted("head", lambda: self.inner.head(key))

    def server_time_s(self) -> float | None:
        return self._counted("server_time", self.inner.server_time_s)

    def close(self) -> None:
        self.inner.close()

    def _counted(self, call: str, ask: Callable[[], Result]) -> Result:
        try:
            result = ask()
        except ClipkeepError as error:
            self._count(call, error.code)
            raise
        self._count(call, "ok")
        return result

    def _count(self, call: str, outcome: str) -> None:
        with self._lock:
            self._calls[call, outcome] += 1
