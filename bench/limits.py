"""The limit, sketched: what the copies, the cipher and the system calls of an upload cost alone, on one core.

A service that takes a chunk must receive it, checksum it, encrypt it into a segment, and send the segment to
the store. Each of these is done here in a bare loop, with the libraries that Clipkeep uses, and nothing else:
no HTTP, no admission, no catalog. Their sum is what no version of Clipkeep in Python with these parts can go
below; how near it is, `bench compare` shows.

    python -m bench.limits --store-port N     prints {"port": P}, takes bytes from there, then a line a size
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bench.children import Child
from bench.machine import Cores
from bench.results import GB
from bench.run import KIB, check_bounds
from bench.stage import CHILD_TIMEOUT_S, stage
from service.spawning import python_module

SEGMENT_BYTES = 8 * KIB * KIB
ANSWER = b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n"
HEAD_BYTES = 200
"""A request's head and an answer come with every chunk."""
TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Limit:
    """CPU-seconds per GB of chunks of one size; `copy` (one memcpy) is for comparison and in no sum."""

    size_bytes: int
    receive: float
    checksums: float
    cipher: float
    send: float
    copy: float

    @property
    def total(self) -> float:
        return self.receive + self.checksums + self.cipher + self.send

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "total": self.total}


def measure_limits(sizes: Sequence[int], seconds: float, cores: Cores) -> Generator[Limit, None, None]:
    """Measure each size, `seconds` for each part.

    Raises:
        BenchError: an argument is out of bounds, or the process that measures failed.
    """
    check_bounds(
        [
            *(("size", size, 188, 16 * KIB * KIB) for size in sizes),
            ("number of sizes", len(sizes), 1, 16),
            ("seconds", seconds, 0.01, 60),
        ]
    )
    with stage(cores) as on:
        for size in sizes:
            argv = python_module("bench.limits", "--store-port", str(on.store_port))
            argv += ["--size", str(size), "--seconds", str(seconds)]
            with Child("limits", argv, cpus=cores.server, folder=on.root) as child:
                _feed(int(child.event(CHILD_TIMEOUT_S)["port"]), size)
                result = child.event(CHILD_TIMEOUT_S + 10 * seconds)
            yield Limit(size, **result["cpu_s_per_gb"])


def _feed(port: int, size: int) -> None:
    """Send chunks until the receiver has enough; its answers are dropped by a thread."""
    data = bytearray(HEAD_BYTES + size)
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), TIMEOUT_S) as sock:
        dropping = threading.Thread(target=_drop, args=(sock,))
        dropping.start()
        try:
            while True:
                sock.sendall(data)
        except OSError:
            pass  # it has closed: enough
        finally:
            dropping.join()


def _drop(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while sock.recv(64 * KIB):
            pass


def _main() -> None:
    from storage.s3_wire import unpace_when_near

    parser = argparse.ArgumentParser(prog="bench.limits", description="the parts of an upload, alone")
    parser.add_argument("--store-port", type=int, required=True)
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    options = parser.parse_args()
    size = options.size
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(json.dumps({"port": listener.getsockname()[1]}), flush=True)
        listener.settimeout(TIMEOUT_S)
        sock, _ = listener.accept()
    with sock:
        receive = _cost(_receiving(sock, size), size, options.seconds)
    chunk = bytearray(os.urandom(size))
    costs = {
        "receive": receive,
        "checksums": _cost(_checksumming(chunk), size, options.seconds),
        "cipher": _cost(_encrypting(chunk), size, options.seconds),
        "copy": _cost(_copying(chunk), size, options.seconds),
    }
    with socket.create_connection(("127.0.0.1", options.store_port), TIMEOUT_S) as store:
        unpace_when_near(store)  # as the service does
        costs["send"] = _cost(_sending(store), SEGMENT_BYTES, options.seconds)
    print(json.dumps({"cpu_s_per_gb": costs}), flush=True)


def _cost(part: Callable[[], None], size: int, seconds: float) -> float:
    """CPU-seconds per GB of calling `part`, which handles `size` bytes, for `seconds`."""
    for _ in range(3):
        part()
    count = 0
    cpu_s = time.process_time()
    ends_s = time.monotonic() + seconds
    while time.monotonic() < ends_s:
        part()
        count += 1
    return (time.process_time() - cpu_s) / (count * size / GB)


def _receiving(sock: socket.socket, size: int) -> Callable[[], None]:
    """One chunk with its head into one buffer, and one answer."""
    view = memoryview(bytearray(HEAD_BYTES + size))

    def part() -> None:
        got = 0
        while got < len(view):
            count = sock.recv_into(view[got:])
            if not count:
                raise ConnectionResetError("the sender left")
            got += count
        sock.send(ANSWER)

    return part


def _checksumming(chunk: bytearray) -> Callable[[], None]:
    from storage.checksums import crc32, crc64nvme

    def part() -> None:
        crc32(chunk)
        crc64nvme(chunk)

    return part


def _encrypting(chunk: bytearray) -> Callable[[], None]:
    """Into one place after the other of a segment's buffer, as packing does."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    cipher = AESGCM(os.urandom(32))
    places = _places(len(chunk) + 16)
    count = 0

    def part() -> None:
        nonlocal count
        count += 1
        cipher.encrypt_into(count.to_bytes(12, "big"), chunk, b"", places[count % len(places)])

    return part


def _copying(chunk: bytearray) -> Callable[[], None]:
    places = _places(len(chunk))
    count = 0

    def part() -> None:
        nonlocal count
        count += 1
        places[count % len(places)][:] = chunk

    return part


def _places(size: int) -> list[memoryview]:
    buffer = memoryview(bytearray(max(SEGMENT_BYTES, size)))
    return [buffer[at : at + size] for at in range(0, len(buffer) - size + 1, size)]


def _sending(store: socket.socket) -> Callable[[], None]:
    """A segment to the null store, and its answer."""
    head = f"PUT /bench/limits HTTP/1.1\r\nHost: x\r\nContent-Length: {SEGMENT_BYTES}\r\n\r\n".encode()
    body = memoryview(bytearray(SEGMENT_BYTES))

    def part() -> None:
        store.sendall(head)
        store.sendall(body)
        if not store.recv(4 * KIB).startswith(b"HTTP/1.1 200"):
            raise ConnectionResetError("the store refused")

    return part


if __name__ == "__main__":
    _main()
