"""Uploads by tus-js-client through a proxy that cuts every connection, and past SIGKILLs of the whole service."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.e2e.service import Service
from tests.ingest.world import video

MODULES = Path(__file__).parents[1] / "tus" / "node_modules"
UPLOAD = MODULES.parent / "upload.mjs"
MIB = 1024 * 1024
SIZE = 12 * MIB
CUTS = 50
KILLS = 5
CLIENT_S = 240

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(
        shutil.which("node") is None or not (MODULES / "tus-js-client").exists(),
        reason="needs tus-js-client: npm ci --prefix tests/tus",
    ),
]


class CuttingProxy:
    """Lets so many bytes of each connection through to the server, and then cuts it. `meanwhile` is called with the
    number of each connection when half of that has gone."""

    def __init__(
        self, server: tuple[str, int], passes: int, cuts: int, meanwhile: Callable[[int], object]
    ) -> None:
        self._server, self._passes, self._cuts, self._meanwhile = server, passes, cuts, meanwhile
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.cut = 0
        self.connections = 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._listener.close()

    def _run(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self.connections += 1
                number = self.connections
                with suppress(OSError), client, socket.create_connection(self._server) as server:
                    self._forward(client, server, number)

    def _forward(self, client: socket.socket, server: socket.socket, number: int) -> None:
        """One connection: the client opens one at a time."""
        back = threading.Thread(target=self._back, args=(server, client), daemon=True)
        back.start()
        passed, told = 0, False
        while data := client.recv(16 * 1024):
            server.sendall(data)
            passed += len(data)
            if passed > self._passes // 2 and not told:
                told = True
                self._meanwhile(number)
            if passed > self._passes and self.cut < self._cuts:
                self.cut += 1
                break
        for sock in (client, server):
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        back.join()

    @staticmethod
    def _back(server: socket.socket, client: socket.socket) -> None:
        with suppress(OSError):
            while data := server.recv(16 * 1024):
                client.sendall(data)
        with suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)


@contextmanager
def cutting(
    service: Service, passes: int, cuts: int, meanwhile: Callable[[int], object] = lambda number: None
) -> Iterator[CuttingProxy]:
    proxy = CuttingProxy(service.ingest, passes, cuts, meanwhile)
    try:
        yield proxy
    finally:
        proxy.close()


def uploaded(proxy: CuttingProxy, device: int, token: str, file: Path, capture_ms: int) -> dict[str, object]:
    endpoint = f"http://127.0.0.1:{proxy.port}/v1/devices/{device}/uploads"
    done = subprocess.run(
        ["node", str(UPLOAD), endpoint, token, str(file), str(capture_ms)],
        capture_output=True,
        text=True,
        timeout=CLIENT_S,
    )
    assert done.returncode == 0, (done.stdout, done.stderr)
    said: dict[str, object] = json.loads(done.stdout)
    return said


@pytest.mark.parametrize("kills", [0, KILLS])
def test_a_clip_arrives_byte_for_byte(tmp_path: Path, kills: int) -> None:
    """What was told to be stored never gets less, and the last 204 means that the chunk is there."""
    data = video(SIZE, seed=kills)
    file = tmp_path / "clip.ts"
    file.write_bytes(data)
    with Service(tmp_path / "data") as service:
        service.init()
        (device,) = service.add_devices(1)
        service.start()
        ports = service.ingest[1], service.api[1]
        killed = []

        def kill(number: int) -> None:
            if len(killed) < kills and number % (CUTS // (KILLS + 1)) == 0:
                killed.append(number)
                service.kill()
                service.start(ports=ports)

        capture_ms = int(time.time() * 1000) - 60_000
        with cutting(service, SIZE // (CUTS + 2), CUTS, kill) as proxy:
            said = uploaded(proxy, device.number, device.token, file, capture_ms)
            assert proxy.cut == CUTS
        assert len(killed) == kills
        offsets = said["offsets"]
        assert isinstance(offsets, list)
        assert offsets == sorted(offsets)
        assert len(offsets) >= CUTS // 2
        reply = service.get(
            f"/v1/devices/{device.number}/chunks/{capture_ms}", token=service.viewer_token(device.number)
        )
        assert reply.status == 200
        assert reply.body == data
        service.stop()
        service.assert_no_traceback()
