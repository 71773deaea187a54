"""tusd with its S3 store: the reference implementation of resumable uploads, in Go.

One POST per chunk (creation with upload), answered 201 once the parts are in the store and the upload is
complete. No hash over the payload is computed (as in Clipkeep, where a CRC takes its place), no metrics, no
hooks. It checks no token, keeps no catalog and encrypts nothing: all of that favours it.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from bench.children import Child
from bench.peers.starlette_peer import pool_threads
from bench.servers import BUCKET, Running, Setup, free_ports, numbered_devices, wait_until_ready
from bench.wire import TUS, TUS_PATH, Target

MODULE = "github.com/tus/tusd/v2"
VERSION = "v2.9.0"
"""Pinned, so that two runs of a bench compare the same thing."""
PART_UPLOADS = 10
"""tusd's default, raised for a slow store as the Starlette peer's threads are."""


class TusdPeer:
    """Runs the program from the peers' folder, or from the PATH."""

    name = "tusd"
    promises = (
        "201: all bytes in the store as an object of their own, multipart upload completed",
        "no token, no encryption, no catalog",
    )

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def available(self) -> str | None:
        return None if self._program() else "tusd is not installed"

    def install_commands(self) -> list[list[str]]:
        """Build it in a module of its own: pinned, and nothing of the user's Go folders changes."""
        module = self._folder / "tusd"
        make = (
            []
            if (module / "go.mod").exists()
            else [["go", "-C", str(module), "mod", "init", "peers.invalid"]]
        )
        program = str(self._folder.absolute() / "bin" / "tusd")
        return [
            ["mkdir", "-p", str(module)],
            *make,
            ["go", "-C", str(module), "mod", "edit", f"-require={MODULE}@{VERSION}"],
            ["go", "-C", str(module), "build", "-mod=mod", "-o", program, f"{MODULE}/cmd/tusd"],
        ]

    def _program(self) -> str | None:
        here = str(self._folder.absolute() / "bin")
        return shutil.which("tusd", path=here) or shutil.which("tusd")

    def _store(self, setup: Setup) -> list[str]:
        return [
            *("-s3-bucket", BUCKET, "-s3-endpoint", f"http://127.0.0.1:{setup.store_port}"),
            *("-s3-concurrent-part-uploads", str(max(PART_UPLOADS, pool_threads(setup.latency_s)))),
            "-s3-disable-content-hashes",
        ]

    @contextlib.contextmanager
    def start(self, setup: Setup) -> Iterator[Running]:
        (port,) = free_ports(1)
        argv = [
            *(str(self._program()), "-host", "127.0.0.1", "-port", str(port), "-base-path", TUS_PATH),
            *(*self._store(setup), "-disable-download", "-disable-cors"),
            *("-verbose=false", "-expose-metrics=false", "-show-startup-logs=false"),
        ]
        environment = {
            **setup.environment(),
            "AWS_REGION": "us-east-1",
            "GOMAXPROCS": str(setup.workers),
            "TMPDIR": str(setup.folder),
        }
        with Child(
            self.name, argv, cpus=setup.cpus, folder=setup.folder, environment=environment, speaks=False
        ) as child:
            wait_until_ready(child, f"127.0.0.1:{port}/")
            yield Running(child.session, Target("127.0.0.1", port, numbered_devices(setup.devices), TUS))


class TusdFilesPeer(TusdPeer):
    """tusd as it is without any setting: uploads are files of its folder. They are gone when it ends."""

    name = "tusd-files"
    promises = (
        "204: all bytes written to a file in the system's cache, nothing synced",
        "no token, no encryption, no catalog, no store",
    )

    def _store(self, setup: Setup) -> list[str]:
        return ["-upload-dir", str(setup.folder / "uploads")]

    @contextlib.contextmanager
    def start(self, setup: Setup) -> Iterator[Running]:
        try:
            with super().start(setup) as running:
                yield running
        finally:
            shutil.rmtree(setup.folder / "uploads", ignore_errors=True)
