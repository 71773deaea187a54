"""A rehearsal: a folder is made of a backup, opened, and recordings are read by its catalog and keys.

No service is started on it: that one would sweep, charge and send. Nothing is written to the store.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from service.backups.restoring import Backup, restore
from service.folder import open_folder
from service.samples import read_samples

SAMPLES = 100


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """What came of it.

    Attributes:
        read: recordings that were read, decrypted and compared.
        wrong: what is wrong with others, and with the files of catalog and keys.
    """

    read: int
    wrong: tuple[str, ...]


def rehearse(
    backup: Backup, *, scratch: Path, store_url: str | None, environ: Mapping[str, str]
) -> Rehearsed:
    """Start from the copy.

    Args:
        scratch: where a folder is made for it, mode 0700, which goes again: keys and catalog lie in it together.
        store_url: where the objects are; None: as the configuration of the backup says.

    Raises:
        ClipkeepError: it can't be opened.
        WorldError: the file system refused.
    """
    scratch.mkdir(mode=0o700, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix="rehearsal-", dir=scratch))
    try:
        restore(backup, made)
        with open_folder(made, store_url=store_url, environ=environ) as opened:
            damage = [*opened.catalog.damage(), *opened.vault.damage()]
            read, wrong = read_samples(opened, SAMPLES)
        return Rehearsed(read, (*damage, *wrong))
    finally:
        for path in made.rglob("*"):
            if path.is_file() and path.parent.name == "keys":
                with path.open("r+b") as file:  # the disk's own copies are its owner's to encrypt
                    file.write(bytes(os.fstat(file.fileno()).st_size))
        shutil.rmtree(made, ignore_errors=True)
