"""Registering, activating and updating an account (agreement 1.2, 2.1, 6.2.1, 6.5.2)."""

from __future__ import annotations

from dataclasses import replace

from retention.accounts import activate as activated
from retention.addresses import normalise_email, normalise_mobile
from retention.history import account_facts
from service.agreement import corrections
from service.agreement.codes import use_code, was_just_sent
from service.agreement.desk import OPERATOR, Actor, Desk, account_of, require_not_closing, require_open
from service.agreement.errors import Conflict, Forbidden, TooMany, Unprocessable
from service.agreement.limits import count_use
from service.agreement.outbox import addresses_of, tell_at
from service.agreement.passwords import hashed
from service.agreement.proving import KINDS, ask_proof, claims_of, count_asked, require_free
from service.agreement.texts import MAX_NAME_CHARS, one_line
from service.agreement.versions import accept_current
from storage.catalog.books import Books
from storage.errors import CallerError, NotFound
from storage.rows.accounts import OPERATOR_ACCOUNT, AccountRow, AccountState


def register(
    desk: Desk,
    *,
    email: str | None,
    mobile: str | None,
    password: str,
    name: str,
    accepts_version: int,
    client: str | None,
    actor: Actor = OPERATOR,
) -> AccountRow:
    """Make an account, not activated yet and without an address, and send a code to each address that is asked for.
    Nobody but an operator is told that one is taken or reserved: see `proving`.

    Args:
        accepts_version: the version of the agreement that the owner accepts: the current one.
        client: the network address of who asks; registrations of one are limited. None: an operator, for the owner.
        actor: that operator.

    Raises:
        Unprocessable: `no_address`, `bad_email`, `bad_mobile`, `bad_password`, `bad_text`, `agreement_not_accepted`.
        Conflict: `address_taken`, `address_reserved`; for an operator.
        TooMany: `slow_down`.
    """
    _normal(email, mobile)
    name = one_line(name, "the name", MAX_NAME_CHARS, least=0)
    if client is not None:
        count_registration(desk, client)
    password_hash = hashed(desk, password)

    def work(books: Books) -> AccountRow | CallerError:
        return register_in(desk, books, email, mobile, password_hash, name, accepts_version, client, actor)

    return desk.write(work, new_accounts=1)


def count_registration(desk: Desk, client: str) -> None:
    """Raises TooMany `slow_down`."""
    most = desk.settings.registrations_per_h
    desk.write(lambda books: count_use(desk, books, f"register:client:{client}", most))


def register_in(
    desk: Desk,
    books: Books,
    email: str | None,
    mobile: str | None,
    password_hash: str,
    name: str,
    accepts_version: int,
    client: str | None,
    actor: Actor = OPERATOR,
) -> AccountRow | CallerError:
    """`register`, inside a transaction with a new account: what is left when the client is counted.

    Args:
        password_hash: "" for an account that is logged in to elsewhere.
    """
    pair = _normal(email, mobile)
    asked = [(kind, address) for kind, address in zip(KINDS, pair, strict=True) if address is not None]
    require_current(books, accepts_version)
    refused = _refused(desk, books, 0, asked, client)
    if refused is not None:
        return refused
    row = books.add_account(AccountRow(0, "owner", name, desk.now_ms(), password_hash=password_hash))
    accept_current(desk, books, row.account, "registered")
    desk.record(
        books,
        actor if client is None else Actor("owner", row.account),
        row.account,
        "registered",
        facts={**account_facts(row), "agreement": accepts_version},
    )
    for kind, address in asked:
        ask_proof(desk, books, row.account, kind, address, "activate")
    return row


