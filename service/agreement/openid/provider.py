"""One provider: what it says of itself, its keys, and what it gives for a code. Calls block, from any thread.

What it says is fetched when it is needed, by one thread at a time, and kept `METADATA_S`; keys too, and anew when a
token names one that is not among them, `KEYS_PAUSE_S` after the last time at the earliest. A provider that could not be
asked is not asked again for `AWAY_S`. So strangers who begin log-ins cost a provider next to nothing.
"""

from __future__ import annotations

import time
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from threading import Lock
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from service.agreement.errors import Unauthorized
from service.agreement.gateway.wire import Answer, Bounds, Endpoint, Lost
from service.agreement.openid.sealed import Attempt
from service.agreement.openid.settings import ProviderSettings, is_safe
from service.agreement.openid.tokens import Key, Person, UnknownKey, json_object, person_of, public_keys
from storage.errors import CallerError, WorldError

METADATA_S = 3600.0
KEYS_PAUSE_S = 30.0
AWAY_S = 10.0
MAX_ANSWER_BYTES = 256 * 1024
"""A provider's document has some 5 KB, its keys have 1 KB each."""
MAX_URL_CHARS = 2000
"""Of each of its addresses: one of them goes to browsers."""
SCOPE = "openid email"


class ProviderAway(WorldError):
    """It can't be asked, or says what nobody can use."""

    code = "provider_unavailable"


@dataclass(frozen=True, slots=True)
class Metadata:
    """What of OpenID Connect Discovery 1.0 §3 is used."""

    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    by_post: bool  # the secret goes in the body, for it takes no HTTP Basic
    names_issuer: bool  # each answer has `iss` (RFC 9207)


