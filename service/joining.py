"""Another host for a home: what it needs goes into a file, and a data folder is made from that.

The file has the wrapping keys: whoever reads it can read all recordings. It is its owner's alone, and goes away when
the host has joined. Its expiry is judged by home's clock. It keeps a forgotten file from making hosts, and hides
nothing: the keys in it stay good.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import shutil
from collections.abc import Mapping
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from retention.bitmap import EntitlementBitmap
from retention.home_store import require_own
from service.agreement.gateway.recording import RecordRows
from service.config import Config, HostsSettings, StoreSettings
from service.config_text import load_config, render_config
from service.folder import (
    DataFolder,
    Opened,
    home_of,
    host_name,
    make_private,
    others_may,
    private,
    refused,
    require_new,
)
from service.mounted import file_system, require_local
from service.promises import require_promises
from storage.errors import CallerError, CorruptError
from storage.open_catalog import open_catalog
from storage.open_store import open_store
from storage.open_vault import is_server, open_vault

VERSION = 1
MAX_BYTES = 1 << 20
"""Of the file: a configuration and a few keys."""


@dataclass(frozen=True, slots=True)
class Invite:
    """What a host needs."""

    home: int
    """Number of the home, as `service.folder.home_of` tells it from the vault: addresses may be mistaken."""
    expires_ms: int
    """Unix ms, by home's clock."""
    newest_change: int
    """Of the catalog then: the new host sees by it whether the catalog was restored since."""
    config: str
    """config.toml, with the addresses of home in it."""
    master_key: bytes
    """The file of wrapping keys."""

    def as_text(self) -> str:
        document = asdict(self) | {"master_key": base64.b64encode(self.master_key).decode()}
        return json.dumps({"clipkeep_invite": VERSION} | document, indent=1) + "\n"

    @classmethod
    def from_text(cls, text: str, path: Path) -> Invite:
        """Raises CallerError `bad_invite`: it is none, or of another release."""
        try:
            document = json.loads(text)
            if document.pop("clipkeep_invite") == VERSION:
                key = base64.b64decode(document.pop("master_key"), validate=True)
                invite = cls(master_key=key, **document)
                if all(
                    type(number) is int for number in (invite.home, invite.expires_ms, invite.newest_change)
                ):
                    return invite
        except (ValueError, KeyError, TypeError, AttributeError, binascii.Error):
            pass
        raise CallerError(
            "not an invitation of this release; `clipkeep host invite --out FILE` makes one",
            subject=str(path),
            code="bad_invite",
        )


def invite(opened: Opened, out: Path, *, hours: float) -> Invite:
    """Write what another host needs into a new file, its owner's alone.

    Raises:
        CallerError: `home_is_here`: catalog, vault or objects are in this data folder; `exists`: the file is there.
        WorldError: the file can't be written; `payment_unavailable`: a record of a payment can't be read.
    """
    config = opened.config
    _require_elsewhere(config)
    # Of the file, not of the environment, which may have secrets that are kept out of files; but for the addresses.
    mine = load_config(opened.folder.config, {})
    theirs = replace(
        mine,
        home=config.home,
        store=StoreSettings(url=opened.store_url),
        hosts=replace(config.hosts, name=HostsSettings().name),
    )
    _take_in_payments(opened)
    _, now_ms = opened.catalog.hosts()
    made = Invite(
        home=home_of(opened.vault.token_secret),
        newest_change=opened.catalog.newest_change(),
        expires_ms=now_ms + round(hours * 3_600_000),
        config=render_config(theirs),
        master_key=opened.folder.master_key.read_bytes(),
    )
    try:
        with open(out, "x", encoding="utf-8", opener=private) as file:
            file.write(made.as_text())
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError as error:
        raise CallerError(
            "it is there already, and was not changed", subject=str(out), code="exists"
        ) from error
    except OSError as error:
        raise refused(out, error) from error
    return made


def _take_in_payments(opened: Opened) -> None:
    """What this host's recording gateway has in files, another host must be able to refund."""
    if isinstance(records := opened.payment_records(), RecordRows):
        records.take_in()


def _require_elsewhere(config: Config) -> None:
    here = []
    if not is_server(config.home.catalog):
        here.append("the catalog: `clipkeep catalog copy` moves it to a server")
    if not is_server(config.home.vault):
        here.append("the vault: a new home has it on a server by `clipkeep init --vault`; it can't be moved")
    if not config.store.url:
        here.append("the objects: [store] url names a store that every host reaches")
    if here:
        raise CallerError(
            f"other hosts can't reach what this home keeps in its data folder. {'; '.join(here)}",
            code="home_is_here",
        )


def kept_apart(config: Config) -> list[str]:
    """What each host would keep in files of its own, though it is home's: for people to read before there are several
    hosts."""
    found = []
    if "files" in (config.notices.mail, config.notices.mobile):
        found.append(
            "[notices] mail or mobile is `files`: each host writes messages into notices/ of its own data folder, where"
            " somebody has to forward them. Use a mail server and a hook"
        )
    return found


