"""Headers of the PROXY protocol: read as the text says, and nothing else is."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.proxied import MAX_V1_BYTES, MAX_V2_BYTES, OWN, NotProxied, Peer, read_header

V2 = b"\r\n\r\n\0\r\nQUIT\n"
PORTS = st.integers(0, 65535)


def v1(source: str, port: int, destination: str) -> bytes:
    kind = "TCP6" if ":" in source else "TCP4"
    return f"PROXY {kind} {source} {destination} {port} 443\r\n".encode()


def v2(source: str, port: int, destination: str, more: bytes = b"") -> bytes:
    packed = ip_address(source).packed + ip_address(destination).packed + port.to_bytes(2, "big") + b"\1\xbb"
    family = 0x21 if ":" in source else 0x11
    return V2 + bytes([0x21, family]) + (len(packed) + len(more)).to_bytes(2, "big") + packed + more


@given(st.ip_addresses(v=4), PORTS, st.binary(max_size=100), st.binary(max_size=50))
def test_what_a_proxy_says_is_read_however_much_has_come(
    address: object, port: int, more: bytes, behind: bytes
) -> None:
    six = f"2001:db8::{port:x}"
    for header in (
        v1(str(address), port, "192.0.2.1"),
        v1(six, port, "::1"),
        v2(str(address), port, "192.0.2.1", more),
        v2(six, port, "::1", more),
    ):
        name = str(IPv6Address(six)) if b"TCP6" in header or header[13:14] == b"\x21" else str(address)
        assert read_header(header + behind) == (Peer(name, port), len(header))
        for cut in range(len(header)):
            assert read_header(header[:cut]) is None


def test_a_proxy_speaks_for_itself() -> None:
    assert read_header(b"PROXY UNKNOWN\r\n") == (OWN, 15)
    assert read_header(b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\nGET") == (OWN, 35)
    assert read_header(V2 + b"\x20\0\0\0") == (OWN, 16)


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n",
        b"\x16\x03\x01",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2 3\r\n",
        b"PROXY TCP4  192.0.2.1 192.0.2.2 1 2\r\n",
        b"PROXY TCP4 ::1 ::1 1 2\r\n",
        b"PROXY TCP6 192.0.2.1 192.0.2.2 1 2\r\n",
        b"PROXY TCP4 192.0.2.300 192.0.2.2 1 2\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 01 2\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 65536 2\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 -1 2\r\n",
        b"PROXY UDP4 192.0.2.1 192.0.2.2 1 2\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 ١ 2\r\n".encode(),
        b"PROXY TCP4 " + b"1" * MAX_V1_BYTES,
        V2 + b"\x31\x11\0\x0c" + bytes(12),
        V2 + b"\x22\x11\0\x0c" + bytes(12),
        V2 + b"\x21\x12\0\x0c" + bytes(12),
        V2 + b"\x21\x31\0\xd8" + bytes(216),
        V2 + b"\x21\x11\0\x0b" + bytes(11),
        V2 + b"\x21\x21\0\x0c" + bytes(12),
        V2 + b"\x21\x11" + (MAX_V2_BYTES).to_bytes(2, "big"),
    ],
)
def test_anything_else_is_refused(data: bytes) -> None:
    with pytest.raises(NotProxied):
        read_header(data)
