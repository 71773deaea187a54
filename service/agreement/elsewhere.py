"""Log-in with an account that somebody has elsewhere (agreement 1.3), by OpenID Connect.

    begin -> the browser goes to the provider -> finish    of an account that has it linked: a session
                                                           of nobody: a newcomer, who may `register`
    begin for an account -> … -> link                      by that account's owner, logged in to it

What is begun is kept by the client, sealed, until it is over (`service.agreement.openid.sealed`). It ends once, and
what a client may begin and end in an hour is counted.
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from hmac import compare_digest

from retention.accounts import activate as activated
from retention.addresses import normalise_email
from retention.history import account_facts
from service.agreement.bearer import OWNER_PREFIX, new_token
from service.agreement.desk import Actor, Desk, account_of, require_open
from service.agreement.errors import Conflict, Forbidden, NotFound, Unauthorized, Unprocessable
from service.agreement.limits import count_use
from service.agreement.openid.provider import Provider
from service.agreement.openid.sealed import Attempt, Newcomer, seal, unseal
from service.agreement.outbox import tell
from service.agreement.proving import require_free
from service.agreement.registration import count_registration, register_in, require_current
from service.agreement.sessions import let_in
from service.agreement.texts import MAX_NAME_CHARS, one_line
from service.agreement.versions import accept_current
from storage.catalog.books import Books
from storage.errors import CallerError
from storage.rows.accounts import AccountRow, AccountState, AttemptsRow, SessionRow
from storage.rows.identities import IdentityRow

RANDOM_BYTES = 32
NEWCOMER_MS = 15 * 60_000
"""To read the agreement, and to say which address notices go to."""


@dataclass(frozen=True, slots=True)
class Providers:
    """The providers, and what holds for all of them.

    Args:
        redirect_uris: where they may send a browser back; the first one when none is named.
        begin_ms: how long a log-in may take at the provider.
        per_h: what a client may begin, and end, in an hour.
    """

    by_name: Mapping[str, Provider] = field(default_factory=dict)
    redirect_uris: tuple[str, ...] = ()
    begin_ms: int = 600_000
    per_h: int = 60

    def named(self, name: str) -> Provider:
        """Raises NotFound."""
        found = self.by_name.get(name)
        if found is None:
            raise NotFound("there is no such provider; GET /v1/providers lists them", code="no_provider")
        return found


@dataclass(frozen=True, slots=True)
class Begun:
    """`attempt` is what the client keeps to end it."""

    url: str
    attempt: str
    expires_ms: int


@dataclass(frozen=True, slots=True)
class Finished:
    """A session and its token; or nobody's log-in, which `newcomer` allows to register with until `expires_ms`.

    Args:
        email: that the provider says is the newcomer's; `proved`: it need not be proved again.
    """

    session: tuple[str, SessionRow] | None
    newcomer: str = ""
    email: str = ""
    proved: bool = False
    expires_ms: int = 0


def begin(
    desk: Desk,
    providers: Providers,
    provider: str,
    redirect_uri: str | None,
    client: str,
    *,
    account: int | None = None,
    actor: Actor | None = None,
) -> Begun:
    """Begin a log-in at a provider; with `account`, which is `actor`'s own, to link it. Blocks while it is asked.

    Raises:
        NotFound: `no_provider`; the account. Unprocessable: `bad_redirect_uri`: not one of the configuration.
        Forbidden: as `require_open`; TooMany: `slow_down`. ProviderAway.
    """
    asked = providers.named(provider)
    back = redirect_uri or providers.redirect_uris[0]
    if back not in providers.redirect_uris:
        raise Unprocessable(
            "providers send nobody there: name one of `[openid] redirect_uris`, to the letter",
            code="bad_redirect_uri",
        )
    if account is not None:
        assert actor is not None
        with desk.reading() as books:
            require_open(_own(books, actor, account))
    _count(desk, providers, client, "begin")
    attempt = Attempt(
        provider,
        state=_random(desk),
        nonce=_random(desk),
        verifier=_random(desk),
        redirect_uri=back,
        account=account,
        expires_ms=desk.now_ms() + providers.begin_ms,
    )
    return Begun(asked.authorization_url(attempt), seal(desk, attempt), attempt.expires_ms)


def begun_at(desk: Desk, providers: Providers, attempt: str) -> str:
    """The name of the provider at which a log-in was begun. Raises Unauthorized `log_in_expired`; NotFound."""
    name = unseal(desk, attempt, Attempt).provider
    providers.named(name)
    return name


def account_to_link(desk: Desk, attempt: str) -> int | None:
    """The account that a log-in was begun for; None: it was begun to log in. Raises Unauthorized `log_in_expired`."""
    return unseal(desk, attempt, Attempt).account


def newcomer_of(desk: Desk, newcomer: str) -> Newcomer:
    """Who may register. Raises Unauthorized `log_in_expired`."""
    return unseal(desk, newcomer, Newcomer)


def finish(
    desk: Desk, providers: Providers, attempt: str, state: str, code: str, issuer: str | None, client: str
) -> Finished:
    """End a log-in with what the provider sent back. Blocks while it is asked.

    Raises:
        Unauthorized: `log_in_expired`, `log_in_used`, `wrong_state`, and those of `Provider.person`.
        Forbidden: `account_suspended`; TooMany: `slow_down`. ProviderAway.
    """
    subject, begun, (email, verified) = _proved(desk, providers, attempt, state, code, issuer, client, None)
    token = new_token(desk, OWNER_PREFIX)

    def work(books: Books) -> SessionRow | CallerError | None:
        identity = books.identity_at(subject)
        row = None if identity is None else books.account(identity.account)
        if row is None or row.state is not AccountState.ACTIVE:
            return None  # one who never activated the account may register anew
        return let_in(desk, books, row, token)

    session = desk.write(work)
    if session is not None:
        return Finished((token, session))
    proved = verified and providers.named(begun.provider).settings.trusts_email
    expires_ms = desk.now_ms() + NEWCOMER_MS
    newcomer = Newcomer(begun.provider, subject, email, proved, expires_ms)
    return Finished(None, seal(desk, newcomer), email, proved, expires_ms)


def register(
    desk: Desk,
    newcomer: str,
    *,
    accepts_version: int,
    name: str,
    email: str | None,
    mobile: str | None,
    client: str,
) -> tuple[AccountRow, tuple[str, SessionRow] | None]:
    """An account for somebody who logged in elsewhere and has none: without a password, with the agreement accepted.

    Where the provider's word for the e-mail address is believed, and no other is asked for, the account has it and is
    active. Else codes go out, and one of them activates it, as of any registration. So no account is without an address
    for notices.

    Raises:
        Unauthorized: `log_in_expired`. Conflict: `identity_taken`: it has an account since; `address_taken` and
            `address_reserved`, of an address that the provider has proved.
        Unprocessable, TooMany: as `registration.register`.
    """
    known = unseal(desk, newcomer, Newcomer)
    name = one_line(name, "the name", MAX_NAME_CHARS, least=0)
    count_registration(desk, client)
    token = new_token(desk, OWNER_PREFIX)
    at_once = known.proved and mobile is None and email in (None, known.email)

    def work(books: Books) -> tuple[AccountRow, SessionRow | None] | CallerError:
        _leave_unused(books, known.subject)
        if not at_once:
            row = register_in(
                desk, books, email or known.email or None, mobile, "", name, accepts_version, client
            )
            if isinstance(row, CallerError):
                return row
            books.add_identity(_identity(desk, row.account, known.provider, known.subject))
            return row, None
        require_current(books, accepts_version)
        require_free(desk, books, 0, "email", known.email)
        now_ms = desk.now_ms()
        new = activated(AccountRow(0, "owner", name, now_ms, email=known.email), now_ms=now_ms)
        row = books.add_account(new)
        accept_current(desk, books, row.account, "registered")
        facts = {**account_facts(row), "agreement": accepts_version, "provider": known.provider}
        desk.record(books, Actor("owner", row.account), row.account, "registered", facts=facts)
        books.add_identity(_identity(desk, row.account, known.provider, known.subject))
        session = let_in(desk, books, row, token)
        return session if isinstance(session, CallerError) else (row, session)

    row, session = desk.write(work, new_accounts=1)
    return row, None if session is None else (token, session)


def link(
    desk: Desk,
    providers: Providers,
    actor: Actor,
    account: int,
    attempt: str,
    state: str,
    code: str,
    issuer: str | None,
    client: str,
) -> IdentityRow:
    """Link to an account, by its owner, what was begun for it. Its addresses are told.

    Raises:
        As `finish`; NotFound; Conflict: `identity_taken`, another account has it; `identity_exists`, this one has
        another of the provider.
    """
    with desk.reading() as books:
        _own(books, actor, account)
    subject, begun, _ = _proved(desk, providers, attempt, state, code, issuer, client, account)

    def work(books: Books) -> IdentityRow:
        row = _own(books, actor, account)
        require_open(row)
        _leave_unused(books, subject)
        identity = _identity(desk, account, begun.provider, subject)
        if books.identity_at(subject) == identity:
            return identity
        books.add_identity(identity)
        desk.record(books, actor, account, "log_in_linked", facts={"provider": begun.provider})
        tell(desk, books, row, "log_in_linked", account=account, provider=begun.provider)
        return identity

    return desk.write(work)


def unlink(desk: Desk, actor: Actor, account: int, provider: str) -> None:
    """Take a log-in from elsewhere away; all sessions end. For the owner, and for operators who care for the account.

    Raises:
        NotFound; Conflict: `last_log_in`: there is no other way in.
    """

    def work(books: Books) -> None:
        row = account_of(books, actor, account)
        there = [identity.provider for identity in books.identities_of(account)]
        if provider not in there:
            raise NotFound("this account has no log-in of this provider", subject=f"account {account}")
        if len(there) == 1 and not row.password_hash:
            raise Conflict(
                "it is the only way to log in: set a password first (POST /v1/password-resets sends a code)",
                subject=f"account {account}",
                code="last_log_in",
            )
        books.drop_identity(account, provider)
        books.end_sessions(account)
        desk.record(books, actor, account, "log_in_unlinked", facts={"provider": provider})
        tell(desk, books, row, "log_in_unlinked", account=account, provider=provider)

    desk.write(work)


def listed(desk: Desk, actor: Actor, account: int) -> list[IdentityRow]:
    """Raises NotFound."""
    with desk.reading() as books:
        account_of(books, actor, account)
        return books.identities_of(account)


# --- steps --------------------------------------------------------------------------------------------------------


def _proved(
    desk: Desk,
    providers: Providers,
    attempt: str,
    state: str,
    code: str,
    issuer: str | None,
    client: str,
    account: int | None,
) -> tuple[str, Attempt, tuple[str, bool]]:
    """Who logged in: the subject that identities have, what was begun, and the e-mail address with whether it is
    verified. What was begun is used up by it, however it ends."""
    begun = unseal(desk, attempt, Attempt)
    if begun.account != account:
        raise Unauthorized("this log-in was begun for something else; begin again", code="log_in_expired")
    if not compare_digest(begun.state.encode(), state.encode()):
        raise Unauthorized("this answer is not of the log-in that was begun here", code="wrong_state")
    provider = providers.named(begun.provider)
    _count(desk, providers, client, "finish")
    desk.write(lambda books: _use_up(desk, books, begun))
    person = provider.person(begun, code, issuer, now_s=desk.now_ms() // 1000)
    try:
        email = normalise_email(person.email) if person.email else ""
    except CallerError:
        email = ""
    return f"{provider.settings.issuer}\n{person.subject}", begun, (email, bool(email) and person.verified)


def _use_up(desk: Desk, books: Books, begun: Attempt) -> CallerError | None:
    subject = f"openid:used:{begun.state}"
    if books.attempts(subject) is not None:
        return Unauthorized("this log-in was used already; begin again", code="log_in_used")
    now_ms = desk.now_ms()
    books.put_attempts(AttemptsRow(subject, 1, now_ms, now_ms, locked_until_ms=begun.expires_ms))
    return None


def _count(desk: Desk, providers: Providers, client: str, what: str) -> None:
    desk.write(lambda books: count_use(desk, books, f"openid:{what}:client:{client}", providers.per_h))


def _own(books: Books, actor: Actor, account: int) -> AccountRow:
    if actor.may_see_all:
        raise Forbidden("only the owner, logged in to the account, links a log-in to it", code="owners_only")
    return account_of(books, actor, account)


def _leave_unused(books: Books, subject: str) -> None:
    """An account that was never activated keeps nobody from another one."""
    identity = books.identity_at(subject)
    if identity is not None and books.account(identity.account).state is AccountState.NEW:
        books.drop_identity(identity.account, identity.provider)


def _identity(desk: Desk, account: int, provider: str, subject: str) -> IdentityRow:
    return IdentityRow(account, provider, subject, desk.now_ms())


def _random(desk: Desk) -> str:
    return urlsafe_b64encode(desk.random_bytes(RANDOM_BYTES)).rstrip(b"=").decode()