def join(root: Path, path: Path, *, environ: Mapping[str, str]) -> Config:
    """Make the data folder of a host from its invitation.

    Args:
        environ: what the catalog, the vault and the store need besides their addresses, such as passwords.

    Raises:
        CallerError: `bad_invite`, `invite_open` (others may read it), `invite_expired`, `another_home`,
            `another_store`; and as `service.folder.create_folder`.
        WorldError: home can't be reached, or the folder not be made. What was made is taken away again.
    """
    found = _read(path)
    folder = DataFolder(root)
    host_key = _take_interrupted(folder)
    require_new(folder)
    require_local(root, file_system(root.absolute()))
    with ExitStack() as undo:
        try:
            make_private(root)
            config = _config_of(folder, found, environ, undo)
            folder.keys.mkdir(mode=0o700)
            undo.callback(shutil.rmtree, folder.keys, ignore_errors=True)
            _write_key(folder.master_key, found.master_key)
            if host_key:
                _write_key(folder.master_key.with_name("host.key"), host_key)
            _require_home(folder, config, found, path, environ)
            require_promises(config.home)
            EntitlementBitmap.create(folder.bitmap, config.retention.max_devices)
            undo.callback(folder.bitmap.unlink, missing_ok=True)
            with EntitlementBitmap.open(folder.bitmap, writable=True) as bitmap, bitmap.writing():
                bitmap.set_last_change(found.newest_change)  # its rows are made when it serves
            with open_vault(folder.vault_place(config), folder.master_key) as vault:
                # From here on each rotation of the wrapping key reaches it, whether it has served yet or not.
                vault.keep_up(host_name(config), lasting=config.hosts.lasting, serves=False)
            # Last: a folder without it was not finished.
            _new_config(folder).rename(folder.config)
        except OSError as error:
            raise refused(root, error) from error
        undo.pop_all()
    return config


def _take_interrupted(folder: DataFolder) -> bytes:
    """Remove what a `join` left here that was killed: its configuration comes first, under another name. Returns the
    host's own key, if it had one: home may list the host by that already."""
    if folder.config.exists() or not _new_config(folder).exists():
        return b""
    host_key = folder.master_key.with_name("host.key")
    try:
        kept = host_key.read_bytes() if host_key.exists() else b""
        shutil.rmtree(folder.keys, ignore_errors=True)
        folder.bitmap.unlink(missing_ok=True)
        _new_config(folder).unlink()
    except OSError as error:
        raise refused(folder.root, error) from error
    return kept


def _new_config(folder: DataFolder) -> Path:
    return folder.root / "config.new"


def _write_key(path: Path, content: bytes) -> None:
    with open(path, "xb", opener=private) as key:
        key.write(content)
        key.flush()
        os.fsync(key.fileno())


def _read(path: Path) -> Invite:
    try:
        if others_may(path):
            raise CallerError(
                "others on this machine may read it, and whoever has read it can read all recordings:"
                f" chmod 600 {path}. If somebody has: `clipkeep keys rotate`",
                subject=str(path),
                code="invite_open",
            )
        with path.open(encoding="utf-8") as file:
            return Invite.from_text(file.read(MAX_BYTES), path)
    except (OSError, UnicodeDecodeError) as error:
        if isinstance(error, OSError):
            raise refused(path, error) from error
        raise CallerError("not an invitation", subject=str(path), code="bad_invite") from error


def _config_of(folder: DataFolder, found: Invite, environ: Mapping[str, str], undo: ExitStack) -> Config:
    """Write the configuration under another name, and read it as it will be read."""
    new = _new_config(folder)
    with open(new, "x", encoding="utf-8", opener=private) as file:
        undo.callback(new.unlink, missing_ok=True)
        file.write(found.config)
    return load_config(new, environ)


def _require_home(
    folder: DataFolder, config: Config, found: Invite, path: Path, environ: Mapping[str, str]
) -> None:
    url = folder.store_url(config, None)
    try:
        vault = open_vault(folder.vault_place(config), folder.master_key)
    except CorruptError as error:
        if error.code != "key_store_corrupt":
            raise
        raise CallerError(
            "the vault can't be read with the wrapping key of this invitation: `clipkeep keys rotate` has ended"
            " that since, or the addresses are another home's. Delete it, and make another with `clipkeep host invite`",
            subject=str(path),
            code="invite_expired",
        ) from error
    with (
        vault,
        closing(open_catalog(config.home.catalog, folder.catalog, vault)) as catalog,
        closing(open_store(url, environ=environ)) as store,
    ):
        if {home_of(vault.token_secret), catalog.home} != {found.home}:
            raise CallerError(
                "what answers at the addresses of this invitation is another home than the one that made it",
                subject=str(path),
                code="another_home",
            )
        _, now_ms = catalog.hosts()
        if now_ms > found.expires_ms:
            raise CallerError(
                "this invitation is over; delete it, and make another one with `clipkeep host invite`",
                subject=str(path),
                code="invite_expired",
            )
        require_own(catalog, store, url)
