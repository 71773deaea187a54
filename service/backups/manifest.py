"""What a part of a backup says of itself: which files it has, and what they are to be."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any

from storage.errors import CallerError, CorruptError

NAME = "manifest.json"
FORMAT = 1
DATA, KEYS = "data", "keys"
"""The two parts."""
UNFINISHED = ".unfinished-"
"""How the folder of a part begins that is not whole: of a backup that is at work, or was killed."""
READ_BYTES = 1 << 20
MAX_BYTES = 64 << 20
"""Of a manifest: some 400,000 files."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A file of a part: its path from the data folder on, and what is in it."""

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """See `docs/formats.md`."""

    part: str
    name: str
    """Of the backup: both parts have it."""
    home: int
    release: str
    made_ms: int
    catalog: str
    """`file`, or `server`: then it is not in here."""
    vault: str
    """`folder`, or `server`: then the keys are not in here, but what unwraps them."""
    files: tuple[Kept, ...]
    keys_sha256: str = ""
    """In the part of the data: of the manifest of the keys' part."""

    def written(self) -> bytes:
        document = {"clipkeep_backup": FORMAT, **asdict(self)}
        return json.dumps(document, indent=1).encode() + b"\n"


def digest(data: bytes) -> str:
    return sha256(data).hexdigest()


def read_manifest(folder: Path, part: str) -> Manifest:
    """Raises:
    CallerError: `no_backup`: the folder is no part of a backup, is not whole, or is the other part.
    CorruptError: `backup_damaged`.
    """
    if folder.name.startswith(UNFINISHED):
        raise CallerError(
            "this backup was not finished; choose another", subject=str(folder), code="no_backup"
        )
    try:
        with (folder / NAME).open("rb") as file:
            text = file.read(MAX_BYTES)
    except OSError as error:
        raise CallerError(
            f"no backup is here: {NAME} can't be read ({error.strerror}). Name the folder of one backup, which is"
            " called by its time",
            subject=str(folder),
            code="no_backup",
        ) from error
    try:
        found = _parsed(json.loads(text))
    except (ValueError, TypeError, KeyError) as error:
        raise damaged(folder / NAME, f"it is no manifest of this release: {error}") from error
    if found.part != part:
        raise CallerError(
            f"this is the part of the {found.part}, and not of the {part}: --from names the one, --keys the other",
            subject=str(folder),
            code="no_backup",
        )
    return found


def _parsed(document: Any) -> Manifest:
    if document.pop("clipkeep_backup") != FORMAT:
        raise ValueError("another format")
    files = tuple(Kept(**entry) for entry in document.pop("files"))
    for kept in files:
        path = PurePosixPath(kept.path)
        if path.is_absolute() or ".." in path.parts or not path.parts:
            raise ValueError(f"{kept.path!r} is no path in a data folder")
    return Manifest(files=files, **document)


def require_whole(folder: Path, manifest: Manifest) -> None:
    """Read every byte.

    Raises:
        CorruptError: `backup_damaged`: a file is missing, or not what it was.
    """
    for kept in manifest.files:
        path = folder / kept.path
        read, seen = 0, sha256()
        try:
            with path.open("rb") as file:
                while data := file.read(READ_BYTES):
                    seen.update(data)
                    read += len(data)
        except OSError as error:
            raise damaged(path, f"it can't be read: {error.strerror}") from error
        if (read, seen.hexdigest()) != (kept.bytes, kept.sha256):
            raise damaged(path, "it is not what was written")


def require_pair(data: Manifest, keys: Manifest, keys_folder: Path) -> None:
    """Raises CallerError, `another_backup`: the two parts were not made together."""
    if (keys_folder / NAME).is_file() and digest((keys_folder / NAME).read_bytes()) == data.keys_sha256:
        return
    raise CallerError(
        f"these are the keys of another backup ({keys.name}) than the data ({data.name}): name two parts of one name",
        subject=str(keys_folder),
        code="another_backup",
    )


def damaged(path: Path, what: str) -> CorruptError:
    return CorruptError(
        f"this backup is damaged: {what}. Use another", subject=str(path), code="backup_damaged"
    )
