"""Account keys as the catalog uses them: made ahead of a transaction, and kept in memory for a moment.

The catalog knows the ids, the vault has the keys. So whoever has a copy of the catalog alone reads no text about a
person, and a key that the vault destroys takes with it all copies of what it sealed.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Collection
from typing import Protocol

from storage.errors import CallerError
from storage.vault import ACCOUNT_KEY_ID_BYTES, MAX_IDS_PER_CALL

KEPT_S = 60.0
"""How long a key stays in memory after it was read. Reading texts of an account costs a read of the vault a minute."""
MAX_KEPT = 10_000
"""Keys in memory, some 2 MB."""
SPARE_S = 3600.0
"""How long a key that was made ahead may wait for its account: far below the age at which the sweep takes it for
unused."""
MAX_SPARE = 64
"""Keys that wait for an account in this process: those of transactions that were refused."""


class AccountVault(Protocol):
    """What of `storage.vault.Vault` the catalog uses."""

    def make_account_keys(self, ids: Collection[bytes], *, now_ms: int) -> dict[bytes, bytes]:
        """See `Vault`."""

    def account_keys(self, ids: Collection[bytes]) -> dict[bytes, bytes]:
        """See `Vault`."""

    def destroy_account_keys(self, ids: Collection[bytes]) -> int:
        """See `Vault`."""


class AccountKeys:
    """The account keys of one vault, for one process. Safe from several threads.

    Args:
        vault: None for a catalog whose texts nobody reads or writes, as in tests of its other parts.

    Raises (all methods): as `Vault`; CallerError `no_vault`.
    """

    def __init__(self, vault: AccountVault | None) -> None:
        self.vault = vault
        self._lock = threading.Lock()
        self._kept: OrderedDict[bytes, tuple[float, bytes]] = OrderedDict()
        """In the order in which they were read."""
        self._spare: list[tuple[float, bytes]] = []

    @property
    def has_vault(self) -> bool:
        return self.vault is not None

    def of(self, ids: Collection[bytes]) -> dict[bytes, bytes]:
        """The keys of those ids that have one."""
        now = time.monotonic()
        with self._lock:
            while self._kept and next(iter(self._kept.values()))[0] < now - KEPT_S:
                self._kept.popitem(last=False)
            found = {id_: self._kept[id_][1] for id_ in ids if id_ in self._kept}
        if missing := [id_ for id_ in dict.fromkeys(ids) if id_ not in found]:
            for start in range(0, len(missing), MAX_IDS_PER_CALL):
                read = self._open_vault().account_keys(missing[start : start + MAX_IDS_PER_CALL])
                self._keep(read, now)
                found |= read
        return found

    def made_ahead(self, count: int, *, now_ms: int) -> list[bytes]:
        """Ids of so many keys that no account has yet: those that were given back first."""
        now = time.monotonic()
        with self._lock:
            fresh = [(since, id_) for since, id_ in self._spare if since > now - SPARE_S]
            taken, self._spare = fresh[:count], fresh[count:]
        ids = [id_ for _, id_ in taken]
        if len(ids) < count:
            new = [secrets.token_bytes(ACCOUNT_KEY_ID_BYTES) for _ in range(count - len(ids))]
            self._keep(self._open_vault().make_account_keys(new, now_ms=now_ms), now)
            ids += new
        return ids

    def give_back(self, ids: Collection[bytes]) -> None:
        """Ids from `made_ahead` that no transaction has used, nor can use any more. What is too much is left to the
        sweep."""
        now = time.monotonic()
        with self._lock:
            self._spare += [(now, id_) for id_ in ids][: max(0, MAX_SPARE - len(self._spare))]

    def destroy(self, ids: Collection[bytes]) -> None:
        """Destroy these keys in the vault, and forget them."""
        with self._lock:
            for id_ in ids:
                self._kept.pop(id_, None)
        self._open_vault().destroy_account_keys(ids)

    def _keep(self, keys: dict[bytes, bytes], now: float) -> None:
        with self._lock:
            for id_, key in keys.items():
                self._kept[id_] = (now, key)
                self._kept.move_to_end(id_)
            while len(self._kept) > MAX_KEPT:
                self._kept.popitem(last=False)

    def _open_vault(self) -> AccountVault:
        if self.vault is None:
            raise CallerError("this catalog was opened without its vault", code="no_vault")
        return self.vault
