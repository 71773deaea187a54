"""Rows of kept clips: a range of one device that its owner keeps beyond its expiry."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

KEPT_DAY = 2_932_532
"""The expiry day of what is kept, in segments and rows: 9999-01-01. No sweep comes to it, and whatever asks whether a
chunk has expired says no: only the right of today is left to be asked."""
KEPT_CLASS = 0
"""The retention class in the keys of its objects, `v1/0/…`: no plan has it, so no rule of the store expires them."""
_WORKER = "clip-"


class ClipState(StrEnum):
    COPYING = "copying"
    READY = "ready"


@dataclass(frozen=True, slots=True)
class ClipRow:
    """One kept clip. Its chunks are copies, encrypted with a key of its own, which the vault keeps among the account
    keys and `account_keys` has under `key_owner`.

    Args:
        clip_id: never given twice.
        epoch: erase epoch of the device when it was made; it ends with that.
        first_ms: capture time of its first chunk: before `from_ms` where the first picture needs it.
        from_ms, to_ms: what was asked for, `from_ms <= t < to_ms`, Unix ms.
        name: the owner's words; sealed.
        chunks, bytes: of plaintext: what is to be copied, and when it is ready, what was.
        next_ms: what was captured before is copied, as far as it was there.
        claimed_ms: whoever copies it is left alone until then, Unix ms.
    """

    clip_id: int
    account: int
    device: int
    epoch: int
    first_ms: int
    from_ms: int
    to_ms: int
    name: str
    created_ms: int
    state: ClipState
    chunks: int
    bytes: int
    next_ms: int
    claimed_ms: int = 0


def key_owner(clip_id: int) -> int:
    """Under which number `account_keys` has the key of a clip: below 0, where no account is."""
    return -clip_id


def worker_of(clip_id: int) -> str:
    """Who wrote the objects of a clip, as their keys say."""
    return f"{_WORKER}{clip_id}"


def clip_of_key(segment_key: str) -> int | None:
    """Whose object a key is of; None when of no clip."""
    parts = segment_key.split("/")
    number = parts[3].removeprefix(_WORKER) if len(parts) == 5 and parts[3].startswith(_WORKER) else ""
    return int(number) if number.isascii() and number.isdigit() else None
