"""The vault: every secret by which something can be made unreadable, kept apart from the catalog and from the objects.

It holds

    data keys      one per device, erase epoch and month of expiry: recordings are encrypted with them
    account keys   one per account: the catalog's texts about people are sealed with them
    token secret   MACs of tokens are made with it

Each key is stored wrapped (AES-256-GCM) by a wrapping key, which lies in `master.key`, a file of the host with mode
0600. (A folder's token secret is not: it lies beside that file, with the same mode.) `rotate` gives the vault a new
wrapping key and ends the old one.

Two vaults are there: a folder (`storage.keys.KeyStore`, the default) and a PostgreSQL database of its own
(`storage.postgres.vault.PostgresVault`). Both pass `storage/contracts/vault.py`; a third must too.

**What every vault promises.** A key that was handed out is durable, and every process gets the same one. A key that was
destroyed is never handed out and never made again, from the moment that `destroy_…` returns. What a vault's files still
hold of a destroyed key is said by each of them; it is wrapped at worst, so it is worthless once the wrapping key was
rotated away on every host and the last backup of `master.key` from before is gone.
"""

from __future__ import annotations

import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from storage.errors import CallerError, ClipkeepError, KeyDestroyed, NotFound

MAX_IDS_PER_CALL = 10_000
"""Most ids, devices or accounts in one call: bounds one transaction, and so everyone else's wait. Measured in a folder:
0.1 s to make as many keys, 0.4 s to destroy them."""
ACCOUNT_KEY_ID_BYTES = 16
KEY_BYTES = 32

Outcome = bytes | ClipkeepError
"""What became of one id of a batch: its 32-byte key, or why there is none."""
Progress = Callable[[str, int, int], None]
"""(phase, done, of)."""

_U32 = range(2**32)


class KeyId(NamedTuple):
    """Which data key: unique for ever, never reused.

    Attributes:
        device: device number, u32.
        epoch: the device's erase epoch, u32; a renewal after an erasure starts with new keys.
        month: yyyymm of the chunk's `expires_on`, so that a month's keys all fall due together.
    """

    device: int
    epoch: int
    month: int

    def __str__(self) -> str:
        return f"key of device {self.device}, epoch {self.epoch}, month {self.month}"


class KeyCount(NamedTuple):
    """Keys that are there, and keys that were destroyed and whose place is still there."""

    live: int
    destroyed: int


class AccountKeyFacts(NamedTuple):
    """What a vault tells of an account key without its secret."""

    id: bytes
    made_ms: int
    """Unix ms, as the caller of `make_account_keys` gave it."""


@dataclass(frozen=True, slots=True)
class Inventory:
    """A vault in numbers."""

    months: dict[int, KeyCount]
    """yyyymm to its data keys."""
    month_floor: int
    """The last month destroyed, yyyymm, 0 before the first."""
    erased_devices: int
    """Devices with a floor: keys of theirs were destroyed."""
    account_keys: int
    """Account keys that are there."""
    current_wrapping_key: int
    wrapping_keys: dict[int, int]
    """Id of each wrapping key in master.key, oldest first → how many live keys it wraps, of every kind."""
    rotated_ms: int
    """Unix ms at which master.key was last written: the end of the last rotation, or the making."""


@dataclass(frozen=True, slots=True)
class Rotation:
    """What a rotation did."""

    wrapping_key_id: int
    """The current one, new unless an earlier rotation was only finished."""
    resumed: bool
    """An earlier rotation had been interrupted, and this call did the rest of it."""
    rewrapped: int
    retired: tuple[int, ...]
    """Ids of the wrapping keys that were destroyed."""
    waiting_for: tuple[str, ...] = ()
    """Names of the hosts that have earlier wrapping keys still. Nothing erased is cleared before they drop those."""


class KeyHost(NamedTuple):
    """A host that has wrapping keys."""

    name: str
    wrapping_keys: tuple[int, ...]
    """Ids, oldest first; 0 for those in a file that was replaced and is not overwritten yet."""
    seen_ms: int
    """When it last said so, Unix ms by the vault's clock."""
    serves: bool


