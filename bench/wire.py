"""What goes over a connection to a server under test: request heads out, answers in. No socket in here.

Four dialects: that of Clipkeep's ingest port, which the Starlette peer speaks too; that of a relay, which
answers with the store's 200; and tus 1.0, in two ways. Creation with upload: one POST creates the upload and carries
its bytes, the cheapest way a chunk can go to a tus server. And as clients do it by default: a POST creates it, a PATCH
carries all of its bytes.
"""

from __future__ import annotations

import base64
import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from bench.media import CHUNK_DURATION_MS

ANSWER_LIMIT_BYTES = 64 * 1024
CLIPKEEP, RELAY, TUS, TUS_PATCH = "clipkeep", "relay", "tus", "tus-patch"
ACK_STATUS = {CLIPKEEP: 201, RELAY: 200, TUS: 201, TUS_PATCH: 204}
CREATED = 201
"""What the first of two requests of TUS_PATCH is answered."""
TUS_PATH = "/files/"

_LENGTH = re.compile(rb"\r\ncontent-length:\s*(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:\s*chunked", re.IGNORECASE)
_LOCATION = re.compile(rb"\r\nlocation:\s*(?:https?://[^/\r]*)?(/[!-~]*)", re.IGNORECASE)
_WHO = re.compile(rb"\r\nHost: [^\r]*\r\nAuthorization: [^\r]*\r\n")
_OFFSET = re.compile(rb"\r\nupload-offset:\s*(\d+)", re.IGNORECASE)


class Device(NamedTuple):
    """A device number and its upload token."""

    number: int
    token: str


@dataclass(frozen=True, slots=True)
class Target:
    """Where to send, as whom, and in which dialect.

    Attributes:
        warm_chunks: answers after which the server is in its stride, where that takes more than one a connection.
        more_ports: of further hosts; connections go to each in turn.
        authority: PEM file of what is trusted: over TLS. Empty: in clear.
        uploads: the path at which a tus server creates uploads; {device} in it is the device's number.
    """

    host: str
    port: int
    devices: tuple[Device, ...]
    dialect: str = CLIPKEEP
    warm_chunks: int = 0
    more_ports: tuple[int, ...] = ()
    authority: str = ""
    uploads: str = TUS_PATH

    @classmethod
    def read(cls, path: Path) -> Target:
        document = json.loads(path.read_text())
        devices = tuple(Device(*x) for x in document["devices"])
        more_ports = tuple(document["more_ports"])
        return cls(
            document["host"],
            document["port"],
            devices,
            document["dialect"],
            document["warm_chunks"],
            more_ports,
            document["authority"],
            document["uploads"],
        )

    def address(self, number: int) -> tuple[str, int]:
        """Where the connection of this number goes, counted from 0."""
        ports = (self.port, *self.more_ports)
        return self.host, ports[number % len(ports)]

    def write(self, path: Path) -> None:
        """Write it for a load generator, readable by this user alone: it holds tokens."""
        path.touch(mode=0o600)
        path.write_text(json.dumps(asdict(self)))


class Heads:
    """Builds request heads: all but the capture time is prepared once per device.

    Capture times of a device start at `start_ms` and grow by `step_ms`, so they are unique per device. With a
    step of 1 ms they stay near the clock (a server refuses times more than 10 min ahead) up to 1000 chunks/s
    and device.
    """

    def __init__(self, target: Target, body_bytes: int, start_ms: int, step_ms: int = 1) -> None:
        content_bytes = body_bytes
        if target.dialect in (TUS, TUS_PATCH):
            self._starts = [
                f"POST {target.uploads.format(device=device.number)}".encode() for device in target.devices
            ]
            fields = f"Tus-Resumable: 1.0.0\r\nUpload-Length: {body_bytes}\r\n"
            kind = "application/offset+octet-stream"
            if target.dialect == TUS_PATCH:
                fields += "Upload-Metadata: capture_ms %b\r\n"
                content_bytes = 0
        else:
            self._starts = [f"PUT /v1/devices/{device.number}/chunks/".encode() for device in target.devices]
            fields = f"Clip-Duration-Ms: {CHUNK_DURATION_MS}\r\n"
            kind = "video/mp2t"
        self._ends = [
            (
                f" HTTP/1.1\r\nHost: {target.host}:{target.port}\r\nAuthorization: Bearer {device.token}\r\n"
                f"Content-Type: {kind}\r\n{fields}Content-Length: {content_bytes}\r\n\r\n"
            ).encode()
            for device in target.devices
        ]
        self._dialect = target.dialect
        self._start_ms = start_ms
        self._step_ms = step_ms
        self._count = 0

    def next(self) -> bytes:
        """Return the head of the next chunk; devices take turns."""
        turn, index = divmod(self._count, len(self._starts))
        self._count += 1
        capture_ms = b"%d" % (self._start_ms + turn * self._step_ms)
        match self._dialect:
            case "tus":
                return self._starts[index] + self._ends[index]
            case "tus-patch":
                return self._starts[index] + self._ends[index] % base64.b64encode(capture_ms)
        return self._starts[index] + capture_ms + self._ends[index]


def patch_head(creation: bytes, answer: bytes, body_bytes: int) -> bytes:
    """Return the head of the PATCH that carries all of an upload.

    Args:
        creation: the head of the request that created it.
        answer: the server's to that.

    Raises:
        ValueError: the answer names no upload.
    """
    location, who = _LOCATION.search(answer), _WHO.search(creation)
    if location is None or who is None:
        raise ValueError("an upload was created and not named")
    return b"PATCH %b HTTP/1.1%b%b%d\r\n\r\n" % (
        location[1],
        who[0],
        b"Content-Type: application/offset+octet-stream\r\nTus-Resumable: 1.0.0\r\nUpload-Offset: 0\r\n"
        b"Content-Length: ",
        body_bytes,
    )


def parse_answer(data: bytes) -> tuple[int, int] | None:
    """Return status and whole length of the answer at the start of `data`, None while it is incomplete.

    Raises:
        ValueError: not an HTTP/1.1 answer, or one whose end cannot be told.
    """
    end = data.find(b"\r\n\r\n")
    if end < 0:
        if len(data) > ANSWER_LIMIT_BYTES:
            raise ValueError("answer head too large")
        return None
    status = int(data[9:12])
    if match := _LENGTH.search(data, 0, end):
        total = end + 4 + int(match[1])
    elif _CHUNKED.search(data, 0, end):
        ended = _end_of_chunks(data, end + 4)
        if ended is None:
            return None
        total = ended
    elif status == 204:
        total = end + 4
    else:
        raise ValueError("answer without a length")
    return (status, total) if len(data) >= total else None


def _end_of_chunks(data: bytes, at: int) -> int | None:
    """Return where a chunked body that begins at `at` ends, None while it is incomplete. Trailers: none."""
    while (line_end := data.find(b"\r\n", at)) >= 0:
        size = int(data[at:line_end].partition(b";")[0], 16)
        at = line_end + 2 + size + 2
        if size == 0:
            return at
    return None


def is_stored(dialect: str, status: int, answer: bytes, body_bytes: int) -> bool:
    """Tell whether an answer says that all of the chunk is in the store: for tus, by its offset too."""
    if status != ACK_STATUS[dialect]:
        return False
    if dialect not in (TUS, TUS_PATCH):
        return True
    offset = _OFFSET.search(answer)
    return offset is not None and int(offset[1]) == body_bytes
