"""One-time codes that prove an address or allow a new password. Kept as keyed hashes; few guesses each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from hashlib import blake2b
from hmac import compare_digest

from service.agreement.desk import Desk
from service.agreement.errors import Unprocessable
from service.agreement.outbox import queue_to
from storage.books import Books, CodeRow

CODE_DIGITS = 8
"""With five guesses a code and few codes an hour, a guess is right once in millions of tries."""

_SUBJECTS = {
    "activate": "Your activation code",
    "email": "Confirm your e-mail address",
    "mobile": "Confirm your mobile number",
    "password": "Your code for a new password",
}


def send_code(
    desk: Desk, books: Books, account: int, purpose: str, addresses: Sequence[tuple[str, str]]
) -> None:
    """Make a code, in place of one of the same purpose, and queue a notice with it to each (channel, address)."""
    number = int.from_bytes(desk.random_bytes(16), "big") % 10**CODE_DIGITS
    code = f"{number:0{CODE_DIGITS}d}"
    minutes = desk.settings.code_minutes
    expires_ms = desk.now_ms() + round(minutes * 60_000)
    kept = " ".join(address for _, address in addresses)
    books.put_code(CodeRow(account, purpose, kept, _hash(desk, account, purpose, code), expires_ms))
    subject = _SUBJECTS[purpose]
    body = (
        f"{subject}: {code}\nAccount number: {account}\nIt can be used for {minutes:g} minutes. If you did not ask for"
        " it, do nothing, and give it to nobody."
    )
    for channel, address in addresses:
        queue_to(desk, books, account, channel, address, purpose, subject, body)


def use_code(desk: Desk, books: Books, account: int, purpose: str, code: str) -> CodeRow | Unprocessable:
    """The row of the code, used up; or the refusal, with the wrong guess counted: to be returned by the work of
    `Desk.write`, which raises it after the commit. `wrong_code`, whatever the reason, so that it tells nothing."""
    refusal = Unprocessable(
        "the code is wrong, was used, or is too old; use the newest one, or ask for another",
        code="wrong_code",
    )
    row = books.code(account, purpose)
    if row is None or row.expires_ms <= desk.now_ms() or row.attempts >= desk.settings.code_attempts:
        return refusal
    given = _hash(desk, account, purpose, "".join(code.split()))
    if not compare_digest(given, row.code_hash):
        books.put_code(replace(row, attempts=row.attempts + 1))
        return refusal
    books.drop_code(account, purpose)
    return row


def _hash(desk: Desk, account: int, purpose: str, code: str) -> bytes:
    text = f"{account}\n{purpose}\n{code}".encode("utf-8", "replace")
    return blake2b(text, key=desk.address_secret, person=b"clipkeep-code", digest_size=32).digest()
