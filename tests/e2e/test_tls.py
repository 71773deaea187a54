"""TLS on both ports with real processes: cameras and people, new certificates, and strangers who mean no good."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import imageio_ffmpeg
import pytest

from service.demo.ports import free_ports
from tests.e2e import ffmpeg
from tests.e2e.behind_proxy import start_behind_proxy
from tests.e2e.plain_browser import Browser
from tests.e2e.service import SOON_S, Device, Service, until
from tests.servers.certificates import Authority, Pair

pytestmark = pytest.mark.e2e

HANDSHAKE_S = 2.0
MAX_HANDSHAKES = 64


def lately_ms() -> int:
    """Of today, as the devices' plans are, Unix ms: asked when a test runs, for a day may have begun since."""
    return time.time_ns() // 1_000_000 - 5000


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority")


@pytest.fixture
def pair(authority: Authority) -> Pair:
    return authority.issue("127.0.0.1", "in.example", file="served")


@pytest.fixture
def secure(service: Service, authority: Authority, pair: Pair) -> Service:
    service.init()
    service.configure(
        tls_certificate=pair.certificate,
        tls_key=pair.key,
        tls_handshake_s=HANDSHAKE_S,
        tls_max_handshakes=MAX_HANDSHAKES,
    )
    service.trusting = authority.client()
    return service.start()


def events(service: Service, name: str) -> list[dict[str, object]]:
    found = [json.loads(line) for line in service.lines if line.startswith("{")]
    return [line for line in found if line["event"] == name]


def programs() -> list[str]:
    """ffmpegs: the one of the system, with GnuTLS, where it is installed, and the wheel's."""
    return [found for found in (shutil.which("ffmpeg"), imageio_ffmpeg.get_ffmpeg_exe()) if found]


def put_by(program: str, film: Path, service: Service, device: Device, capture_ms: int, ca: Path) -> int:
    """Send a film as one chunk over a verified connection. Returns the exit code."""
    host, port = service.ingest
    at = (
        f"https://{device.number}:{device.token}@{host}:{port}/v1/devices/{device.number}/chunks/{capture_ms}"
    )
    words = [
        program,
        "-hide_banner",
        "-nostdin",
        "-loglevel",
        "error",
        "-i",
        str(film),
        "-c",
        "copy",
        "-f",
        "mpegts",
    ]
    verified = ["-method", "PUT", "-tls_verify", "1", "-ca_file", str(ca)]
    done = subprocess.run([*words, *verified, at], capture_output=True, text=True, timeout=60, check=False)
    return done.returncode


def test_cameras_and_people_come_over_tls(secure: Service, authority: Authority, tmp_path: Path) -> None:
    film = ffmpeg.film(tmp_path / "film.ts", seconds=2)
    [device] = secure.add_devices(1)
    [serving] = events(secure, "serving")
    assert str(serving["ingest"]).startswith("https://")
    assert str(serving["api"]).startswith("https://")
    assert "it sends to: https://" in secure.run("device", "add").stdout
    assert secure.command("viewer-token", "--device", "1")["live"].startswith("https://")
    secure.run("operator", "add", "--name", "eve", "--role", "admin")
    made = secure.run("operator", "token", "--name", "eve", "--hours", "1").stdout
    browser = Browser(secure.api, secure.trusting)
    assert browser.send("/log-in/operator", token=re.findall(r"cko_[A-Za-z0-9_-]+", made)[0]) == 303
    assert any(cookie.startswith("__Host-clipkeep=") for cookie in browser.told), "it is logged in"
    assert all(cookie.startswith("__Host-") and "; Secure" in cookie for cookie in browser.told)
    other, begun_ms = Authority(tmp_path / "other"), lately_ms()
    for number, program in enumerate(programs()):
        capture_ms = begun_ms + 10 * number
        assert put_by(program, film, secure, device, capture_ms, other.file) != 0, (
            "nobody it trusts signed that"
        )
        assert put_by(program, film, secure, device, capture_ms, authority.file) == 0
    assert json.loads(secure.get("/healthz").body)
    assert secure.problems() == {}
    metrics = secure.metrics()
    left_s = (
        metrics["clipkeep_tls_certificate_expires_timestamp_seconds", (("name", "in.example"),)] - time.time()
    )
    assert 80 * 86_400 < left_s < 100 * 86_400
    assert metrics["clipkeep_tls_handshakes_total", (("outcome", "done"), ("process", "api"))] > 0
    for to in (secure.ingest, secure.api):
        said = subprocess.run(
            [
                *("openssl", "s_client", "-brief", "-verify_return_error", "-CAfile", str(authority.file)),
                *("-connect", f"{to[0]}:{to[1]}", "-servername", "in.example", "-no_tls1_3"),
            ],
            input="Q\n",
            capture_output=True,
            text=True,
            timeout=SOON_S,
            check=True,
        )
        assert "Protocol version: TLSv1.2" in said.stderr + said.stdout
        with socket.create_connection(to, timeout=SOON_S) as sock:
            sock.sendall(b"GET /healthz HTTP/1.1\r\nHost: here\r\n\r\n")
            answer = sock.recv(65_536)
            assert answer.startswith(b"HTTP/1.1 400 ")
            assert b"tls_required" in answer
    assert secure.stop() == 0


