"""Kept clips: an owner keeps a range of one device beyond its expiry, for as long as a plan of the device runs.

What is kept is a copy, encrypted with a key of its own (`service.keeping` makes it): no month's key and no day's sweep
is bound by it. It is watched under today's right alone, ends with the device's recordings (an erasure, a lapse and its
grace, the account), and counts against `max_kept_bytes` of the account until it is deleted.
"""

from __future__ import annotations

from contextlib import suppress

from retention.account_keys import destroy_ended
from service.agreement.desk import Actor, Desk, account_of, device_of
from service.agreement.devices import show
from service.agreement.errors import Conflict, Unprocessable
from service.agreement.texts import MAX_NAME_CHARS, one_line
from service.timeline import BATCH_ROWS, KEY_FRAME_ROWS, beginning, timed
from storage.catalog.books import Books
from storage.days import MAX_TIME_MS
from storage.errors import ClipkeepError, NotFound
from storage.rows.clips import ClipRow, ClipState
from storage.rows.recordings import ChunkRow
from storage.vault import ACCOUNT_KEY_ID_BYTES

MAX_CLIP_CHUNKS = 100_000
"""Of one clip: four days of chunks of 4 s. All of them are looked at when it is asked for, some 0.5 s."""


def keep(
    desk: Desk, actor: Actor, device: int, from_ms: int, to_ms: int, *, name: str, gap_ms: int
) -> ClipRow:
    """Keep what was captured at `from_ms <= t < to_ms` (Unix ms), and before it what its first picture needs. It is
    copied in the background; what expires, is deleted or can't be read before it was copied is not in the clip.

    Args:
        name: may be empty.
        gap_ms: as for `timeline.follows`.

    Raises:
        NotFound, also for somebody else's device; `nothing_recorded`, there is nothing in the range.
        Conflict: `not_recording`, the device has no right today; `already_kept`, one clip has all of the range;
            `too_many_clips`; `kept_bytes_used_up`.
        Unprocessable: `bad_range`: it is empty, or not over yet; `range_too_large`; `bad_text`, the name.
    """
    name = one_line(name, "the name", MAX_NAME_CHARS, least=0)
    if not 0 <= from_ms < to_ms <= MAX_TIME_MS or to_ms > desk.now_ms():
        raise Unprocessable(
            "a range ends after it begins, and what is kept was recorded before now",
            subject=f"device {device}",
            code="bad_range",
        )
    standing = show(desk, actor, device)
    if standing.state != "recording":
        raise Conflict(
            "nothing is kept for a device that may not record now",
            subject=f"device {device}",
            code="not_recording",
        )
    epoch = standing.facts.erase_epoch
    rows = _rows(desk, device, epoch, from_ms, to_ms, gap_ms)
    if not rows:
        raise _nothing(device)
    size_bytes = sum(row.length for row in rows)
    # Before the transaction, which may run twice. One that is not used is destroyed by the sweep.
    key_id = desk.random_bytes(ACCOUNT_KEY_ID_BYTES)
    desk.vault.make_account_keys([key_id], now_ms=desk.now_ms())

    def work(books: Books) -> ClipRow:
        facts = device_of(books, actor, device)
        if facts.erase_epoch != epoch or facts.terminated_ms is not None:
            raise _nothing(device)
        _require_room(desk, books, facts.account, device, size_bytes, range(from_ms, to_ms))
        added = books.add_clip(
            ClipRow(
                *(0, facts.account, device, epoch, rows[0].capture_ms, from_ms, to_ms, name, desk.now_ms()),
                *(ClipState.COPYING, len(rows), size_bytes, rows[0].capture_ms),
            ),
            key_id,
        )
        about = {"clip": added.clip_id, "from_ms": from_ms, "to_ms": to_ms, "bytes": size_bytes}
        desk.record(books, actor, facts.account, "clip_kept", device=device, facts=about)
        return added

    return desk.write(work)


