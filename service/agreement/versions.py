"""Versions of the service agreement, and who accepted which (agreement 4, 5, 11.2, 11.4).

A new version blocks nothing: whoever goes on using the service is deemed to have accepted it. That is recorded at the
next log-in, and else soon after an upload, a playback or a request.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from importlib.resources import files

from service.agreement.desk import Actor, Desk
from service.agreement.errors import Unprocessable
from storage.catalog.books import Books, BooksCatalog
from storage.errors import NotFound
from storage.rows.accounts import OPERATOR_ACCOUNT, AcceptanceRow, AgreementRow

MAX_AGREEMENT_CHARS = 1_000_000


def shipped() -> str:
    """The text that comes with this release."""
    return files("service.agreement").joinpath("agreement.txt").read_text("utf-8")


def publish(desk: Desk, actor: Actor, text: str) -> AgreementRow:
    """Make `text` the current version. The newest one again when it is the same.

    Raises:
        Unprocessable: `bad_text`: empty, or over a million characters.
    """
    actor.require_operator()
    text = checked_text(text, "an agreement")

    def work(books: Books) -> AgreementRow:
        row = books.publish_agreement(text, now_ms=desk.now_ms())
        desk.record(books, actor, OPERATOR_ACCOUNT, "agreement_published", facts={"version": row.version})
        return row

    return desk.write(work)


def checked_text(text: str, what: str) -> str:
    """The text of something that is published in versions. Raises Unprocessable `bad_text`: empty, or too long."""
    if not text.strip() or len(text) > MAX_AGREEMENT_CHARS:
        raise Unprocessable(
            f"{what} has 1 to {MAX_AGREEMENT_CHARS} characters; this one has {len(text)}", code="bad_text"
        )
    return text


def current(desk: Desk, version: int | None = None) -> AgreementRow:
    """The current version, or the one asked for. Raises NotFound."""
    with desk.reading() as books:
        return books.agreement(version)


def published(desk: Desk) -> list[AgreementRow]:
    """All versions, the current one last."""
    with desk.reading() as books:
        return books.agreements()


def ensure(catalog: BooksCatalog, *, now_ms: int) -> None:
    """Publish the shipped text where no version is: in a new data folder, or one from before there were any."""
    with catalog.books() as books:
        if _is_published(books):
            return

    def publish(books: Books) -> None:
        if not _is_published(books):  # another process may have been faster
            books.publish_agreement(shipped(), now_ms=now_ms)

    catalog.transact(publish)


def _is_published(books: Books) -> bool:
    try:
        books.agreement()
    except NotFound:
        return False
    return True


def newest(desk: Desk) -> int:
    """The number of the current version; 0 when none is published."""
    with desk.reading() as books:
        return books.agreement().version if _is_published(books) else 0


def accept_by_use(desk: Desk, *, first: int, last: int) -> int:
    """Record the acceptance of the current version for those of the accounts `first..last` that used the service since
    it was published, each once. Returns how many."""
    with desk.reading() as books:
        if not _is_published(books):
            return 0
        version = books.agreement().version
        accounts = books.unaccepted(version, first=first, last=last)
    if accounts:
        now_ms = desk.now_ms()
        desk.write(lambda books: _accept(books, accounts, version, now_ms))
    return len(accounts)


def _accept(books: Books, accounts: Sequence[int], version: int, now_ms: int) -> None:
    for account in accounts:
        with suppress(NotFound):  # erased meanwhile
            books.accept_agreement(AcceptanceRow(account, version, "deemed", now_ms))


def accept_current(desk: Desk, books: Books, account: int, how: str) -> int:
    """Note that the account accepted the newest version. The first acceptance of a version counts.

    Args:
        how: "registered", "deemed" or "purchase".

    Returns:
        The version.
    """
    version = books.agreement().version
    books.accept_agreement(AcceptanceRow(account, version, how, desk.now_ms()))
    return version
