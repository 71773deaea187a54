"""Log-in, log-out, tokens and new passwords (agreement 1.2, 1.3, 2.2).

Failures slow down, per account and per client: an attempt is counted before the password is looked at, so that many at
once are no way around.
"""

from __future__ import annotations

import re
from dataclasses import replace
from hashlib import blake2b

from retention.addresses import normalise_email, normalise_mobile
from service.agreement.bearer import OPERATOR_PREFIX, OWNER_PREFIX, is_token, new_token, token_hash
from service.agreement.codes import find_code, send_password_code, use_code, was_just_sent
from service.agreement.desk import Actor, Desk, account_of
from service.agreement.devices import end_viewer_tokens
from service.agreement.errors import Forbidden, Unauthorized
from service.agreement.limits import count_failure, forgive, log_ins, log_ins_of_client
from service.agreement.operators import bearer_of
from service.agreement.outbox import addresses_of, tell
from service.agreement.passwords import hashed, outdated, verified
from service.agreement.versions import accept_current
from storage.catalog.books import Books
from storage.days import MS_PER_DAY
from storage.errors import CallerError, NotFound
from storage.rows.accounts import OPERATOR_ACCOUNT, AccountRow, AccountState, AttemptsRow, SessionRow

MAX_LOGIN_CHARS = 320
KNOWN_DAYS = 180
"""After a log-in from it a client's attempts are counted apart from strangers'."""
_NUMBER = re.compile(r"[0-9]{1,18}")


def log_in(desk: Desk, login: str, password: str, client: str) -> tuple[str, SessionRow]:
    """A token for whoever knows the password.

    Args:
        login: the account's number, e-mail or mobile number.
        client: the network address of who asks.

    Raises:
        Unauthorized: `bad_credentials`: no such account, or another password; one can't tell which.
        Forbidden: `account_suspended`, `not_activated`; only for the right password.
        TooMany: `slow_down`.
    """
    row, new_hash = _prove(desk, login, password, client)
    token = new_token(desk, OWNER_PREFIX)

    def work(books: Books) -> SessionRow | CallerError:
        # Read again: the password may have been changed while this one was looked at.
        now = books.account(row.account)
        if now.state is AccountState.CANCELLED or now.password_hash != row.password_hash:
            return _bad_credentials()
        _forgive(desk, books, row.account, client)
        return let_in(desk, books, replace(now, password_hash=new_hash or now.password_hash), token)

    return token, desk.write(work)


def let_in(desk: Desk, books: Books, row: AccountRow, token: str) -> SessionRow | Forbidden:
    """A session for who has proved to be the owner; or why there is none, to be returned by the work of `Desk.write`.

    Args:
        row: as it is to be stored.
        token: a new one, which goes to the owner.
    """
    refused = _not_let_in(row)
    if refused is not None:
        return refused
    books.put_account(replace(row, used_on=desk.today()))
    accept_current(desk, books, row.account, "deemed")
    now_ms = desk.now_ms()
    lasts_ms = round(desk.settings.session_h * 3_600_000)
    session = SessionRow(token_hash(token), row.account, now_ms, now_ms + lasts_ms)
    books.add_session(session)
    return session


def who(desk: Desk, token: str) -> Actor:
    """Whose token it is.

    Raises:
        Unauthorized: `session_ended`: it ended, was revoked, or never was.
        Forbidden: `account_suspended`.
    """
    ended = Unauthorized("the session has ended; log in again", code="session_ended")
    if not is_token(token):
        raise ended
    with desk.reading() as books:
        if token.startswith(OPERATOR_PREFIX):
            return bearer_of(desk, books, token)
        session = books.session(token_hash(token))
        if session is None or session.expires_ms <= desk.now_ms():
            raise ended
        row = books.account(session.account)
    if row.state is AccountState.CANCELLED:
        raise ended
    refused = _not_let_in(row)
    if refused is not None:
        raise refused
    return Actor("owner", row.account)


def log_out(desk: Desk, token: str) -> None:
    """End the session of this token, or an operator's token. Raises Unauthorized `session_ended` when there is none."""

    def work(books: Books) -> bool:
        if not token.startswith(OPERATOR_PREFIX):
            return books.end_session(token_hash(token))
        row = books.operator_token(token_hash(token))
        if row is None:
            return False
        facts = {"token": row.token_id}
        desk.record(
            books, bearer_of(desk, books, token), OPERATOR_ACCOUNT, "operator_token_revoked", facts=facts
        )
        return books.end_operator_token(row.token_id)

    if not desk.write(work):
        raise Unauthorized("the session has ended already", code="session_ended")


