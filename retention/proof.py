"""The proof that an erasure holds: trying to decrypt with everything that is left (invariant 10).

The chunks are found from the indexes of the segments themselves, in the objects: what the catalog has forgotten
still lies there until its day. The keys are every one that can be unwrapped in the key store, whatever its floors say,
and in the backups of it that are given.

Two passes, because all chunks of one data key stand or fall together:
- each chunk of the device against every key that was ever the device's, whatever the epoch or month;
- the smallest chunk of each data key against every other key that is left.
Neighbours in the same segments must still decrypt: else the attack proves nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from storage.catalog.account_keys import AccountKeysCatalog
from storage.catalog.check import CheckCatalog
from storage.catalog.reading import ReadingCatalog
from storage.days import month_of_day
from storage.errors import CorruptError, ObjectMissing
from storage.objects import ObjectStore
from storage.open_vault import HasKeys
from storage.recover import load_index
from storage.rows.clips import clip_of_key
from storage.rows.recordings import SegmentRow
from storage.segment import TAG_BYTES, associated_data
from storage.vault import KeyId, Vault

MAX_TOLD = 20
MAX_ASKED = 100
"""Neighbours looked up in the catalog for each object, until one is served: that one is shown to decrypt."""

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class _Chunk:
    """One stored body in an object."""

    key: str
    key_id: KeyId
    capture_ms: int
    offset: int
    length: int
    nonce: bytes


@dataclass(slots=True)
class Proof:
    """What was tried, and what came of it."""

    device: int
    epoch: int
    segments: int = 0
    """Objects with chunks of the device from before the erasure."""
    chunks: int = 0
    own_keys: int = 0
    """Keys of the device's erased epochs that are left anywhere: none, when the erasure holds."""
    keys: int = 0
    """Keys tried, of all devices, key stores and backups."""
    key_stores: int = 1
    account_keys_left: int = 0
    """Keys of accounts that have ended, which these key stores hold and unwrap: whose they were is known to nobody, so
    they decide nothing about this device."""
    neighbours: int = 0
    """Chunks of others, in the same objects, that were to decrypt, and did."""
    decrypted: list[str] = field(default_factory=list)
    """Chunks of the device that decrypted: none, when the erasure holds. The first MAX_TOLD."""
    neighbours_lost: list[str] = field(default_factory=list)
    """Chunks of neighbours that should decrypt and did not."""
    unreadable: list[str] = field(default_factory=list)
    """Objects that could not be looked into."""

    @property
    def holds(self) -> bool:
        return not (self.own_keys or self.decrypted or self.neighbours_lost or self.unreadable)

    def told(self) -> str:
        """For the erasure record: numbers only."""
        return (
            f"{self.chunks} chunks in {self.segments} objects against {self.keys} keys of {self.key_stores} key"
            f" stores: none decrypts; {self.neighbours} chunks of neighbours do"
        )


class ProofCatalog(CheckCatalog, ReadingCatalog, AccountKeysCatalog, Protocol):
    """Every segment, what is served of it, and which account keys are to be gone."""


