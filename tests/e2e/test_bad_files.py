"""Cut and corrupt files: an error with a code that names the file, and never a traceback."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from retention.bitmap import EntitlementBitmap
from service.folder import open_folder
from tests.e2e.load import chunk_body
from tests.e2e.service import Service, until
from tests.servers.catalogs import copy_home, sqlite_only
from tests.servers.raw_catalogs import damage_while_open

pytestmark = pytest.mark.e2e

Damage = Callable[[Path], None]


def cut(path: Path) -> None:
    size_bytes = path.stat().st_size
    with path.open("r+b") as file:
        file.truncate(size_bytes // 2 + 1)


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def missing(path: Path) -> None:
    path.unlink()


def flipped(path: Path) -> None:
    """Every bit of the first 64 bytes."""
    with path.open("r+b") as file:
        first = bytes(byte ^ 0xFF for byte in file.read(64))
        file.seek(0)
        file.write(first)


def noise(path: Path) -> None:
    """Something else altogether, of the same size."""
    size_bytes = min(path.stat().st_size, 1 << 20)
    path.write_bytes((b"\x00\xff clipkeep \x01" * (size_bytes // 12 + 1))[:size_bytes])


def appended(text: str) -> Damage:
    def damage(path: Path) -> None:
        path.write_text(path.read_text() + text)

    damage.__name__ = text.strip()
    return damage


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A stopped service with a device and a chunk, to be copied and damaged."""
    with Service(tmp_path_factory.mktemp("sound")) as service:
        service.init()
        (device,) = service.add_devices(1)
        service.start()
        now_ms = int(time.time() * 1000)
        assert service.put(device, now_ms, chunk_body(device.number, now_ms, 50)).status == 201
        assert service.stop() == 0
        yield service


@pytest.fixture
def copy(sound: Service, service: Service) -> Service:
    # Not with copytree: the bitmap is a gigabyte of holes, and is derived data.
    for path in sorted(sound.data.rglob("*")):
        target = service.data / path.relative_to(sound.data)
        if path.is_dir():
            target.mkdir(parents=True, mode=path.stat().st_mode & 0o777, exist_ok=True)
        elif path.name == "entitlements.bitmap":
            continue
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, target)
    copy_home(sound.data, service.data)
    EntitlementBitmap.create(service.data / "entitlements.bitmap", 1000)
    return service


DAMAGES = [
    ("config.toml", flipped, "bad_config"),
    ("config.toml", missing, "no_data_folder"),
    ("config.toml", appended("\n[ingest]\nbudget_byte = 1\n"), "bad_config"),
    ("config.toml", appended("\n[nonsense]\n"), "bad_config"),
    pytest.param("catalog.db", cut, "catalog_corrupt", marks=sqlite_only),
    pytest.param("catalog.db", flipped, "catalog_corrupt", marks=sqlite_only),
    pytest.param("catalog.db", noise, "catalog_corrupt", marks=sqlite_only),
    pytest.param("catalog.db", emptied, "catalog_corrupt", marks=sqlite_only),
    pytest.param("catalog.db", missing, "catalog_unavailable", marks=sqlite_only),
    ("entitlements.bitmap", cut, "bitmap_corrupt"),
    ("entitlements.bitmap", flipped, "bitmap_corrupt"),
    ("entitlements.bitmap", emptied, "bitmap_corrupt"),
    ("keys/master.key", cut, "key_store_corrupt"),
    ("keys/master.key", flipped, "key_store_corrupt"),
    ("keys/master.key", missing, "key_store_corrupt"),
    ("keys/tokens.key", cut, "key_store_corrupt"),
    ("keys/tokens.key", emptied, "key_store_corrupt"),
    ("keys/keys.db", cut, "key_store_corrupt"),
    ("keys/keys.db", noise, "key_store_corrupt"),
    ("keys/keys.db", missing, "key_store_corrupt"),
]


@pytest.mark.parametrize(
    ("name", "damage", "code"), DAMAGES, ids=lambda value: getattr(value, "__name__", None)
)
def test_a_damaged_file_is_named_with_a_code(copy: Service, name: str, damage: Damage, code: str) -> None:
    damage(copy.data / name)
    done = copy.run("serve", "--ingest", "127.0.0.1:0", "--api", "127.0.0.1:0", "--json")
    assert done.returncode == 1, done.stderr
    *_, said = [json.loads(line) for line in done.stderr.splitlines()]  # each of them is JSON
    assert (said["event"], said["level"], said["code"]) == ("cannot_serve", "error", code)
    assert Path(name).name in said["detail"], said
    assert json.loads(done.stdout)["error"] == code


def objects_of(service: Service) -> list[Path]:
    return [path for path in (service.data / "objects" / "v1").rglob("*") if path.is_file()]


@pytest.mark.parametrize("damage", [cut, flipped, noise, emptied, missing])
def test_a_damaged_segment(copy: Service, damage: Damage) -> None:
    (path,) = objects_of(copy)
    (row,) = copy_rows(copy)
    damage(path)
    copy.start()
    (token,) = copy.viewer_tokens([row[0]]).values()
    read = copy.get(f"/v1/devices/{row[0]}/chunks/{row[1]}", token=token)
    if damage is flipped:
        # What it flips is the chunk itself or the header before it.
        assert read.status in (200, 500)
    else:
        assert read.status in (404, 410, 500, 503), read
    if read.status != 200:
        assert read.code
        assert "Traceback" not in read.body.decode()
    done = copy.run("check", "--deep", "--json")
    assert done.returncode == 1, done.stdout
    assert json.loads(done.stdout)["broken_count"] >= 1
    rebuilt = copy.run("catalog", "rebuild", "--json")
    assert rebuilt.returncode in (0, 1)
    if damage is not flipped:
        assert json.loads(rebuilt.stdout)["unreadable"]
    assert copy.get("/healthz").status == 200
    assert copy.stop() == 0


def copy_rows(service: Service) -> list[tuple[int, int]]:
    """(device, capture_ms) of all chunks."""
    with open_folder(service.data, environ=service.environ) as opened:
        return [
            (row.device, row.capture_ms)
            for segment in opened.catalog.segments()
            for row in opened.catalog.day_rows(segment.expires_on)
        ]


def test_damaged_counters_and_a_catalog_that_breaks_while_it_is_used(copy: Service) -> None:
    copy.start()
    (copy.data / "run" / "zz.json").write_text("{")
    (copy.data / "run" / "zy.json").write_text("[]")
    (copy.data / "run" / "zx.json").write_text('{"at_ms": 1}')
    assert copy.get("/metrics").status == 200
    assert copy.get("/readyz").status in (200, 503)
    for name in ("zz", "zy", "zx"):
        (copy.data / "run" / f"{name}.json").unlink()
    (device,) = copy.add_devices(1)
    damage_while_open(copy.data)
    for _ in range(3):
        now_ms = int(time.time() * 1000)
        copy.put(device, now_ms, chunk_body(device.number, now_ms, 50))
        (copy.get(f"/v1/devices/{device.number}/recordings", token="ckv_nonsense"))
    assert copy.get("/healthz").status == 200
    until(lambda: copy.children().keys() == {"api", "feed", "w0"}, "all processes are there")
    assert copy.stop() == 0
