"""Kept clips: their chunks, and how they come and go. See `storage.catalog.clips`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from storage.account_keys import AccountKeys
from storage.catalog.clips import ClipsCatalog, KeptObject
from storage.rows.clips import KEPT_DAY, ClipRow, ClipState, key_owner
from storage.rows.recordings import ChunkRow, SegmentState
from storage.sql.base import OnDatabase
from storage.sql.books.clips import CLIPS
from storage.sql.chunktables import chunk_table, open_days
from storage.sql.connection import Connection, writing
from storage.sql.reads import CHUNK_COLUMNS
from storage.sql.sealing import key_id_of

_COPY = (
    'clip_id, device, capture_ms, segment_id, ordinal, "offset", length, duration_ms, crc32, nonce, media, epoch,'
    " facts"
)


class Clips(OnDatabase, ClipsCatalog):
    keys: AccountKeys

    def clip_chunks(
        self, device: int, clip: int, from_ms: int, to_ms: int, *, limit: int, newest_first: bool = False
    ) -> list[ChunkRow]:
        if to_ms <= from_ms or limit <= 0:
            return []
        order = "DESC" if newest_first else "ASC"
        with self.db.read() as connection:
            rows = connection.execute(
                f"SELECT {CHUNK_COLUMNS} FROM kept_chunks c JOIN segments s USING (segment_id)"
                " WHERE c.clip_id = ? AND c.device = ? AND c.capture_ms >= ? AND c.capture_ms < ?"
                f" ORDER BY c.capture_ms {order} LIMIT ?",
                (clip, device, from_ms, to_ms, limit),
            ).fetchall()
        found = [ChunkRow(*row) for row in rows]
        return found[::-1] if newest_first else found

    def clip_init(self, device: int, clip: int, number: int) -> ChunkRow | None:
        found = self.clip_chunks(device, clip, -number, 1 - number, limit=1)
        return found[0] if found else None

    def clip_key(self, clip: int) -> bytes | None:
        with self.db.read() as connection:
            return key_id_of(connection, key_owner(clip))

    def copied_bytes(self, clip: int) -> int:
        with self.db.read() as connection:
            row = connection.execute(
                "SELECT coalesce(sum(length), 0) FROM kept_chunks WHERE clip_id = ? AND capture_ms >= 0",
                (clip,),
            ).fetchone()
            return int(row[0])

    def claim_clip(self, *, now_ms: int, until_ms: int) -> ClipRow | None:
        with self.db.read() as connection:  # most of the time there is none, and nothing is written
            waiting = connection.execute(
                "SELECT 1 FROM kept_clips WHERE state = 'copying' AND claimed_ms <= ? LIMIT 1", (now_ms,)
            ).fetchone()
        return None if waiting is None else self._claim(now_ms=now_ms, until_ms=until_ms)

    @writing()
    def _claim(self, connection: Connection, *, now_ms: int, until_ms: int) -> ClipRow | None:
        where = "state = 'copying' AND claimed_ms <= ? ORDER BY clip_id LIMIT 1"
        found = CLIPS.select(connection, self.keys, where, (now_ms,))
        if not found:
            return None
        connection.execute(
            "UPDATE kept_clips SET claimed_ms = ? WHERE clip_id = ?", (until_ms, found[0].clip_id)
        )
        return replace(found[0], claimed_ms=until_ms)

    @writing()
    def commit_clip(
        self,
        connection: Connection,
        clip: ClipRow,
        kept: KeptObject | None,
        *,
        next_ms: int,
        done: bool,
        now_ms: int,
        until_ms: int,
    ) -> ClipRow | None:
        epoch = connection.execute(
            "SELECT d.erase_epoch FROM kept_clips k JOIN devices d USING (device)"
            " WHERE k.clip_id = ? AND k.state = 'copying' AND k.claimed_ms = ?",
            (clip.clip_id, clip.claimed_ms),
        ).fetchone()
        if epoch is None or epoch[0] != clip.epoch:
            return None
        if kept is not None and not _keep(connection, clip, kept, now_ms):
            return None
        chunks, size_bytes = clip.chunks, clip.bytes
        if done:
            chunks, size_bytes = connection.execute(
                "SELECT count(*), coalesce(sum(length), 0) FROM kept_chunks"
                " WHERE clip_id = ? AND capture_ms >= 0",
                (clip.clip_id,),
            ).fetchone()
        state = ClipState.READY if done else ClipState.COPYING
        after = replace(
            clip, state=state, chunks=chunks, bytes=int(size_bytes), next_ms=next_ms, claimed_ms=until_ms
        )
        connection.execute(
            "UPDATE kept_clips SET state = ?, chunks = ?, bytes = ?, next_ms = ?, claimed_ms = ?"
            " WHERE clip_id = ?",
            (after.state, after.chunks, after.bytes, after.next_ms, after.claimed_ms, clip.clip_id),
        )
        return after


def _keep(connection: Connection, clip: ClipRow, kept: KeptObject, now_ms: int) -> bool:
    """Index an object of a clip. Whether its key still was prepared."""
    segment, index = kept.segment, kept.segment.index
    state = connection.execute(
        "SELECT state FROM segments WHERE segment_id = ? AND expires_on = ?", (segment.segment_id, KEPT_DAY)
    ).fetchone()
    if state is None or state[0] != SegmentState.PREPARED:
        return False
    there = _still_there(connection, kept.sources)
    live = [ordinal for ordinal in range(len(index)) if ordinal in there]
    refused = np.setdiff1d(np.arange(len(index), dtype="<u4"), np.array(live, dtype="<u4")).astype("<u4")
    _insert(connection, clip.clip_id, segment.segment_id, index, live)
    if not live:  # nothing of it is kept: the object goes at once
        connection.execute(
            "UPDATE segments SET state = ?, delete_after_ms = ?, size_bytes = ? WHERE segment_id = ?",
            (SegmentState.DELETING, now_ms, segment.size_bytes, segment.segment_id),
        )
        return True
    connection.execute(
        "UPDATE segments SET state = ?, size_bytes = ?, chunks = ?, live_chunks = ?, crc32 = ?, refused = ?"
        " WHERE segment_id = ?",
        (
            *(SegmentState.COMMITTED, segment.size_bytes, len(index), len(live), segment.crc32),
            *(refused.tobytes(), segment.segment_id),
        ),
    )
    return True


def _insert(
    connection: Connection, clip: int, segment_id: int, index: np.ndarray, ordinals: Sequence[int]
) -> int:
    """Add the rows of these chunks where they are missing. Returns how many were."""
    numbers = ("offset", "length", "duration_ms", "crc32")
    return connection.executemany(
        f"INSERT INTO kept_chunks ({_COPY}) VALUES ({', '.join('?' * 13)}) ON CONFLICT DO NOTHING",
        [
            (
                *(clip, int(entry["device"]), int(entry["capture_ms"]), segment_id, ordinal),
                *(int(entry[name]) for name in numbers),
                *(
                    entry["nonce"].tobytes(),
                    int(entry["media"]),
                    int(entry["epoch"]),
                    entry["facts"].tobytes(),
                ),
            )
            for ordinal, entry in ((ordinal, index[ordinal]) for ordinal in ordinals)
        ],
    ).rowcount


def _still_there(connection: Connection, sources: Sequence[ChunkRow]) -> set[int]:
    """Places of those rows whose chunk is stored still. A rewrite may have moved it."""
    days = open_days(connection)
    found: set[int] = set()
    for place, row in enumerate(sources):
        if row.expires_on not in days:
            continue
        now = connection.execute(
            f"SELECT epoch, nonce FROM {chunk_table(row.expires_on)} WHERE device = ? AND capture_ms = ?",
            (row.device, row.capture_ms),
        ).fetchone()
        if now is not None and (now[0], bytes(now[1])) == (row.epoch, row.nonce):
            found.add(place)
    return found


def rebuild_clip(
    connection: Connection, clip: int, segment_id: int, index: np.ndarray, refused: bytes
) -> int:
    """Re-create the rows of one object of a clip. Returns how many were missing."""
    if not connection.execute("SELECT 1 FROM kept_clips WHERE clip_id = ?", (clip,)).fetchone():
        return 0
    lost = set(np.frombuffer(refused, dtype="<u4").tolist())
    served = [ordinal for ordinal in range(len(index)) if ordinal not in lost]
    return _insert(connection, clip, segment_id, index, served)


def broken_clips(connection: Connection) -> Iterator[str]:
    """Yield what is wrong among the rows of clips."""
    for clip, state, chunks, count in connection.execute(
        "SELECT k.clip_id, k.state, k.chunks, count(c.clip_id) FROM kept_clips k"
        " LEFT JOIN kept_chunks c ON c.clip_id = k.clip_id AND c.capture_ms >= 0 GROUP BY k.clip_id, k.state, k.chunks"
    ):
        if state == ClipState.READY and chunks != count:
            yield f"kept clip {clip}: says {chunks} chunks, has {count} rows"
    for (clip,) in connection.execute(
        "SELECT DISTINCT clip_id FROM kept_chunks WHERE clip_id NOT IN (SELECT clip_id FROM kept_clips)"
    ):
        yield f"kept clip {clip}: has rows of chunks, and is no clip"
    for (clip,) in connection.execute(
        "SELECT clip_id FROM kept_clips WHERE -clip_id NOT IN"
        " (SELECT account FROM account_keys WHERE account IS NOT NULL)"
    ):
        yield f"kept clip {clip}: has no key, so nobody can read it; delete it"
