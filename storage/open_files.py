"""Whether files that are held open still are the ones that have their names.

A file that was removed, replaced, or moved away with its folder can be written to as before, by who has it open; so can
one whose file system was covered by another mount. What is written there is gone with the last process that has it
open. No error ever says so: one has to ask.

By name only, without opening anything: closing a descriptor of a database would drop the locks that SQLite holds.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

Identity = tuple[int, int]
"""Device and inode number of a file."""


def identity(path: Path) -> Identity | None:
    """What the name stands for now; None when there is nothing, or nothing can be seen."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


Version = tuple[int, int, int]
"""Device, inode number, and ns of the last change of a file or its attributes."""


def version(path: Path) -> Version | None:
    """As `identity`, for a file that nobody holds open: its inode may be another file's by now."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_ctime_ns


class OpenFiles:
    """What some names stood for when their files were opened.

    Args:
        paths: just opened. An inode is not given to another file while one has it open.
    """

    def __init__(self, paths: Iterable[Path]) -> None:
        self._opened = {path: identity(path) for path in paths}

    def lost(self) -> Path | None:
        """The first name that stands for another file now, or for none; None when all is well. Some µs."""
        for path, opened in self._opened.items():
            if identity(path) != opened:
                return path
        return None


def what_to_do(path: Path) -> str:
    """For an error about a file that `OpenFiles.lost` named."""
    return (
        f"{path.name} was removed, replaced or moved away while it was open, so what is written now would be lost, and"
        ' nothing is stored any more. Move back what was moved, without a restart; else see "Files that are gone" in'
        " docs/operations.md before you stop any process"
    )