class Provider:
    """See the module docstring.

    Args:
        timeout_s: for one answer, in all.
        skew_s: by which its clock may differ from ours.
    """

    def __init__(
        self,
        settings: ProviderSettings,
        *,
        timeout_s: float,
        skew_s: float,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings = settings
        self._bounds = Bounds(timeout_s, timeout_s, MAX_ANSWER_BYTES)
        self._skew_s = round(skew_s)
        self._monotonic = monotonic
        self._lock = Lock()
        self._metadata: tuple[float, Metadata] | None = None
        self._keys: tuple[float, list[Key]] | None = None
        self._away_until_s = 0.0

    def authorization_url(self, attempt: Attempt) -> str:
        """Where the browser goes. Raises ProviderAway."""
        endpoint = self._known().authorization_endpoint
        challenge = urlsafe_b64encode(sha256(attempt.verifier.encode()).digest()).rstrip(b"=").decode()
        query = urlencode(
            {
                "response_type": "code",
                "client_id": self.settings.client_id,
                "redirect_uri": attempt.redirect_uri,
                "scope": SCOPE,
                "state": attempt.state,
                "nonce": attempt.nonce,
                "code_challenge": challenge,
                "code_challenge_method": "S256",
            }
        )
        return f"{endpoint}{'&' if urlsplit(endpoint).query else '?'}{query}"

    def person(self, attempt: Attempt, code: str, issuer: str | None, *, now_s: int) -> Person:
        """Who has logged in, by the code that came back.

        Args:
            issuer: `iss` of the answer; None: it had none.

        Raises:
            Unauthorized: `mixed_up`: the answer is another provider's; `code_refused`; `bad_id_token`.
            ProviderAway.
        """
        known = self._known()
        if issuer != self.settings.issuer and (issuer is not None or known.names_issuer):
            raise Unauthorized("this is the answer of another provider; begin again", code="mixed_up")
        token = self._redeemed(known, attempt, code)
        try:
            return self._person(token, self._public_keys(known), attempt, now_s)
        except UnknownKey:
            pass
        try:
            return self._person(token, self._public_keys(known, anew=True), attempt, now_s)
        except UnknownKey:
            raise Unauthorized(
                "the provider's ID token is refused: its signature is not the provider's; log in again",
                code="bad_id_token",
            ) from None

    def _person(self, token: str, keys: list[Key], attempt: Attempt, now_s: int) -> Person:
        return person_of(
            token,
            keys,
            issuer=self.settings.issuer,
            client_id=self.settings.client_id,
            nonce=attempt.nonce,
            now_s=now_s,
            skew_s=self._skew_s,
        )

    def _redeemed(self, known: Metadata, attempt: Attempt, code: str) -> str:
        """The ID token for a code."""
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": attempt.redirect_uri,
            "code_verifier": attempt.verifier,
        }
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        client_id, secret = self.settings.client_id, self.settings.secret
        if secret and not known.by_post:
            pair = f"{quote(client_id, safe='')}:{quote(secret, safe='')}"  # RFC 6749 §2.3.1
            headers["Authorization"] = "Basic " + b64encode(pair.encode()).decode()
        else:
            form["client_id"] = client_id
            if secret:
                form["client_secret"] = secret
        answer = self._ask("POST", known.token_endpoint, headers, urlencode(form).encode())
        if answer.status != 200:
            if 400 <= answer.status < 500 and answer.status != 429:
                raise Unauthorized("the provider does not take this code; begin again", code="code_refused")
            raise self._away(f"its token endpoint answered {answer.status}")
        try:
            token = json_object(answer.body).get("id_token")
        except ValueError:
            token = None
        if not isinstance(token, str):
            raise self._away("it gave no ID token")
        return token

    # --- what it says of itself -------------------------------------------------------------------------------

    def _known(self) -> Metadata:
        with self._lock:
            if self._metadata is not None and self._monotonic() < self._metadata[0] + METADATA_S:
                return self._metadata[1]
            document = self._fetched(self.settings.issuer.rstrip("/") + "/.well-known/openid-configuration")
            found = self._checked(document)
            self._metadata = (self._monotonic(), found)
            return found

    def _public_keys(self, known: Metadata, *, anew: bool = False) -> list[Key]:
        with self._lock:
            if self._keys is not None:
                age_s = self._monotonic() - self._keys[0]
                if age_s < (KEYS_PAUSE_S if anew else METADATA_S):
                    return self._keys[1]
            document = self._fetched(known.jwks_uri)
            try:
                keys = public_keys(document)
            except ValueError as error:
                raise self._away(str(error)) from error
            self._keys = (self._monotonic(), keys)
            return keys

    def _fetched(self, url: str) -> dict[str, Any]:
        if self._monotonic() < self._away_until_s:
            raise self._away("it could not be asked a moment ago")
        try:
            answer = self._ask("GET", url, {}, b"")
            if answer.status != 200:
                raise self._away(f"{url} answered {answer.status}")
            return json_object(answer.body)
        except (ProviderAway, ValueError) as error:
            self._away_until_s = self._monotonic() + AWAY_S
            raise error if isinstance(error, ProviderAway) else self._away(f"{url} is no JSON") from error

    def _checked(self, document: dict[str, Any]) -> Metadata:
        if document.get("issuer") != self.settings.issuer:
            raise self._away(f"it calls itself {str(document.get('issuer'))[:100]!r}")
        urls = [document.get(name) for name in ("authorization_endpoint", "token_endpoint", "jwks_uri")]
        for url in urls:
            if (
                not isinstance(url, str)
                or len(url) > MAX_URL_CHARS
                or not is_safe(url, like=self.settings.issuer)
            ):
                raise self._away(
                    f"one of its addresses is not https, or has more than {MAX_URL_CHARS} characters"
                )
        takes = document.get("token_endpoint_auth_methods_supported") or ["client_secret_basic"]
        if not isinstance(takes, list):
            raise self._away("it does not say how it is asked for a token")
        return Metadata(
            str(urls[0]),
            str(urls[1]),
            str(urls[2]),
            by_post="client_secret_basic" not in takes,
            names_issuer=document.get("authorization_response_iss_parameter_supported") is True,
        )

    def _ask(self, method: str, url: str, headers: dict[str, str], body: bytes) -> Answer:
        parts = urlsplit(url)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        try:
            return Endpoint(f"{parts.scheme}://{parts.netloc}", self._bounds).ask(
                method, target, headers, body
            )
        except (Lost, CallerError) as error:
            raise self._away(str(error)) from error

    def _away(self, detail: str) -> ProviderAway:
        return ProviderAway(detail, subject=f"provider {self.settings.name}")
