"""A bench of an operator's own deployment: real uploads over the network, bounded in count and in time."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from bench.children import Child
from bench.clipkeep_server import read_devices
from bench.errors import BenchError
from bench.load import DRAIN_S
from bench.run import KIB, check_bounds
from bench.stage import CHILD_TIMEOUT_S, LoadSettings
from bench.wire import Target
from service.spawning import python_module

MAX_DEVICES = 1_000_000


@dataclass(frozen=True)
class AgainstSettings:
    """What `against` runs with: no more than `chunks` uploads, in no more than `seconds`, all of them counted."""

    size_bytes: int = 256 * KIB
    chunks: int = 1000
    seconds: float = 10.0
    connections: int = 10
    rate_per_s: float | None = None

    def checked(self) -> AgainstSettings:
        """Return self when it can be run.

        Raises:
            BenchError: a value is out of bounds.
        """
        check_bounds(
            [
                ("size", self.size_bytes, 188, 16 * KIB * KIB),
                ("chunks", self.chunks, 1, 100_000),
                ("seconds", self.seconds, 0.2, 300),
                ("connections", self.connections, 1, 1000),
                ("rate", self.rate_per_s or 1.0, 0.1, 10_000),
            ]
        )
        return self


def parse_url(url: str, devices_file: Path) -> Target:
    """Return where to send, and as the devices whose tokens are in a file.

    Args:
        url: `http://HOST:PORT` of the ingest port; nothing behind it.
        devices_file: what `clipkeep device add --count N --json` printed.

    Raises:
        BenchError: either cannot be used.
    """
    parts = urlsplit(url)
    try:
        port = parts.port or 80
    except ValueError:
        port = 0
    if parts.scheme != "http" or not parts.hostname or not port or parts.path.strip("/") or parts.query:
        raise BenchError(
            "is not http://HOST:PORT of an ingest port (for https, measure behind what ends TLS)", subject=url
        )
    try:
        devices = read_devices(devices_file.read_text())
    except OSError as error:
        raise BenchError(f"cannot be read: {error.strerror}", subject=str(devices_file)) from error
    except ValueError as error:
        raise BenchError(
            "is not what `clipkeep device add --count N --json` prints", subject=str(devices_file)
        ) from error
    if not 1 <= len(devices) <= MAX_DEVICES:
        raise BenchError("holds no device, or too many", subject=str(devices_file))
    return Target(parts.hostname, port, tuple(devices))


def measure_against(settings: AgainstSettings, target: Target) -> dict[str, Any]:
    """Upload, and return the load generator's result (see `bench.load.Tally.as_json`).

    Raises:
        BenchError: the target cannot be connected to.
    """
    load = LoadSettings(
        settings.size_bytes,
        settings.connections,
        settings.seconds,
        0.0,
        rate_per_s=settings.rate_per_s,
        max_chunks=settings.chunks,
    )
    with tempfile.TemporaryDirectory(prefix="clipkeep-bench-") as name:
        path = Path(name) / "target.json"
        target.write(path)
        argv = python_module("bench.generate", "--target", str(path), *load.arguments())
        with Child("load", argv, folder=Path(name)) as child:
            limit_s = CHILD_TIMEOUT_S * 2 + settings.seconds + DRAIN_S
            return child.event(limit_s, "result")
