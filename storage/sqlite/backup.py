"""A consistent copy of a catalog in a file, beside whoever writes to it."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from storage.disk import is_full, looks_full
from storage.errors import CatalogUnavailable

PAGES_AT_ONCE = 4096
"""Copied between two words of progress: 16 MiB."""
WAIT_S = 10.0
"""For a writer who keeps the file locked: a migration. Commits keep nobody waiting."""

Progress = Callable[[str, int, int], None]


def copy_catalog_file(file: Path, to: Path, progress: Progress) -> None:
    """Copy the catalog as of one moment into a new file, mode 0600, durable but for its folder, which is a database by
    itself without files beside it.

    One read transaction is open meanwhile: commits go on, and the write-ahead log grows with them until it ends. SQLite
    would begin anew after each commit without it.

    Raises:
        CatalogUnavailable: the catalog can't be read or the copy not be written; what was written is gone.
    """
    try:
        os.close(os.open(to, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        try:
            _copy(file, to, progress)
            with to.open("rb") as written:
                os.fsync(written.fileno())
        except BaseException:
            to.unlink()
            raise
    except (OSError, sqlite3.Error) as error:
        if looks_full(to) or (isinstance(error, OSError) and is_full(error)):
            raise CatalogUnavailable(
                "the disk of the copy is full; nothing of it is left",
                subject=str(to.parent),
                code="backup_full",
            ) from error
        raise CatalogUnavailable(f"no copy could be made: {error}", subject=str(file)) from error


def _copy(file: Path, to: Path, progress: Progress) -> None:
    source = sqlite3.connect(
        f"{file.absolute().as_uri()}?mode=rw", uri=True, timeout=WAIT_S, isolation_level=None
    )
    with closing(source), closing(sqlite3.connect(to, isolation_level=None)) as copy:
        source.execute("BEGIN")
        source.execute("SELECT count(*) FROM sqlite_master").fetchone()  # from here on the moment stands
        source.backup(
            copy,
            pages=PAGES_AT_ONCE,
            progress=lambda status, left, of: progress("catalog, pages copied", of - left, of),
        )
        source.execute("COMMIT")
        copy.execute("PRAGMA journal_mode=DELETE")  # no file beside it is a part of it
