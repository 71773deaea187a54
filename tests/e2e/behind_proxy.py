"""A service with TLS of its own that knows who connects from a proxy alone: what deploy/ has examples of."""

from __future__ import annotations

from pathlib import Path

from tests.e2e import ffmpeg
from tests.e2e.service import Device, Service
from tests.servers.certificates import Authority, Pair


def start_behind_proxy(
    service: Service, authority: Authority, pair: Pair, folder: Path
) -> tuple[Device, bytes]:
    """Start it. Returns a device, and what that may send."""
    service.init()
    service.configure(
        tls_certificate=pair.certificate,
        tls_key=pair.key,
        ingest_trusted_proxies="127.0.0.1",
        http_trusted_proxies="127.0.0.1",
        http_proxy_protocol="true",
    )
    service.trusting = authority.client()
    service.start()
    [device] = service.add_devices(1)
    return device, ffmpeg.film(folder / "film.ts", seconds=1).read_bytes()
