"""Log-in from elsewhere (agreement 1.3): with a provider that lies, and with a real one of npm."""

from __future__ import annotations

import json
import time
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.agreement import elsewhere, registration, sessions
from service.agreement.desk import OPERATOR, Actor
from service.agreement.elsewhere import Begun, Finished, Providers
from service.agreement.errors import Conflict, Forbidden, NotFound, TooMany, Unauthorized, Unprocessable
from service.agreement.openid.opening import open_providers
from service.agreement.openid.provider import AWAY_S, KEYS_PAUSE_S, ProviderAway
from service.config import OpenIdSettings
from storage.rows.accounts import AccountState
from tests.retention.world import fast_folder
from tests.servers.openid import (
    BACK,
    LyingProvider,
    log_in_as_a_person,
    lying_provider,
    needs_npm_provider,
    npm_provider,
)
from tests.service.agreement.office import CLIENT, EMAIL, PASSWORD, Office, refused


class Shop(Office):
    """An office whose people may log in at a provider, called `acme`."""

    def __init__(self, folder: Path, issuer: str, **settings: Any) -> None:
        super().__init__(folder, clock_ms=int(time.time() * 1000))
        self.providers: Providers = open_providers(
            OpenIdSettings(
                providers=f"acme {issuer} clipkeep",
                redirect_uris=f"{BACK} com.example.app:/back",
                **{"secrets": "acme secret-of-clipkeep", **settings},
            )
        )

    def begin(self, **more: Any) -> Begun:
        return elsewhere.begin(self.desk, self.providers, "acme", None, CLIENT, **more)

    def finish(self, begun: Begun, code: str, state: str, issuer: str | None = None) -> Finished:
        return elsewhere.finish(self.desk, self.providers, begun.attempt, state, code, issuer, CLIENT)

    def log_in(self, provider: LyingProvider) -> Finished:
        begun = self.begin()
        return self.finish(begun, *provider.logged_in(begun.url))

    def join(self, newcomer: str, **more: Any) -> Any:
        asked = {"accepts_version": 1, "name": "Ada", "email": None, "mobile": None, **more}
        return elsewhere.register(self.desk, newcomer, client=CLIENT, **asked)

    def link(self, provider: LyingProvider, account: int) -> None:
        owner = Actor("owner", account)
        begun = self.begin(account=account, actor=owner)
        code, state = provider.logged_in(begun.url)
        elsewhere.link(self.desk, self.providers, owner, account, begun.attempt, state, code, None, CLIENT)


@pytest.fixture
def provider() -> Iterator[LyingProvider]:
    with lying_provider() as running:
        yield running


@pytest.fixture
def shop(provider: LyingProvider) -> Iterator[Shop]:
    with fast_folder() as folder, Shop(folder, provider.issuer) as made:
        yield made


def test_a_newcomer_accepts_the_agreement_and_proves_an_address(shop: Shop, provider: LyingProvider) -> None:
    provider.claims = {"email": EMAIL, "email_verified": True}
    found = shop.log_in(provider)
    assert (found.session, found.email, found.proved) == (None, EMAIL, False)
    with refused(Unprocessable, "agreement_not_accepted"):
        shop.join(found.newcomer, accepts_version=2)
    row, session = shop.join(found.newcomer)
    assert (row.state, row.email, session) == (AccountState.NEW, None, None)
    again = shop.log_in(provider)
    assert again.session is None, "it is not activated"
    registration.activate(shop.desk, row.account, shop.code(row.account))
    token, logged_in = shop.log_in(provider).session or ("", None)
    assert logged_in is not None
    assert logged_in.account == row.account
    assert sessions.who(shop.desk, token) == Actor("owner", row.account)
    with shop.desk.reading() as books:
        assert books.account(row.account).email == EMAIL
        assert [one.version for one in books.acceptances_of(row.account)] == [1]
    with refused(Conflict, "identity_taken"):
        shop.join(found.newcomer)


def test_without_an_address_there_is_no_account(shop: Shop, provider: LyingProvider) -> None:
    found = shop.log_in(provider)
    with refused(Unprocessable, "no_address"):
        shop.join(found.newcomer)


