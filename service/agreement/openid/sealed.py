"""What a client holds between two requests of a log-in from elsewhere, sealed: so that whoever begins one makes nothing
grow here, and nobody else can end it.

    sealed   prefix, base64url of nonce 12 bytes, AES-256-GCM ciphertext of the JSON, tag 16 bytes
    key      32 bytes of BLAKE2b of the address secret; the prefix is authenticated with it
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import asdict, dataclass
from hashlib import blake2b
from typing import Any, TypeVar

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from service.agreement.desk import Desk
from service.agreement.errors import Unauthorized

MAX_CHARS = 4096
_NONCE_BYTES = 12


@dataclass(frozen=True, slots=True)
class Attempt:
    """A log-in that was begun.

    Args:
        account: that it is to be linked to; None: to log in.
        verifier: of PKCE (RFC 7636).
    """

    provider: str
    state: str
    nonce: str
    verifier: str
    redirect_uri: str
    account: int | None
    expires_ms: int


@dataclass(frozen=True, slots=True)
class Newcomer:
    """Somebody who has proved to be somebody at a provider, and has no account.

    Args:
        subject: issuer, a line feed, the provider's own name.
        email: that the provider says is the person's; `proved`: and may be believed.
    """

    provider: str
    subject: str
    email: str
    proved: bool
    expires_ms: int


S = TypeVar("S", Attempt, Newcomer)
_PREFIX: dict[type[Any], str] = {Attempt: "ckl_", Newcomer: "ckr_"}


def seal(desk: Desk, what: Attempt | Newcomer) -> str:
    prefix = _PREFIX[type(what)]
    nonce = desk.random_bytes(_NONCE_BYTES)
    text = json.dumps(asdict(what), separators=(",", ":")).encode()
    return prefix + urlsafe_b64encode(nonce + _cipher(desk).encrypt(nonce, text, prefix.encode())).decode()


def unseal(desk: Desk, text: str, kind: type[S]) -> S:
    """Raises Unauthorized `log_in_expired`: it is none of ours, or its time is over."""
    prefix = _PREFIX[kind]
    expired = Unauthorized(
        "this log-in has expired or was not begun here; begin again", code="log_in_expired"
    )
    if not text.startswith(prefix) or len(text) > MAX_CHARS:
        raise expired
    try:
        raw = urlsafe_b64decode(text[len(prefix) :].encode())
        plain = _cipher(desk).decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], prefix.encode())
    except (ValueError, InvalidTag):
        raise expired from None
    found = kind(**json.loads(plain))
    if found.expires_ms <= desk.now_ms():
        raise expired
    return found


def _cipher(desk: Desk) -> AESGCM:
    return AESGCM(blake2b(key=desk.address_secret, person=b"clipkeep-openid", digest_size=32).digest())
