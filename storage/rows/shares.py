"""Rows of share links: a range of one device's recordings that whoever has the link may watch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ShareRow:
    """One link. It holds no text about a person, and no token: that is made of the row (`retention.tokens`).

    Args:
        share_id: never given twice.
        account: whose device it is.
        from_ms, to_ms: capture times `from_ms <= t < to_ms`, Unix ms.
        expires_ms: Unix ms; not used from then on.
        token_generation, viewer_generation: of the device when it was made; the link is void once one has moved on.
        opens: how often a playlist or an export was asked for by it; noted now and then, so a kill loses some.
        opened_ms: when it was last, Unix ms.
    """

    share_id: int
    account: int
    device: int
    from_ms: int
    to_ms: int
    created_ms: int
    expires_ms: int
    token_generation: int
    viewer_generation: int
    opens: int = 0
    opened_ms: int | None = None