def test_a_trusted_provider_proves_the_address(provider: LyingProvider) -> None:
    with fast_folder() as folder, Shop(folder, provider.issuer, trusted_emails="acme") as shop:
        provider.claims = {"email": EMAIL, "email_verified": False}
        assert not shop.log_in(provider).proved
        provider.claims = {"email": EMAIL, "email_verified": True}
        found = shop.log_in(provider)
        assert found.proved
        row, session = shop.join(found.newcomer)
        assert (row.state, row.email) == (AccountState.ACTIVE, EMAIL)
        assert session is not None
        provider.claims["sub"] = "somebody else"
        with refused(Conflict, "address_taken"):
            shop.join(shop.log_in(provider).newcomer)


def test_it_is_linked_by_the_accounts_own_log_in_and_unlinked(shop: Shop, provider: LyingProvider) -> None:
    ada = shop.active().account
    owner = Actor("owner", ada)
    found = shop.log_in(provider)
    assert found.session is None, "the same address links nothing by itself"
    shop.link(provider, ada)
    [identity] = elsewhere.listed(shop.desk, owner, ada)
    assert identity.provider == "acme"
    assert shop.told(ada)[-1] == "log_in_linked"
    assert shop.notices(ada, "log_in_linked")
    assert shop.log_in(provider).session is not None
    with refused(Forbidden, "owners_only"):
        shop.begin(account=ada, actor=OPERATOR)
    elsewhere.unlink(shop.desk, owner, ada, "acme")
    assert elsewhere.listed(shop.desk, owner, ada) == []
    assert shop.log_in(provider).session is None
    with refused(NotFound, "not_found"):
        elsewhere.unlink(shop.desk, owner, ada, "acme")


def test_what_was_begun_for_one_account_is_of_use_to_no_other(shop: Shop, provider: LyingProvider) -> None:
    ada, bob = shop.active().account, shop.active("bob@example.org").account
    begun = shop.begin(account=ada, actor=Actor("owner", ada))
    code, state = provider.logged_in(begun.url)
    for account in (None, bob):
        with refused(Unauthorized, "log_in_expired"):
            if account is None:
                shop.finish(begun, code, state)
            else:
                actor = Actor("owner", bob)
                elsewhere.link(
                    shop.desk, shop.providers, actor, bob, begun.attempt, state, code, None, CLIENT
                )
    shop.link(provider, ada)
    with refused(Conflict, "identity_taken"):
        shop.link(provider, bob)


def test_the_only_way_in_is_not_unlinked(provider: LyingProvider) -> None:
    with fast_folder() as folder, Shop(folder, provider.issuer, trusted_emails="acme") as shop:
        provider.claims = {"email": EMAIL, "email_verified": True}
        row, _ = shop.join(shop.log_in(provider).newcomer)
        with refused(Conflict, "last_log_in"):
            elsewhere.unlink(shop.desk, Actor("owner", row.account), row.account, "acme")
        with refused(Unauthorized, "bad_credentials"):
            sessions.log_in(shop.desk, EMAIL, "", CLIENT)
        sessions.request_reset(shop.desk, EMAIL, CLIENT)
        sessions.reset_password(shop.desk, EMAIL, shop.code(row.account, "password"), PASSWORD, CLIENT)
        elsewhere.unlink(shop.desk, Actor("owner", row.account), row.account, "acme")


# --- answers that lie ---------------------------------------------------------------------------------------------

NOW_S = int(time.time())


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "https://other.example"},
        {"iss": None},
        {"aud": "somebody"},
        {"aud": ["somebody"]},
        {"aud": ["clipkeep", "somebody"]},
        {"aud": ["clipkeep", "somebody"], "azp": "somebody"},
        {"azp": "somebody"},
        {"nonce": "of another log-in"},
        {"nonce": None},
        {"sub": ""},
        {"sub": "x" * 256},
        {"sub": 7},
        {"exp": NOW_S - 3600},
        {"exp": "soon"},
        {"iat": NOW_S - 7200},
        {"iat": NOW_S + 7200},
        {"nbf": NOW_S + 7200},
    ],
)
def test_an_id_token_that_is_not_for_this_log_in_is_refused(
    shop: Shop, provider: LyingProvider, claims: dict[str, Any]
) -> None:
    provider.claims = claims
    with refused(Unauthorized, "bad_id_token"):
        shop.log_in(provider)


