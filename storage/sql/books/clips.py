"""Kept clips in the books."""

from __future__ import annotations

from dataclasses import replace

from storage.errors import Conflict, NotFound
from storage.rows.clips import ClipRow, ClipState, key_owner
from storage.sql.books.base import OnBooks
from storage.sql.books.mapping import Table
from storage.sql.connection import Taken
from storage.sql.ending_clips import end_clips
from storage.sql.sealing import give_key

CLIPS = Table("kept_clips", ClipRow, ("clip_id",), "clip", decode={"state": ClipState}, private=("name",))


class ClipsOfDevices(OnBooks):
    def add_clip(self, row: ClipRow, key_id: bytes) -> ClipRow:
        added = replace(row, clip_id=CLIPS.add(self._writer, self._keys, row, clip_id=None))
        try:
            give_key(self._writer, key_id, key_owner(added.clip_id))
        except Taken as error:
            raise Conflict(
                "this key is another one's, or was destroyed as unused", code="key_taken"
            ) from error
        return added

    def clips_of(self, device: int, *, after: int = 0, limit: int = 100) -> list[ClipRow]:
        where = "device = ? AND clip_id > ? ORDER BY clip_id LIMIT ?"
        return CLIPS.select(self._reader, self._keys, where, (device, after, limit))

    def clip(self, device: int, clip_id: int) -> ClipRow:
        found = CLIPS.one(self._reader, self._keys, clip_id)
        if found is None or found.device != device:
            raise NotFound("there is no such clip of this device", subject=f"clip {clip_id}")
        return found

    def kept_bytes(self, account: int) -> int:
        row = self._reader.execute(
            "SELECT coalesce(sum(bytes), 0) FROM kept_clips WHERE account = ?", (account,)
        ).fetchone()
        return int(row[0])

    def drop_clip(self, device: int, clip_id: int, *, now_ms: int) -> bool:
        found = self._writer.execute(
            "SELECT 1 FROM kept_clips WHERE clip_id = ? AND device = ?", (clip_id, device)
        ).fetchone()
        if found is None:
            return False
        end_clips(self._writer, [clip_id], now_ms=now_ms)
        return True
