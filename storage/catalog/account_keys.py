"""The catalog as those see it who destroy account keys in the vault, and who check that none is missing."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection
from typing import NamedTuple, Protocol


class AccountKeyRow(NamedTuple):
    """What became of one account key."""

    key_id: bytes
    account: int | None
    """Whose it is. 0: the catalog's own, of hashes. Below 0: a kept clip's (`storage.rows.clips.key_owner`). None: of
    no account any more, or it never was."""
    destroyed: bool
    """The vault has destroyed it."""


class AccountKeysCatalog(Protocol):
    """Which account key is whose. The keys are in the vault: an id that has ended here is to be destroyed there, and is
    never given to an account again."""

    @abstractmethod
    def account_keys(self, *, after: bytes = b"", limit: int = 1000) -> list[AccountKeyRow]:
        """Rows with an id above `after`, in order of id."""

    @abstractmethod
    def account_keys_of(self, ids: Collection[bytes]) -> dict[bytes, AccountKeyRow]:
        """The rows of these ids; an id that no account ever had is left out."""

    @abstractmethod
    def ended_account_keys(self, *, limit: int = 1000) -> list[bytes]:
        """Ids that have ended and are not noted as destroyed. Cheap when there are none."""

    @abstractmethod
    def end_account_keys(self, ids: Collection[bytes]) -> list[bytes]:
        """End those of these ids that no account has: a transaction that would give one to an account later is refused.
        Returns those that are ended now, whoever did it."""

    @abstractmethod
    def note_account_keys_destroyed(self, ids: Collection[bytes]) -> None:
        """The vault has destroyed these, which were ended."""
