"""The catalog as people use it who delete recordings: ranges of one device, unserved at once and for ever."""

from __future__ import annotations

import re

from storage.account_keys import AccountKeys
from storage.catalog.devices import ChangesCatalog
from storage.errors import Unprocessable
from storage.media_facts import PARAMETERS_AT
from storage.rows.recordings import FIRST_PART_MS, FMP4, Unindexed
from storage.sql.chunktables import chunk_table
from storage.sql.commits import mark_dead
from storage.sql.connection import Connection, writing
from storage.sql.devices import Devices, facts_of
from storage.sql.ending_clips import end_clips_in
from storage.sql.reads import classes_of, days_of_range
from storage.sql.sealing import sealed_for

ROLE = re.compile("[a-z]{0,20}")
ROWS_AT_ONCE = 10_000
"""Chunk rows removed in one transaction: some 50 ms for which commits wait."""


class Deletions(Devices, ChangesCatalog):
    keys: AccountKeys

    def delete_range(
        self,
        device: int,
        from_ms: int,
        to_ms: int,
        *,
        reason: str,
        who: str,
        now_ms: int,
        delete_after_ms: int,
        keep_clips: bool = False,
    ) -> Unindexed:
        if to_ms <= from_ms:
            raise Unprocessable("the range to delete is empty", subject=f"device {device}", code="bad_range")
        deletion_id, first, done = self._begin(
            device,
            from_ms,
            to_ms,
            reason=reason,
            who=who,
            now_ms=now_ms,
            delete_after_ms=delete_after_ms,
            keep_clips=keep_clips,
        )
        if done:
            return first
        rest = self.finish_deletion(deletion_id, now_ms=now_ms, delete_after_ms=delete_after_ms)
        return add_unindexed(first, rest)

    @writing()
    def _begin(
        self,
        connection: Connection,
        device: int,
        from_ms: int,
        to_ms: int,
        *,
        reason: str,
        who: str,
        now_ms: int,
        delete_after_ms: int,
        keep_clips: bool,
    ) -> tuple[int, Unindexed, bool]:
        """The first transaction of a deletion: its id, what was removed, and whether that was all."""
        account = facts_of(connection, device).account  # raises NotFound
        if not ROLE.fullmatch(who):
            raise Unprocessable(
                "who deletes is a role, and no name", subject=f"device {device}", code="not_a_role"
            )
        sealed = sealed_for(connection, self.keys, account, "deletions.reason", reason)
        connection.exclude_commits()
        [deletion_id] = connection.execute(
            "INSERT INTO deletions (device, from_ms, to_ms, reason, who, chunks, at_ms)"
            " VALUES (?, ?, ?, ?, ?, 0, ?) RETURNING deletion_id",
            (device, from_ms, to_ms, sealed, who, now_ms),
        ).fetchone()
        if not keep_clips:
            end_clips_in(connection, device, from_ms, to_ms, now_ms=now_ms)
        connection.execute("UPDATE devices SET has_deletions = 1 WHERE device = ?", (device,))
        return deletion_id, *_remove_some(connection, deletion_id, now_ms, delete_after_ms)

    def unfinished_deletions(self) -> list[int]:
        with self.db.read() as connection:
            rows = connection.execute("SELECT deletion_id FROM deletions WHERE done_ms IS NULL ORDER BY 1")
            return [row[0] for row in rows]

    def finish_deletion(self, deletion_id: int, *, now_ms: int, delete_after_ms: int) -> Unindexed:
        total, done = Unindexed(), False
        while not done:
            part, done = self._remove_some(deletion_id, now_ms=now_ms, delete_after_ms=delete_after_ms)
            total = add_unindexed(total, part)
        return total

    @writing()
    def _remove_some(
        self, connection: Connection, deletion_id: int, *, now_ms: int, delete_after_ms: int
    ) -> tuple[Unindexed, bool]:
        return _remove_some(connection, deletion_id, now_ms, delete_after_ms)


