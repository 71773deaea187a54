"""nginx as a relay: every body goes to the store as it comes, in C, without a look at it. The floor.

Request buffering is off, connections to clients and store are kept alive. It signs nothing, checks nothing,
encrypts nothing and promises nothing but that the store answered 200: what a service that touches the bytes
once costs at least, unless it packs many chunks into one call. Over TLS it terminates
that, and goes to the store in clear.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
from collections.abc import Iterator
from pathlib import Path

from bench.certificates import ServedPair
from bench.children import Child
from bench.servers import BUCKET, Running, Setup, free_ports, numbered_devices, wait_until_ready
from bench.wire import RELAY, Target

CONFIG = """\
daemon off;
worker_processes {workers};
{user}
pid {folder}/nginx.pid;
error_log stderr error;
events {{ worker_connections 20000; }}
http {{
    access_log off;
    tcp_nodelay on;
    keepalive_requests 1000000000;
    client_max_body_size 0;
    client_body_buffer_size {buffer};
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    upstream store {{
        server 127.0.0.1:{store_port};
        keepalive 512;
        keepalive_requests 1000000000;
    }}
    server {{
        listen 127.0.0.1:{port}{ssl} backlog=2048{reuseport};
        {certificate}
        location = /readyz {{ return 200; }}
        location / {{
            proxy_pass http://store/{bucket}/;
            proxy_method PUT;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_request_buffering off;
        }}
    }}
}}
"""
CHEAPEST_BUFFER = "256k"
"""Of a body under way. Measured with 16k (the default), 64k, 256k and 1m: see docs/benchmarks.md."""
DEFAULT_BUFFER = "16k"
"""What nginx takes when not told otherwise, on 64-bit machines."""


class NginxPeer:
    """Runs nginx from the peers' folder, else the system's, with a configuration of its own."""

    name = "nginx-relay"
    buffer = CHEAPEST_BUFFER
    promises = (
        "200: the store answered 200",
        "no token, no signature, no checksum, no encryption, no catalog",
    )

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def available(self) -> str | None:
        return None if self._program() else "nginx is not installed"

    def install_commands(self) -> list[list[str]]:
        """Unpack Debian's package into the peers' folder: no root, and no system service is started."""
        packages, unpacked = self._folder / "deb", self._folder / "nginx"
        fetch = f'cd "{packages}" && rm -f nginx_*.deb && apt-get download nginx'
        unpack = f'dpkg-deb -x "{packages}"/nginx_*.deb "{unpacked}"'
        return [["mkdir", "-p", str(packages), str(unpacked)], ["sh", "-c", fetch], ["sh", "-c", unpack]]

    def _program(self) -> str | None:
        places = [str(self._folder.absolute() / "nginx/usr/sbin"), os.environ.get("PATH", ""), "/usr/sbin"]
        return next((found for place in places if (found := shutil.which("nginx", path=place))), None)

    @contextlib.contextmanager
    def start(self, setup: Setup) -> Iterator[Running]:
        (port,) = free_ports(1)
        config = setup.folder / "nginx.conf"
        # A master that is root gives its workers away to another user, who may not enter this folder.
        user = f"user {pwd.getpwuid(0).pw_name};" if os.geteuid() == 0 else ""
        config.write_text(
            CONFIG.format(
                workers=setup.workers,
                user=user,
                folder=setup.folder,
                buffer=self.buffer,
                store_port=setup.store_port,
                port=port,
                reuseport=" reuseport" if setup.workers > 1 else "",
                ssl=" ssl" if setup.tls else "",
                certificate=_certificate(setup.tls),
                bucket=BUCKET,
            )
        )
        argv = [str(self._program()), "-c", str(config), "-p", str(setup.folder), "-e", "stderr"]
        with Child(self.name, argv, cpus=setup.cpus, folder=setup.folder, speaks=False) as child:
            wait_until_ready(child, f"127.0.0.1:{port}/readyz", authority=setup.authority())
            devices = numbered_devices(setup.devices)
            target = Target("127.0.0.1", port, devices, RELAY, authority=setup.authority())
            yield Running(child.session, target)


def _certificate(tls: ServedPair | None) -> str:
    """The same as Clipkeep serves, with the same versions; the cipher is what OpenSSL chooses in both."""
    if tls is None:
        return ""
    return f"ssl_certificate {tls.certificate}; ssl_certificate_key {tls.key}; ssl_protocols TLSv1.2 TLSv1.3;"


class NginxDefaultPeer(NginxPeer):
    """The relay as nginx ships it: what one gets who does not tune it. The floor is the other one."""

    name = "nginx-default"
    buffer = DEFAULT_BUFFER
