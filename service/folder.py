"""The data folder: what is where, making it, and opening what a command needs of it."""

from __future__ import annotations

import mmap
import os
import secrets
import shutil
import socket
import stat
import struct
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from importlib.metadata import version
from pathlib import Path

from retention import home_store, numbers
from retention.arrival import HERE, Arrival, OnHosts
from retention.bitmap import EntitlementBitmap
from retention.entitlements import Entitlements
from retention.feed import Feed, HostIs
from retention.sweep import Lease
from retention.witness import SETTLED_MS, ClockWitness
from service.agreement import packages, privacy, versions
from service.agreement.desk import Desk
from service.agreement.gateway.opening import open_gateway, open_keys
from service.agreement.gateway.recording import RecordFiles, RecordRows
from service.agreement.gateway.signing import Keys
from service.agreement.patience import PatientGateway
from service.agreement.templates import Templates
from service.agreement.templates import load as load_templates
from service.config import ClockSettings, Config, HomeSettings, StoreSettings
from service.config_text import load_config, render_config
from service.mounted import file_system, require_local
from service.promises import require_promises
from storage.catalog import Catalog
from storage.catalog.continuity import ContinuityCatalog
from storage.clock import Clock, ClockMark, HomeClock, SystemClock, WitnessedClock
from storage.disk import DISK_FULL, allocate, is_full, make_room
from storage.errors import CallerError, WorldError
from storage.objects import ObjectStore
from storage.open_catalog import create_catalog, is_file, open_catalog, remove_catalog
from storage.open_store import open_store
from storage.open_vault import create_vault, is_server, open_vault, place_of, remove_vault
from storage.promise import Survives
from storage.vault import Vault

STORE_VARIABLE = "CLIPKEEP_STORE_URL"
"""`[store] url`, as the environment has it."""
CATALOG_VARIABLE = "CLIPKEEP_HOME_CATALOG"
"""`[home] catalog`, as the environment has it."""
VAULT_VARIABLE = "CLIPKEEP_HOME_VAULT"
"""`[home] vault`, as the environment has it."""
SURVIVES_VARIABLE = "CLIPKEEP_HOME_SURVIVES"
"""`[home] survives`, as the environment has it."""


@dataclass(frozen=True, slots=True)
class DataFolder:
    """Paths inside one data folder."""

    root: Path

    @property
    def config(self) -> Path:
        return self.root / "config.toml"

    @property
    def keys(self) -> Path:
        return self.root / "keys"

    @property
    def master_key(self) -> Path:
        """This host's file of wrapping keys, whatever the vault is."""
        return self.keys / "master.key"

    @property
    def catalog(self) -> Path:
        """The catalog, when it is a file."""
        return self.root / "catalog.db"

    @property
    def bitmap(self) -> Path:
        return self.root / "entitlements.bitmap"

    @property
    def objects(self) -> Path:
        return self.root / "objects"

    @property
    def run(self) -> Path:
        """What running processes leave: counters."""
        return self.root / "run"

    @property
    def notices(self) -> Path:
        """Where notices go when they go to files."""
        return self.root / "notices"

    @property
    def payments(self) -> Path:
        """What the recording gateway was asked to charge and refund."""
        return self.root / "payments"

    @property
    def clock_offset(self) -> Path:
        return self.root / "clock-offset"

    def vault_place(self, config: Config) -> str | Path:
        """See `storage.open_vault.place_of`."""
        return place_of(config.home.vault, self.keys)

    def store_url(self, config: Config, override: str | None) -> str:
        return override or config.store.url or self.objects.absolute().as_uri()


