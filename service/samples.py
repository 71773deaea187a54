"""A few recordings are read and decrypted, to see that catalog, keys and objects belong together."""

from __future__ import annotations

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from service.folder import Opened
from storage.checksums import crc32
from storage.days import month_of_day
from storage.errors import ClipkeepError
from storage.rows.recordings import ChunkRow
from storage.segment import TAG_BYTES, decrypt_chunk
from storage.vault import KeyId


def read_samples(opened: Opened, most: int) -> tuple[int, list[str]]:
    """Read the newest chunk of so many devices at most, spread over all of them.

    Returns:
        How many were good, and what was wrong with others. One that nobody may read any more (erased, or of a day that
        was swept) is left out.
    """
    catalog = opened.catalog
    highest = max(1, catalog.numbers_given()["device"])
    numbers = sorted({1 + i * highest // most for i in range(most)})
    good, wrong = 0, []
    for facts in catalog.devices_numbered(numbers):
        for row in catalog.latest_chunks(facts.device, limit=1):
            if row.epoch != facts.erase_epoch or row.expires_on <= catalog.closed_through:
                continue
            try:
                fault = _fault_of(opened, row)
            except ClipkeepError as error:
                fault = str(error)
            if fault:
                wrong.append(f"device {row.device} at {row.capture_ms}: {fault}")
            else:
                good += 1
    return good, wrong


def _fault_of(opened: Opened, row: ChunkRow) -> str:
    key_id = KeyId(row.device, row.epoch, month_of_day(row.expires_on))
    key = opened.vault.get([key_id])[key_id]
    stored = opened.store.get_range(row.segment_key, row.offset, row.length + TAG_BYTES)
    data = decrypt_chunk(AESGCM(key), row.nonce, stored, device=row.device, capture_ms=row.capture_ms)
    return "" if crc32(data) == row.crc32 else "what is stored is not this recording"
