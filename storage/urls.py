"""URLs as people may see them: what authorises lies in their user part, their path or their query."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

HIDDEN = "***"


def masked_url(text: str) -> str:
    """The URL without its user, and with `***` for all that follows the host: a hook's path is often its secret.

    What is no URL is hidden as a whole, since nobody can tell where a secret in it begins.
    """
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        return HIDDEN
    if not parts.scheme or not host:
        return HIDDEN
    shown = f"[{host}]" if ":" in host else host
    user = f"{HIDDEN}@" if "@" in parts.netloc else ""
    rest = f"/{HIDDEN}" if parts.path.strip("/") or parts.query or parts.fragment else parts.path
    return f"{parts.scheme}://{user}{shown}{'' if port is None else f':{port}'}{rest}"


_PASSWORD = re.compile(r"(?<=[?&])((?:ssl)?password|passfile)=[^&#]*", re.IGNORECASE)


def without_password(text: str) -> str:
    """A database's URL with `***` for its password, whether that is in the user part or among the parameters."""
    scheme, slashes, rest = text.partition("://")
    if not slashes:
        return (
            text if text.isalnum() else HIDDEN
        )  # `sqlite`; else no URL, and nobody can tell where a secret begins
    host, slash, more = rest.partition("/")
    if not slash:
        host, mark, more = rest.partition("?")
        slash = mark
    user, at, place = host.rpartition("@")
    name, colon, _ = user.partition(":")
    shown = f"{scheme}://{name}{colon and ':' + HIDDEN}{at}{place}{slash}{more}"
    if "@" in more:  # a password that has a / or a ?, not written as %2F or %3F
        shown = f"{scheme}://{HIDDEN}@{more.rpartition('@')[2]}"
    return _PASSWORD.sub(rf"\1={HIDDEN}", shown)


def without_user(text: str) -> str:
    """The URL, or what should have been one, with `***` in place of what stands before an `@` in its host part."""
    scheme, slashes, rest = text.partition("://")
    host, slash, path = rest.partition("/")
    if not slashes or "@" not in host:
        return text
    return f"{scheme}://{HIDDEN}@{host.rpartition('@')[2]}{slash}{path}"
