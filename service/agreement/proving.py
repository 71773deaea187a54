"""Addresses: an account has one when the code that was sent there comes back, and each address has its own code.

Nothing else binds an address, so nobody keeps one from its owner. And no answer tells a stranger whether an account
has it: asking for a taken address, or one that is reserved (agreement 6.5.2), makes the same rows and gives the same
answer. What differs is what is sent, and only its owner reads that.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable

from retention.addresses import address_hash
from service.agreement.codes import code_out, note_sent, send_code
from service.agreement.desk import Desk
from service.agreement.errors import Conflict, TooMany
from service.agreement.limits import count_use
from service.agreement.outbox import tell_at
from storage.catalog.books import Books
from storage.days import to_date
from storage.rows.accounts import AccountRow

MAX_RESERVED_DAYS = 3650
"""What `[agreement] reserve_days` allows: how far ahead the end of a reservation is looked for."""
KINDS = ("email", "mobile")
NEWCOMERS = 5
"""So many times `codes_per_address_h` at most is one address sent in an hour, when ever other clients ask. A guess:
enough networks to be no single stranger, and few enough messages to be thrown away by hand."""


def count_asked(desk: Desk, books: Books, asked: Iterable[tuple[str, str]], client: str) -> TooMany | None:
    """Count that a client has codes made for these addresses, whether they are taken or not; or the refusal, which the
    work of `Desk.write` returns: before it changes anything.

    What an address is sent in an hour is bounded, and shared out: a client has at most half of it, and one who has had
    none yet is let in beyond it, up to `NEWCOMERS` times the bound. So it takes many networks, not one, to have the
    owner of an address wait.

    Args:
        client: a network address, or an account.
    """
    refused = count_use(desk, books, f"code:client:{client}", desk.settings.registrations_per_h)
    if refused is not None:
        return refused
    most = desk.settings.codes_per_address_h
    for kind, address in asked:
        subject = f"code:address:{address_hash(desk.address_secret, kind, address).hex()}"
        own = f"{subject}:client:{client}"
        mine = count_use(desk, books, own, max(1, most // 2))
        if mine is not None:
            return mine
        row = books.attempts(own)
        all_most = most * NEWCOMERS if row is not None and row.count == 1 else most
        refused = count_use(desk, books, subject, all_most)
        if refused is not None:
            return refused
    return None


def ask_proof(desk: Desk, books: Books, account: int, kind: str, address: str, purpose: str) -> None:
    """Send the code that binds the address to the account. When it is taken or reserved, the code is made all the
    same, and sent to nobody: the owner of the address is told instead.

    Args:
        purpose: of the notice with the code, e.g. "activate".
    """
    holder = _holder(books, kind, address)
    reserved = books.is_reserved(address_hash(desk.address_secret, kind, address), on=desk.today())
    code = code_out(desk, books, account, kind, address)
    if holder is not None and holder.account != account:
        tell_at(desk, books, holder.account, kind, address, "address_in_use", account=holder.account)
        note_sent(desk, books, code, kind, address)
    elif reserved:
        days = desk.settings.reserve_days
        tell_at(desk, books, account, kind, address, "address_reserved", days=days)
        note_sent(desk, books, code, kind, address)
    else:
        send_code(desk, books, code, purpose, [(kind, address)])


def claims_of(books: Books, row: AccountRow) -> list[tuple[str, str]]:
    """(kind, address) of what a new account asked for and has not proved; until their codes are forgotten, days after
    they ended. Accounts that an earlier release made have unproved addresses in their row."""
    codes = {kind: books.code(row.account, kind) for kind in KINDS}
    asked = {kind: getattr(row, kind) if code is None else code.address for kind, code in codes.items()}
    return [(kind, address) for kind, address in asked.items() if address is not None]


def require_free(desk: Desk, books: Books, account: int, kind: str, address: str) -> None:
    """For who may know: operators, and who has proved the address.

    Raises:
        Conflict: `address_taken`, or `address_reserved`: of a cancelled account, for some days (6.5.2).
    """
    holder = _holder(books, kind, address)
    if holder is not None and holder.account != account:
        raise Conflict(
            f"the {kind} belongs to an account: log in with it, or ask for a new password",
            code="address_taken",
        )
    key = address_hash(desk.address_secret, kind, address)
    on = desk.today()
    if books.is_reserved(key, on=on):
        days = range(on, on + MAX_RESERVED_DAYS + 2)
        free_on = days[bisect_left(days, True, key=lambda day: not books.is_reserved(key, on=day))]
        raise Conflict(
            f"the {kind} was that of an account which was cancelled; it can be used again from {to_date(free_on)}"
            " (UTC) on",
            code="address_reserved",
        )


def _holder(books: Books, kind: str, address: str) -> AccountRow | None:
    return books.account_at(email=address) if kind == "email" else books.account_at(mobile=address)
