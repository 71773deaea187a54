"""One-time codes that prove an address or allow a new password.

A code is made of its row and a secret of the vault, so that it can be sent again as it was: whoever asks, a code that
is out stays good until it is used or has ended. It has 60 bits. So wrong guesses void nothing, and no customer can be
kept out by a stranger who guesses or asks in his name (design.md, §8).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from hashlib import blake2b
from hmac import compare_digest

from service.agreement.desk import Desk
from service.agreement.errors import Unprocessable
from service.agreement.limits import HOUR_MS, count_failure, log_ins_of_client
from service.agreement.outbox import tell_at
from storage.catalog.books import Books
from storage.errors import CallerError
from storage.rows.accounts import AttemptsRow, CodeRow

CODE_CHARS = 12
"""5 bits each. 10,000 guesses a second, for a year, at three codes that are out all the time, find one with a
probability of 1 in a million."""
GROUP_CHARS = 4
ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
"""Crockford's base 32: what people confuse (I, L, O) is read as what was meant."""
SEED_BYTES = 32
_READ_AS = str.maketrans("ILO", "110", "-")


def code_out(desk: Desk, books: Books, account: int, purpose: str, address: str) -> CodeRow:
    """The code that is out for this purpose, good for `code_minutes` from now on; a new one where there is none. It is
    to be sent.

    Args:
        address: what it is to prove; a code for another one is replaced. "": it proves none.
    """
    row = _live(desk, books, account, purpose)
    if row is None or row.address != address:
        row = CodeRow(account, purpose, address, desk.random_bytes(SEED_BYTES), 0)
    row = replace(row, expires_ms=desk.now_ms() + round(desk.settings.code_minutes * 60_000))
    books.put_code(row)
    return row


def was_just_sent(desk: Desk, books: Books, account: int, purpose: str, channel: str, address: str) -> bool:
    """Whether the code that is out was sent there within an hour's part of `codes_per_address_h`: it is still good, and
    is not sent again yet."""
    row = _live(desk, books, account, purpose)
    if row is None or row.address not in ("", address):
        return False
    sent = books.attempts(_sending(row, channel, address))
    pause_ms = HOUR_MS // desk.settings.codes_per_address_h
    return sent is not None and sent.last_ms <= desk.now_ms() < sent.last_ms + pause_ms


def send_code(
    desk: Desk, books: Books, row: CodeRow, purpose: str, addresses: Sequence[tuple[str, str]]
) -> None:
    """Queue a notice with the code to each (channel, address). `purpose`: of the notice."""
    for channel, address in addresses:
        tell_at(
            desk,
            books,
            row.account,
            channel,
            address,
            purpose,
            code=_code(desk, row),
            account=row.account,
            minutes=f"{desk.settings.code_minutes:g}",
        )
        note_sent(desk, books, row, channel, address)


def note_sent(desk: Desk, books: Books, row: CodeRow, channel: str, address: str) -> None:
    """That the code was sent there, or a notice in its place."""
    now_ms = desk.now_ms()
    books.put_attempts(AttemptsRow(_sending(row, channel, address), 1, now_ms, now_ms))


def send_password_code(desk: Desk, books: Books, account: int, addresses: Sequence[tuple[str, str]]) -> None:
    """Queue the code for a new password to each (channel, address)."""
    send_code(desk, books, code_out(desk, books, account, "password", ""), "password", addresses)


def use_code(
    desk: Desk, books: Books, account: int, purposes: Sequence[str], code: str, *, client: str | None = None
) -> CodeRow | CallerError:
    """The row of the code, of one of these purposes, used up; or the refusal, with the wrong guess counted: to be
    returned by the work of `Desk.write`, which raises it after the commit. `wrong_code`, whatever the reason, so that
    it tells nothing; `slow_down` for a client that has sent too many. A right code is taken from that one too: it can't
    be guessed, and who shares an address with a stranger is not kept waiting by him.

    Args:
        client: the network address of who sends it; None: who needs no slowing down.
    """
    row = find_code(desk, books, account, purposes, code)
    if row is not None:
        books.drop_code(account, row.purpose)
        return row
    if client is not None:
        refused = count_failure(desk, books, f"code:client:{client}:wrong", log_ins_of_client(desk))
        if refused is not None:
            return refused
    return Unprocessable(
        "the code is wrong, was used, or is too old; use the newest one, or ask for another",
        code="wrong_code",
    )


def find_code(desk: Desk, books: Books, account: int, purposes: Sequence[str], code: str) -> CodeRow | None:
    """The row of the code, of one of these purposes, which stays as it is."""
    given = "".join(code.upper().split()).translate(_READ_AS).encode("utf-8", "replace")
    rows = [row for purpose in purposes if (row := _live(desk, books, account, purpose)) is not None]
    for row in rows:
        if compare_digest(_code(desk, row).replace("-", "").encode(), given):
            return row
    return None


def _live(desk: Desk, books: Books, account: int, purpose: str) -> CodeRow | None:
    row = books.code(account, purpose)
    return row if row is not None and row.expires_ms > desk.now_ms() else None


def _sending(row: CodeRow, channel: str, address: str) -> str:
    """The subject by which it is known when this code was sent there."""
    return f"code:sent:{row.account}:{row.purpose}:{channel}:{address}:{row.code_hash.hex()}"


def _code(desk: Desk, row: CodeRow) -> str:
    text = f"{row.account}\n{row.purpose}\n{row.address}\n".encode("utf-8", "replace") + row.code_hash
    made = blake2b(text, key=desk.address_secret, person=b"clipkeep-codes", digest_size=8).digest()
    number = int.from_bytes(made, "big")
    chars = [ALPHABET[number >> 5 * place & 31] for place in range(CODE_CHARS)]
    return "-".join("".join(chars[at : at + GROUP_CHARS]) for at in range(0, CODE_CHARS, GROUP_CHARS))
