"""What an ID token says, once it is known to be the provider's, for us, and about this log-in. Pure.

OpenID Connect Core 1.0 §3.1.3.7. Only signatures by the provider's public keys are taken: `none` and the HMACs, whose
key could be what everybody knows, are not among the algorithms.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, KeySet, OKPKey, RSAKey

from service.agreement.errors import Unauthorized

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
MAX_TOKEN_CHARS = 16 * 1024
MAX_KEYS = 50
MAX_SUBJECT_CHARS = 255
"""Core §2."""
MAX_AGE_S = 600
"""Since it was issued: it comes straight from the provider, as the answer to our request."""
Key = RSAKey | ECKey | OKPKey


class UnknownKey(Exception):
    """It names a key that is not among the ones that are known."""


@dataclass(frozen=True, slots=True)
class Person:
    """Args:
    subject: what the provider calls the person, for ever.
    email: "" without one.
    verified: the provider says that it has seen the person read mail there.
    """

    subject: str
    email: str
    verified: bool


def public_keys(document: object) -> list[Key]:
    """The keys of a JWK set that signatures may be checked with; those of other kinds are left out.

    Raises:
        ValueError: it is no JWK set.
    """
    listed = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(listed, list) or len(listed) > MAX_KEYS:
        raise ValueError(f"no JWK set of at most {MAX_KEYS} keys")
    usable = [
        one
        for one in listed
        if isinstance(one, dict)
        and one.get("kty") in ("RSA", "EC", "OKP")
        and one.get("use", "sig") == "sig"
        and "d" not in one
    ]
    found: list[Key] = []
    for one in usable:
        try:
            found += [key for key in KeySet.import_key_set({"keys": [one]}).keys if isinstance(key, Key)]
        except (JoseError, ValueError, TypeError):
            continue  # one of a curve that is not known here must not keep the others from being used
    return found


def person_of(
    token: str,
    keys: Sequence[Key],
    *,
    issuer: str,
    client_id: str,
    nonce: str,
    now_s: int,
    skew_s: int,
) -> Person:
    """Whom an ID token is about.

    Args:
        now_s: Unix seconds.
        skew_s: by which the provider's clock may differ from ours.

    Raises:
        UnknownKey: the keys are to be fetched anew.
        Unauthorized: `bad_id_token`.
    """
    claims = _signed(token, keys)
    audience = claims.get("aud")
    audiences = [audience] if isinstance(audience, str) else audience if isinstance(audience, list) else []
    issued, expires = _time(claims, "iat"), _time(claims, "exp")
    begins = _time(claims, "nbf") if "nbf" in claims else 0
    subject = claims.get("sub")
    for holds, what in (
        (claims.get("iss") == issuer, "it is of another issuer"),
        (client_id in audiences, "it is for somebody else"),
        (len(audiences) == 1 or claims.get("azp") == client_id, "it was given to somebody else"),
        (claims.get("azp", client_id) == client_id, "it was given to somebody else"),
        (claims.get("nonce") == nonce, "it is of another log-in"),
        (now_s < expires + skew_s, "it has expired"),
        (issued - skew_s <= now_s <= issued + MAX_AGE_S + skew_s, "it is not of now"),
        (begins - skew_s <= now_s, "it is not valid yet"),
        (isinstance(subject, str) and _is_name(subject), "it names nobody"),
    ):
        if not holds:
            raise _bad(what)
    email = claims.get("email")
    return Person(str(subject), email if isinstance(email, str) else "", claims.get("email_verified") is True)


def json_object(text: bytes) -> dict[str, Any]:
    """Raises ValueError: it is none, or is nested too deep."""
    try:
        found = json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    if not isinstance(found, dict):
        raise ValueError("no JSON object")
    return found


def _is_name(subject: str) -> bool:
    """Whether it can be kept: no half of a character, no control."""
    return 0 < len(subject) <= MAX_SUBJECT_CHARS and subject.isprintable()


def _signed(token: str, keys: Sequence[Key]) -> Mapping[str, Any]:
    if len(token) > MAX_TOKEN_CHARS or token.count(".") != 2:
        raise _bad("it is no signed token")
    try:
        header = json_object(urlsafe_b64decode(token.partition(".")[0] + "=="))
        kid = header.get("kid")
    except ValueError:
        raise _bad("it is no signed token") from None
    if header.get("alg") not in ALGORITHMS:
        raise _bad("it is not signed in a way that is taken")
    candidates = [key for key in keys if kid is None or key.kid == kid]
    if not candidates:
        raise UnknownKey
    for key in candidates:
        try:
            claims = jwt.decode(token, key, algorithms=list(ALGORITHMS)).claims
        except (JoseError, ValueError, TypeError, RecursionError):
            continue
        if isinstance(claims, dict):
            return claims
    raise _bad("its signature is not the provider's")


def _time(claims: Mapping[str, Any], name: str) -> float:
    """Unix seconds. Raises Unauthorized `bad_id_token`."""
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1 << 40:
        raise _bad(f"{name} is no time")
    return value


def _bad(what: str) -> Unauthorized:
    return Unauthorized(f"the provider's ID token is refused: {what}; log in again", code="bad_id_token")
