"""The PROXY protocol, v1 and v2: what a proxy says of a connection before its first byte. Pure.

As HAProxy's doc/proxy-protocol.txt has it. Strict: a proxy that is named has to say it, and what is not as that text
says ends the connection. So nobody's own word is ever taken for a proxy's.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final

MAX_V1_BYTES: Final = 107
"""The longest line, CR LF included."""
V2_HEAD_BYTES: Final = 16
MAX_V2_BYTES: Final = 536
"""Of a header with all that HAProxy adds to it (RFC 791's least datagram, which the text names); more is refused."""
_V2: Final = b"\r\n\r\n\0\r\nQUIT\n"
_V1: Final = b"PROXY "


@dataclass(frozen=True, slots=True)
class Peer:
    """Whose connection it is. An empty address: the proxy's own, as for its health checks."""

    address: str
    port: int


class NotProxied(ValueError):
    """What came is no header of the PROXY protocol."""


OWN = Peer("", 0)


def read_header(data: bytes) -> tuple[Peer, int] | None:
    """Who is behind a proxy, and the length of the header at the start of `data`. None: more has to come.

    Raises:
        NotProxied: it is none.
    """
    if data.startswith(_V2[: len(data)]):
        return _read_v2(data)
    if data.startswith(_V1[: len(data)]):
        return _read_v1(data)
    raise NotProxied("it does not begin with a header of the PROXY protocol")


def _read_v1(data: bytes) -> tuple[Peer, int] | None:
    end = data.find(b"\r\n", 0, MAX_V1_BYTES)
    if end < 0:
        if len(data) >= MAX_V1_BYTES:
            raise NotProxied("its line is too long")
        return None
    try:
        words = data[:end].decode("ascii").split(" ")
    except UnicodeDecodeError as error:
        raise NotProxied("its line is no ASCII") from error
    if words[1] == "UNKNOWN":
        return OWN, end + 2
    if len(words) != 6 or words[1] not in ("TCP4", "TCP6"):
        raise NotProxied("its line has not six words")
    kind = IPv4Address if words[1] == "TCP4" else IPv6Address
    try:
        source, _ = str(kind(words[2])), kind(words[3])
    except ValueError as error:
        raise NotProxied("it names no address") from error
    port, _ = _port(words[4]), _port(words[5])
    return Peer(source, port), end + 2


def _port(text: str) -> int:
    if (
        not text.isascii()
        or not text.isdigit()
        or len(text) > 5
        or text != str(int(text))
        or int(text) > 65535
    ):
        raise NotProxied("it names no port")
    return int(text)


def _read_v2(data: bytes) -> tuple[Peer, int] | None:
    if len(data) < V2_HEAD_BYTES:
        return None
    version, command, family = data[12] >> 4, data[12] & 15, data[13]
    length = V2_HEAD_BYTES + int.from_bytes(data[14:16], "big")
    if version != 2 or command > 1:
        raise NotProxied("it is of another version")
    if length > MAX_V2_BYTES:
        raise NotProxied("it is too long")
    if len(data) < length:
        return None
    if command == 0:  # LOCAL: the proxy's own
        return OWN, length
    size = {0x11: 4, 0x21: 16}.get(family)
    if size is None:
        raise NotProxied("it is of another protocol than TCP over IP")
    if length < V2_HEAD_BYTES + 2 * size + 4:
        raise NotProxied("it is too short for its addresses")
    raw = data[V2_HEAD_BYTES : V2_HEAD_BYTES + size]
    address = IPv4Address(raw) if size == 4 else IPv6Address(raw)
    at = V2_HEAD_BYTES + 2 * size
    return Peer(str(address), int.from_bytes(data[at : at + 2], "big")), length
