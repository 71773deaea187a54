"""`clipkeep restore`: a backup becomes a data folder again, in a folder in which nothing is."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from service.backups.files import copy_file, refused, sync_folders, write_file
from service.backups.manifest import DATA, KEYS, Manifest, read_manifest, require_pair, require_whole
from service.folder import DataFolder, make_private
from service.mounted import file_system, require_local
from storage.errors import CallerError

MARK = ".restoring"
"""There while a restore is at work, or was killed: the next one begins anew."""


@dataclass(frozen=True, slots=True)
class Backup:
    """Both parts of one backup, which are whole and belong together."""

    data: Path
    keys: Path
    manifest: Manifest
    secrets: Manifest

    @classmethod
    def read(cls, data: Path, keys: Path) -> Backup:
        """Read every byte of it.

        Raises:
            CallerError: `no_backup`, `another_backup`.
            CorruptError: `backup_damaged`.
        """
        manifest, secrets = read_manifest(data, DATA), read_manifest(keys, KEYS)
        require_pair(manifest, secrets, keys)
        require_whole(data, manifest)
        require_whole(keys, secrets)
        return cls(data, keys, manifest, secrets)


def restore(backup: Backup, root: Path) -> None:
    """Put it into a folder. config.toml comes last: a folder without it was not finished.

    The bitmap is not in a backup: whoever opens the folder makes it, and knows by that that the catalog may be an older
    one (`retention.numbers`).

    Raises:
        CallerError: `not_empty`, something is in the folder; `folder_open`; `network_file_system`.
        WorldError: the file system refused; run it again.
    """
    require_local(root, file_system(root.absolute()))
    folder = DataFolder(root)
    try:
        if (root / MARK).exists():  # what lies here is of a restore that was killed
            for path in root.iterdir():
                if path.name != MARK:
                    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        elif root.exists() and any(root.iterdir()):
            raise CallerError(
                "something is in this folder, and nothing is overwritten. Move it away, or choose another with --data."
                " A service that still runs on it has to be stopped first",
                subject=str(root),
                code="not_empty",
            )
        else:
            make_private(root)
            write_file(root / MARK, b"")
        for part, manifest in ((backup.keys, backup.secrets), (backup.data, backup.manifest)):
            for kept in manifest.files:
                if kept.path != folder.config.name:
                    (root / kept.path).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                    copy_file(part / kept.path, root / kept.path)
        sync_folders(root)
        copy_file(backup.data / folder.config.name, folder.config)
        (root / MARK).unlink()
        sync_folders(root)
    except OSError as error:
        raise refused(root, error) from error
