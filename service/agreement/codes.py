"""One-time codes that prove an address or allow a new password. Kept as keyed hashes; few guesses each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from hashlib import blake2b
from hmac import compare_digest

from service.agreement.desk import Desk
from service.agreement.errors import Unprocessable
from service.agreement.outbox import queue_to
from storage.catalog.books import Books
from storage.rows.accounts import CodeRow

CODE_DIGITS = 8
"""With five guesses a code and few codes an hour, a guess is right once in millions of tries."""

_SUBJECTS = {
    "activate": "Your activation code",
    "email": "Confirm your e-mail address",
    "mobile": "Confirm your mobile number",
    "password": "Your code for a new password",
}


def new_code(desk: Desk, books: Books, account: int, purpose: str, address: str) -> str:
    """A code, in place of one of the same purpose. `address`: what it is to prove, or all that it is sent to."""
    number = int.from_bytes(desk.random_bytes(16), "big") % 10**CODE_DIGITS
    code = f"{number:0{CODE_DIGITS}d}"
    expires_ms = desk.now_ms() + round(desk.settings.code_minutes * 60_000)
    books.put_code(CodeRow(account, purpose, address, _hash(desk, account, purpose, code), expires_ms))
    return code


def send_code(
    desk: Desk, books: Books, account: int, purpose: str, addresses: Sequence[tuple[str, str]], code: str
) -> None:
    """Queue a notice with the code to each (channel, address). `purpose`: of the notice."""
    subject = _SUBJECTS[purpose]
    body = (
        f"{subject}: {code}\nAccount number: {account}\nIt can be used for {desk.settings.code_minutes:g} minutes. If"
        " you did not ask for it, do nothing, and give it to nobody."
    )
    for channel, address in addresses:
        queue_to(desk, books, account, channel, address, purpose, subject, body)


def send_password_code(desk: Desk, books: Books, account: int, addresses: Sequence[tuple[str, str]]) -> None:
    """Make a code for a new password, and queue it to each (channel, address)."""
    kept = " ".join(address for _, address in addresses)
    code = new_code(desk, books, account, "password", kept)
    send_code(desk, books, account, "password", addresses, code)


def use_code(
    desk: Desk, books: Books, account: int, purposes: Sequence[str], code: str
) -> CodeRow | Unprocessable:
    """The row of the code, of one of these purposes, used up; or the refusal, with the wrong guess counted for each: to
    be returned by the work of `Desk.write`, which raises it after the commit. `wrong_code`, whatever the reason, so
    that it tells nothing."""
    found = [books.code(account, purpose) for purpose in purposes]
    rows = [
        row
        for row in found
        if row is not None and row.expires_ms > desk.now_ms() and row.attempts < desk.settings.code_attempts
    ]
    given = "".join(code.split())
    for row in rows:
        if compare_digest(_hash(desk, account, row.purpose, given), row.code_hash):
            books.drop_code(account, row.purpose)
            return row
    for row in rows:
        books.put_code(replace(row, attempts=row.attempts + 1))
    return Unprocessable(
        "the code is wrong, was used, or is too old; use the newest one, or ask for another",
        code="wrong_code",
    )


def _hash(desk: Desk, account: int, purpose: str, code: str) -> bytes:
    text = f"{account}\n{purpose}\n{code}".encode("utf-8", "replace")
    return blake2b(text, key=desk.address_secret, person=b"clipkeep-code", digest_size=32).digest()