class Vault(ABC):
    """See the module. Every method blocks and may be called from any thread. Any number of processes may have a vault
    open; none is carried over a fork.

    All methods raise:
        WorldError: `key_store_unavailable`: it cannot be reached, its disk is full, or it was busy for too long. Trying
            again is safe.
        CorruptError: `key_store_corrupt`: the file or row, field and remedy are named.
        CallerError: `key_store_closed` after `close`.
    """

    def __init__(self) -> None:
        self._first_month = 0

    def keep_from(self, first_month: int) -> None:
        """From now on the data keys of an earlier month (yyyymm) are kept as keys of this one:
        `Catalog.first_key_month`. To be called before others use this object."""
        self._first_month = first_month

    @property
    @abstractmethod
    def token_secret(self) -> bytes:
        """The 32-byte secret for token MACs. It outlives rotations of the wrapping key."""

    @abstractmethod
    def require_files(self) -> None:
        """Make sure that a key that is made now will be found again. Cheap while nothing changes.

        Raises:
            WorldError: `key_store_replaced`: what is open is no longer what has the name.
            CorruptError: a file of secrets is gone, or another one.
        """

    # --- data keys ------------------------------------------------------------------------------------------------

    def ensure(self, ids: Iterable[KeyId]) -> dict[KeyId, bytes]:
        """Return the key of every id, making those that are missing. All or nothing.

        Raises:
            KeyDestroyed: an id's epoch or month was destroyed; it is never made again (invariant 9).
            CallerError: an id out of range, or more than `MAX_IDS_PER_CALL`.
        """
        return all_keys(self._outcomes(ids, make=True, partly=False))

    def ensure_each(self, ids: Iterable[KeyId]) -> dict[KeyId, Outcome]:
        """As `ensure`, but one id's fault is that id's outcome and never its neighbours'.

        One transaction for all that is missing, none when nothing is. What is returned is durable, and every process
        that asks gets the same key.
        """
        return self._outcomes(ids, make=True, partly=True)

    def get(self, ids: Iterable[KeyId]) -> dict[KeyId, bytes]:
        """Return the keys of those ids that have one. Never writes."""
        outcomes = self._outcomes(ids, make=False, partly=True)
        return all_keys({k: v for k, v in outcomes.items() if not isinstance(v, KeyDestroyed)})

    def get_each(self, ids: Iterable[KeyId]) -> dict[KeyId, Outcome]:
        """As `get`, with an outcome for every id: for a reader, a key that is not there is gone for good."""
        outcomes = self._outcomes(wanted := tuple(ids), make=False, partly=True)
        return {key_id: outcomes.get(key_id, key_destroyed(key_id)) for key_id in wanted}

    def destroy_device(self, device: int, *, below_epoch: int) -> int:
        """Destroy every key of one device with an epoch below `below_epoch`; see `destroy_devices`."""
        return self.destroy_devices({device: below_epoch})

    @abstractmethod
    def destroy_devices(self, below_epochs: Mapping[int, int]) -> int:
        """Destroy the keys of many devices, at the price of one: device → lowest epoch that stays, its *floor*.

        Idempotent, and a lower epoch than before changes nothing. Costs one index look-up per device and
        month that has keys, whatever the device had stored.

        Returns:
            How many keys this call destroyed; 0 when it was all done before.

        Raises:
            WorldError: as usual. The keys may be gone for every process already: call again until it returns.
        """

    @abstractmethod
    def destroy_months(self, through_month: int) -> int:
        """Destroy the keys of every month up to and including `through_month` (yyyymm).

        The first transaction raises the floor: from then on those keys are gone for everyone. What is stored of them
        follows, so that uploads go on meanwhile; a crash in between is made good by calling again.
        Idempotent. Returns and raises as `destroy_devices`.
        """

    def gone_before(self, window_end_ms: int) -> int:
        """What was destroyed at or before this time is in no file and no backup that could be read.

        Args:
            window_end_ms: Unix ms; backups from before it are gone, by `[retention] key_backup_days`.

        Returns:
            Unix ms. `window_end_ms` itself for a vault that overwrites keys in place; 0 when nothing is gone yet.
        """
        return window_end_ms

    def require_usable(self) -> None:
        """Ask whether keys can be read, and made as far as can be told without making one.

        Raises:
            WorldError: `key_store_unavailable`; `key_store_full`, the disk of its server is full. The disk of a folder
                is looked at by whoever has the data folder.
        """
        self.last_month_destroyed()

    @abstractmethod
    def last_month_destroyed(self) -> int:
        """The last month (yyyymm) whose keys are gone, with all before it; 0 when none are."""

    @abstractmethod
    def behind(self, below_epochs: Mapping[int, int]) -> dict[int, int]:
        """Those of `below_epochs` which this vault has not heard of: it was restored from a backup that is older than
        their destruction, or the destruction is still to come."""

    @abstractmethod
    def count(self) -> int:
        """How many data keys exist. Reads them all: for reports and tests."""

    @abstractmethod
    def count_of(
        self, devices: Iterable[int], *, below_epochs: Mapping[int, int] | None = None
    ) -> dict[int, KeyCount]:
        """How many keys of each device there are, and how many were destroyed, in the months that still have a
        table. Reads what is in the rows, whatever the floors say.

        Args:
            below_epochs: device → only keys of the epoch before this one: what one erasure was about.
        """

    @abstractmethod
    def every_key(self, *, device: int | None = None) -> Iterator[tuple[KeyId, bytes]]:
        """Yield every data key that can still be unwrapped, even behind a floor: what an attacker would find who has
        this vault and its master.key. In pages: may be slow, holds nothing up."""

    # --- account keys ---------------------------------------------------------------------------------------------

    def make_account_keys(self, ids: Collection[bytes], *, now_ms: int) -> dict[bytes, bytes]:
        """Make keys under random ids of `ACCOUNT_KEY_ID_BYTES` that the caller drew: before the transaction of the
        catalog that refers to them. An id that has a key keeps it, so it may be repeated.

        What no transaction came to refer to is found by `account_keys_made` and destroyed. An id is never drawn twice,
        so a destroyed id is not remembered, and its place is used again.
        """
        fresh = {id_: secrets.token_bytes(KEY_BYTES) for id_ in checked_account_ids(ids)}
        return self.keep_account_keys(fresh, now_ms=now_ms)

    @abstractmethod
    def keep_account_keys(self, keys: Mapping[bytes, bytes], *, now_ms: int) -> dict[bytes, bytes]:
        """Keep these keys, of `KEY_BYTES` each, under these ids. An id that has a key keeps that one. Returns the keys
        that the ids have now. By itself it is for keys that were kept elsewhere before: `make_account_keys`."""

    @abstractmethod
    def account_keys(self, ids: Collection[bytes]) -> dict[bytes, bytes]:
        """The keys of those ids that have one. Never writes."""

    @abstractmethod
    def destroy_account_keys(self, ids: Collection[bytes]) -> int:
        """Destroy the keys of these ids. Idempotent. Returns how many this call destroyed. Raises as
        `destroy_devices`."""

    @abstractmethod
    def account_keys_made(self, *, after: bytes = b"", limit: int = 1000) -> list[AccountKeyFacts]:
        """The account keys that are there, by id, those after `after`, at most `limit`."""

    def every_account_key(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield (id, key) of every account key, in pages: as `every_key`, for who attacks with this vault."""
        after = b""
        while facts := self.account_keys_made(after=after):
            after = facts[-1].id
            yield from self.account_keys([key.id for key in facts]).items()

    # --- the whole of it ------------------------------------------------------------------------------------------

    @abstractmethod
    def damage(self) -> list[str]:
        """What is wrong with the stored keys as far as the engine itself can tell, each as a sentence. Reads all of it.

        Raises:
            WorldError: it could not be asked.
        """

    @abstractmethod
    def inventory(self) -> Inventory:
        """Counts and wrapping key ids; no secrets. Reads all rows."""

    @abstractmethod
    def rotate(self, progress: Progress = lambda phase, done, of: None) -> Rotation:
        """Wrap every key with a new wrapping key and destroy the old one.

        Runs beside processes that use the vault, each of which waits for single batches only. Killed at any
        moment, it is simply called again, and then goes on instead of beginning anew.

        Raises:
            CorruptError: rows that do not unwrap; all others were re-wrapped, and the old wrapping key stays.
        """

    def keep_up(  # noqa: B027 - a folder has one host
        self, name: str, *, lasting: bool = True, serves: bool = True
    ) -> None:
        """Take part in rotations that other hosts carry out: take the new wrapping key, drop those that are over.
        To be called every few seconds while a host serves, by one of its processes. Nothing in a vault of one host.

        Args:
            name: of this host, for people.
            lasting: False: this host's keys go away with it. Once it was not heard for ten minutes it has none.
            serves: False: it is there, and rotations need not wait for it.
        """

    def hosts(self) -> list[KeyHost]:
        """The hosts that have wrapping keys of this vault, by name; none where it is a folder."""
        return []

    def forget_host(self, name: str) -> None:
        """Take a host from that list which is gone for good, its master.key with it. No rotation waits for it any more.

        Raises:
            NotFound: `no_such_host`. CallerError: `host_serves`.
        """
        raise NotFound("this vault is a folder, of one host", subject=name, code="no_such_host")

    @abstractmethod
    def backup(self, folder: Path) -> None:
        """Make a consistent copy of this vault, mode 0700, beside running processes.

        What the copy holds is not erased until the copy is gone: see `[retention] key_backup_days`.

        Raises:
            CallerError: `key_store_exists`: the folder is there and not empty. `vault_backup`: this vault is backed up
                by the tools of its server, and the error says how.
            WorldError: no space or no permission.
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of it. Idempotent; a call in another thread is waited for."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- for implementers -----------------------------------------------------------------------------------------

    @abstractmethod
    def _outcomes_of(self, wanted: set[KeyId], *, make: bool, partly: bool) -> dict[KeyId, Outcome]:
        """The outcomes of ids in range, at most `MAX_IDS_PER_CALL`: of those that have a key or were destroyed, and,
        with `make`, of all. Without `partly` nothing is made when one of them has a fault."""

    def _outcomes(self, ids: Iterable[KeyId], *, make: bool, partly: bool) -> dict[KeyId, Outcome]:
        kept = {key_id: self._kept_as(checked_id(key_id)) for key_id in ids}
        check_size(wanted := set(kept.values()))
        found = self._outcomes_of(wanted, make=make, partly=partly)
        return {key_id: found[place] for key_id, place in kept.items() if place in found}

    def _kept_as(self, key_id: KeyId) -> KeyId:
        return key_id if key_id.month >= self._first_month else key_id._replace(month=self._first_month)


def checked_id(key_id: KeyId) -> KeyId:
    """Return `key_id` when each part is in its range, else raise CallerError."""
    device, epoch, month = key_id
    if device in _U32 and epoch in _U32 and month in range(1970_01, 9999_13) and month % 100 in range(1, 13):
        return key_id
    raise CallerError("device and epoch are u32, month is yyyymm", subject=str(key_id), code="bad_key_id")


def checked_account_ids(ids: Collection[bytes]) -> list[bytes]:
    """Return the ids when each is as long as one is, and they are not too many, else raise CallerError."""
    check_size(ids)
    if any(len(account_key) != ACCOUNT_KEY_ID_BYTES for account_key in ids):
        raise CallerError(
            f"the id of an account key is {ACCOUNT_KEY_ID_BYTES} random bytes", code="bad_key_id"
        )
    return list(dict.fromkeys(ids))


def checked_floors(below_epochs: Mapping[int, int]) -> Mapping[int, int]:
    """Return device → epoch when they are in range and not too many, else raise CallerError."""
    check_size(below_epochs)
    for device, epoch in below_epochs.items():
        checked_id(KeyId(device, epoch, 1970_01))
    return below_epochs


def check_size(ids: Collection[object]) -> None:
    """Raise CallerError `too_many_ids` for more than one call may have."""
    if len(ids) > MAX_IDS_PER_CALL:
        raise CallerError(f"{len(ids)} ids in one call; at most {MAX_IDS_PER_CALL}", code="too_many_ids")


def key_destroyed(key_id: KeyId) -> KeyDestroyed:
    """The outcome of a key that is gone."""
    return KeyDestroyed("it was destroyed, and what it encrypted is gone for good", subject=str(key_id))


def faultless(outcomes: Mapping[KeyId, Outcome]) -> bool:
    """Whether all of them are keys."""
    return not any(isinstance(outcome, ClipkeepError) for outcome in outcomes.values())


def all_keys(outcomes: Mapping[KeyId, Outcome]) -> dict[KeyId, bytes]:
    """The keys; raises the first fault instead."""
    keys: dict[KeyId, bytes] = {}
    for key_id, outcome in outcomes.items():
        if isinstance(outcome, ClipkeepError):
            raise outcome
        keys[key_id] = outcome
    return keys
