"""Versions of the service agreement, and who accepted which (agreement 4, 5, 11.2, 11.4).

A new version blocks nothing: whoever goes on using the service is deemed to have accepted it, which is recorded at
the next log-in.
"""

from __future__ import annotations

from importlib.resources import files

from service.agreement.desk import Actor, Desk
from service.agreement.errors import Unprocessable
from storage.books import AcceptanceRow, AgreementRow, Books
from storage.catalog import Catalog
from storage.errors import NotFound

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
    if not text.strip() or len(text) > MAX_AGREEMENT_CHARS:
        raise Unprocessable(
            f"an agreement has 1 to {MAX_AGREEMENT_CHARS} characters; this one has {len(text)}",
            code="bad_text",
        )
    return desk.write(lambda books: books.publish_agreement(text, now_ms=desk.now_ms()))


def current(desk: Desk, version: int | None = None) -> AgreementRow:
    """The current version, or the one asked for. Raises NotFound."""
    with desk.reading() as books:
        return books.agreement(version)


def published(desk: Desk) -> list[AgreementRow]:
    """All versions, the current one last."""
    with desk.reading() as books:
        return books.agreements()


def ensure(catalog: Catalog, *, now_ms: int) -> None:
    """Publish the shipped text where no version is: in a new data folder, or one from before there were any."""
    with catalog.books() as books:
        if _is_published(books):
            return
    with catalog.books(write=True) as books:
        if not _is_published(books):  # another process may have been faster
            books.publish_agreement(shipped(), now_ms=now_ms)


def _is_published(books: Books) -> bool:
    try:
        books.agreement()
    except NotFound:
        return False
    return True


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
