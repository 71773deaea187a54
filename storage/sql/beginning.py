"""The first rows of a new catalog that are sealed: its own key, and the operator's account."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from storage.account_keys import AccountKeys
from storage.rows.accounts import OPERATOR_ACCOUNT
from storage.sql.connection import Connection
from storage.sql.sealing import NOBODY, give_key, seal
from storage.vault import ACCOUNT_KEY_ID_BYTES

OPERATOR_NAME = "the built-in operator account"


def first_keys(keys: AccountKeys) -> list[bytes]:
    """The ids of the keys that `begin_accounts` gives away: made in the vault before its transaction. Without a vault
    they are ids only."""
    if not keys.has_vault:
        return [secrets.token_bytes(ACCOUNT_KEY_ID_BYTES) for _ in range(2)]
    return keys.made_ahead(2, now_ms=0)


def begin_accounts(connection: Connection, keys: AccountKeys, key_ids: Sequence[bytes]) -> None:
    """Give the first keys to the catalog itself and to the operator's account, whose row is there."""
    for account, key_id in zip((NOBODY, OPERATOR_ACCOUNT), key_ids, strict=True):
        give_key(connection, key_id, account)
    if keys.has_vault:
        key = keys.of(key_ids[1:])[key_ids[1]]
        connection.execute("UPDATE accounts SET name = ?", (seal(key, "accounts.name", OPERATOR_NAME),))
