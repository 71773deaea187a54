"""What every store checks before it touches anything, so that all of them refuse the same things."""

from __future__ import annotations

from collections.abc import Sequence

from storage.errors import CallerError
from storage.objects import DELETE_BATCH_KEYS, checked_key


def checked_range(key: str, start: int, length: int) -> None:
    """Refuse a malformed key, and a range that no object can have. An empty range is a fair question.

    Raises:
        CallerError: malformed key (`bad_key`), negative start or length (`bad_range`).
    """
    checked_key(key)
    if start < 0 or length < 0:
        raise CallerError(f"no range starts at {start} with {length} bytes", subject=key, code="bad_range")


def checked_batch(keys: Sequence[str]) -> list[str]:
    """The distinct keys of one delete call, in the order given.

    Raises:
        CallerError: more than `DELETE_BATCH_KEYS` (`batch_too_large`), or a malformed key (`bad_key`).
    """
    if len(keys) > DELETE_BATCH_KEYS:
        raise CallerError(
            f"{len(keys)} keys in one delete call, the most is {DELETE_BATCH_KEYS}: split it",
            code="batch_too_large",
        )
    return list(dict.fromkeys(checked_key(key) for key in keys))
