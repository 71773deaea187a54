"""Rows of log-in from elsewhere: who an account is at a provider of OpenID Connect."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class IdentityRow:
    """One of an account and provider.

    Args:
        provider: as the configuration names it.
        subject: issuer, a line feed, and the provider's own name for the person (`sub`); sealed, unique.
        linked_ms: when it was linked, Unix ms.
    """

    account: int
    provider: str
    subject: str
    linked_ms: int
