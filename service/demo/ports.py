"""Ports for servers that are killed and started again at the same place."""

from __future__ import annotations

import random
import socket
from contextlib import closing, suppress


def free_ports(count: int) -> list[int]:
    """So many different ports of loopback that nobody listens on.

    From below those that the system gives to outgoing connections: while a server is away, one of them could have its
    port, and it could not be started again.
    """
    found: list[int] = []
    while len(found) < count:
        # Not of the generator of the process, which a test framework seeds: two processes would choose the same port.
        port = random.SystemRandom().randrange(16_000, 32_000)
        with suppress(OSError), closing(socket.create_server(("127.0.0.1", port))):
            found += [port] if port not in found else []
    return found
