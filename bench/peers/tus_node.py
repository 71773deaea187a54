"""@tus/server with @tus/s3-store on Node: the reference implementation of resumable uploads for JavaScript.

One POST per chunk (creation with upload), answered 201 once the parts are in the store and the upload is
complete. It checks no token, keeps no catalog and encrypts nothing: all of that favours it.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from bench.children import Child
from bench.errors import BenchError
from bench.servers import BUCKET, Running, Setup, free_ports, numbered_devices, wait_until_ready
from bench.wire import TUS, Target

SCRIPT = "tus_server.mjs"
PACKAGES = ("@tus/server@2.4.5", "@tus/s3-store@2.0.7")
"""Pinned, so that two runs of a bench compare the same thing."""


class TusNodePeer:
    """Runs `tus_server.mjs` from the peers' folder, where Node finds the packages."""

    name = "tus-node"
    promises = (
        "201: all bytes in the store as an object of their own, multipart upload completed",
        "no token, no encryption, no catalog",
    )

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def available(self) -> str | None:
        if shutil.which("node") is None:
            return "needs Node 20 or later"
        if not (self._folder / "node_modules" / "@tus" / "s3-store").is_dir():
            return "@tus/server is not installed"
        return None

    def install_commands(self) -> list[list[str]]:
        npm = ["npm", "install", "--prefix", str(self._folder), "--no-audit", "--no-fund", "--save-exact"]
        return [[*npm, *PACKAGES]]

    @contextlib.contextmanager
    def start(self, setup: Setup) -> Iterator[Running]:
        node = shutil.which("node")
        if node is None:
            raise BenchError("needs Node 20 or later", subject=self.name)
        (port,) = free_ports(1)
        # A module finds packages beside itself or above: so it is put beside them.
        script = shutil.copy(Path(__file__).with_name(SCRIPT), self._folder.absolute() / SCRIPT)
        environment = {
            **setup.environment(),
            "BENCH_BUCKET": BUCKET,
            "BENCH_PORT": str(port),
            "BENCH_WORKERS": str(setup.workers),
            "NODE_ENV": "production",
            "TMPDIR": str(setup.folder),
        }
        with Child(
            self.name,
            [node, str(script)],
            cpus=setup.cpus,
            folder=setup.folder,
            environment=environment,
            speaks=False,
        ) as child:
            wait_until_ready(child, f"127.0.0.1:{port}/readyz")
            yield Running(child.session, Target("127.0.0.1", port, numbered_devices(setup.devices), TUS))
