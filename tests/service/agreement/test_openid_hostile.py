"""A provider of log-in that says what nobody expects: it is refused, and never a fault of ours."""

from __future__ import annotations

import json
import time
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from typing import Any

import pytest
from joserfc.jws import serialize_compact

from service.agreement.errors import Unauthorized
from service.agreement.gateway.wire import Answer
from service.agreement.openid.provider import MAX_URL_CHARS, Provider, ProviderAway
from service.agreement.openid.settings import ProviderSettings
from tests.retention.world import fast_folder
from tests.servers.openid import LyingProvider, lying_provider
from tests.service.agreement.office import refused
from tests.service.agreement.test_elsewhere import Shop

DEEP = b'{"keys":' + b"[" * 50_000 + b"]" * 50_000 + b"}"
DISCOVERY = "/.well-known/openid-configuration"


@pytest.fixture
def provider() -> Iterator[LyingProvider]:
    with lying_provider() as running:
        yield running


@pytest.fixture
def shop(provider: LyingProvider) -> Iterator[Shop]:
    with fast_folder() as folder, Shop(folder, provider.issuer) as made:
        yield made


@pytest.mark.parametrize("body", [DEEP, b"\xff\xfe", b"[]", b"", b"1" * 10_000, b"x" * 300_000])
@pytest.mark.parametrize("path", [DISCOVERY, "/keys", "/token"])
def test_a_document_that_is_none_is_a_provider_that_is_away(
    shop: Shop, provider: LyingProvider, path: str, body: bytes
) -> None:
    provider.raw[path] = body
    with pytest.raises(ProviderAway):
        shop.log_in(provider)


@pytest.mark.parametrize(
    "metadata",
    [
        {"token_endpoint_auth_methods_supported": 5},
        {"token_endpoint_auth_methods_supported": "client_secret_basic"},
        {"jwks_uri": "https://a.example/" + "x" * MAX_URL_CHARS},
        {"authorization_endpoint": "https://[::1"},
        {"token_endpoint": "https://a.example:99999/"},
    ],
)
def test_metadata_that_nobody_can_use(shop: Shop, provider: LyingProvider, metadata: dict[str, Any]) -> None:
    provider.metadata = metadata
    with pytest.raises(ProviderAway):
        shop.begin()


@pytest.mark.parametrize(
    "claims",
    [
        {"sub": "\ud800"},
        {"sub": "a\0b"},
        {"sub": "a\nb"},
        {"sub": "x" * 256},
        {"sub": {"a": 1}},
        {"aud": {"clipkeep": 1}},
        {"aud": [["clipkeep"]]},
        {"iat": float("nan")},
        {"nbf": "now"},
    ],
)
def test_claims_that_name_nobody(shop: Shop, provider: LyingProvider, claims: dict[str, Any]) -> None:
    begun = shop.begin()
    nonce = begun.url.partition("nonce=")[2].partition("&")[0]
    provider.claims = claims
    provider.token = _token(provider, nonce)
    with refused(Unauthorized, "bad_id_token"):
        shop.finish(begun, *provider.logged_in(begun.url))


def _token(provider: LyingProvider, nonce: str) -> str:
    """Signed, whatever it says; the library that signs elsewhere takes no half characters."""
    now_s = time.time()
    claims = {"iss": provider.issuer, "aud": "clipkeep", "sub": "ada", "nonce": nonce}
    claims |= {"iat": int(now_s), "exp": int(now_s) + 60} | provider.claims
    return serialize_compact(
        {"alg": "ES256", "kid": provider.key.kid}, json.dumps(claims).encode(), provider.key
    )


def test_tokens_that_are_nested_too_deep(shop: Shop, provider: LyingProvider) -> None:
    head = urlsafe_b64encode(b"[" * 11_000).decode().rstrip("=")
    provider.token = f"{head}.e30.AAAA"
    with refused(Unauthorized, "bad_id_token"):
        shop.log_in(provider)
    begun = shop.begin()
    deep = b'{"sub":' + b"[" * 5000 + b"]" * 5000 + b"}"
    provider.token = serialize_compact({"alg": "ES256", "kid": provider.key.kid}, deep, provider.key)
    with refused(Unauthorized, "bad_id_token"):
        shop.finish(begun, *provider.logged_in(begun.url))


@pytest.mark.parametrize("name", ["authorization_endpoint", "token_endpoint", "jwks_uri"])
def test_a_provider_elsewhere_has_nothing_on_this_machine_asked(name: str) -> None:
    """Its keys or its tokens would be what some service of ours answers, and the secret would go there."""
    issuer = "https://id.example"
    says = {
        "issuer": issuer,
        **dict.fromkeys(("authorization_endpoint", "token_endpoint", "jwks_uri"), f"{issuer}/x"),
    }
    made = Provider(ProviderSettings("acme", issuer, "clipkeep", "s", False), timeout_s=1, skew_s=0)
    asked = []

    def answer(method: str, url: str, headers: dict[str, str], body: bytes) -> Answer:
        asked.append(url)
        return Answer(200, {}, json.dumps(says | {name: "http://127.0.0.1:8081/x"}).encode())

    made._ask = answer  # type: ignore[method-assign]
    with pytest.raises(ProviderAway, match="not https"):
        made._known()
    assert asked == [issuer + DISCOVERY]