def test_a_certificate_is_renewed_without_ending_a_connection(
    secure: Service, authority: Authority, pair: Pair
) -> None:
    [device] = secure.add_devices(1)

    def connected() -> ssl.SSLSocket:
        assert secure.trusting is not None
        sock = socket.create_connection(secure.ingest, timeout=SOON_S)
        return secure.trusting.wrap_socket(sock, server_hostname="127.0.0.1")

    def serial(tls: ssl.SSLSocket) -> object:
        found = tls.getpeercert()
        assert found
        return found["serialNumber"]

    def asked(tls: ssl.SSLSocket) -> bytes:
        tls.sendall(b"DELETE /v1/devices/1/chunks/1 HTTP/1.1\r\nHost: here\r\n\r\n")
        return tls.recv(65_536)

    with connected() as old:
        assert asked(old).startswith(b"HTTP/1.1 4")
        first = serial(old)
        authority.issue("127.0.0.1", "in.example", file="served")
        secure.send(signal.SIGHUP)
        until(lambda: len(events(secure, "tls_reloaded")) == 2, "worker and API process have read it")
        with connected() as new:
            assert serial(new) != first
            second = serial(new)
        assert asked(old).startswith(b"HTTP/1.1 4"), "it goes on"
        good = pair.certificate.read_bytes()
        pair.certificate.write_text("no certificate")
        secure.send(signal.SIGHUP)
        until(lambda: len(events(secure, "tls_not_reloaded")) == 2, "both say what is wrong")
        assert {line["code"] for line in events(secure, "tls_not_reloaded")} == {"tls_not_pem"}
        with connected() as new:
            assert serial(new) == second
        assert asked(old).startswith(b"HTTP/1.1 4")
        check = secure.run("check", "--json")
        assert check.returncode == 1
        assert any("[tls]" in each for each in json.loads(check.stdout)["broken"])
        pair.certificate.write_bytes(good)
    assert secure.children().keys() >= {"w0", "api", "feed"}, "none ended by the signal"
    assert device.number == 1
    assert secure.stop() == 0


def test_a_service_with_a_wrong_certificate_does_not_start(service: Service, pair: Pair) -> None:
    service.init()
    assert "in clear: whoever is on the way" in service.run("device", "add").stdout
    service.start()
    service.send(signal.SIGHUP)
    until(lambda: bool(events(service, "nothing_to_reload")), "there are no certificates to read again")
    assert service.get("/readyz").status == 200, "it goes on"
    assert service.stop() == 0
    pair.key.chmod(0o644)
    service.configure(tls_certificate=pair.certificate, tls_key=pair.key)
    done = service.run("serve", "--ingest", "127.0.0.1:0", "--api", "127.0.0.1:0")
    assert done.returncode == 1
    assert "chmod o=,g-w" in done.stderr