def change_password(desk: Desk, actor: Actor, account: int, old: str, new: str, client: str) -> None:
    """Replace the password, known by the one before. All sessions and viewer tokens end; cameras' tokens don't.

    Raises:
        NotFound; Unauthorized: `bad_credentials`; Unprocessable: `bad_password`; TooMany: `slow_down`.
    """
    with desk.reading() as books:
        account_of(books, actor, account)
    row, _ = _prove(desk, str(account), old, client)
    new_hash = hashed(desk, new)

    def work(books: Books) -> CallerError | None:
        now = books.account(account)
        if now.password_hash != row.password_hash:
            return _bad_credentials()
        _forgive(desk, books, account, client)
        _set_password(desk, books, actor, now, new_hash)
        return None

    desk.change(work)


def request_reset(desk: Desk, login: str, client: str) -> None:
    """Send a code for a new password, to the address that was given, or to all when it was the account's number.
    One that was sent there just now is still good, and not sent again yet. Says nothing of whether there is such an
    account. What bounds the messages of one account is that pause: to refuse it would lock its owner out.

    Raises:
        TooMany: `slow_down`.
    """

    def work(books: Books) -> CallerError | None:
        refused = count_failure(desk, books, f"reset:client:{client}", log_ins_of_client(desk))
        if refused is not None:
            return refused
        row = _find(books, login)
        if row is not None and row.suspended_ms is None and row.state is not AccountState.NEW:
            own = addresses_of(row)
            given = [pair for pair in own if pair[1] in _normals(login)] or own
            due = [pair for pair in given if not was_just_sent(desk, books, row.account, "password", *pair)]
            if due:
                send_password_code(desk, books, row.account, due)
        return None

    desk.write(work)


def find(desk: Desk, actor: Actor, login: str) -> AccountRow | None:
    """The owner's account with this number, e-mail or mobile number, for an operator who is asked about it."""
    actor.require_operator()
    with desk.reading() as books:
        return _find(books, login)


def send_reset(desk: Desk, actor: Actor, account: int) -> AccountRow:
    """Send a code for a new password to all addresses of the account, as an operator whom its owner asked.

    Raises:
        Forbidden: `operators_only`, `account_suspended`, `not_activated`; NotFound.
    """
    actor.require_operator()

    def work(books: Books) -> AccountRow:
        row = account_of(books, actor, account)
        if row.account == OPERATOR_ACCOUNT or row.state is AccountState.CANCELLED:
            raise NotFound("there is no such owner's account", subject=f"account {account}")
        if row.suspended_ms is not None:
            raise Forbidden(
                "it is suspended, and nobody could log in; lift that first",
                subject=f"account {account}",
                code="account_suspended",
            )
        if row.state is AccountState.NEW:
            raise Forbidden(
                "it has no address before it is activated; `clipkeep account send-code` sends the code for that",
                subject=f"account {account}",
                code="not_activated",
            )
        send_password_code(desk, books, account, addresses_of(row))
        desk.record(books, actor, account, "password_code_sent")
        return row

    return desk.write(work)


def reset_password(desk: Desk, login: str, code: str, password: str, client: str) -> None:
    """Set a password with a code from `request_reset`. All sessions and viewer tokens end; cameras' tokens don't.

    Raises:
        Unprocessable: `wrong_code`, also when there is no such account; `bad_password`; TooMany: `slow_down`.
    """
    with desk.reading() as books:
        asked = _find(books, login)
        right = asked is not None and find_code(desk, books, asked.account, ("password",), code) is not None
    # A wrong one costs no hash; it is refused below.
    new_hash = hashed(desk, password) if right else ""

    def work(books: Books) -> CallerError | None:
        row = _find(books, login)
        account = row.account if right and row is not None else 0
        used = use_code(desk, books, account, ("password",), code, client=client)
        if isinstance(used, CallerError):
            return used
        assert row is not None, "there are no codes of account 0"
        _know(desk, books, row.account, client)
        _set_password(desk, books, Actor("owner", row.account), row, new_hash)
        return None

    desk.change(work)