def listed(desk: Desk, actor: Actor, device: int, *, after: int = 0, limit: int = 100) -> list[ClipRow]:
    """A device's clips by number. Raises NotFound."""
    with desk.reading() as books:
        device_of(books, actor, device)
        return books.clips_of(device, after=after, limit=limit)


def used_and_most(desk: Desk, actor: Actor, account: int) -> tuple[int, int]:
    """Bytes that an account keeps in clips, and how many it may. Raises NotFound."""
    with desk.reading() as books:
        return books.kept_bytes(account_of(books, actor, account).account), desk.settings.max_kept_bytes


def clip_of(desk: Desk, actor: Actor, device: int, clip: int) -> ClipRow:
    """Raises NotFound."""
    with desk.reading() as books:
        device_of(books, actor, device)
        return books.clip(device, clip)


def drop(desk: Desk, actor: Actor, device: int, clip: int, *, why: str = "") -> None:
    """Delete a clip: nobody can read it from now on, its key is destroyed, its objects go with the next sweep.

    Raises:
        NotFound; Unprocessable: `bad_text`, the reason.
    """
    why = one_line(why, "the reason", least=0)

    def work(books: Books) -> None:
        facts = device_of(books, actor, device)
        if not books.drop_clip(device, clip, now_ms=desk.now_ms()):
            raise NotFound("there is no such clip of this device", subject=f"clip {clip}")
        desk.record(books, actor, facts.account, "clip_deleted", why=why, device=device, facts={"clip": clip})

    desk.write(work)
    destroy_keys(desk)


def destroy_keys(desk: Desk) -> None:
    """Destroy the keys of clips that have ended. What can't be done now the next sweep does."""
    with suppress(ClipkeepError):
        destroy_ended(desk.catalog, desk.vault)


def _nothing(device: int) -> NotFound:
    return NotFound(
        "there are no recordings in this range", subject=f"device {device}", code="nothing_recorded"
    )


def _require_room(desk: Desk, books: Books, account: int, device: int, size_bytes: int, times: range) -> None:
    """That a form was sent twice, too, is no reason to keep everything twice."""
    most = desk.settings.max_clips_per_device
    rows = books.clips_of(device, limit=most)
    for row in rows:
        if row.from_ms <= times.start and times.stop <= row.to_ms:
            raise Conflict(
                f"clip {row.clip_id} has all of this range", subject=f"device {device}", code="already_kept"
            )
    if len(rows) >= most:
        raise Conflict(
            f"a device has at most {most} kept clips; delete one",
            subject=f"device {device}",
            code="too_many_clips",
        )
    room = desk.settings.max_kept_bytes - books.kept_bytes(account)
    if size_bytes > room:
        raise Conflict(
            f"this range has {size_bytes} bytes, and the account may keep {max(room, 0)} more; delete a clip, or keep"
            " less",
            subject=f"device {device}",
            code="kept_bytes_used_up",
        )


def _rows(desk: Desk, device: int, epoch: int, from_ms: int, to_ms: int, gap_ms: int) -> list[ChunkRow]:
    """What is to be copied: the chunks of the range, and those before it that are needed to decode it."""
    found: list[ChunkRow] = []
    start_ms = from_ms
    while True:
        page = desk.catalog.chunks(device, start_ms, to_ms, limit=BATCH_ROWS)
        found += page
        if len(page) < BATCH_ROWS or len(found) > MAX_CLIP_CHUNKS:
            break
        start_ms = page[-1].capture_ms + 1
    today = desk.today()
    earlier = desk.catalog.latest_chunks(device, limit=KEY_FRAME_ROWS, before_ms=from_ms)
    rows = [row for row in (*earlier, *found) if row.epoch == epoch and row.expires_on > today]
    first = beginning(timed(rows), from_ms, gap_ms)
    if len(rows) - first > MAX_CLIP_CHUNKS:
        raise Unprocessable(
            f"more than {MAX_CLIP_CHUNKS} chunks: keep less at once",
            subject=f"device {device}",
            code="range_too_large",
        )
    return rows[first:]
