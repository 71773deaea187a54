"""Texts that earlier releases kept as people wrote them: sealed, hashed, or cut to a code (revision 0008).

What is here is a part of that migration, and stays as it is.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from storage.errors import CallerError, CatalogCorrupt
from storage.sql.sealing import seal
from storage.vault import Vault

ROWS_AT_ONCE = 1000
_CODE = re.compile(r"(?:(?:owner|operator|system|sweep): )?[a-z_ -]{0,40}(?=:|$)")
ROLES = ("owner", "operator", "system")


def code_of(what: str) -> str:
    """Of a line of the change log the code that it begins with, without the reason behind it; "" when there is none."""
    found = _CODE.match(what)
    return "" if found is None else found[0]


def sealed_reasons(vault: Vault | None, rows: Iterable[Sequence[Any]]) -> Iterator[tuple[int, bytes]]:
    """Yield (deletion, sealed reason).

    Args:
        rows: (deletion, reason, id of the account's key). Without a key the account has ended, and nothing is kept.
    """
    kept = [
        (number, reason, bytes(key_id)) for number, reason, key_id in rows if reason and key_id is not None
    ]
    for start in range(0, len(kept), ROWS_AT_ONCE):
        page = kept[start : start + ROWS_AT_ONCE]
        keys = _opened(vault).account_keys({key_id for *_, key_id in page})
        for number, reason, key_id in page:
            if key_id in keys:
                yield number, seal(keys[key_id], "deletions.reason", reason)


def hashed_keys(
    vault: Vault | None, key_id: bytes | None, rows: Iterable[Sequence[Any]]
) -> Iterator[tuple[str, int, str]]:
    """Yield (what stands for an idempotency key, account, that key), as `storage.sql.books.sessions` has it.

    Args:
        key_id: of the catalog's own key.
        rows: (account, idempotency key).
    """
    found = list(rows)
    if not found:
        return
    secret = None if key_id is None else _opened(vault).account_keys([bytes(key_id)]).get(bytes(key_id))
    if secret is None:
        raise CatalogCorrupt(
            "the vault has not the key by which accounts are found; restore the vault from its newest backup"
        )
    for account, key in found:
        text = f"{account}\n{key}".encode()
        yield hashlib.blake2b(text, digest_size=16, key=secret, person=b"answer").hexdigest(), account, key


def _opened(vault: Vault | None) -> Vault:
    if vault is None:
        raise CallerError("texts are sealed with keys of the vault, which was not opened", code="no_vault")
    return vault