class OffsetClock:
    """The test clock: the host's, moved by an offset that all processes of a data folder share.

    It is moved in two ways: time passes, for the uptime as for the wall clock; or the wall clock alone is set, as by
    somebody's mistake (`retention.witness`).

    Raises:
        WorldError: the file cannot be opened or made.
    """

    _FORMAT = struct.Struct("<q")
    _PASSED_AT = _FORMAT.size
    _BYTES = 2 * _FORMAT.size

    def __init__(self, path: Path) -> None:
        self._clock = SystemClock()
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                os.ftruncate(fd, self._BYTES)
                allocate(fd, 0, self._BYTES)  # a store into a hole is a SIGBUS on a full disk
                self._map = mmap.mmap(fd, self._BYTES)
            finally:
                os.close(fd)  # the mapping has its own
        except OSError as error:
            raise refused(path, error) from error

    @property
    def offset_ms(self) -> int:
        return int(self._FORMAT.unpack_from(self._map)[0])

    def set_offset_ms(self, offset_ms: int, *, passes: bool = True) -> None:
        """Move the time of every process at once. An aligned 8-byte store is seen whole.

        Args:
            passes: the time between passes; else the wall clock alone is set.
        """
        if passes:
            passed_ms = self._passed_ms + offset_ms - self.offset_ms
            self._FORMAT.pack_into(self._map, self._PASSED_AT, passed_ms)
        self._FORMAT.pack_into(self._map, 0, offset_ms)

    @property
    def _passed_ms(self) -> int:
        return int(self._FORMAT.unpack_from(self._map, self._PASSED_AT)[0])

    def mark(self) -> ClockMark:
        offset_ms, host = self.offset_ms, self._clock.mark()
        uptime_ms = host.uptime_ms + self._passed_ms + SETTLED_MS  # a test needs not wait for that
        return ClockMark(host.wall_ms + offset_ms, uptime_ms, host.boot)

    def now_ms(self) -> int:
        return self._clock.now_ms() + self.offset_ms

    def close(self) -> None:
        self._map.close()


def create_folder(
    root: Path,
    *,
    store_url: str | None,
    test_clock: bool,
    environ: Mapping[str, str],
    catalog_address: str | None = None,
    vault_address: str | None = None,
) -> Config:
    """Make a data folder with configuration, keys, catalog, bitmap and local object store.

    Args:
        catalog_address: see `storage.open_catalog`; None: as CLIPKEEP_HOME_CATALOG says, else a file in the folder.
        vault_address: see `storage.open_vault`; None: as CLIPKEEP_HOME_VAULT says, else the folder `keys/`.

    Raises:
        CallerError: something is there already; nothing is overwritten.
        CallerError: `bad_catalog_url`, `bad_vault_url`: no engine has such an address; `vault_in_catalog`: both are
            in one database; `exists`, `key_store_exists`, `not_empty`: a database has a catalog, a vault or other
            tables in it.
        CallerError: `unsafe_server`: see `service.promises`.
        CallerError: `network_file_system`: it would lie on NFS, SMB or the like.
        CallerError: `folder_open`: the folder is there, has other things in it, and others may enter it.
        WorldError: the folder or the store cannot be made or reached. What was made is taken away again.
    """
    folder = DataFolder(root)
    require_new(folder)
    require_local(root, file_system(root.absolute()))
    home = _new_home(environ, catalog_address, vault_address)
    vault_place = place_of(home.vault, folder.keys)
    require_promises(home)
    config = Config(home=home, store=StoreSettings(url=store_url or ""), clock=ClockSettings(test=test_clock))
    with ExitStack() as undo:
        try:
            make_private(root)
            # The store first: it is what a person gets wrong, and objects/ is harmless to leave.
            open_store(folder.store_url(config, None), environ=environ, create=True).close()
            if is_server(vault_place):
                folder.keys.mkdir(mode=0o700)
            undo.callback(shutil.rmtree, folder.keys, ignore_errors=True)
            create_vault(vault_place, folder.master_key)
            undo.callback(remove_vault, vault_place, folder.master_key)
            undo.callback(folder.clock_offset.unlink, missing_ok=True)
            with (
                open_vault(vault_place, folder.master_key) as vault,
                closing(create_catalog(home.catalog, folder.catalog, vault)) as catalog,
                opened_clock(folder, config) as clock,
            ):
                undo.callback(remove_catalog, home.catalog, folder.catalog)
                catalog.settle_home(home_of(vault.token_secret))
                vault.keep_up(host_name(config), lasting=config.hosts.lasting, serves=False)
                versions.ensure(catalog, now_ms=clock.now_ms())
                privacy.ensure(catalog, now_ms=clock.now_ms())
                catalog.note_clock(clock.mark())
            EntitlementBitmap.create(folder.bitmap, config.retention.max_devices)
            undo.callback(folder.bitmap.unlink, missing_ok=True)
            # Last: a folder without it was not finished.
            with open(folder.config, "x", encoding="utf-8", opener=private) as file:
                undo.callback(folder.config.unlink, missing_ok=True)
                file.write(render_config(config))
        except OSError as error:
            raise refused(root, error) from error
        undo.pop_all()
    return config


