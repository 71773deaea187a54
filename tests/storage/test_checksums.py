"""The two checksums: known answers, and pieces that give the whole."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

import pytest

from storage import checksums
from storage.errors import CorruptError


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_known_answers_of_any_buffer(kind: Callable[[bytes], Any]) -> None:
    assert checksums.crc32(kind(b"123456789")) == 0xCBF43926
    assert checksums.crc64nvme(kind(b"123456789")) == 0xAE8B14860A799888


def test_pieces_give_the_whole() -> None:
    data = bytes(range(256)) * 300
    for cut in (0, 1, 4096, len(data) - 1, len(data)):
        first, second = data[:cut], data[cut:]
        assert checksums.crc32(second, checksums.crc32(first)) == zlib.crc32(data)
        assert checksums.combine(checksums.crc32(first), checksums.crc32(second), len(second)) == zlib.crc32(
            data
        )
        assert checksums.crc64nvme(second, checksums.crc64nvme(first)) == checksums.crc64nvme(data)


def test_verify_names_the_object() -> None:
    checksums.verify_crc32("a/b", b"body", zlib.crc32(b"body"))
    with pytest.raises(CorruptError) as caught:
        checksums.verify_crc32("a/b", b"body", 0)
    assert caught.value.subject == "a/b"