def activate(
    desk: Desk, account: int, code: str, client: str | None = None, *, actor: Actor | None = None
) -> AccountRow:
    """Activate the account with the code that was sent to one of its addresses, which it then has. Another one that it
    asked for is bound by `confirm_address`, with the code that was sent there.

    Args:
        client: the network address of who asks. Wrong guesses slow it down. None: an operator.
        actor: the owner, who alone has the code, when not said.

    Raises:
        NotFound; TooMany: `slow_down`.
        Conflict: `already_activated`; `address_taken`, `address_reserved`: since the code was sent.
        Unprocessable: `wrong_code`.
    """

    def work(books: Books) -> AccountRow | CallerError:
        row = activated(_new_account(books, account), now_ms=desk.now_ms())
        used = use_code(desk, books, account, KINDS, code, client=client)
        if isinstance(used, CallerError):
            return used
        require_free(desk, books, account, used.purpose, used.address)
        row = replace(row, used_on=desk.today(), email=None, mobile=None)
        row = _with_address(row, used.purpose, used.address)
        books.put_account(row)
        desk.record(books, actor or Actor("owner", account), account, "activated", facts=account_facts(row))
        return row

    return desk.write(work)


def resend_code(desk: Desk, account: int, client: str | None, *, actor: Actor = OPERATOR) -> None:
    """Send the activation codes again: the same ones as long as they are good. Those that were sent just now are not
    sent again yet, so a stranger who asks keeps nobody from having one that is good.

    Args:
        client: the network address of who asks; codes are limited per address and client. None: an operator, who has
            them sent at once.
        actor: that operator.

    Raises:
        NotFound; Conflict: `already_activated`, `registration_expired`; for an operator as `register`.
        TooMany: `slow_down`.
    """

    def work(books: Books) -> CallerError | None:
        row = _new_account(books, account)
        claims = claims_of(books, row)
        due = _due(desk, books, account, claims) if client is not None else claims
        refused = _refused(desk, books, account, due, client)
        if refused is not None:
            return refused
        if not claims:
            raise Conflict(
                "it was not activated in time, and its addresses are forgotten; register again",
                subject=f"account {account}",
                code="registration_expired",
            )
        for kind, address in due:
            ask_proof(desk, books, account, kind, address, "activate")
        if client is None:
            desk.record(books, actor, account, "code_sent")
        return None

    desk.write(work)


def update(
    desk: Desk,
    actor: Actor,
    account: int,
    *,
    name: str | None = None,
    email: str | None = None,
    mobile: str | None = None,
) -> AccountRow:
    """Change the account's name, or ask for other addresses. None leaves a field as it is; an empty address removes
    it, when the other one stays. A new address is bound by `confirm_address`, with the code that is sent to it.

    Raises:
        NotFound, Forbidden, Unprocessable, Conflict, TooMany: as `register`, and `account_closing` for addresses.
    """
    new = dict(zip(("email", "mobile"), _normal(email or None, mobile or None, least=0), strict=True))
    removed = [kind for kind, text in (("email", email), ("mobile", mobile)) if text == ""]
    if name is not None:
        name = one_line(name, "the name", MAX_NAME_CHARS, least=0)

    def work(books: Books) -> AccountRow | CallerError:
        row = _own(books, actor, account)
        if removed or any(new.values()):
            _require_may_change(actor, row)
        asked = [
            (kind, address) for kind, address in new.items() if address and address != getattr(row, kind)
        ]
        if actor.role == "owner":
            asked = _due(desk, books, account, asked)
        refused = _refused(
            desk, books, account, asked, f"account:{account}" if actor.role == "owner" else None
        )
        if refused is not None:
            return refused
        if name is not None and name != row.name:
            row = replace(row, name=name)
            books.put_account(row)
            desk.record(books, actor, account, "updated", facts={"changed": "name"})
            row = corrections.changed(desk, books, actor, row, "name")
        for kind in removed:
            row = _remove(desk, books, actor, row, kind)
        for kind, address in asked:
            ask_proof(desk, books, account, kind, address, _purpose(row, kind))
        return row

    return desk.change(work)