def _new_home(
    environ: Mapping[str, str], catalog_address: str | None, vault_address: str | None
) -> HomeSettings:
    """What config.toml is to say, which there is none of yet: what was asked for, else what the environment says.

    Raises:
        CallerError: `bad_catalog_url`; `bad_config`, a word of the environment that means nothing.
    """
    usual = HomeSettings()
    home = HomeSettings(
        catalog=catalog_address or environ.get(CATALOG_VARIABLE) or usual.catalog,
        vault=vault_address or environ.get(VAULT_VARIABLE) or usual.vault,
        survives=environ.get(SURVIVES_VARIABLE) or usual.survives,
    )
    is_file(home.catalog)  # refuses an address of no engine
    if home.survives not in (words := [kind.word for kind in Survives]):
        raise CallerError(f"is one of {', '.join(words)}", subject=SURVIVES_VARIABLE, code="bad_config")
    return home


def private(path: str | Path, flags: int) -> int:
    """For `open(…, opener=private)`: a file that it makes is its owner's alone, whatever the umask."""
    return os.open(path, flags, 0o600)


def make_private(root: Path) -> None:
    """Make the folder, its owner's alone. An empty one that is there is made so; one that somebody else uses too
    (`.`, a home, `/srv`) is not ours to close.

    Raises:
        CallerError: `folder_open`.
    """
    try:
        root.mkdir(parents=True, mode=0o700)
    except FileExistsError:
        if not others_may(root):
            return
        if any(root.iterdir()):
            raise CallerError(
                f"others on this machine may use this folder (mode {_mode(root):04o}), and there is something in it."
                f" Choose an empty or a new one with --data; or, if it is for Clipkeep alone: chmod 700 {root}",
                subject=str(root),
                code="folder_open",
            ) from None
        root.chmod(0o700)


def others_may(path: Path) -> bool:
    """Whether its group or anybody may use a file or a folder. Raises OSError."""
    return bool(_mode(path) & (stat.S_IRWXG | stat.S_IRWXO))


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@contextmanager
def opened_clock(folder: DataFolder, config: Config) -> Iterator[WitnessedClock]:
    """The clock that a data folder runs by."""
    if not config.clock.test:
        yield SystemClock()
        return
    with closing(OffsetClock(folder.clock_offset)) as clock:
        yield clock


def require_new(folder: DataFolder) -> None:
    if folder.config.exists():
        raise CallerError(
            "a data folder is already here; use it as it is, or choose another with --data",
            subject=str(folder.root),
            code="exists",
        )
    left = [path for path in (folder.keys, folder.catalog, folder.bitmap) if path.exists()]
    if left:
        names = ", ".join(path.name for path in left)
        raise CallerError(
            f"there is no config.toml, but {names}. If an `init` was interrupted here, remove that and run it again;"
            " if config.toml was lost, put it back: an empty file means all defaults",
            subject=str(folder.root),
            code="exists",
        )


def refused(path: Path, error: OSError) -> WorldError:
    subject = str(error.filename or path)
    if is_full(error):
        return WorldError(make_room(Path(subject)), subject=subject, code=DISK_FULL)
    return WorldError(
        f"the file system refused: {error.strerror or error}; correct the path or its permissions",
        subject=subject,
        code="folder_unavailable",
    )


