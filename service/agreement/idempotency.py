"""Idempotency keys: a request that was answered is not done again, its answer is told again."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import sha256

from service.agreement.desk import Desk
from service.agreement.errors import Conflict, Unprocessable
from service.agreement.holders import may_be_alive, this_process
from storage.catalog.books import Books
from storage.rows.accounts import AnswerRow

MAX_KEY_CHARS = 200
TAKE_OVER_MS = 120_000
"""After which a request that was begun and not answered is taken over though its process lives. Far above what one
takes: the gateway's and the catalog's time-outs together are below it. To be wrong costs nothing but work: what a key
guards is idempotent by its payment reference, or decided once."""
_KEY = re.compile(r"[\x21-\x7e]+")
_WORKING = 0
"""Status of a claim. Below it: decided, with the answer to give should its process die."""
Decide = Callable[[Books, int, str], None]


@dataclass(frozen=True, slots=True)
class Answer:
    """A status and a body, as first given. `replayed`: it was given before."""

    status: int
    body: str
    replayed: bool = False


def checked_key(key: str) -> str:
    """Raises Unprocessable `bad_idempotency_key`."""
    if len(key) > MAX_KEY_CHARS or not _KEY.fullmatch(key):
        raise Unprocessable(
            f"an idempotency key is 1 to {MAX_KEY_CHARS} visible ASCII characters without spaces, new for each"
            " request that is not a repetition: a random UUID will do",
            code="bad_idempotency_key",
        )
    return key


def reference_for(account: int, key: str, what: str) -> str:
    """The payment reference of what is asked under a key: the same for a repetition, another's for everyone else.
    It leads back to neither."""
    digest = sha256(f"{account}\n{what}\n{checked_key(key)}".encode()).hexdigest()
    return f"{what}-{digest[:40]}"


def once(
    desk: Desk, account: int, key: str, request_sha256: bytes, work: Callable[[Decide], tuple[int, str]]
) -> Answer:
    """Do `work` for the first request with this key; tell later ones what it answered.

    Args:
        request_sha256: of all that makes the request what it is: method, path, body.
        work: gives (status, body), 100 <= status. What it raises is not kept, and the key may be used again at once.
            It is given a function to be called with (books, status, body) inside the transaction that decides: that is
            the answer from then on, should this process die before it has another. Work that is idempotent by itself,
            e.g. by a payment's reference, need not call it: after a crash it is done again.

    Raises:
        Conflict: `reused_key`: the key belongs to another request; `in_progress`: it is being worked on.
        Unprocessable: `bad_idempotency_key`.
    """
    claim = AnswerRow(
        account, checked_key(key), request_sha256, _WORKING, "", desk.now_ms(), holder=this_process()
    )
    stored = desk.write(lambda books: _claim(books, claim))
    if stored is not None:
        return Answer(stored.status, stored.body, replayed=True)

    def decide(books: Books, status: int, body: str) -> None:
        if _ours(books, claim) is None:
            raise _in_progress()  # whoever took it over decides
        books.put_answer(replace(claim, status=-status, body=body))

    try:
        status, body = work(decide)
    except BaseException:
        desk.write(lambda books: _close(books, claim, None))
        raise
    desk.write(lambda books: _close(books, claim, replace(claim, status=status, body=body)))
    return Answer(status, body)


def _claim(books: Books, claim: AnswerRow) -> AnswerRow | None:
    """The answer that is there, or None when it is for us to find it."""
    row = books.answer(claim.account, claim.key)
    if row is not None:
        if row.request_sha256 != claim.request_sha256:
            raise Conflict(
                "this idempotency key was used for another request; choose a new one for each",
                code="reused_key",
            )
        if row.status > _WORKING:
            return row
        if claim.at_ms - row.at_ms < TAKE_OVER_MS and may_be_alive(row.holder):
            raise _in_progress()
        if row.status < _WORKING:
            answered = replace(row, status=-row.status)
            books.put_answer(answered)
            return answered
    books.put_answer(claim)
    return None


def _ours(books: Books, claim: AnswerRow) -> AnswerRow | None:
    """The claim as it stands; None when somebody took it over, or the account was erased."""
    row = books.answer(claim.account, claim.key)
    if row is None or row.status > _WORKING or (row.holder, row.at_ms) != (claim.holder, claim.at_ms):
        return None
    return row


def _close(books: Books, claim: AnswerRow, answer: AnswerRow | None) -> None:
    """Only where the claim stands. Without an answer, let go of it: what was decided stays."""
    row = _ours(books, claim)
    if row is not None:
        books.put_answer(answer or replace(row, at_ms=0))


def _in_progress() -> Conflict:
    return Conflict(
        "a request with this idempotency key is being worked on; ask again in a few seconds",
        code="in_progress",
    )
