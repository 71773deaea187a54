"""`clipkeep backup`: both parts, made aside and named when they are whole.

The order is that of docs/operations.md: the catalog first, then the keys, so that no row is without its key. Objects
come last of all, and are not in here: an S3 store is its own copy, a local one is copied by rsync.

**A backup that was killed** leaves folders that begin with `.unfinished-`, which nothing takes for a backup; the next
one removes them. The keys get their name before the data: data without keys is worth nothing, keys without data are.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from retention.filelock import holding
from service.backups.files import copy_tree, kept_file, refused, sync_folder, sync_folders, write_file
from service.backups.manifest import (
    DATA,
    KEYS,
    NAME,
    UNFINISHED,
    Kept,
    Manifest,
    digest,
    read_manifest,
)
from service.folder import DataFolder, Opened, home_of, others_may
from storage.errors import CallerError, ClipkeepError
from storage.open_catalog import copy_catalog_aside, is_file
from storage.open_vault import copy_keys_aside, is_server
from storage.server_backups import ServerBackups

Progress = Callable[[str, int, int], None]
LOCK = ".clipkeep-backup.lock"
LOCK_WAIT_S = 1.0
"""Another backup takes longer than anybody waits."""
PAYMENTS = "payments.jsonl"
"""What the recording gateway was asked, where home is a server: a record a line."""


@dataclass(frozen=True, slots=True)
class Destinations:
    """Where backups go: folders that are there. A disk that is not mounted must not be made up for.

    Attributes:
        data: for catalog, configuration and payments.
        keys: for the keys.
    """

    data: Path
    keys: Path

    def require_apart(self, root: Path) -> None:
        """Raises CallerError: `no_destination`, one of them is not there; `destination_open`, others may enter it;
        `keys_beside`, one is in the other; `inside_data`, one is in the data folder, and would be lost with it."""
        data, keys, inside = self.data.resolve(), self.keys.resolve(), root.resolve()
        for path in (self.data, self.keys):
            if not path.is_dir():
                raise CallerError(
                    "no such folder. Is its disk mounted? Make it with mode 0700 if it is new",
                    subject=str(path),
                    code="no_destination",
                )
            if others_may(path):
                raise CallerError(
                    f"others on this machine may use this folder: chmod 700 {path}",
                    subject=str(path),
                    code="destination_open",
                )
            if path.resolve().is_relative_to(inside):
                raise CallerError(
                    "this is in the data folder, and would be lost with it; choose a place on another disk",
                    subject=str(path),
                    code="inside_data",
                )
        if data.is_relative_to(keys) or keys.is_relative_to(data):
            raise CallerError(
                "keys are kept apart: whoever has them beside the catalog needs only the objects to read everything."
                " Choose another place with --keys-to",
                subject=str(self.keys),
                code="keys_beside",
            )

    def warnings(self, root: Path) -> list[str]:
        """What one broken or stolen disk would take."""
        data, keys, own = (path.stat().st_dev for path in (self.data, self.keys, root))
        found = []
        if data == keys:
            found.append(
                f"{self.data} and {self.keys} are on one device: whoever gets it has catalog and keys. Keep the keys"
                " on another one"
            )
        for path, device in ((self.data, data), (self.keys, keys)):
            if device == own:
                found.append(f"{path} is on the device of the data folder, and is lost with it")
        return found


@dataclass(frozen=True, slots=True)
class Made:
    """A backup. `servers` is what the servers of catalog and vault tell of theirs."""

    name: str
    data: Path
    keys: Path
    manifest: Manifest
    servers: tuple[ServerBackups, ...]


def make_backup(opened: Opened, to: Destinations, *, now_ms: int, progress: Progress) -> Made:
    """Make both parts, beside a running service.

    Args:
        now_ms: Unix ms, which name it.

    Raises:
        CallerError: as `Destinations.require_apart`; `exists`, one of this moment is there.
        WorldError: `backup_busy`, another one is at work; `backup_full`; a server does not answer. Nothing of this
            backup is left.
    """
    to.require_apart(opened.folder.root)
    name = name_of(now_ms)
    with _alone(to):
        remove_unfinished(to)
        final = Destinations(to.data / name, to.keys / name)
        if final.data.exists() or final.keys.exists():
            raise CallerError("a backup of this moment is here", subject=str(final.data), code="exists")
        aside = Destinations(to.data / f"{UNFINISHED}{name}", to.keys / f"{UNFINISHED}{name}")
        try:
            manifest, servers = _fill(opened, aside, name, now_ms, progress)
            for made, named in ((aside.keys, final.keys), (aside.data, final.data)):
                sync_folders(made)
                os.rename(made, named)
                sync_folder(named.parent)
        except OSError as error:
            raise refused(to.data, error) from error
        finally:
            for path in (aside.data, aside.keys):
                shutil.rmtree(path, ignore_errors=True)
        return Made(name, final.data, final.keys, manifest, servers)


def name_of(now_ms: int) -> str:
    """The name of a backup: the time, UTC, with milliseconds."""
    time = datetime.fromtimestamp(now_ms // 1000, UTC)
    return f"{time:%Y-%m-%dT%H%M%S}.{now_ms % 1000:03}Z"


@contextmanager
def _alone(to: Destinations) -> Iterator[None]:
    with (
        holding(to.data / LOCK, LOCK_WAIT_S, name="backup"),
        holding(to.keys / LOCK, LOCK_WAIT_S, name="backup"),
    ):
        yield


def remove_unfinished(to: Destinations) -> None:
    """What backups left that were killed."""
    for folder in (to.data, to.keys):
        for left in folder.glob(f"{UNFINISHED}*"):
            shutil.rmtree(left, ignore_errors=True)


def _fill(
    opened: Opened, aside: Destinations, name: str, now_ms: int, progress: Progress
) -> tuple[Manifest, tuple[ServerBackups, ...]]:
    home, folder = opened.config.home, opened.folder
    for path in (aside.data, aside.keys):
        path.mkdir(mode=0o700)
    told = [copy_catalog_aside(home.catalog, folder.catalog, aside.data / folder.catalog.name, progress)]
    files = [kept_file(aside.data, folder.catalog.name)] if told == [None] else []
    told.append(
        copy_keys_aside(opened.vault, folder.vault_place(opened.config), folder.keys, aside.keys / "keys")
    )
    secrets = [kept_file(aside.keys, f"keys/{each.name}") for each in sorted((aside.keys / "keys").iterdir())]
    secrets += copied_inside(folder, opened.config.payments.key_file, aside.keys)
    secret = Manifest(
        part=KEYS,
        name=name,
        home=home_of(opened.vault.token_secret),
        release=version("clipkeep"),
        made_ms=now_ms,
        catalog="file" if is_file(home.catalog) else "server",
        vault="server" if is_server(home.vault) else "folder",
        files=tuple(secrets),
    )
    keys = secret.written()
    write_file(aside.keys / NAME, keys)
    progress("configuration, payments and notices", 0, 0)
    for named in (folder.config.name, folder.payments.name, folder.notices.name):
        files += copy_tree(folder.root, named, aside.data)
    files += copied_inside(folder, opened.config.notices.templates, aside.data)
    if opened.has_hosts:
        files.append(_export_payments(opened, aside.data))
    manifest = replace(secret, part=DATA, files=tuple(files), keys_sha256=digest(keys))
    write_file(aside.data / NAME, manifest.written())
    return manifest, tuple(each for each in told if each is not None)


def copied_inside(folder: DataFolder, named: str, to: Path) -> list[Kept]:
    """Copy what the configuration names, where that lies in the data folder; elsewhere it is the operator's."""
    path = os.path.normpath(named) if named else ""
    if not path or os.path.isabs(path) or path.startswith(".."):
        return []
    return copy_tree(folder.root, path, to)


def _export_payments(opened: Opened, to: Path) -> Kept:
    lines = [json.dumps(record._asdict()) for record in opened.payment_records().all()]
    write_file(to / PAYMENTS, "".join(f"{line}\n" for line in lines).encode())
    return kept_file(to, PAYMENTS)


def prune(to: Destinations, *, home: int, before_ms: int) -> list[str]:
    """Remove backups of this home that were made before a time: their keys can still read what was erased since.

    Returns:
        Their names. What is no backup, or another home's, stays.

    Raises:
        WorldError: the file system refused.
    """
    gone = set()
    with _alone(to):
        for folder, part in ((to.data, DATA), (to.keys, KEYS)):
            for path in sorted(path for path in folder.iterdir() if path.is_dir()):
                try:
                    found = read_manifest(path, part)
                except ClipkeepError:
                    continue
                if found.home != home or found.made_ms >= before_ms or found.name != path.name:
                    continue
                try:
                    aside = path.with_name(f"{UNFINISHED}{path.name}")
                    os.rename(path, aside)  # what is half removed must not pass for a backup
                    shutil.rmtree(aside)
                except OSError as error:
                    raise refused(path, error) from error
                gone.add(found.name)
    return sorted(gone)