def confirm_address(
    desk: Desk, account: int, kind: str, code: str, *, actor: Actor | None = None
) -> AccountRow:
    """Bind the new address that the code was sent to. The one before is told.

    Args:
        kind: "email" or "mobile".
        actor: the owner, who alone has the code, when not said.

    Raises:
        Unprocessable: `wrong_code`, `bad_address_kind`. Forbidden: `not_activated`: `activate` binds its first one.
        Conflict: `address_taken`, `address_reserved`: since the code was sent. And as `update`.
    """
    if kind not in ("email", "mobile"):
        raise Unprocessable("an address is an email or a mobile", code="bad_address_kind")
    actor = actor or Actor("owner", account)

    def work(books: Books) -> AccountRow | CallerError:
        row = _own(books, actor, account)
        _require_may_change(actor, row)
        if row.state is AccountState.NEW:
            raise Forbidden(
                "the code that was sent to it activates the account, and binds it",
                subject=f"account {account}",
                code="not_activated",
            )
        used = use_code(desk, books, account, (kind,), code)
        if isinstance(used, CallerError):
            return used
        require_free(desk, books, account, kind, used.address)
        before = getattr(row, kind)
        row = _with_address(row, kind, used.address)
        books.put_account(row)
        desk.record(books, actor, account, "updated", facts={"changed": kind})
        if before is not None:
            _tell_old(desk, books, account, kind, before)
        return corrections.changed(desk, books, actor, row, kind)

    return desk.change(work)


def _normal(email: str | None, mobile: str | None, least: int = 1) -> tuple[str | None, str | None]:
    pair = (
        None if email is None else normalise_email(email),
        None if mobile is None else normalise_mobile(mobile),
    )
    if sum(address is not None for address in pair) < least:
        raise Unprocessable("an account needs an e-mail address or a mobile number", code="no_address")
    return pair


def _due(desk: Desk, books: Books, account: int, asked: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """(kind, address) of those whose code is to be sent now."""
    return [
        (kind, address)
        for kind, address in asked
        if not was_just_sent(desk, books, account, kind, kind, address)
    ]


def _refused(
    desk: Desk, books: Books, account: int, asked: list[tuple[str, str]], client: str | None
) -> TooMany | None:
    """Everybody is only counted. An operator (None) is not, and learns at once that an address can't be had."""
    if client is not None:
        return count_asked(desk, books, asked, client) if asked else None
    for kind, address in asked:
        require_free(desk, books, account, kind, address)
    return None


def require_current(books: Books, version: int) -> None:
    """Raises Unprocessable `agreement_not_accepted`."""
    current = books.agreement().version
    if version != current:
        raise Unprocessable(
            f"read and accept version {current} of the service agreement: GET /v1/agreement,"
            " or `clipkeep agreement show`",
            code="agreement_not_accepted",
        )


def _new_account(books: Books, account: int) -> AccountRow:
    row = account_of(books, Actor("owner", account), account)
    if row.state is not AccountState.NEW:
        raise Conflict("it is active; log in", subject=f"account {account}", code="already_activated")
    return row


def _own(books: Books, actor: Actor, account: int) -> AccountRow:
    row = account_of(books, actor, account)
    if row.state is AccountState.CANCELLED or row.account == OPERATOR_ACCOUNT:
        raise NotFound("there is no such owner's account", subject=f"account {account}")
    return row


def _require_may_change(actor: Actor, row: AccountRow) -> None:
    """Operators correct the addresses of accounts that are suspended, or were never activated."""
    if actor.role == "owner":
        require_open(row)
    require_not_closing(row)


def _with_address(row: AccountRow, kind: str, address: str | None) -> AccountRow:
    return replace(row, email=address) if kind == "email" else replace(row, mobile=address)


def _purpose(row: AccountRow, kind: str) -> str:
    """Of the notice with the code for an address."""
    return "activate" if row.state is AccountState.NEW else kind


def _remove(desk: Desk, books: Books, actor: Actor, row: AccountRow, kind: str) -> AccountRow:
    books.drop_code(row.account, kind)
    before = getattr(row, kind)
    if before is None:
        return row
    row = _with_address(row, kind, None)
    if not addresses_of(row):
        raise Unprocessable("it is the only address of the account; add another one first", code="no_address")
    books.put_account(row)
    desk.record(books, actor, row.account, "updated", facts={"changed": kind, "removed": True})
    _tell_old(desk, books, row.account, kind, before)
    return corrections.changed(desk, books, actor, row, kind)


def _tell_old(desk: Desk, books: Books, account: int, kind: str, address: str) -> None:
    tell_at(desk, books, account, kind, address, "address_changed", account=account)