class Prover:
    """Tries to decrypt what was erased.

    Args:
        vault: the one in use.
        backups: of it, which are attacked with as well.
    """

    def __init__(
        self,
        catalog: ProofCatalog,
        store: ObjectStore,
        vault: Vault,
        backups: Sequence[HasKeys] = (),
        progress: Progress = lambda phase, done, of: None,
    ) -> None:
        self._catalog = catalog
        self._store = store
        self._vault = vault
        self._sources: Sequence[HasKeys] = (vault, *backups)
        self._progress = progress

    def prove(self, device: int, epoch: int) -> Proof:
        """Attack the chunks that the device stored before its erase epoch `epoch`.

        Raises:
            WorldError, CorruptError: the store, the catalog or a key store cannot be used: nothing is proved.
        """
        proof = Proof(device, epoch, key_stores=len(self._sources))
        erased: list[_Chunk] = []
        for chunks in self._objects(proof):
            mine = [c for c in chunks if c.key_id.device == device and c.key_id.epoch < epoch]
            if mine:
                proof.segments += 1
                erased += mine
                self._ask_neighbours(chunks, proof)
        proof.chunks = len(erased)
        self._attack(erased, proof)
        proof.account_keys_left = self._ended_account_keys()
        return proof

    def _ended_account_keys(self) -> int:
        found: set[bytes] = set()
        for source in self._sources:
            found.update(id_ for id_, _ in source.every_account_key())
        return sum(row.account is None for row in self._catalog.account_keys_of(found).values())

    def _objects(self, proof: Proof) -> Iterator[list[_Chunk]]:
        """Yield the chunks of every object that may still be there, by its own index."""
        rows = list(self._rows())  # prepared ones too: their object may be there, uncommitted
        for number, row in enumerate(rows, 1):
            self._progress("objects", number, len(rows))
            try:
                footer, index = load_index(self._store, row.key)
            except ObjectMissing:  # never put, or deleted and not yet forgotten
                continue
            except CorruptError as error:
                _tell(proof.unreadable, f"{row.key}: {error.detail}")
                continue
            month = month_of_day(footer.expires_on)
            yield [_chunk_of(row.key, month, found) for found in index]

    def _rows(self) -> Iterator[SegmentRow]:
        after_id = 0
        while batch := self._catalog.segments(after_id=after_id):
            yield from batch
            after_id = batch[-1].segment_id

    def _ask_neighbours(self, chunks: Iterable[_Chunk], proof: Proof) -> None:
        """Decrypt a chunk of another device in the same object: one that the catalog serves."""
        others = {
            # No reader asks for an init segment by its time, which is below 0.
            c.key_id: c
            for c in chunks
            if c.key_id.device != proof.device and c.capture_ms >= 0
        }
        for key_id, chunk in islice(others.items(), MAX_ASKED):
            row = self._catalog.chunk(key_id.device, chunk.capture_ms)
            if row is None or row.segment_key != chunk.key:
                continue  # lapsed, deleted or moved: not served from here
            key = self._vault.get_each([key_id])[key_id]
            if isinstance(key, bytes) and _decrypts(key, chunk, self._stored(chunk)):
                proof.neighbours += 1
            else:
                _tell(proof.neighbours_lost, _name(chunk))
            return

    def _attack(self, erased: Sequence[_Chunk], proof: Proof) -> None:
        own: dict[bytes, KeyId] = {}
        for source in self._sources:
            own.update((key, key_id) for key_id, key in source.every_key(device=proof.device))
        proof.own_keys = sum(key_id.epoch < proof.epoch for key_id in own.values())
        for number, chunk in enumerate(erased, 1):
            self._progress("chunks", number, len(erased))
            self._try(chunk, own, proof)
        smallest: dict[tuple[KeyId, int | None], _Chunk] = {}
        for chunk in sorted(erased, key=lambda c: -c.length):
            smallest[chunk.key_id, clip_of_key(chunk.key)] = chunk  # each kept clip has a key of its own
        bodies = [(chunk, self._stored(chunk)) for chunk in smallest.values()]
        for key in self._every_key():
            proof.keys += 1
            for chunk, stored in bodies:
                if key not in own and _decrypts(key, chunk, stored):
                    _tell(proof.decrypted, _name(chunk))

    def _try(self, chunk: _Chunk, keys: Iterable[bytes], proof: Proof) -> None:
        stored = self._stored(chunk) if keys else b""
        if any(_decrypts(key, chunk, stored) for key in keys):
            _tell(proof.decrypted, _name(chunk))

    def _every_key(self) -> Iterator[bytes]:
        """Data keys, and those that are kept among the account keys: kept clips have theirs there."""
        for source in self._sources:
            for _, key in source.every_key():
                yield key
            for _, secret in source.every_account_key():
                yield secret

    def _stored(self, chunk: _Chunk) -> bytes:
        try:
            return self._store.get_range(chunk.key, chunk.offset, chunk.length + TAG_BYTES)
        except ObjectMissing:  # a sweep deleted it since its index was read
            return b""


def _decrypts(key: bytes, chunk: _Chunk, stored: bytes) -> bool:
    """Whether GCM authenticates the body, as whatever device and time its own index says."""
    try:
        AESGCM(key).decrypt(chunk.nonce, stored, associated_data(chunk.key_id.device, chunk.capture_ms))
    except (InvalidTag, ValueError):
        return False
    return True


def _chunk_of(key: str, month: int, row: Any) -> _Chunk:
    return _Chunk(
        key,
        KeyId(int(row["device"]), int(row["epoch"]), month),
        int(row["capture_ms"]),
        int(row["offset"]),
        int(row["length"]),
        row["nonce"].tobytes(),
    )


def _name(chunk: _Chunk) -> str:
    return f"device {chunk.key_id.device} at {chunk.capture_ms} in {chunk.key}"


def _tell(told: list[str], line: str) -> None:
    if len(told) < MAX_TOLD:
        told.append(line)
