"""Puts recordings of the past into a service, fast: pipelined uploads over a few connections.

A bench of reading needs them there; how fast they got there is measured elsewhere.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable

from bench.errors import BenchError
from bench.media import transport_stream
from bench.wire import ANSWER_LIMIT_BYTES, Device, Heads, Target, parse_answer

CONNECTIONS = 16
PIPELINED_BYTES = 4 * 1024 * 1024
"""Sent on one connection before its answers are taken: well within its share of the byte budget."""
MAX_PIPELINED = 32
"""Requests of one connection that wait for answers: half of what `serve` allows."""
ANSWER_TIMEOUT_S = 60.0
"""For a service that takes in a gigabyte on a busy disk."""


def fill(
    target: Target,
    devices: tuple[Device, ...],
    *,
    size_bytes: int,
    count: int,
    start_ms: int,
    step_ms: int,
    progress: Callable[[int], None] = lambda sent: None,
) -> int:
    """Upload `count` chunks of devices in turn, each device's `step_ms` apart from `start_ms` on, and wait for every
    201.

    Returns:
        Bytes of one chunk as sent: `size_bytes`, rounded down to whole packets.

    Raises:
        BenchError: a chunk was refused, or a connection broke.
    """
    body = transport_stream(size_bytes)
    heads = Heads(Target(target.host, target.port, devices), len(body), start_ms, step_ms)
    turn = max(1, min(MAX_PIPELINED, PIPELINED_BYTES // len(body)))
    left = count
    try:
        with contextlib.ExitStack() as stack:
            sockets = [
                stack.enter_context(socket.create_connection((target.host, target.port), ANSWER_TIMEOUT_S))
                for _ in range(min(CONNECTIONS, count))
            ]
            while left:
                sent = []
                for sock in sockets:
                    number = min(turn, left)
                    left -= number
                    for _ in range(number):
                        sock.sendall(heads.next() + body)
                    sent.append(number)
                for sock, number in zip(sockets, sent, strict=True):
                    _take_acks(sock, number)
                progress(count - left)
    except (OSError, ValueError) as error:
        raise BenchError(f"uploading the recordings failed: {error}", subject="fill") from error
    return len(body)


def _take_acks(sock: socket.socket, number: int) -> None:
    received = b""
    while number:
        found = parse_answer(received)
        if found is None:
            data = sock.recv(ANSWER_LIMIT_BYTES)
            if not data:
                raise ConnectionResetError("closed by the service")
            received += data
            continue
        status, length = found
        if status != 201:
            raise BenchError(f"a chunk was answered {status}: {received[:length][-200:]!r}", subject="fill")
        received = received[length:]
        number -= 1
