"""Which client asks: its own address, or the one that a named proxy saw."""

from __future__ import annotations

import pytest

from service.clients import FORWARDED, Clients, network_of, parse_proxies

PROXY, INNER, CLIENT = "10.0.0.1", "10.9.0.2", "203.0.113.9"
NAMED = Clients(parse_proxies("10.0.0.0/8, 2001:db8:ffff::/48"))
STANDARD = Clients(NAMED.proxies, FORWARDED)


def said(*values: str, name: str = "x-forwarded-for") -> list[tuple[bytes, bytes]]:
    return [(b"host", b"a"), *((name.encode(), value.encode("latin-1")) for value in values)]


@pytest.mark.parametrize(
    ("values", "seen"),
    [
        ([], PROXY),
        ([""], PROXY),
        ([CLIENT], CLIENT),
        (["1.2.3.4, 203.0.113.9"], CLIENT),  # what comes before is the client's own word
        (["1.2.3.4", CLIENT], CLIENT),  # in a header of its own, too
        (["evil,  203.0.113.9 "], CLIENT),
        (["203.0.113.9:1234"], CLIENT),
        (["::ffff:203.0.113.9"], CLIENT),
        (["[2001:db8:1:2::9]:443"], "2001:db8:1:2::9"),
        (["1.2.3.4, 203.0.113.9, 10.9.0.2"], CLIENT),  # several named proxies
        (["203.0.113.9, 10.9.0.2, 10.0.0.7, 2001:db8:ffff::5"], CLIENT),
        ([INNER], INNER),  # a client within the named network
        (["203.0.113.9, "], PROXY),
        (["203.0.113.9, unknown"], PROXY),
        (["203.0.113.9, unknown, 10.9.0.2"], INNER),  # the last that is known
        (["x" * 10_000], PROXY),
        (["["], PROXY),
        (["203.0.113.999"], PROXY),
        (["\xff, \xe9"], PROXY),
    ],
)
def test_the_address_that_named_proxies_saw(values: list[str], seen: str) -> None:
    assert NAMED.of_request(PROXY, said(*values)) == seen
    assert NAMED.of_request(CLIENT, said(*values)) == CLIENT, "nobody else's word is believed"
    assert Clients().of_request(PROXY, said(*values)) == PROXY, "off unless somebody is named"


@pytest.mark.parametrize(
    ("values", "seen"),
    [
        (["for=203.0.113.9"], CLIENT),
        (["for=1.2.3.4, For=203.0.113.9;proto=https;by=10.0.0.1"], CLIENT),
        (['proto=https; for="203.0.113.9:47011"'], CLIENT),
        (['for="[2001:db8:cafe::17]:4711"'], "2001:db8:cafe::17"),
        (["for=203.0.113.9, for=10.9.0.2"], CLIENT),
        (["for=203.0.113.9, for=_hidden"], PROXY),
        (["for=unknown"], PROXY),
        (["by=203.0.113.9"], PROXY),
        (["for=1.2.3.4;for=203.0.113.9"], PROXY),
        (['for="1.2.3.4, 203.0.113.9"'], PROXY),
        (["xfor=203.0.113.9"], PROXY),
        (["203.0.113.9"], PROXY),
    ],
)
def test_the_standard_header(values: list[str], seen: str) -> None:
    assert STANDARD.of_request(PROXY, said(*values, name="forwarded")) == seen


def test_the_other_header_is_the_clients_own_word() -> None:
    """A proxy that sets one passes the other on as it came."""
    both = [*said(CLIENT), *said("for=1.2.3.4", name="forwarded")]
    assert NAMED.of_request(PROXY, both) == CLIENT
    assert STANDARD.of_request(PROXY, both) == "1.2.3.4"
    assert NAMED.of_request(PROXY, said("for=1.2.3.4", name="forwarded")) == PROXY


def test_a_long_header_is_looked_at_in_part() -> None:
    headers = said("1.2.3.4," + "10.0.0.2," * 3000 + "10.0.0.3")
    assert NAMED.of_request(PROXY, headers) == "10.0.0.2"


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", "unknown"),
        ("testclient", "unknown"),
    ],
)
def test_what_a_client_is_counted_as(address: str, network: str) -> None:
    assert network_of(address) == network


@pytest.mark.parametrize("text", ["proxy", "10.0.0.1/8", "10.0.0.0/33", "10.0.0.1 10.0.0.2"])
def test_what_names_no_proxy(text: str) -> None:
    with pytest.raises(ValueError, match=r"10|proxy"):
        parse_proxies(text)