def unsigned(claims: dict[str, Any], header: dict[str, Any], tail: str = "") -> str:
    def part(document: object) -> str:
        return urlsafe_b64encode(json.dumps(document).encode()).rstrip(b"=").decode()

    return f"{part(header)}.{part(claims)}.{tail}"


@pytest.mark.parametrize(
    "header",
    [{"alg": "none"}, {"alg": "None"}, {"alg": "HS256"}, {}, {"alg": "HS256", "kid": "x"}, {"alg": "ES256"}],
)
def test_a_token_that_nobody_signed_is_refused(
    shop: Shop, provider: LyingProvider, header: dict[str, Any]
) -> None:
    begun = shop.begin()
    nonce = begun.url.partition("nonce=")[2].partition("&")[0]
    claims = {"iss": provider.issuer, "aud": "clipkeep", "sub": "ada", "nonce": nonce}
    now_s = int(time.time())
    provider.token = unsigned(claims | {"iat": now_s, "exp": now_s + 60}, header, "AAAA" if header else "")
    with refused(Unauthorized, "bad_id_token"):
        shop.finish(begun, *provider.logged_in(begun.url))
    provider.token = "x" * 20_000
    with refused(Unauthorized, "bad_id_token"):
        shop.log_in(provider)


def test_a_clock_that_differs_a_little_is_forgiven(shop: Shop, provider: LyingProvider) -> None:
    provider.claims = {"now_s": int(time.time()) + 50}
    assert shop.log_in(provider).newcomer


def test_a_code_and_what_was_begun_are_used_once(shop: Shop, provider: LyingProvider) -> None:
    begun = shop.begin()
    code, state = provider.logged_in(begun.url)
    with refused(Unauthorized, "wrong_state"):
        shop.finish(begun, code, state + "x")
    assert shop.finish(begun, code, state).newcomer
    with refused(Unauthorized, "log_in_used"):
        shop.finish(begun, code, state)
    other = shop.begin()
    _, other_state = provider.logged_in(other.url)
    with refused(Unauthorized, "code_refused"):
        shop.finish(other, code, other_state)
    late = shop.begin()
    code, state = provider.logged_in(late.url)
    shop.clock.ms = late.expires_ms
    with refused(Unauthorized, "log_in_expired"):
        shop.finish(late, code, state)
    for text in ("", "ckl_", "ckl_AAAA", late.attempt[:-2] + "AA", "ckr_" + late.attempt[4:]):
        with refused(Unauthorized, "log_in_expired"):
            elsewhere.finish(shop.desk, shop.providers, text, state, code, None, CLIENT)


def test_the_answer_of_another_provider_is_refused(shop: Shop, provider: LyingProvider) -> None:
    begun = shop.begin()
    with refused(Unauthorized, "mixed_up"):
        shop.finish(begun, *provider.logged_in(begun.url), issuer="https://other.example")
    assert provider.asked["/token"] == 0, "no code goes to the wrong provider"
    begun = shop.begin()
    assert shop.finish(begun, *provider.logged_in(begun.url), issuer=provider.issuer).newcomer
    named = Providers({}, (BACK,))
    with refused(NotFound, "no_provider"):
        elsewhere.begin(shop.desk, named, "acme", None, CLIENT)


@pytest.mark.parametrize(
    "uri", ["https://evil.example/", BACK + "/", BACK + "?x", BACK.upper(), "//app.example.org/back"]
)
def test_nobody_is_sent_elsewhere(shop: Shop, uri: str) -> None:
    with refused(Unprocessable, "bad_redirect_uri"):
        elsewhere.begin(shop.desk, shop.providers, "acme", uri, CLIENT)


# --- what strangers may cost --------------------------------------------------------------------------------------


