"""Deleting a range of recordings, by the device's owner or an operator; which were."""

from __future__ import annotations

from service.agreement.clips import destroy_keys
from service.agreement.desk import Actor, Desk, device_of
from service.agreement.texts import one_line
from storage.catalog.books import Books
from storage.rows.recordings import Unindexed


def delete(
    desk: Desk,
    actor: Actor,
    device: int,
    from_ms: int,
    to_ms: int,
    *,
    why: str,
    delete_delay_ms: int,
    keep_clips: bool = False,
) -> Unindexed:
    """Un-serve what was captured in [from_ms, to_ms), for ever and at once; what is uploaded into it later is refused.
    Recorded with who and why, in the device's deletions and in the account's history.

    Args:
        why: may be empty.
        keep_clips: leave kept clips that have something of the range. Else they end with it, whole: what is deleted for
            ever is in no copy, either.
        delete_delay_ms: before an object in which nothing is left is deleted.

    Raises:
        NotFound, also for somebody else's device; Unprocessable: `bad_text`, the reason; `bad_range`.
    """
    why = one_line(why, "the reason", least=0)
    with desk.reading() as books:
        account = device_of(books, actor, device).account
    now_ms = desk.now_ms()
    gone = desk.catalog.delete_range(
        device,
        from_ms,
        to_ms,
        reason=why,
        who=actor.role,
        now_ms=now_ms,
        delete_after_ms=now_ms + delete_delay_ms,
        keep_clips=keep_clips,
    )
    if not keep_clips:
        destroy_keys(desk)
    facts = {"from_ms": from_ms, "to_ms": to_ms, "chunks": gone.chunks}

    def note(books: Books) -> None:
        # The account may have been cancelled meanwhile; its history is over then.
        if books.account(account).cancelled_on is None:
            desk.record(books, actor, account, "recordings_deleted", why=why, device=device, facts=facts)

    desk.write(note)
    return gone


def deleted(
    desk: Desk, actor: Actor, device: int, from_ms: int, to_ms: int, *, limit: int
) -> list[tuple[int, int]]:
    """What was deleted of a range by somebody, as `ReadingCatalog.deleted_ranges`; not what has expired. Raises
    NotFound."""
    with desk.reading() as books:
        device_of(books, actor, device)
    return desk.catalog.deleted_ranges(device, from_ms, to_ms, limit=limit)