@dataclass(frozen=True, slots=True)
class Opened:
    """All of a data folder, open."""

    folder: DataFolder
    config: Config
    clock: WitnessedClock
    catalog: Catalog
    vault: Vault
    bitmap: EntitlementBitmap
    store: ObjectStore
    store_url: str

    @property
    def has_hosts(self) -> bool:
        """Whether home is a server, which other hosts may serve too; else it is this folder."""
        return not is_file(self.config.home.catalog)

    @property
    def max_stale_ns(self) -> int:
        """See `retention.freshness`."""
        return round(self.config.hosts.max_stale_s * 1e9) if self.has_hosts else 0

    @property
    def arrival(self) -> Arrival:
        """How a change of rights is waited for."""
        if not self.has_hosts:
            return HERE
        return OnHosts(
            self.catalog,
            max_stale_s=self.config.hosts.max_stale_s,
            interrupted=lambda said: print(f"interrupted: {said}", file=sys.stderr),
        )

    @property
    def entitlements(self) -> Entitlements:
        return Entitlements(self.catalog, self.bitmap, self.clock, self.arrival)

    def feed(self, host: str) -> Feed:
        """See `feed_of`."""
        return feed_of(self.catalog, self.bitmap, self.entitlements, self.clock, self.config, host)

    @property
    def witness(self) -> ClockWitness:
        """Whether the clock may be believed."""
        retention = self.config.retention
        return ClockWitness(
            self.catalog,
            self.clock,
            self.store,
            max_skew_ms=round(retention.max_clock_skew_s * 1000),
            max_rest_ms=round(retention.max_rest_h * 3_600_000),
            home=self.home_clock,
        )

    @property
    def home_clock(self) -> Clock | None:
        """Home's clock, where it is another machine's and this host's is not moved for tests."""
        return HomeClock(self.catalog.home_ms) if self.has_hosts and not self.config.clock.test else None

    def sweep_lease(self) -> Lease:
        """The lease of who sweeps, or does what no sweep may do meanwhile."""
        return Lease(
            self.catalog, self.home_clock or self.clock, ttl_ms=round(self.config.retention.lease_s * 1000)
        )

    def require_own_store(self) -> None:
        """See `retention.home_store.require_own`."""
        home_store.require_own(self.catalog, self.store, self.store_url)

    def settle_numbers(self, *, ask_store: bool = False, **more: int) -> bool:
        """See `retention.numbers.settle`."""
        lock = self.folder.root / "numbers.lock"
        return numbers.settle(
            self.catalog, self.bitmap, self.store, lock=lock, ask_store=ask_store, more=more
        )

    def payment_records(self) -> RecordFiles | RecordRows:
        """Where the recording gateway writes."""
        files = RecordFiles(self.folder.payments)
        return RecordRows(self.catalog, files) if self.has_hosts else files

    @property
    def report_keys(self) -> Keys | None:
        """What the payment gateway signs its reports with. Raises as `open_gateway`."""
        payments = self.config.payments
        return None if payments.gateway == "record" else open_keys(payments, self.folder.root)

    @property
    def desk(self) -> Desk:
        """The agreement's use cases, on this folder. Raises as `open_gateway`."""
        gateway = open_gateway(self.config.payments, self.folder.root, self.payment_records())
        return Desk(
            catalog=self.catalog,
            entitlements=self.entitlements,
            vault=self.vault,
            clock=self.clock,
            settings=self.config.agreement,
            notices=self.config.notices,
            payments=self.config.payments,
            gateway=PatientGateway(gateway, wait_s=self.config.agreement.payment_wait_s),
            address_secret=address_secret(self.vault.token_secret),
            random_bytes=secrets.token_bytes,
            templates=self.templates(),
        )

    def templates(self) -> Templates:
        """What notices say. Raises as `service.agreement.templates.load`."""
        named = self.config.notices.templates
        return load_templates(self.folder.root / named if named else None)


