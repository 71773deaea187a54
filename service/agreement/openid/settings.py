"""Which providers there are, read from the configuration. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from service.config import OpenIdSettings

MAX_PROVIDERS = 20
LOOPBACK = ("localhost", "127.0.0.1", "::1")
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
_VISIBLE = re.compile(r"[!-~]+")


@dataclass(frozen=True, slots=True)
class ProviderSettings:
    """Args:
    name: by which clients and accounts name it.
    issuer: its address, and what it calls itself.
    secret: "" for a public client.
    trusts_email: whether an e-mail address that it calls verified counts as proved.
    """

    name: str
    issuer: str
    client_id: str
    secret: str = field(repr=False)
    trusts_email: bool


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """The providers by name, and where they may send a browser back."""

    providers: Mapping[str, ProviderSettings]
    redirect_uris: tuple[str, ...]


def parse(settings: OpenIdSettings) -> Elsewhere:
    """Raises ValueError, whose text names the key and says what to write; no secret is in it."""
    secrets = dict(_entries("secrets", settings.secrets, 2, secret=True))
    trusted = settings.trusted_emails.split()
    found: dict[str, ProviderSettings] = {}
    for name, issuer, client_id in _entries("providers", settings.providers, 3):
        if not _NAME.fullmatch(name) or name in found:
            raise ValueError(
                f"providers: {name!r} is no name of its own: up to 32 small letters, digits and dashes"
            )
        if not is_safe(issuer) or urlsplit(issuer).query or urlsplit(issuer).fragment:
            raise ValueError(
                f"providers: {issuer!r} is no issuer: an https:// address without query (http:// on this machine only)"
            )
        if any(one.issuer == issuer for one in found.values()):
            raise ValueError(f"providers: {issuer} is there twice")
        found[name] = ProviderSettings(name, issuer, client_id, secrets.pop(name, ""), name in trusted)
    for key, unknown in (("secrets", [*secrets]), ("trusted_emails", [n for n in trusted if n not in found])):
        if unknown:
            raise ValueError(f"{key}: {unknown[0]} is no provider")
    uris = tuple(settings.redirect_uris.split())
    for uri in uris:
        if not _may_return_to(uri):
            raise ValueError(
                f"redirect_uris: {uri!r} is neither an https:// address without fragment (http:// on this machine"
                " only) nor of an app's own scheme (com.example.app:/path)"
            )
    if found and not uris:
        raise ValueError("redirect_uris: name at least one address to which providers send a browser back")
    if len(found) > MAX_PROVIDERS:
        raise ValueError(f"providers: {MAX_PROVIDERS} at most")
    return Elsewhere(found, uris)


def is_safe(url: str, *, like: str = "http:") -> bool:
    """Whether an address may be asked with secrets: https, or on this machine.

    Args:
        like: the address of who names it. One of https names none without: what listens on this machine is nothing
            that somebody elsewhere may have asked.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    return (
        _VISIBLE.fullmatch(url) is not None
        and bool(parts.hostname)
        and port != 0
        and parts.username is None
        and (
            parts.scheme == "https"
            or (parts.scheme == "http" and parts.hostname in LOOPBACK and like.startswith("http:"))
        )
    )


def _may_return_to(uri: str) -> bool:
    parts = urlsplit(uri)
    own_scheme = "." in parts.scheme and _VISIBLE.fullmatch(uri) is not None  # RFC 8252 §7.1
    return (is_safe(uri) or own_scheme) and not parts.fragment


def _entries(key: str, text: str, words: int, *, secret: bool = False) -> list[list[str]]:
    found = [entry.split() for entry in text.split(";") if entry.strip()]
    for entry in found:
        if len(entry) != words:
            told = "" if secret else f" {' '.join(entry)!r}"
            form = "NAME SECRET" if secret else "NAME ISSUER CLIENT_ID"
            raise ValueError(f"{key}: an entry{told} is not {form}; several are separated by ;")
    return found
