"""Which client asks: the address by which log-ins and registrations are counted. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any


def client_address(peer: str, forwarded_for: str | None, *, trust_forwarded_for: bool) -> str:
    """The client's address, as one text for all who share it.

    Args:
        peer: of the connection.
        forwarded_for: what X-Forwarded-For says; several headers are joined by commas. Its last entry is what the
            nearest proxy saw; all before it may be made up by the client.
        trust_forwarded_for: there is such a proxy, and nobody reaches this port without it.

    Returns:
        An IPv4 address, or the /64 network of an IPv6 one: a single client has a whole /64. What is no address
        is "unknown", counted together.
    """
    seen = peer
    if trust_forwarded_for and forwarded_for:
        seen = forwarded_for.rpartition(",")[2].strip() or peer
    return _network(_parsed(seen) or _parsed(peer))


def client_of(scope: Mapping[str, Any], *, trust_forwarded_for: bool) -> str:
    """As `client_address`, of an ASGI request."""
    said = [value.decode("latin-1") for name, value in scope["headers"] if name == b"x-forwarded-for"]
    peer = scope.get("client")
    return client_address(peer[0] if peer else "", ",".join(said), trust_forwarded_for=trust_forwarded_for)


def network_of(peer: str) -> str:
    """As `client_address`, of a connection's peer alone."""
    return _network(_parsed(peer))


def _network(address: IPv4Address | IPv6Address | None) -> str:
    if address is None:
        return "unknown"
    if isinstance(address, IPv6Address):
        return str(ip_network((int(address), 64), strict=False))
    return str(address)


def _parsed(text: str) -> IPv4Address | IPv6Address | None:
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