def rss_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def files(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def hello_of(name: str) -> bytes:
    """The first flight of a real client."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname=name)
    with suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


@pytest.mark.parametrize("port", ["ingest", "api"])
def test_strangers_hold_neither_files_nor_memory(secure: Service, port: str) -> None:
    now_ms = lately_ms()
    [device] = secure.add_devices(1)
    pid = secure.children()["w0" if port == "ingest" else "api"]
    to = secure.ingest if port == "ingest" else secure.api
    hello = hello_of("in.example")
    kinds = (
        b"",
        hello[:1],
        hello[:-1],
        hello,
        bytes(range(128, 256)),
        b"\x16\x03\x01\x40\x00\x01\x00\xff\xff" + bytes(16 * 1024 - 4),
        b"\x17\x03\x03\x40\x00" + bytes(16 * 1024),
    )

    def flood() -> None:
        with ExitStack() as stack:
            for number in range(400):
                sock = stack.enter_context(socket.create_connection(to, timeout=SOON_S))
                with suppress(OSError):
                    sock.sendall(kinds[number % len(kinds)])
            assert secure.put(device, now_ms, film).status in (200, 201), "a camera comes between them"
            until(lambda: files(pid) <= quiet + 20, "all are let go by the deadline", every_s=0.1)

    film = ffmpeg.film(secure.data.parent / "short.ts", seconds=1).read_bytes()
    assert secure.put(device, now_ms, film).status == 201
    assert secure.get("/healthz").status == 200
    quiet = files(pid)
    flood()
    before = rss_bytes(pid)
    for _ in range(3):
        flood()
    assert rss_bytes(pid) < before + 16 * 1024 * 1024
    outcomes = {
        dict(labels)["outcome"]
        for (name, labels) in secure.metrics()
        if name == "clipkeep_tls_handshakes_total"
    }
    assert outcomes >= {"done", "failed", "made_way"}
    assert secure.stop() == 0


def test_renegotiation_and_early_data_get_nowhere(
    secure: Service, authority: Authority, tmp_path: Path
) -> None:
    for number, (host, port) in enumerate((secure.ingest, secure.api)):
        base = ["openssl", "s_client", "-CAfile", str(authority.file), "-servername", "in.example"]
        base += ["-connect", f"{host}:{port}"]
        asked = subprocess.Popen(
            [*base, "-tls1_2"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert asked.stdin is not None
        time.sleep(0.5)
        asked.stdin.write("R\n")
        asked.stdin.flush()
        said, _ = asked.communicate(timeout=SOON_S)
        assert "no renegotiation" in said
        session, early = tmp_path / f"session-{number}", tmp_path / "early"
        early.write_bytes(b"DELETE /nothing HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n")
        first = subprocess.run(
            [*base, "-tls1_3", "-sess_out", str(session), "-ign_eof"],
            input=early.read_bytes(),
            capture_output=True,
            timeout=SOON_S,
            check=False,
        )
        assert b"HTTP/1.1 404" in first.stdout
        again = subprocess.run(
            [*base, "-tls1_3", "-sess_in", str(session), "-early_data", str(early)],
            input="Q\n",
            capture_output=True,
            text=True,
            timeout=SOON_S,
            check=False,
        )
        assert "Early data was accepted" not in again.stdout + again.stderr
    assert secure.stop() == 0


def test_haproxy_passes_connections_on_and_says_whose_they_are(
    service: Service, authority: Authority, pair: Pair, tmp_path: Path
) -> None:
    """deploy/haproxy/passing.cfg, with other addresses and ports."""
    program = shutil.which("haproxy")
    if program is None:
        pytest.skip("haproxy is not installed")
    device, film = start_behind_proxy(service, authority, pair, tmp_path)
    with suppress(OSError):
        service.put(device, lately_ms(), film)
        raise AssertionError("who is named as a proxy has to say who connects")
    cameras, people = free_ports(2)
    text = (Path(__file__).parents[2] / "deploy/haproxy/passing.cfg").read_text()
    behind = {"8080": service.ingest[1], "8081": service.api[1]}
    lines = [line for line in text.splitlines() if "server b" not in line and "/dev/log" not in line]
    text = "\n".join(lines).replace("maxconn 40000", "maxconn 100") + "\n"
    text = text.replace("inter 1s fall 2", "inter 5s fall 5")  # a busy machine is no machine that is away
    for port, own in behind.items():
        text = text.replace(f"192.0.2.21:{port}", f"127.0.0.1:{own}").replace(f"port {port}", f"port {own}")
    text = text.replace("bind :8443", f"bind 127.0.0.1:{cameras}").replace(
        "bind :443", f"bind 127.0.0.1:{people}"
    )
    (tmp_path / "passing.cfg").write_text(text)
    proxy = subprocess.Popen([program, "-db", "-f", tmp_path / "passing.cfg"], stderr=subprocess.DEVNULL)
    try:
        service.ingest, service.api = ("127.0.0.1", cameras), ("127.0.0.1", people)

        def is_there() -> bool:
            with suppress(OSError):
                return service.get("/readyz").status == 200
            return False

        until(is_there, "the proxy has found the service")
        assert service.put(device, lately_ms(), film).status == 201
        metrics = service.metrics()
        assert metrics["clipkeep_stored_chunks", ()] == 1
    finally:
        proxy.terminate()
        proxy.wait(SOON_S)
    assert service.stop() == 0