def test_keys_are_fetched_anew_when_they_change_and_not_more_often(provider: LyingProvider) -> None:
    now_s = [1000.0]
    with fast_folder() as folder, Shop(folder, provider.issuer) as shop:
        acme = shop.providers.by_name["acme"]
        acme._monotonic = lambda: now_s[0]
        for _ in range(3):
            assert shop.log_in(provider).newcomer
        assert provider.asked["/keys"] == provider.asked["/.well-known/openid-configuration"] == 1
        provider.rotate()
        with refused(Unauthorized, "bad_id_token"):
            shop.log_in(provider)
        now_s[0] += KEYS_PAUSE_S
        assert shop.log_in(provider).newcomer
        assert provider.asked["/keys"] == 2


def test_a_provider_that_is_away_is_not_asked_by_everybody(provider: LyingProvider) -> None:
    now_s = [1000.0]
    with fast_folder() as folder, Shop(folder, provider.issuer) as shop:
        shop.providers.by_name["acme"]._monotonic = lambda: now_s[0]
        provider.status = 503
        for _ in range(5):
            with pytest.raises(ProviderAway):
                shop.begin()
        assert provider.asked["/.well-known/openid-configuration"] == 1
        now_s[0] += AWAY_S
        provider.status = 200
        assert shop.begin().url.startswith(provider.issuer)


@pytest.mark.parametrize(
    "metadata",
    [
        {"issuer": "https://other.example"},
        {"token_endpoint": "http://other.example/token"},
        {"jwks_uri": None},
        {"authorization_endpoint": "javascript:alert(1)"},
    ],
)
def test_a_provider_that_names_another_or_no_https_is_not_used(
    shop: Shop, provider: LyingProvider, metadata: dict[str, Any]
) -> None:
    provider.metadata = metadata
    with pytest.raises(ProviderAway):
        shop.begin()


def test_what_a_client_begins_and_ends_is_counted_and_leaves_nothing(provider: LyingProvider) -> None:
    with fast_folder() as folder, Shop(folder, provider.issuer, log_ins_per_h=3) as shop:
        begun = [shop.begin() for _ in range(3)]
        with refused(TooMany, "slow_down"):
            shop.begin()
        other = elsewhere.begin(shop.desk, shop.providers, "acme", None, "198.51.100.7")
        assert other.url
        code, state = provider.logged_in(begun[0].url)
        assert shop.finish(begun[0], code, state).newcomer
        for attempt in begun[1:]:
            _, state = provider.logged_in(attempt.url)
            with refused(Unauthorized, "code_refused"):
                shop.finish(attempt, "made up", state)
        with refused(TooMany, "slow_down"):
            shop.finish(other, *provider.logged_in(other.url))
        assert provider.asked["/token"] == 3
        shop.clock.ms += 30 * 86_400_000
        with shop.desk.reading() as books:
            assert books.newest_account() == 1, "nobody is registered by it"
        assert shop.desk.write(lambda books: books.drop_stale(before_ms=shop.clock.ms - 1)) >= 4


# --- a real one ---------------------------------------------------------------------------------------------------


@needs_npm_provider
def test_with_a_real_provider() -> None:
    with (
        fast_folder() as folder,
        npm_provider() as issuer,
        Shop(folder, issuer, trusted_emails="acme", secrets="acme secret-of-clipkeep") as shop,
    ):
        begun = shop.begin()
        back = log_in_as_a_person(begun.url, "ada")
        assert back["iss"] == issuer
        found = shop.finish(begun, back["code"], back["state"], back["iss"])
        assert (found.email, found.proved) == (EMAIL, True)
        row, session = shop.join(found.newcomer)
        assert session is not None
        again = shop.begin()
        back = log_in_as_a_person(again.url, "ada")
        logged_in = shop.finish(again, back["code"], back["state"], back["iss"]).session
        assert logged_in is not None
        assert logged_in[1].account == row.account
        replayed = shop.begin()
        state = log_in_as_a_person(replayed.url, "ada")["state"]
        with refused(Unauthorized, "code_refused"):
            shop.finish(replayed, back["code"], state, issuer)
        silent = shop.begin()
        back = log_in_as_a_person(silent.url, "ada")
        with refused(Unauthorized, "mixed_up"):
            shop.finish(silent, back["code"], back["state"])
