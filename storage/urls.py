"""URLs as people may see them: what authorises lies in their user part, their path or their query."""

from __future__ import annotations

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


def without_user(text: str) -> str:
    """The URL, or what should have been one, with `***` in place of what stands before an `@` in its host part."""
    scheme, slashes, rest = text.partition("://")
    host, slash, path = rest.partition("/")
    if not slashes or "@" not in host:
        return text
    return f"{scheme}://{HIDDEN}@{host.rpartition('@')[2]}{slash}{path}"
