"""Tokens in forms, so that no other site sends them in somebody's name (CSRF). Pure.

A token is an HMAC of the cookie that it belongs to: a log-in's, or a stranger's, so that nobody is logged in to another
one's account by a foreign form either. It looks different in every page: what stands beside it there is compressed, and
lengths would tell it letter by letter (BREACH).
"""

from __future__ import annotations

import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable

_BYTES = 32
TOKEN_CHARS = 86
"""Of a pad and what it hides, in base64."""


class Forgery:
    """Args:
    secret: of all hosts of a home, so that a form made by one is taken by another.
    random_bytes: of a given length, unpredictable.
    """

    def __init__(self, secret: bytes, random_bytes: Callable[[int], bytes]) -> None:
        self._key = hmac.digest(secret, b"clipkeep: forms", "sha256")
        self._random_bytes = random_bytes

    def token(self, cookie: str) -> str:
        """A new token of who has this cookie."""
        pad = self._random_bytes(_BYTES)
        return urlsafe_b64encode(pad + _mixed(pad, self._proof("form", cookie))).rstrip(b"=").decode()

    def is_good(self, cookie: str, token: str) -> bool:
        if not cookie or len(token) != TOKEN_CHARS or not token.isascii():
            return False
        try:
            raw = urlsafe_b64decode(token + "==")
        except ValueError:
            return False
        proof = _mixed(raw[:_BYTES], raw[_BYTES:])
        return hmac.compare_digest(proof, self._proof("form", cookie))

    def sealed(self, what: str, cookie: str) -> str:
        """A proof that this cookie's owner was shown `what` by us: for an address that says more than a code."""
        return urlsafe_b64encode(self._proof(f"seal {what}", cookie)).rstrip(b"=").decode()

    def is_sealed(self, what: str, cookie: str, seal: str) -> bool:
        return hmac.compare_digest(self.sealed(what, cookie).encode(), seal.encode())

    def _proof(self, purpose: str, cookie: str) -> bytes:
        return hmac.digest(self._key, f"{purpose}\n{cookie}".encode("utf-8", "replace"), "sha256")


def _mixed(one: bytes, other: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(one, other, strict=True))
