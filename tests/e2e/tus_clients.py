"""Clients of resumable uploads as people have them (tus-js-client on Node and in a page, tuspy), and the bad link that
they have: a proxy that cuts their connections."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.servers.given_files import given_files

TUS = Path(__file__).parents[1] / "tus"
TUS_JS = TUS / "node_modules" / "tus-js-client"
needs_tus_js = pytest.mark.skipif(
    shutil.which("node") is None or not TUS_JS.exists(),
    reason="needs tus-js-client: npm ci --prefix tests/tus",
)

CLIENTS = {
    "tus-js-client": ["node", str(TUS / "upload.mjs")],
    "tuspy": [sys.executable, str(TUS / "upload.py")],
}
"""Commands that make one upload, by the client's name."""

PAGE = """<!doctype html><meta charset=utf-8><link rel=icon href="data:,"><script src="/tus.js"></script><script>
async function upload(endpoint, token, captureMs) {
  const clip = await (await fetch('/clip.ts')).blob(), said = {offsets: [], methods: [], expires: []};
  return new Promise(resolve => {
    const upload = new tus.Upload(clip, {
      endpoint, headers: {Authorization: `Bearer ${token}`}, metadata: {capture_ms: captureMs},
      retryDelays: Array(600).fill(2000), storeFingerprintForResuming: false,
      onShouldRetry: (error, attempt, options) => !options.once, once: location.hash === '#once',
      onAfterResponse: (request, response) => {
        said.methods.push(request.getMethod());
        said.expires.push(response.getHeader('Upload-Expires'));
        if (request.getMethod() === 'HEAD' && response.getStatus() === 200)
          said.offsets.push(Number(response.getHeader('Upload-Offset')));
      },
      onError: error => resolve({...said, error: String(error)}),
      onSuccess: () => resolve({...said, url: upload.url}),
    });
    upload.start();
  });
}
</script>"""


class CuttingProxy:
    """Lets so many bytes of each connection through to the server, and then cuts it; of one that sends less, nothing.
    `meanwhile` is called with the number of cuts when half of that has gone."""

    def __init__(
        self, server: tuple[str, int], passes: int, cuts: int, meanwhile: Callable[[int], object]
    ) -> None:
        self._server, self._passes, self._cuts, self._meanwhile = server, passes, cuts, meanwhile
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.cut = 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def _run(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                # A browser has several.
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with suppress(OSError), client, socket.create_connection(self._server) as server:
            self._forward(client, server)

    def _forward(self, client: socket.socket, server: socket.socket) -> None:
        back = threading.Thread(target=self._back, args=(server, client), daemon=True)
        back.start()
        passed, told = 0, False
        with suppress(OSError):
            while data := client.recv(16 * 1024):
                server.sendall(data)
                passed += len(data)
                if passed > self._passes // 2 and not told:
                    told = True
                    self._meanwhile(self.cut)
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
    server: tuple[str, int], passes: int, cuts: int, meanwhile: Callable[[int], object] = lambda cut: None
) -> Iterator[CuttingProxy]:
    proxy = CuttingProxy(server, passes, cuts, meanwhile)
    try:
        yield proxy
    finally:
        proxy.close()


def endpoint(port: int, device: int) -> str:
    return f"http://127.0.0.1:{port}/v1/devices/{device}/uploads"


def uploaded(
    client: str, port: int, device: int, token: str, file: Path, capture_ms: int, *, timeout_s: float
) -> dict[str, Any]:
    """Upload a file by one of CLIENTS; what it said of it."""
    done = subprocess.run(
        [*CLIENTS[client], endpoint(port, device), token, str(file), str(capture_ms)],
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )
    assert done.returncode == 0, (done.stdout, done.stderr)
    said: dict[str, Any] = json.loads(done.stdout)
    return said


@contextmanager
def upload_page(clip: Path) -> Iterator[int]:
    """A page whose `upload(endpoint, token, capture_ms)` sends that clip by tus-js-client; its port on this host."""
    files = {
        "/": (PAGE.encode(), "text/html"),
        "/tus.js": ((TUS_JS / "dist" / "tus.min.js").read_bytes(), "text/javascript"),
        "/clip.ts": (clip.read_bytes(), "video/mp2t"),
    }
    with given_files(files.__getitem__) as port:
        yield port
