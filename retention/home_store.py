"""Whose a store is. Each home writes its number into its store (`sweep/home`), and uses no other one.

With several hosts a store is easily mistaken: another bucket, prefix or share in one machine's
environment. Such a host would acknowledge chunks that no other finds, and its sweeps would forget objects that stay.
"""

from __future__ import annotations

import re

from retention.numbers import read_ceilings
from storage.catalog.continuity import ContinuityCatalog
from storage.checksums import crc32
from storage.errors import CallerError, CorruptError, ObjectMissing
from storage.objects import ObjectStore

KEY = "sweep/home"
_BYTES = 36
_FORM = re.compile(rb"clipkeep-home: (\d{20})\n")


def read_home(store: ObjectStore) -> int | None:
    """The number of the home that this store is of; None where none has said so.

    Raises:
        CorruptError: `store_home_corrupt`, what is there is not what a home writes.
        WorldError: the store can't be read.
    """
    try:
        found = _FORM.fullmatch(store.get_range(KEY, 0, _BYTES))
    except ObjectMissing:
        return None
    except CorruptError:
        found = None
    if found is None:
        raise CorruptError(
            "this is not what a home writes into its store; who else writes here? When you know that this is the right"
            " store: `clipkeep store accept`",
            subject=KEY,
            code="store_home_corrupt",
        )
    return int(found[1])


def require_own(catalog: ContinuityCatalog, store: ObjectStore, where: str) -> None:
    """Refuse a store that is not this home's. One that nobody has used, or this home before there was `sweep/home`,
    becomes this home's. Blocks.

    Args:
        where: the store's address, for the message.

    Raises:
        CallerError: `another_store`.
        CorruptError, WorldError: as `read_home` and `retention.numbers.read_ceilings`.
    """
    found = read_home(store)
    if found == catalog.home:
        return
    if found is not None:
        raise CallerError(
            "another home keeps its objects here, and two in one place would delete each other's. Choose another bucket"
            " or prefix, or correct [store] url, CLIPKEEP_STORE_URL or CLIPKEEP_S3_ENDPOINT",
            subject=where,
            code="another_store",
        )
    if catalog.ceilings() and not read_ceilings(store):
        raise CallerError(
            "nothing of this home is here, and it has used a store before. Look at [store] url, CLIPKEEP_STORE_URL and"
            " CLIPKEEP_S3_ENDPOINT on this host. If the earlier store is lost, or all"
            " its objects were moved here: `clipkeep store accept`",
            subject=where,
            code="another_store",
        )
    accept(catalog, store)


def accept(catalog: ContinuityCatalog, store: ObjectStore) -> None:
    """Make the store this home's. Raises WorldError: it can't be written."""
    body = bytearray(f"clipkeep-home: {catalog.home:020}\n".encode())
    store.put(KEY, body, crc32(body))