def _remove_some(
    connection: Connection, deletion_id: int, now_ms: int, delete_after_ms: int
) -> tuple[Unindexed, bool]:
    """Remove at most ROWS_AT_ONCE rows of a deletion. Returns what was removed, and whether that was the rest."""
    found = connection.execute(
        "SELECT device, from_ms, to_ms FROM deletions WHERE deletion_id = ? AND done_ms IS NULL",
        (deletion_id,),
    ).fetchone()
    total = Unindexed()
    if found is None:
        return total, True  # somebody else has finished it
    device, from_ms, to_ms = found
    sent = connection.execute("SELECT number, expires_on FROM inits WHERE device = ?", (device,)).fetchone()
    if sent is not None:
        connection.exclude_commits()  # which look for the init segments that go here
    done = True
    where = "device = ? AND capture_ms >= ? AND capture_ms < ?"
    for day in days_of_range(connection, classes_of(connection, device), from_ms, to_ms):
        room = ROWS_AT_ONCE - total.chunks
        beyond = connection.execute(
            f"SELECT capture_ms FROM {chunk_table(day)} WHERE {where} ORDER BY capture_ms LIMIT 1 OFFSET ?",
            (device, from_ms, to_ms, room),
        ).fetchone()
        stop_ms = to_ms if beyond is None else beyond[0]
        part = unindex_rows(connection, day, where, (device, from_ms, stop_ms), delete_after_ms)
        total = add_unindexed(total, part)
        if beyond is not None:
            done = False
            break
        if sent is not None:
            total = add_unindexed(
                total, _remove_unneeded_inits(connection, day, device, sent, delete_after_ms)
            )
    connection.execute(
        "UPDATE deletions SET chunks = chunks + ?, done_ms = ? WHERE deletion_id = ?",
        (total.chunks, now_ms if done else None, deletion_id),
    )
    return total, done


def _remove_unneeded_inits(
    connection: Connection, day: int, device: int, sent: tuple[int, int], delete_after_ms: int
) -> Unindexed:
    """Remove the init segments of a day that no fragments of it name any more. The one that the device sent last stays
    where it was stored last, for those that are still to come: there is no recording in it."""
    table = chunk_table(day)
    kept = {sent[0]} if day == sent[1] else set()
    stored = {
        -capture_ms
        for (capture_ms,) in connection.execute(
            f"SELECT capture_ms FROM {table} WHERE device = ? AND capture_ms < 0 AND capture_ms > ?",
            (device, FIRST_PART_MS),
        )
    }
    if not stored - kept:
        return Unindexed()
    named = connection.execute(
        f"SELECT DISTINCT substr(facts, {PARAMETERS_AT + 1}, 4) FROM {table}"
        " WHERE device = ? AND capture_ms >= 0 AND media = ?",
        (device, FMP4),
    ).fetchall()
    needed = {int.from_bytes(number, "little") for (number,) in named}
    total = Unindexed()
    for number in sorted(stored - kept - needed):
        where = "device = ? AND capture_ms = ?"
        total = add_unindexed(total, unindex_rows(connection, day, where, (device, -number), delete_after_ms))
    # What an owner counts are recordings.
    return Unindexed(0, 0, total.dead_segments)


def unindex_rows(
    connection: Connection, day: int, where: str, values: tuple[int, ...], delete_after_ms: int
) -> Unindexed:
    """Remove chunk rows of one day, and note their ordinals on their segments."""
    by_segment: dict[int, list[int]] = {}
    size_bytes = 0
    # One statement: a commit beside it may remove one of these rows, and note it, itself.
    for segment_id, ordinal, length in connection.execute(
        f"DELETE FROM {chunk_table(day)} WHERE {where} RETURNING segment_id, ordinal, length", values
    ).fetchall():
        by_segment.setdefault(segment_id, []).append(ordinal)
        size_bytes += length
    dead = sum(mark_dead(connection, s, sorted(by_segment[s]), delete_after_ms) for s in sorted(by_segment))
    return Unindexed(sum(map(len, by_segment.values())), size_bytes, dead)


def add_unindexed(a: Unindexed, b: Unindexed) -> Unindexed:
    return Unindexed(a.chunks + b.chunks, a.size_bytes + b.size_bytes, a.dead_segments + b.dead_segments)