# --- who it is ----------------------------------------------------------------------------------------------------


def _prove(desk: Desk, login: str, password: str, client: str) -> tuple[AccountRow, str]:
    """The account of `login`, whose password this is, and a new hash when the kept one is outdated. The attempt is
    counted; whoever calls forgives it."""

    def work(books: Books) -> tuple[AccountRow | None] | CallerError:
        row = _find(books, login)
        for subject, limit in (
            (_attempted(desk, books, row, login, client), log_ins(desk)),
            (f"login:client:{client}", log_ins_of_client(desk)),
        ):
            refused = count_failure(desk, books, subject, limit)
            if refused is not None:
                return refused
        return (row,)

    [row] = desk.write(work)
    if not verified(desk, "" if row is None else row.password_hash, password) or row is None:
        raise _bad_credentials()
    return row, hashed_again(desk, row.password_hash, password)


def hashed_again(desk: Desk, kept: str, password: str) -> str:
    return hashed(desk, password) if outdated(desk, kept) else ""


def _forgive(desk: Desk, books: Books, account: int, client: str) -> None:
    """The password was right: the account's failures are forgotten, and of the client's this attempt."""
    _know(desk, books, account, client)
    forgive(books, f"login:client:{client}")


def _know(desk: Desk, books: Books, account: int, client: str) -> None:
    """The account's owner was there: failures are forgotten, and the client is known from then on."""
    books.drop_attempts(f"login:account:{account}")
    books.drop_attempts(_by_known(account, client))
    now_ms = desk.now_ms()
    known = AttemptsRow(_known(account, client), 1, now_ms, now_ms, now_ms + KNOWN_DAYS * MS_PER_DAY)
    books.put_attempts(known)


def _find(books: Books, login: str) -> AccountRow | None:
    """The owner's account with this number or address."""
    row: AccountRow | None = None
    if _NUMBER.fullmatch(login):
        try:
            row = books.account(int(login))
        except NotFound:
            return None
    for address in _normals(login):
        row = row or (books.account_at(email=address) if "@" in address else books.account_at(mobile=address))
    if row is None or row.account == OPERATOR_ACCOUNT or row.state is AccountState.CANCELLED:
        return None
    return row


def _normals(login: str) -> list[str]:
    """The addresses that it may be, as they are kept: one or none."""
    if len(login) > MAX_LOGIN_CHARS:
        return []
    try:
        return [normalise_email(login) if "@" in login else normalise_mobile(login)]
    except CallerError:
        return []


def _attempted(desk: Desk, books: Books, row: AccountRow | None, login: str, client: str) -> str:
    """Whose attempts are counted: the account's; for a login that nobody has just as for one that somebody has, else it
    would show. Those of a client that has logged in to the account before are counted apart, so that strangers who
    guess don't keep its owner out."""
    if row is not None:
        known = books.attempts(_known(row.account, client))
        if known is not None and desk.now_ms() < known.locked_until_ms:
            return _by_known(row.account, client)
        return f"login:account:{row.account}"
    text = (_normals(login) or [login])[0].encode("utf-8", "replace")
    return f"login:unknown:{blake2b(text, key=desk.address_secret, digest_size=16).hexdigest()}"


def _known(account: int, client: str) -> str:
    """The subject whose row says until when the client is known to the account."""
    return f"login:known:{account}:{client}"


def _by_known(account: int, client: str) -> str:
    return f"login:account:{account}:client:{client}"


def _not_let_in(row: AccountRow) -> Forbidden | None:
    subject = f"account {row.account}"
    if row.suspended_ms is not None:
        return Forbidden("it is suspended; ask the operator", subject=subject, code="account_suspended")
    if row.state is AccountState.NEW:
        return Forbidden(
            "activate it first, with the code that was sent to its addresses",
            subject=subject,
            code="not_activated",
        )
    return None


def _set_password(desk: Desk, books: Books, actor: Actor, row: AccountRow, new_hash: str) -> None:
    books.put_account(replace(row, password_hash=new_hash))
    books.end_sessions(row.account)
    end_viewer_tokens(books, row.account)
    books.drop_code(row.account, "password")
    desk.record(books, actor, row.account, "password_changed")
    tell(desk, books, row, "password_changed", account=row.account)


def _bad_credentials() -> Unauthorized:
    return Unauthorized("there is no account with this login and password", code="bad_credentials")
