"""A full disk: uploads are refused, nothing is acknowledged that is not there, and all heals with the space."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from retention.bitmap import EntitlementBitmap
from tests.e2e.load import Acknowledged, Load, Uploader, assert_all_kept, chunk_body
from tests.e2e.service import Device, Reply, Service, until
from tests.e2e.small_disks import MIB, fill, mounted
from tests.servers.catalogs import sqlite_only

pytestmark = pytest.mark.e2e

FULL = ("store_unavailable", "not_stored")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 128 MiB."""
    with mounted(tmp_path / "disk", 128) as disk:
        yield disk


WRITE_ROW = """
import sys
from pathlib import Path
from retention.bitmap import EntitlementBitmap, Row
from storage.errors import WorldError
with EntitlementBitmap.open(Path(sys.argv[1]), writable=True) as bitmap, bitmap.locked():
    try:
        bitmap.write(int(sys.argv[2]), Row(1, 7, 0, 1, 0, 7))
    except WorldError as error:
        print(error.code)
    else:
        print(bitmap.probe(int(sys.argv[2]), 1, 1)[4])
"""


@pytest.fixture(params=["tmpfs", "ext4 of 1 KiB blocks"])
def tiny_disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A file system of 8 MiB. A page of the second is four of its blocks."""
    disk, image = tmp_path / "tiny", tmp_path / "image"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "clipkeep-test", str(disk)]
    if request.param != "tmpfs":
        image.touch()
        os.truncate(image, 8 * MIB)
        if not shutil.which("mkfs.ext4"):
            pytest.skip("there is no mkfs.ext4")
        subprocess.run(["mkfs.ext4", "-q", "-b", "1024", "-m", "0", str(image)], check=True)
        mount = ["mount", "-o", "loop", str(image), str(disk)]
    if not shutil.which("mount"):
        pytest.skip("there is no mount command")
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"mounting a file system is not permitted here: {done.stderr.strip()}")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_a_full_disk_is_told_and_no_process_dies_of_it(tiny_disk: Path) -> None:
    """The first row in a part of the bitmap that was never written: a hole, and a SIGBUS for who touches it."""
    bitmap, ballast = tiny_disk / "bitmap", tiny_disk / "ballast"
    EntitlementBitmap.create(bitmap, 10_000_000)

    def write_row(device: int) -> str:
        done = subprocess.run(
            [sys.executable, "-c", WRITE_ROW, str(bitmap), str(device)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout.strip()

    write_row(1)  # makes the file of the lock
    fill(ballast)
    assert write_row(5_000_000) == "data_disk_full"
    for device in (1, 64, 5000, 30_000):
        assert write_row(device) == "True", "what has its place needs no more"
    ballast.unlink()
    assert write_row(5_000_000) == "True"


def put(service: Service, device: Device) -> Reply:
    now_ms = int(time.time() * 1000)
    return service.put(device, now_ms, chunk_body(device.number, now_ms, 300))


def assert_refused(reply: Reply) -> None:
    assert reply.status == 503
    assert reply.code in FULL
    assert int(reply.headers["Retry-After"]) > 0


def test_the_store_s_disk(service: Service, small_disk: Path) -> None:
    service.init("--store", (small_disk / "objects").as_uri())
    devices = service.add_devices(2)
    kept = Acknowledged()
    service.start()
    ballast = small_disk / "ballast"
    with Load([Uploader(service, device, kept) for device in devices]):
        until(lambda: len(kept.chunks) > 20, "chunks are acknowledged")
        fill(ballast)
        refusals = kept.answers[503]
        until(lambda: kept.answers[503] > refusals + 5, "uploads are refused")
        until(lambda: service.problems(), "readyz says so", every_s=0.02)
        ballast.unlink()
        stored = len(kept.chunks)
        until(lambda: len(kept.chunks) > stored + 10, "it has healed by itself")
        until(lambda: not service.problems(), "readyz says so")
    assert_all_kept(service, kept)
    assert service.command("check", "--deep")["broken"] == []
    assert service.stop() == 0


def limit_file_size(service: Service, size_bytes: int) -> None:
    """No process of the service can make a file longer than this: what a full disk does, without a disk.

    RLIMIT_FSIZE makes such a write fail with EFBIG, as a full disk does with ENOSPC.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for pid in (service.pid, *service.children().values()):
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (size_bytes, hard))


@pytest.mark.parametrize("size_bytes", [0, 4096, 2 * MIB], ids=["nothing", "a page", "2 MiB"])
def test_no_file_can_grow(service: Service, size_bytes: int, tmp_path: Path) -> None:
    """Neither objects nor catalog nor key store nor counters nor the log can be written."""
    service.init()
    service.configure(segments_linger_ms=20)
    devices = service.add_devices(3)
    kept = Acknowledged()
    log = tmp_path / "log"
    service.start(workers=2, log=log)
    started = service.children()
    with Load([Uploader(service, device, kept, packets=(500, 1500), depth=8) for device in devices]):
        until(lambda: len(kept.chunks) > 20, "chunks are acknowledged")
        limit_file_size(service, size_bytes)
        until(lambda: kept.answers[503] > 20, "uploads are refused")
        assert service.get("/healthz").status == 200
        assert service.get("/metrics").status == 200
        limit_file_size(service, resource.RLIM_INFINITY)
        stored = len(kept.chunks)
        until(lambda: len(kept.chunks) > stored + 20, "it has healed by itself")
        until(lambda: not service.problems(), "readyz says so")
    assert service.children() == started, "no process has died of it"
    assert "Traceback" not in log.read_text()
    assert_all_kept(service, kept)
    assert service.command("check", "--deep")["broken"] == []
    assert service.stop() == 0


@sqlite_only
def test_the_catalog_s_disk(service: Service, tmp_path: Path, small_disk: Path) -> None:
    """Catalog, keys and counters on a full disk, objects on another."""
    service.data = small_disk / "data"
    service.init("--store", (tmp_path / "objects").as_uri())
    devices = service.add_devices(2)
    kept = Acknowledged()
    service.start()
    started = service.children()
    with Load([Uploader(service, device, kept) for device in devices]):
        until(lambda: len(kept.chunks) > 20, "chunks are acknowledged")
        fill(small_disk / "ballast")
        # Until then the catalog goes on in the space that it has.
        until(lambda: kept.answers[503] > 5, "uploads are refused", 60)
        full = service.run("device", "add", "--count", "1000", "--json")
        assert full.returncode == 1
        # Until now this asked for the word "unavailable", which a store that is away has too.
        assert "data_disk_full" in full.stderr
        assert str(service.data) in full.stderr
        assert "data_disk_full" in service.problems()
        for stranger in (77, 50_000, 9_000_000):
            assert put(service, Device(stranger, devices[0].token)).status in (401, 503)
        assert service.children() == started
        os.unlink(small_disk / "ballast")
        stored = len(kept.chunks)
        until(lambda: len(kept.chunks) > stored + 20, "it has healed by itself")
        until(lambda: not service.problems(), "readyz says so")
    assert_all_kept(service, kept)
    assert service.command("check", "--deep")["broken"] == []
    assert service.stop() == 0
