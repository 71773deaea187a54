"""Trying a store before anything depends on it: what every later call needs, once, with one small object."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Protocol, runtime_checkable

from storage.checksums import crc32
from storage.errors import ClipkeepError
from storage.objects import ObjectStore

PREFIX = "health/"


@runtime_checkable
class Verifying(Protocol):
    """A store that can be asked whether it looks at checksums."""

    def verifies(self, key: str) -> bool: ...


def try_store(store: ObjectStore) -> list[str]:
    """Put, read, describe, list and delete one object, and offer one with a wrong checksum.

    Returns:
        What is wrong, each as a sentence; empty when all is well. It ends with the first call that fails.
    """
    try:
        return list(_tried(store))
    except ClipkeepError as error:
        return [f"{error} ({error.code})"]


def ignores_checksums(store: ObjectStore) -> bool:
    """Whether the store keeps a body that is not what its checksum says. Only what is sent there is asked: False for a
    store that verifies by itself before it puts.

    Raises:
        WorldError: it could not be asked.
    """
    return isinstance(store, Verifying) and not store.verifies(f"{PREFIX}{secrets.token_hex(8)}")


IGNORES = (
    "the store keeps a body that is not what its checksum says, so bytes that flip on the way there are noticed only"
    " when they are read"
)


def _tried(store: ObjectStore) -> Iterator[str]:
    key = f"{PREFIX}{secrets.token_hex(8)}"
    body = bytearray(b"clipkeep was here")
    store.server_time_s()
    store.put(key, body, crc32(body))
    try:
        if store.get_range(key, 9, 3) != b"was":
            yield "a part of an object is not the bytes that were asked for"
        if store.head(key).size_bytes != len(body):
            yield "the store tells another size of an object than it was put with"
        if [info.key for info in store.list(key)] != [key]:
            yield "an object that was put is not listed"
    finally:
        result = store.delete_many([key])[key]
    if result is not None:
        yield f"an object can't be deleted ({result})"
    if ignores_checksums(store):
        yield IGNORES
