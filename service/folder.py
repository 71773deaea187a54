"""The data folder: what is where, making it, and opening what a command needs of it."""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from retention.bitmap import EntitlementBitmap
from retention.entitlements import Entitlements
from service.config import ClockSettings, Config, StoreSettings, load_config, render_config
from storage.catalog import Catalog
from storage.clock import Clock, SystemClock
from storage.errors import CallerError
from storage.keys import KeyStore
from storage.objects import ObjectStore
from storage.open_store import open_store
from storage.sqlite import SqliteCatalog


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
    def catalog(self) -> Path:
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
    def clock_offset(self) -> Path:
        return self.root / "clock-offset"

    def store_url(self, config: Config, override: str | None) -> str:
        return override or config.store.url or self.objects.absolute().as_uri()


class OffsetClock:
    """The test clock: the host's, moved by an offset that all processes of a data folder share."""

    _FORMAT = struct.Struct("<q")

    def __init__(self, path: Path) -> None:
        self._clock = SystemClock()
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        os.ftruncate(self._fd, self._FORMAT.size)
        self._map = mmap.mmap(self._fd, self._FORMAT.size)

    @property
    def offset_ms(self) -> int:
        return int(self._FORMAT.unpack_from(self._map)[0])

    def set_offset_ms(self, offset_ms: int) -> None:
        """Move the time of every process at once. An aligned 8-byte store is seen whole."""
        self._FORMAT.pack_into(self._map, 0, offset_ms)
        self._map.flush()

    def now_ms(self) -> int:
        return self._clock.now_ms() + self.offset_ms


def create_folder(
    root: Path, *, store_url: str | None, test_clock: bool, environ: Mapping[str, str]
) -> Config:
    """Make a data folder with configuration, keys, catalog, bitmap and local object store.

    Raises:
        CallerError: something is there already; nothing is overwritten.
    """
    folder = DataFolder(root)
    if folder.config.exists() or folder.catalog.exists() or folder.keys.exists():
        raise CallerError(
            "a data folder is already here; use it as it is, or choose another with --data",
            subject=str(root),
            code="exists",
        )
    config = Config()
    if store_url:
        config = replace(config, store=StoreSettings(url=store_url))
    if test_clock:
        config = replace(config, clock=ClockSettings(test=True))
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    KeyStore.create(folder.keys).close()
    SqliteCatalog.create(folder.catalog).close()
    EntitlementBitmap.create(folder.bitmap, config.retention.max_devices)
    url = store_url or folder.objects.absolute().as_uri()
    open_store(url, environ=environ, create=True).close()
    folder.config.write_text(render_config(config))  # last: a folder without it was not finished
    return config


@dataclass(frozen=True, slots=True)
class Opened:
    """All of a data folder, open."""

    folder: DataFolder
    config: Config
    clock: Clock
    catalog: Catalog
    key_store: KeyStore
    bitmap: EntitlementBitmap
    store: ObjectStore

    @property
    def entitlements(self) -> Entitlements:
        return Entitlements(self.catalog, self.bitmap, self.clock)


@contextmanager
def open_folder(
    root: Path, *, store_url: str | None = None, environ: Mapping[str, str] | None = None
) -> Iterator[Opened]:
    """Open a data folder for one command or one process, and close it again.

    Raises:
        CallerError, CorruptError, WorldError: what is missing or broken, by file and field.
    """
    environ = os.environ if environ is None else environ
    folder = DataFolder(root)
    config = load_config(folder.config, environ)
    clock: Clock = OffsetClock(folder.clock_offset) if config.clock.test else SystemClock()
    with ExitStack() as stack:
        catalog = SqliteCatalog.open(folder.catalog)
        stack.callback(catalog.close)
        key_store = KeyStore.open(folder.keys)
        stack.callback(key_store.close)
        if not folder.bitmap.exists():
            # Derived data: it can be made again from the catalog at any time, and denies until then.
            EntitlementBitmap.create(folder.bitmap, config.retention.max_devices)
        bitmap = EntitlementBitmap.open(folder.bitmap, writable=True)
        stack.callback(bitmap.close)
        store = open_store(folder.store_url(config, store_url), environ=environ)
        stack.callback(store.close)
        yield Opened(folder, config, clock, catalog, key_store, bitmap, store)
