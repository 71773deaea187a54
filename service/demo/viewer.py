"""A person's side: what a viewer token gives, over the API."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field

import trio

from service.demo.wire import Response, Wire
from service.supervisor import Address
from storage.errors import WorldError

CONNECTIONS = 4
"""Downloads at once: what a busy browser does."""
PAGE_CHUNKS = 1000


@dataclass(frozen=True, slots=True)
class Viewer:
    """Looks at one device's recordings. Times are Unix milliseconds, `from_ms` included, `to_ms` not."""

    api: Address
    device: int
    token: str = field(repr=False)

    def playlist_url(self, from_ms: int, to_ms: int) -> str:
        """For any player: the token is in it."""
        return (
            f"http://{self.api}{self._target(f'playlist.m3u8?from={from_ms}&to={to_ms}')}&token={self.token}"
        )

    async def playlist(self, from_ms: int, to_ms: int) -> Response:
        """Ask for the playlist; the answer may be a refusal."""
        return await self._once(f"playlist.m3u8?from={from_ms}&to={to_ms}")

    async def chunk(self, capture_ms: int) -> Response:
        """Ask for one chunk; the answer may be a refusal."""
        return await self._once(f"chunks/{capture_ms}")

    async def captures(self, from_ms: int, to_ms: int) -> list[int]:
        """Capture times of the chunks in a range, at most PAGE_CHUNKS of them.

        Raises:
            WorldError: the listing was refused.
        """
        response = await self._once(f"recordings?from={from_ms}&to={to_ms}&limit={PAGE_CHUNKS}")
        if response.status != 200:
            raise WorldError(f"no listing: {response}", subject=f"device {self.device}")
        spans = json.loads(response.body)["spans"]
        return [chunk["capture_ms"] for span in spans for chunk in span["chunks"]]

    async def differing(self, sent: Iterable[tuple[int, bytes]]) -> list[str]:
        """Download chunks and compare them with what was sent.

        Returns:
            A line for each that is missing or has other bytes.
        """
        wrong: list[str] = []
        left = iter(sent)

        async def download() -> None:
            wire = Wire(self.api)
            try:
                for capture_ms, body in left:
                    response = await self._get(wire, f"chunks/{capture_ms}")
                    if response.status != 200 or response.body != body:
                        wrong.append(f"device {self.device} at {capture_ms}: {response}")
            finally:
                wire.close()

        async with trio.open_nursery() as nursery:
            for _ in range(CONNECTIONS):
                nursery.start_soon(download)
        return wrong

    async def _once(self, rest: str) -> Response:
        wire = Wire(self.api)
        try:
            return await self._get(wire, rest)
        finally:
            wire.close()

    async def _get(self, wire: Wire, rest: str) -> Response:
        return await wire.request(
            "GET", self._target(rest), headers={"Authorization": f"Bearer {self.token}"}
        )

    def _target(self, rest: str) -> str:
        return f"/v1/devices/{self.device}/{rest}"
