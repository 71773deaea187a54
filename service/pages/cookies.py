"""The cookies: a log-in, what a stranger's forms are bound to, a log-in that is under way elsewhere. Pure.

All are out of reach of scripts, sent by no other site's forms (SameSite), and of this host and port alone. Behind TLS
they are never sent without it, and have the prefix `__Host-`, so that no other host of the domain can set them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

LOG_IN = "clipkeep"
"""Holds the token of an owner's log-in or an operator's."""
VISITOR = "clipkeep-visitor"
"""Random, of somebody who is not logged in. Nothing is kept about it."""
ELSEWHERE = "clipkeep-elsewhere"
"""What is under way at a provider of log-in, sealed by the desk; and the page to go on to."""
VISITOR_S = 12 * 3600
"""How long a form of a stranger may stay open before it is sent."""
PREFIX = "__Host-"
_VISITOR = re.compile(r"[A-Za-z0-9_-]{22}")


def full_name(name: str, *, secure: bool) -> str:
    return PREFIX + name if secure else name


def made(name: str, value: str, *, secure: bool, max_age_s: int | None) -> str:
    """A Set-Cookie header.

    Args:
        secure: the browser came over TLS.
        max_age_s: 0 takes the cookie away; None: it is gone when the browser is closed.
    """
    parts = [f"{full_name(name, secure=secure)}={value}", "Path=/", "HttpOnly", "SameSite=Lax"]
    if max_age_s is not None:
        parts.append(f"Max-Age={max_age_s}")
    if secure:
        parts.append("Secure")
    return "; ".join(parts)


def read(cookies: Mapping[str, str], name: str, *, secure: bool) -> str:
    """The value; "" without one. Behind TLS one without the prefix is not looked at: another host may have set it."""
    return cookies.get(full_name(name, secure=secure), "")


def is_visitor(value: str) -> bool:
    return _VISITOR.fullmatch(value) is not None
