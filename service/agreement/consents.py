"""What owners say of what is not owed: advertisements (agreement 2.6), and data given to partners (2.7).

Nothing of either happens without a yes that is kept with the account, with when and how it was said; only
advertisements may also go to those who have said nothing, where `[agreement] advertise_unasked` says so. Every change
of it is in the account's history.
"""

from __future__ import annotations

import hashlib
import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as NotBase64
from contextlib import suppress
from dataclasses import dataclass

from service.agreement.desk import Actor, Desk, account_of
from service.partners import parse_partners
from storage.catalog.books import Books
from storage.errors import NotFound
from storage.rows.accounts import OPERATOR_ACCOUNT, AccountState
from storage.rows.people import ConsentRow

ADVERTISEMENTS = "advertisements"
PARTNER = "partner:"
_NUMBER_BYTES, _MAC_BYTES = 8, 16
TOKEN_CHARS = 32
"""Of the token in a link: the account's number and a MAC."""


@dataclass(frozen=True, slots=True)
class Consent:
    """What the owner has said of one subject.

    Args:
        fields: of the account that a partner would be given; none of other subjects.
        given: None: nothing was said.
    """

    subject: str
    fields: tuple[str, ...]
    given: bool | None
    how: str = ""
    at_ms: int | None = None


def subjects(desk: Desk) -> dict[str, tuple[str, ...]]:
    """What there is to say yes or no to, and what of the account it would give."""
    partners = parse_partners(desk.settings.partners)
    return {ADVERTISEMENTS: ()} | {PARTNER + name: fields for name, fields in partners.items()}


def said(desk: Desk, actor: Actor, account: int) -> list[Consent]:
    """All subjects, and what the owner has said of each. Raises NotFound."""
    with desk.reading() as books:
        account_of(books, actor, account)
        rows = {row.subject: row for row in books.consents_of(account)}
    found = []
    for subject, fields in subjects(desk).items():
        row = rows.get(subject)
        found.append(
            Consent(subject, fields, None)
            if row is None
            else Consent(subject, fields, row.given, row.how, row.at_ms)
        )
    return found


def say(desk: Desk, actor: Actor, account: int, subject: str, given: bool, *, how: str = "") -> None:
    """Keep a yes or a no. The same again changes nothing.

    Args:
        how: "link"; else it is who asks, "owner" or "operator" (who was told, by phone or letter).

    Raises:
        NotFound: also `unknown_consent`, there is nothing of that name to consent to.
    """
    if subject not in subjects(desk) and given:
        raise NotFound("there is nothing of this name to consent to", subject=subject, code="unknown_consent")

    def work(books: Books) -> None:
        row = account_of(books, actor, account)
        if row.state is AccountState.CANCELLED or account == OPERATOR_ACCOUNT:
            raise NotFound("there is no such owner's account", subject=f"account {account}")
        before = {one.subject: one.given for one in books.consents_of(account)}
        if before.get(subject) is given:
            return
        if subject not in subjects(desk) and subject not in before:
            raise NotFound("there is nothing of this name", subject=subject, code="unknown_consent")
        said_how = how or actor.role
        books.put_consent(ConsentRow(account, subject, given, said_how, desk.now_ms()))
        what = "consented" if given else "consent_withdrawn"
        desk.record(books, actor, account, what, facts={"subject": subject, "how": said_how})

    desk.write(work)


def wants_advertisements(desk: Desk, books: Books, account: int) -> bool:
    """Whether advertisements may be sent to the account."""
    for row in books.consents_of(account):
        if row.subject == ADVERTISEMENTS:
            return row.given
    return desk.settings.advertise_unasked


# --- the link of an advertisement ---------------------------------------------------------------------------------


def unsubscribe_url(desk: Desk, account: int) -> str:
    """The address that ends the advertisements to this account: for whoever has it, without a log-in and for ever."""
    return f"{desk.notices.public_url.rstrip('/')}/v1/unsubscribe?token={_token(desk, account)}"


def account_of_link(desk: Desk, token: str) -> int:
    """Which account a token is of. No look into the catalog: a made-up one costs a hash.

    Raises:
        NotFound: `unknown_link`.
    """
    try:
        account = int.from_bytes(urlsafe_b64decode(token.encode("ascii"))[:_NUMBER_BYTES], "big")
    except (NotBase64, ValueError):
        account = -1
    if account < 0 or not hmac.compare_digest(token, _token(desk, account)):
        raise NotFound("this link is not one of ours", code="unknown_link")
    return account


def unsubscribe(desk: Desk, token: str) -> None:
    """No more advertisements to the account of this link; again changes nothing, nor when the account has ended.

    Raises:
        NotFound: `unknown_link`.
    """
    account = account_of_link(desk, token)
    with desk.reading() as books:  # so that a link that is opened again and again writes once
        if any(row.subject == ADVERTISEMENTS and not row.given for row in books.consents_of(account)):
            return
    with suppress(NotFound):
        say(desk, Actor("owner", account), account, ADVERTISEMENTS, False, how="link")


def _token(desk: Desk, account: int) -> str:
    number = account.to_bytes(_NUMBER_BYTES, "big")
    key = desk.address_secret
    mac = hashlib.blake2b(number, key=key, digest_size=_MAC_BYTES, person=b"unsubscribe").digest()
    return urlsafe_b64encode(number + mac).decode()
