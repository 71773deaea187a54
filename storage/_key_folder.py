"""Making the folder of a key store: whole or not at all."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from storage._key_database import create_database, translated_errors
from storage._key_files import SECRET_BYTES, TOKENS_MAGIC, fsync, unavailable, write_key_file
from storage._key_wrapping import WrappingKeys
from storage.errors import CallerError


def make_folder(folder: Path, fill: Callable[[Path], None]) -> None:
    """Make a key store's folder: whole or not at all.

    Raises:
        CallerError: `key_store_exists`.
        WorldError: no space or no permission.
    """
    try:
        # Made aside, with mode 0700, and renamed into place: atomic, and refused when there is content.
        aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            with translated_errors(folder):
                fill(aside)
            os.rename(aside, folder)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise
        fsync(folder.parent)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise unavailable(folder, error) from error
        raise CallerError(
            "there is a key store here already, or other files; nothing was changed",
            subject=str(folder),
            code="key_store_exists",
        ) from error


def write_new_store(folder: Path) -> None:
    """Fill an empty folder with fresh random secrets. Raises OSError."""
    wrapping_key_id = WrappingKeys.create(folder / "master.key")
    write_key_file(folder / "tokens.key", TOKENS_MAGIC, [(1, secrets.token_bytes(SECRET_BYTES))])
    create_database(folder / "keys.db", wrapping_key_id)
    fsync(folder)
