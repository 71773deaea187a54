"""What the account books promise of kept clips."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from storage.catalog import Catalog
from storage.contracts.books.given import OnBooks, code_of
from storage.contracts.given import NOW
from storage.errors import NotFound
from storage.rows.clips import ClipRow, ClipState

KEYS = [bytes([number]) * 16 for number in range(9)]


def clip(account: int, device: int, **fields: Any) -> ClipRow:
    row = ClipRow(0, account, device, 0, 9, 10, 20, "the cat", NOW, ClipState.COPYING, 2, 500, 9)
    return replace(row, **fields)


class ClipsContract(OnBooks):
    """See the module docstring."""

    def test_clips_of_a_device_by_number(self, catalog: Catalog, write: Any, ann: int, device: int) -> None:
        with write() as books:
            other = books.add_device(ann).device
            first = books.add_clip(clip(ann, device), KEYS[0])
            second = books.add_clip(clip(ann, device, name="", state=ClipState.READY), KEYS[1])
            books.add_clip(clip(ann, other), KEYS[2])
            with pytest.raises(NotFound):
                books.add_clip(clip(99, device), KEYS[3])
        with write() as books:
            assert code_of(lambda: books.add_clip(clip(ann, device), KEYS[0])) == "key_taken"
        with catalog.books() as books:
            assert books.clips_of(device)[:2] == [first, second]
            assert books.clips_of(device, limit=1) == [first]
            assert books.clips_of(device, after=first.clip_id)[:1] == [second]
            assert books.clip(device, first.clip_id) == first
            with pytest.raises(NotFound):
                books.clip(other, first.clip_id)
            assert books.kept_bytes(ann) >= 1500
            assert books.kept_bytes(ann + 1) == 0

    def test_a_dropped_clip_is_gone_with_its_key(
        self, catalog: Catalog, write: Any, ann: int, device: int
    ) -> None:
        with write() as books:
            made = books.add_clip(clip(ann, device), KEYS[0])
            other = books.add_device(ann).device
            assert not books.drop_clip(other, made.clip_id, now_ms=NOW), "of another device"
            assert books.drop_clip(device, made.clip_id, now_ms=NOW)
            assert not books.drop_clip(device, made.clip_id, now_ms=NOW)
            assert (books.clips_of(device), books.kept_bytes(ann)) == ([], 0)
        assert catalog.ended_account_keys() == [KEYS[0]]