def address_secret(token_secret: bytes) -> bytes:
    """What addresses and codes are hashed with: a secret of its own, kept where the token secret is, so that a copy
    of the catalog alone does not tell whose addresses are reserved."""
    return blake2b(key=token_secret, person=b"clipkeep-address", digest_size=32).digest()


def home_of(token_secret: bytes) -> int:
    """The number of the home that has this secret; it gives nothing of it away. The catalog keeps it, so that a catalog
    and keys of two homes are never used together."""
    return int.from_bytes(blake2b(key=token_secret, person=b"clipkeep-home", digest_size=8).digest()) >> 1


def _require_same_home(catalog: ContinuityCatalog, vault: Vault, folder: DataFolder) -> None:
    """Refuse keys and a catalog that were not made together: tokens of the one would open devices of the other.

    A catalog of an earlier release does not know yet, and learns it here.

    Raises:
        CallerError: `another_home`.
    """
    mine = home_of(vault.token_secret)
    if (catalog.home or catalog.settle_home(mine)) != mine:
        raise CallerError(
            "the catalog belongs to another data folder: it was made with another vault than this one. Correct"
            " [home] catalog or [home] vault in config.toml, or put back the keys that belong to it",
            subject=str(folder.root),
            code="another_home",
        )


def host_name(config: Config) -> str:
    """What people call this host: `[hosts] name`, or the machine's name."""
    return config.hosts.name or socket.gethostname()


def feed_of(
    catalog: Catalog,
    bitmap: EntitlementBitmap,
    entitlements: Entitlements,
    clock: Clock,
    config: Config,
    host: str,
) -> Feed:
    """The feed of this host, which is listed as `[hosts] name`, or by the machine's name.

    Args:
        host: the random id of this run of the service.
    """
    me = HostIs(host, host_name(config), version("clipkeep"))
    return Feed(
        catalog,
        bitmap,
        entitlements,
        clock,
        me,
        max_stale_ms=round(config.hosts.max_stale_s * 1000),
        home_days=not config.clock.test,
        load_pct=load_pct,
    )


def load_pct() -> int:
    """Of this machine's cores, in the last minute."""
    return round(100 * os.getloadavg()[0] / (os.cpu_count() or 1))


@contextmanager
def open_folder(
    root: Path,
    *,
    store_url: str | None = None,
    environ: Mapping[str, str] | None = None,
    serves: bool = False,
) -> Iterator[Opened]:
    """Open a data folder for one command or one process, and close it again.

    Args:
        serves: for a process with users who wait: no answer of catalog or vault is waited for longer than
            `[home] answer_s`. Commands wait longer.

    Raises:
        CallerError, CorruptError, WorldError: what is missing or broken, by file and field.
    """
    environ = os.environ if environ is None else environ
    folder = DataFolder(root)
    config = load_config(folder.config, environ)
    with ExitStack() as stack:
        clock = stack.enter_context(opened_clock(folder, config))
        answer_s = config.home.answer_s if serves else None
        vault = stack.enter_context(
            open_vault(folder.vault_place(config), folder.master_key, answer_s=answer_s)
        )
        catalog = open_catalog(config.home.catalog, folder.catalog, vault, answer_s=answer_s)
        stack.callback(catalog.close)
        vault.keep_from(catalog.first_key_month)
        _require_same_home(catalog, vault, folder)
        versions.ensure(catalog, now_ms=clock.now_ms())
        privacy.ensure(catalog, now_ms=clock.now_ms())
        packages.ensure(catalog, config.agreement, config.retention, now_ms=clock.now_ms())
        if not folder.bitmap.exists():
            # Derived data: it can be made again from the catalog at any time, and denies until then.
            EntitlementBitmap.create(folder.bitmap, config.retention.max_devices)
        bitmap = EntitlementBitmap.open(folder.bitmap, writable=True)
        stack.callback(bitmap.close)
        url = folder.store_url(config, store_url)
        store = open_store(url, environ=environ)
        stack.callback(store.close)
        yield Opened(folder, config, clock, catalog, vault, bitmap, store, url)
