"""A device in software: uploads chunks as a good camera does, tries again, and remembers what was acknowledged.

The rules of a client that loses nothing (docs/design.md §6): a 2xx is an acknowledgement; a lost connection,
a time-out, a 408 and any 5xx mean "send the same chunk again", later and later; any other 4xx is final.
Sending a chunk twice does no harm: the second time is answered 200.
"""

from __future__ import annotations

import base64
import hashlib
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import trio

from service.demo.wire import ConnectionLost, Response, Wire
from service.supervisor import Address
from storage.errors import CallerError, WorldError

TS_PACKET_BYTES = 188
TOO_SLOW = 408
TOO_MANY = 429


@dataclass(frozen=True, slots=True)
class Chunk:
    """A few seconds of video. `capture_ms`: Unix milliseconds, unique per device."""

    capture_ms: int
    duration_ms: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Patience:
    """How a device tries again."""

    first_s: float = 0.1
    """Pause before the second attempt; doubled before each further one."""
    longest_s: float = 2.0
    """No pause is longer, `Retry-After` or not: a camera's memory is small."""
    total_s: float = 60.0
    """After so long, from the first attempt on, a chunk is given up."""
    request_s: float = 15.0
    """For one attempt: over the worst acknowledgement of a busy service."""

    def pause_s(self, attempt: int, retry_after: str) -> float:
        """Before attempt number `attempt` + 1. Spread, so that a fleet does not come back all at once."""
        pause_s = min(self.first_s * 2.0 ** min(attempt - 1, 30), self.longest_s)
        if retry_after.isdigit():
            pause_s = min(max(pause_s, float(retry_after)), self.longest_s)
        return random.uniform(0.5, 1.0) * pause_s


class Denied(CallerError):
    """The service said a final no; `response` has it."""

    def __init__(self, response: Response, subject: str) -> None:
        super().__init__(f"refused with {response}", subject=subject, code=response.error or "denied")
        self.response = response


class GaveUp(WorldError):
    """No acknowledgement within the device's patience."""

    code = "gave_up"


@dataclass(slots=True)
class Simulator:
    """One device.

    Args:
        ingest: where the service takes uploads.
        device: its number; `token`: its token.
        on_ack: called with each acknowledged chunk, right after it was noted in `acked`.
    """

    ingest: Address
    device: int
    token: str = field(repr=False)
    patience: Patience = Patience()
    on_ack: Callable[[Chunk], None] = lambda chunk: None
    acked: dict[int, int] = field(default_factory=dict)
    """Status, 201 or 200, by capture time."""
    retries: int = 0
    """Attempts that were not the first."""
    under_way: int = 0
    """Chunks being sent and not acknowledged yet."""

    async def send(self, chunk: Chunk, wire: Wire | None = None) -> Response:
        """Send a chunk until it is acknowledged.

        Args:
            wire: a connection to use; without one it is made for this chunk and closed.

        Raises:
            Denied: a final no.
            GaveUp: no acknowledgement in `patience.total_s`.
        """
        own = wire or Wire(self.ingest)
        self.under_way += 1
        try:
            with trio.move_on_after(self.patience.total_s):
                return await self._until_acked(own, chunk)
        finally:
            self.under_way -= 1
            if wire is None:
                own.close()
        raise GaveUp(
            f"chunk {chunk.capture_ms} was not acknowledged in {self.patience.total_s:g} s",
            subject=f"device {self.device}",
        )

    async def send_all(self, chunks: Iterable[Chunk], *, connections: int = 1) -> None:
        """Send chunks over so many connections, each with one chunk under way.

        Raises:
            ExceptionGroup of Denied and GaveUp; the chunks that were still to come are not sent.
        """
        left = iter(chunks)
        async with trio.open_nursery() as nursery:
            for _ in range(connections):
                nursery.start_soon(self._drain, left)

    async def _drain(self, left: Iterator[Chunk]) -> None:
        wire = Wire(self.ingest)
        try:
            for chunk in left:
                await self.send(chunk, wire)
        finally:
            wire.close()

    async def _until_acked(self, wire: Wire, chunk: Chunk) -> Response:
        attempt = 0
        while True:
            attempt += 1
            retry_after = ""
            try:
                response = await self._put(wire, chunk)
            except ConnectionLost:
                pass
            else:
                if response.status < 300:
                    self.acked[chunk.capture_ms] = response.status
                    self.on_ack(chunk)
                    return response
                if response.status < 500 and response.status not in (TOO_SLOW, TOO_MANY):
                    raise Denied(response, f"device {self.device}")
                retry_after = response.headers.get("retry-after", "")
            await trio.sleep(self.patience.pause_s(attempt, retry_after))
            self.retries += 1

    async def _put(self, wire: Wire, chunk: Chunk) -> Response:
        digest = base64.b64encode(hashlib.sha256(chunk.body).digest()).decode()
        return await wire.request(
            "PUT",
            f"/v1/devices/{self.device}/chunks/{chunk.capture_ms}",
            headers={
                "Authorization": f"Bearer {self.token}",
                "Clip-Duration-Ms": str(chunk.duration_ms),
                "Content-Digest": f"sha-256=:{digest}:",
            },
            body=chunk.body,
            timeout_s=self.patience.request_s,
        )


def numbered(body: bytes, number: int) -> bytes:
    """The same video, and other bytes: an MPEG-TS null packet with a number goes before it (players skip those)."""
    packet = b"\x47\x1f\xff\x10" + number.to_bytes(8, "big")
    return packet.ljust(TS_PACKET_BYTES, b"\xff") + body
