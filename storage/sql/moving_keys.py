"""Account keys of earlier releases, which were kept in the catalog, on their way into the vault."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from storage.errors import CallerError
from storage.vault import ACCOUNT_KEY_ID_BYTES, KEY_BYTES, Vault

KEYS_AT_ONCE = 1000


def moved_to_vault(
    vault: Vault | None, rows: Iterable[Sequence[Any]], *, now_ms: int
) -> Iterator[tuple[bytes, int]]:
    """Keep these keys in the vault, durably, before the transaction that lets go of them ends. If that is undone, the
    sweep takes them for unused.

    Args:
        rows: (account, key); zeros for a key that was destroyed.

    Yields:
        (key id, account) of those that were not destroyed.
    """
    living = [(account, bytes(key)) for account, key in rows if bytes(key) != bytes(KEY_BYTES)]
    for start in range(0, len(living), KEYS_AT_ONCE):
        if vault is None:
            raise CallerError(
                "the keys of its accounts go into the vault, which was not opened", code="no_vault"
            )
        ids = {secrets.token_bytes(ACCOUNT_KEY_ID_BYTES): row for row in living[start : start + KEYS_AT_ONCE]}
        vault.keep_account_keys({id_: key for id_, (_, key) in ids.items()}, now_ms=now_ms)
        yield from ((id_, account) for id_, (account, _) in ids.items())
