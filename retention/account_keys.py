"""Account keys are to be gone from the vault when the catalog says that their account has ended, or that none ever had
them. So are the keys of kept clips, which are kept among them.

The catalog's word is repeated where the vault was restored from a backup, as `retention.destruction` does for data
keys. An account that an older catalog brings back has no key in the vault: what was sealed with it stays unreadable.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from storage.catalog.account_keys import AccountKeyRow, AccountKeysCatalog
from storage.days import MS_PER_DAY
from storage.errors import CorruptError
from storage.vault import Vault

UNUSED_MS = 7 * MS_PER_DAY
"""Age from which on a key that no account has is destroyed. A transaction that was begun with it ends within minutes,
or is refused: see `AccountKeysCatalog.end_account_keys`. So many days, for whoever puts an older catalog in place by
mistake still has the keys of the newer one."""
PAGE = 1000


def destroy_ended(catalog: AccountKeysCatalog, vault: Vault) -> int:
    """Destroy the keys of accounts that have ended, where whoever ended them could not. Returns how many."""
    destroyed = 0
    while ids := catalog.ended_account_keys(limit=PAGE):
        destroyed += vault.destroy_account_keys(ids)
        catalog.note_account_keys_destroyed(ids)
    return destroyed


def destroy_again(catalog: AccountKeysCatalog, vault: Vault) -> int:
    """Destroy what has ended and is in the vault all the same: that was restored from a backup. Returns how many."""
    destroyed = destroy_ended(catalog, vault)
    for rows in _pages(catalog):
        ended = [row.key_id for row in rows if row.account is None]
        if back := vault.account_keys(ended):
            destroyed += vault.destroy_account_keys(list(back))
    return destroyed


def destroy_unused(
    catalog: AccountKeysCatalog,
    vault: Vault,
    *,
    now_ms: int,
    before_page: Callable[[], object] = lambda: None,
) -> int:
    """Destroy keys of `UNUSED_MS` and more that no account has: those of transactions that were refused, or killed.

    Args:
        now_ms: by a clock that may be believed.
        before_page: called now and then; what it raises ends this.

    Returns:
        How many.
    """
    destroyed, after = 0, b""
    while facts := vault.account_keys_made(after=after, limit=PAGE):
        before_page()
        after = facts[-1].id
        known = catalog.account_keys_of([key.id for key in facts])
        unused = [key.id for key in facts if key.id not in known and now_ms - key.made_ms >= UNUSED_MS]
        if unused:
            destroyed += vault.destroy_account_keys(catalog.end_account_keys(unused))
            catalog.note_account_keys_destroyed(unused)
    return destroyed


def wrong_account_keys(catalog: AccountKeysCatalog, vault: Vault) -> Iterator[str]:
    """Yield a sentence for each account whose key is missing, and for each key that should be gone."""
    for rows in _pages(catalog):
        there, corrupt = _keys_there(vault, [row.key_id for row in rows])
        yield from corrupt
        # Looked at again: an account may have ended, or have come, since the page was read.
        wrong = [row for row in rows if (row.key_id in there) != (row.account is not None)]
        for row in catalog.account_keys_of([row.key_id for row in wrong]).values():
            if row.account is not None and row.account < 0 and row.key_id not in there:
                yield (
                    f"kept clip {-row.account}: its key is not in the vault, so nobody can read it. It was deleted"
                    " after the backup that this catalog is from: delete it again; or the vault is older than the"
                    " catalog: restore its newest backup"
                )
            elif row.account is not None and row.key_id not in there:
                yield (
                    f"account {row.account}: its key is not in the vault, so its texts can't be read. It ended after"
                    " the backup that this catalog is from; or the vault is older than the catalog: restore its newest"
                    " backup"
                )
            elif row.account is None and row.destroyed and row.key_id in there:
                yield (
                    f"account key {row.key_id.hex()}: it was destroyed, and is in the vault again, which was restored"
                    " from a backup; `clipkeep sweep` destroys it anew"
                )


def _keys_there(vault: Vault, ids: list[bytes]) -> tuple[set[bytes], list[str]]:
    """Which of these keys are there, and what is wrong with those that do not unwrap."""
    try:
        return set(vault.account_keys(ids)), []
    except CorruptError as error:
        if len(ids) == 1:
            return set(ids), [str(error)]
    there: set[bytes] = set()
    corrupt: list[str] = []
    for half in (ids[: len(ids) // 2], ids[len(ids) // 2 :]):
        found, told = _keys_there(vault, half)
        there |= found
        corrupt += told
    return there, corrupt


def count_unused(catalog: AccountKeysCatalog, vault: Vault) -> int:
    """How many keys are in the vault that no account ever had."""
    count, after = 0, b""
    while facts := vault.account_keys_made(after=after, limit=PAGE):
        after = facts[-1].id
        count += len(facts) - len(catalog.account_keys_of([key.id for key in facts]))
    return count


def _pages(catalog: AccountKeysCatalog) -> Iterator[list[AccountKeyRow]]:
    after = b""
    while rows := catalog.account_keys(after=after, limit=PAGE):
        after = rows[-1].key_id
        yield rows
