"""Who asks: the address by which connections, requests and attempts are counted. Pure.

A connection's peer is the client, unless it is a proxy that the operator has named. Of what the proxies say only that
is believed which a named proxy has seen: hops are read from the right, up to the first that is no named proxy. What
stands before that one is the client's own word. The PROXY protocol says the same of a connection before its first
byte: what it says is the connection's peer from then on.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

FORWARDED_FOR = "x-forwarded-for"
FORWARDED = "forwarded"
HEADERS = (FORWARDED_FOR, FORWARDED)
FORWARDED_PROTO = "x-forwarded-proto"
"""What proxies that set X-Forwarded-For say of the connection that they took."""
MAX_HOPS = 16
"""Of named proxies, one behind the other. Whoever may write more of them into a header has nothing looked at."""
UNKNOWN = "unknown"

_FOR = re.compile(r'(?:^|;)[ \t]*for=("[^"\\]*"|[^";,=\s]+)[ \t]*(?=;|$)', re.IGNORECASE)
"""The `for` of one element of Forwarded (RFC 7239 §4)."""
_PROTO = re.compile(r'(?:^|;)[ \t]*proto="?(https?)"?[ \t]*(?=;|$)', re.IGNORECASE)


def parse_proxies(text: str) -> tuple[Network, ...]:
    """Addresses and networks, separated by commas.

    Raises:
        ValueError: one that is none.
    """
    return tuple(ip_network(part.strip()) for part in text.split(",") if part.strip())


def network_of(address: str) -> str:
    """One text for all addresses that one client has: an IPv4 address, or the /64 network of an IPv6 one, for a single
    client has a whole /64. What is no address is "unknown", counted together."""
    parsed = _parsed(address)
    if parsed is None:
        return UNKNOWN
    if isinstance(parsed, IPv6Address):
        return str(ip_network((int(parsed), 64), strict=False))
    return str(parsed)


@dataclass(frozen=True, slots=True)
class Clients:
    """Args:
    proxies: whose word is believed, and only there. Empty: nobody's.
    header: the one header that they set. Another one they may pass on as the client sent it, so only one is read.
    """

    proxies: tuple[Network, ...] = ()
    header: str = FORWARDED_FOR

    def is_proxy(self, peer: str) -> bool:
        """Whether connections of this peer are many clients'."""
        return bool(self.proxies) and self._is_named(_parsed(peer))

    def of_request(self, peer: str, headers: Iterable[tuple[bytes, bytes]]) -> str:
        """The address of who sent this request: the peer's own, or what named proxies saw. Where they say nothing that
        can be read, it is the last of them."""
        if not self.is_proxy(peer):
            return peer
        name = self.header.encode()
        said = ",".join(value.decode("latin-1") for key, value in headers if key == name)
        seen = peer
        for hop in _hops(said, self.header):
            address = _parsed(hop)
            if address is None:
                return seen
            seen = str(address)
            if not self._is_named(address):
                return seen
        return seen

    def scheme_of_request(self, peer: str, headers: Iterable[tuple[bytes, bytes]]) -> str:
        """ "https" when a named proxy says that it was asked so; else "http", which is all that this server speaks. Of
        several proxies the nearest one's word counts, which alone is known to be a proxy's."""
        if not self.is_proxy(peer):
            return "http"
        name = (FORWARDED_PROTO if self.header == FORWARDED_FOR else self.header).encode()
        said = ",".join(value.decode("latin-1") for key, value in headers if key == name)
        nearest = said.rpartition(",")[2].strip()
        if self.header == FORWARDED_FOR:
            return "https" if nearest.lower() == "https" else "http"
        found = _PROTO.findall(nearest)
        return "https" if len(found) == 1 and found[0].lower() == "https" else "http"

    def _is_named(self, address: Address | None) -> bool:
        return address is not None and any(address in network for network in self.proxies)


def _hops(said: str, header: str) -> Sequence[str]:
    """The nearest first. "" for one that can't be read."""
    parts = [part.strip() for part in said.rsplit(",", MAX_HOPS)[-MAX_HOPS:]][::-1]
    if header == FORWARDED_FOR:
        return parts
    found = [_FOR.findall(part) for part in parts]
    return [one[0].strip('"') if len(one) == 1 else "" for one in found]


def _parsed(text: str) -> Address | None:
    """With or without a port, a zone or brackets."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address
