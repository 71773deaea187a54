"""The privacy policy that the agreement refers to (agreement 5), in versions. It is read and not accepted: the
agreement, which is accepted, refers to it."""

from __future__ import annotations

from importlib.resources import files

from service.agreement.desk import Actor, Desk
from service.agreement.versions import checked_text
from storage.catalog.books import Books, BooksCatalog
from storage.rows.accounts import OPERATOR_ACCOUNT, AgreementRow


def shipped() -> str:
    """The text that comes with this release: what the software keeps. Operators publish their own."""
    return files("service.agreement").joinpath("privacy.txt").read_text("utf-8")


def publish(desk: Desk, actor: Actor, text: str) -> AgreementRow:
    """Make `text` the current version; the newest one again when it is the same.

    Raises:
        Forbidden: `operators_only`; Unprocessable: `bad_text`.
    """
    actor.require_operator()
    text = checked_text(text, "a privacy policy")

    def work(books: Books) -> AgreementRow:
        row = books.publish_policy(text, now_ms=desk.now_ms())
        desk.record(books, actor, OPERATOR_ACCOUNT, "policy_published", facts={"version": row.version})
        return row

    return desk.write(work)


def current(desk: Desk, version: int | None = None) -> AgreementRow:
    """The current version, or the one asked for. Raises NotFound."""
    with desk.reading() as books:
        return books.policy(version)


def published(desk: Desk) -> list[AgreementRow]:
    """All versions, the current one last."""
    with desk.reading() as books:
        return books.policies()


def ensure(catalog: BooksCatalog, *, now_ms: int) -> None:
    """Publish the shipped text where no version is."""
    with catalog.books() as books:
        if books.policies():
            return

    def first(books: Books) -> None:
        if not books.policies():  # another process may have been faster
            books.publish_policy(shipped(), now_ms=now_ms)

    catalog.transact(first)
