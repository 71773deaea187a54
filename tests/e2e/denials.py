"""How soon all hosts refuse what one of them was told to refuse, and that nobody was told too early that they do."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NamedTuple

import psycopg

from tests.e2e.load import chunk_body
from tests.e2e.service import Device, Service

PACKETS = 20
WAYS: dict[str, tuple[str, ...]] = {
    "terminated": ("device", "terminate", "--reason", "sold"),
    "erased": ("device", "terminate", "--erase", "--reason", "sold"),
    "suspended": ("device", "suspend", "--reason", "late"),
    "deleted": ("recordings", "delete", "--reason", "asked"),
}
"""What takes the right to a recording away at once. A plan that ends, cancelled or not, does so at midnight."""


class Denied(NamedTuple):
    """What one revocation took. Seconds after the moment that the change log names for it."""

    returned_s: float
    """When the command returned."""
    served_s: float
    """When the last request began that a host still served; negative: before it."""


class Watcher:
    """Asks hosts for a chunk, and sends them another, again and again, until it is told to stop."""

    def __init__(self, hosts: Sequence[Service], device: Device, token: str, capture_ms: int) -> None:
        self._stop = threading.Event()
        self.last_served_s = 0.0
        """When the newest request began that was served; Unix seconds."""
        self.statuses: set[tuple[str, int]] = set()
        """Which answers there were to watching (`get`) and sending (`put`)."""
        path = f"/v1/devices/{device.number}/chunks/{capture_ms}"
        body = chunk_body(device.number, capture_ms, PACKETS)
        calls: list[tuple[str, Callable[[], int]]] = []
        for host in hosts:
            calls.append(("get", lambda host=host: host.get(path, token=token).status))  # type: ignore[misc]
            calls.append(("put", lambda host=host: host.put(device, capture_ms, body).status))  # type: ignore[misc]
        self._threads = [threading.Thread(target=self._ask, args=call, daemon=True) for call in calls]

    def __enter__(self) -> Watcher:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, what: str, call: Callable[[], int]) -> None:
        while not self._stop.is_set():
            began_s = time.time()
            with suppress(OSError):
                status = call()
                self.statuses.add((what, status))
                if status < 300:
                    self.last_served_s = max(self.last_served_s, began_s)
            self._stop.wait(0.01)


def deny(
    way: str, home_url: str, by: Service, hosts: Sequence[Service], device: Device, capture_ms: int
) -> Denied:
    """Take a right away while all of these hosts are asked for what it allowed.

    Args:
        home_url: of the catalog's database, with the password.
        by: whose folder the command is run with.
        hosts: that are reached; `by` may be among them.
        capture_ms: of a chunk that the device has sent.
    """
    token = by.viewer_token(device.number)
    [*words, reason, why] = WAYS[way]
    span = ("--from", str(capture_ms), "--to", str(capture_ms + 1)) if way == "deleted" else ()
    with Watcher(hosts, device, token, capture_ms) as watcher:
        time.sleep(0.3)
        assert watcher.last_served_s, "it was served before"
        began_ms = time.time_ns() // 1_000_000
        by.command(*words, "--device", str(device.number), *span, reason, why)
        returned_s = time.time()
        time.sleep(0.5)
    committed_s = _change_ms(home_url, device, began_ms) / 1000
    bugs = [line for host in hosts for line in host.lines if '"bug"' in line]
    assert {status for _, status in watcher.statuses} <= {200, 201, 403, 404, 410, 503}, (
        watcher.statuses,
        bugs,
    )
    assert watcher.last_served_s < returned_s, "nothing that was asked for after the command's end was served"
    return Denied(returned_s - committed_s, watcher.last_served_s - committed_s)


def _change_ms(home_url: str, device: Device, began_ms: int) -> int:
    """When the transaction began that took the right away: a little before it was committed."""
    with psycopg.connect(home_url) as connection:
        row = connection.execute(
            "SELECT min(at_ms) FROM (SELECT device, at_ms FROM changes UNION ALL SELECT device, at_ms FROM deletions) c"
            " WHERE device = %s AND at_ms >= %s",
            (device.number, began_ms),
        ).fetchone()
    assert row is not None
    return int(row[0])
