"""deploy/nginx/ with the real nginx, at other addresses and ports."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from service.demo.ports import free_ports
from tests.e2e import ffmpeg
from tests.e2e.behind_proxy import start_behind_proxy
from tests.e2e.plain_browser import Browser
from tests.e2e.service import SOON_S, Service, until
from tests.servers.certificates import Authority, Pair

pytestmark = pytest.mark.e2e

EXAMPLES = Path(__file__).parents[2] / "deploy/nginx"
PLACES = f"{os.environ.get('PATH', '')}:/usr/sbin"
STREAM = Path("/usr/lib/nginx/modules/ngx_stream_module.so")


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority")


@pytest.fixture
def pair(authority: Authority) -> Pair:
    return authority.issue("127.0.0.1", file="served")


def lately_ms() -> int:
    return time.time_ns() // 1_000_000 - 5000


@contextmanager
def nginx(name: str, folder: Path, changes: dict[str, str]) -> Iterator[None]:
    """Run an example with what differs in a test."""
    program = shutil.which("nginx", path=PLACES)
    if program is None:
        pytest.skip("nginx is not installed")
    text = (EXAMPLES / name).read_text()
    for old, new in changes.items():
        assert old in text, old
        text = text.replace(old, new)
    own = [f"pid {folder}/nginx.pid;", "daemon off;"]
    if os.geteuid() == 0:  # a master that is root gives its workers away, who may not enter this folder
        own.append(f"user {pwd.getpwuid(0).pw_name};")
    if "http {" in text:
        temporary = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        paths = "\n".join(f"{one}_temp_path {folder}/{one};" for one in temporary)
        text = text.replace("http {", f"http {{\n{paths}")
    written = folder / name
    written.write_text("\n".join([*own, text]))
    log = folder / "nginx.log"
    with log.open("w") as stderr:
        running = subprocess.Popen(
            [program, "-c", written, "-p", folder, "-e", "stderr"], stderr=stderr, stdout=stderr
        )
    try:
        yield
        assert running.poll() is None, log.read_text()
    finally:
        running.terminate()
        running.wait(SOON_S)
    assert "[emerg]" not in log.read_text()


def ports_of(service: Service) -> dict[str, int]:
    return {"8080": service.ingest[1], "8081": service.api[1]}


def is_there(service: Service) -> bool:
    with suppress(OSError):
        return service.get("/readyz").status == 200
    return False


def shaken(service: Service) -> set[str]:
    """The processes that made handshakes, as they count them every few seconds."""
    return {
        dict(labels)["process"]
        for (name, labels), count in service.metrics().items()
        if name == "clipkeep_tls_handshakes_total" and dict(labels)["outcome"] == "done" and count
    }


def test_nginx_terminates_tls_and_says_who_asks(
    service: Service, authority: Authority, pair: Pair, tmp_path: Path
) -> None:
    service.init()
    service.configure(http_trusted_proxies="127.0.0.1")
    service.start()
    [device] = service.add_devices(1)
    clear = Browser(service.api)
    clear.get("/log-in")
    assert clear.told
    assert not any("Secure" in cookie for cookie in clear.told)
    cameras, people = free_ports(2)
    changes = {f"127.0.0.1:{port}": f"127.0.0.1:{own}" for port, own in ports_of(service).items()}
    changes |= {"listen 8443": f"listen 127.0.0.1:{cameras}", "listen 443": f"listen 127.0.0.1:{people}"}
    changes |= {"/etc/nginx/clipkeep.pem": str(pair.certificate), "/etc/nginx/clipkeep.key": str(pair.key)}
    behind = service.ingest, service.api
    with nginx("terminating.conf", tmp_path, changes):
        service.ingest, service.api = ("127.0.0.1", cameras), ("127.0.0.1", people)
        service.trusting = authority.client()
        until(lambda: is_there(service), "nginx has begun")
        film = ffmpeg.film(tmp_path / "film.ts", seconds=2).read_bytes()
        capture_ms = lately_ms()
        assert service.put(device, capture_ms, film).status == 201
        viewer = service.command("viewer-token", "--device", "1")["token"]
        got = service.get(f"/v1/devices/1/chunks/{capture_ms}", token=viewer)
        assert (got.status, got.body) == (200, film), "what was sent comes back through it, byte for byte"
        assert service.get("/metrics").status == 403
        browser = Browser(service.api, service.trusting)
        browser.get("/log-in")
        assert browser.told
        assert all(cookie.startswith("__Host-") and "; Secure" in cookie for cookie in browser.told)
    service.ingest, service.api, service.trusting = *behind, None
    assert service.stop() == 0


def test_nginx_passes_connections_on_and_says_whose_they_are(
    service: Service, authority: Authority, pair: Pair, tmp_path: Path
) -> None:
    if not STREAM.exists():
        pytest.skip("nginx's module stream is not installed (Debian: libnginx-mod-stream)")
    device, film = start_behind_proxy(service, authority, pair, tmp_path)
    cameras, people = free_ports(2)
    changes = {"modules/ngx_stream_module.so": str(STREAM)}
    for port, own in ports_of(service).items():
        changes[f"192.0.2.21:{port}"] = f"127.0.0.1:{own}"
        changes[f"server 192.0.2.22:{port} max_fails=1 fail_timeout=5s;"] = ""
    changes |= {"listen 8443": f"listen 127.0.0.1:{cameras}", "listen 443": f"listen 127.0.0.1:{people}"}
    with nginx("passing.conf", tmp_path, changes):
        service.ingest, service.api = ("127.0.0.1", cameras), ("127.0.0.1", people)
        until(lambda: is_there(service), "nginx has begun")
        assert service.put(device, lately_ms(), film).status == 201
        assert service.metrics()["clipkeep_stored_chunks", ()] == 1
        until(lambda: {"api", "w0"} <= shaken(service), "TLS ends in the worker and in the API process")
    assert service.stop() == 0


def test_the_certificate_is_the_services_own() -> None:
    """What passes on has none, and what terminates keeps no recording on its disk."""
    passing = (EXAMPLES / "passing.conf").read_text()
    assert "ssl" not in passing
    terminating = (EXAMPLES / "terminating.conf").read_text()
    for line in ("proxy_buffering off;", "proxy_request_buffering off;", "access_log off;"):
        assert line in terminating
    assert 'proxy_set_header Forwarded "";' in terminating
    assert "X-Forwarded-For $remote_addr;" in terminating, "not what the client says"
