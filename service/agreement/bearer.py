"""Bearer tokens of log-ins and operators: 256 random bits, of which the SHA-256 is kept."""

from __future__ import annotations

import re
from base64 import urlsafe_b64encode
from hashlib import sha256

from service.agreement.desk import Desk

OWNER_PREFIX = "cka_"
OPERATOR_PREFIX = "cko_"
PREFIXES = (OWNER_PREFIX, OPERATOR_PREFIX)
TOKEN_BYTES = 32
_TOKEN = re.compile(r"ck[ao]_[A-Za-z0-9_-]{43}")


def new_token(desk: Desk, prefix: str) -> str:
    return prefix + urlsafe_b64encode(desk.random_bytes(TOKEN_BYTES)).rstrip(b"=").decode()


def is_token(text: str) -> bool:
    """Whether it has the form of one."""
    return _TOKEN.fullmatch(text) is not None


def token_hash(token: str) -> bytes:
    """What is kept of a token, and looked up."""
    return sha256(token.encode("utf-8", "replace")).digest()
