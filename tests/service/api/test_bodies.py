"""What may come in at all: sizes, types, encodings, JSON."""

from __future__ import annotations

import json
import re
import socket
import time

import pytest

from service.api.bodies import MAX_BODY_BYTES, BadBody, check_address
from tests.service.api.office import add_operator, add_owner, registration
from tests.service.api.server import Server, refused
from tests.service.world import World

PAGE = "/v1/accounts"


def padded(size: int) -> bytes:
    """A registration of exactly so many bytes, but for its name all right."""
    body = json.dumps(registration(name="x")).encode()
    return body.replace(b'"x"', b'"' + b"x" * (size - len(body) + 1) + b'"')


def test_a_body_within_the_limit_is_read_and_one_above_is_not(server: Server) -> None:
    at_limit = padded(MAX_BODY_BYTES)
    assert len(at_limit) == MAX_BODY_BYTES
    refused(server.ask("POST", PAGE, at_limit), 400, "malformed")  # read, and the name is too long
    refused(server.ask("POST", PAGE, padded(MAX_BODY_BYTES + 1)), 413, "too_large")
    announced = {"Content_Type": "application/json", "Content_Length": "9" * 30}
    assert server.send("POST", PAGE, b"", announced).status in (400, 413)


def chunked(server: Server, *pieces: bytes, end: bool = True) -> bytes:
    """The answer to a body of unknown length, to the end of the connection."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as client:
        head = f"POST {PAGE} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        head += "Connection: close\r\n"
        client.sendall(head.encode() + b"Transfer-Encoding: chunked\r\n\r\n")
        for piece in pieces:
            client.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))
        if end:
            client.sendall(b"0\r\n\r\n")
        return b"".join(iter(lambda: client.recv(65536), b""))


def test_a_body_of_unknown_length_is_limited_too(server: Server) -> None:
    assert b" 400 " in chunked(server, padded(MAX_BODY_BYTES))
    assert b" 413 " in chunked(server, padded(MAX_BODY_BYTES), b" ", end=False)


def test_a_body_that_does_not_come_is_given_up(world: World) -> None:
    with Server(world, body_wait_s=0.3) as impatient:
        began_s = time.monotonic()
        answer = chunked(impatient, b'{"email":', end=False)
        assert b" 408 " in answer
        assert b'"too_slow"' in answer
        assert time.monotonic() - began_s < 10


def test_a_client_that_leaves_in_the_middle_is_no_fault(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as client:
        client.sendall(
            b"POST /v1/accounts HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{"
        )
    assert server.ask("GET", "/healthz").status == 200  # and the fixture looks for bugs


WRONG_TYPES = [
    "text/plain",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=x",
    "application/jsonp",
    "application/json; charset=latin-1",
    "application/json; charset=utf-16",
    "application/xml",
    "",
]


def test_other_types_of_content_are_refused(server: Server) -> None:
    body = json.dumps(registration()).encode()
    for kind in WRONG_TYPES:
        refused(server.ask("POST", PAGE, body, Content_Type=kind), 415, "unsupported_media_type")
    refused(server.ask("POST", PAGE, body, Content_Encoding="gzip"), 415, "unsupported_media_type")
    for kind in ("application/json", "Application/JSON", 'application/json; charset="UTF-8"'):
        taken = server.ask("POST", PAGE, b'{"a": 1}', Content_Type=kind)
        refused(taken, 400, "malformed")


NO_JSON = [
    b"{",
    b"}",
    b"'a'",
    b'{"email": "a@example.org",}',
    b'{"password": NaN}',
    b'{"password": Infinity}',
    b'{"password": -Infinity}',
    b'{"password": "a", "password": "b"}',
    b'{"a": {"b": 1, "b": 2}}',
    b'{"name": "\xff"}',
    b'{"name": "\xed\xa0\x80"}',  # a surrogate in UTF-8
    b'{"name": "\xc0\x80"}',  # an overlong NUL
    b'{"name": "a\x00b"}',
    b'{"name": "a\x1bb"}',
    '{"name": "x"}'.encode("utf-16"),
    '{"name": "x"}'.encode("utf-16-le"),
    '{"name": "x"}'.encode("utf-32"),
    b"[" * 30_000,
    b'{"accepts_version": ' + b"9" * 10_000 + b"}",
    b" ",
    b"null",
    b"[]",
    b"1",
    b'"text"',
]


@pytest.mark.parametrize("body", NO_JSON, ids=range(len(NO_JSON)))
def test_what_is_no_json_object_is_malformed(server: Server, body: bytes) -> None:
    refused(server.ask("POST", PAGE, body), 400, "malformed")


ODD_FIELDS: list[dict[str, object]] = [
    {"extra": 1},
    {"accepts_version": "1"},
    {"accepts_version": 1.5},
    {"accepts_version": True},
    {"accepts_version": 0},
    {"accepts_version": 2**63},
    {"accepts_version": -(10**30)},
    {"password": 5},
    {"password": ""},
    {"password": "x" * 1025},
    {"name": "x" * 201},
    {"name": ["x"]},
    {"email": "x" * 321},
    {"email": "\ud800@example.org"},
]


def test_fields_of_other_kinds_or_out_of_bounds_are_malformed(server: Server) -> None:
    for odd in ODD_FIELDS:
        refused(server.ask("POST", PAGE, registration() | odd), 400, "malformed")
    long_name = server.ask("POST", PAGE, {"x" * 50_000: 1})
    refused(long_name, 400, "malformed")
    assert len(long_name.body) < 1000


def test_texts_that_cannot_be_shown_are_refused_with_what_to_do(world: World, server: Server) -> None:
    operator, owner = add_operator(server), add_owner(server)
    for char in "\u0007\u001b\u0085\u009f\u007f\n\r\t\u2028\u2029\u0000":
        name = server.ask("POST", PAGE, registration("b@example.org", name=f"a{char}b"))
        reason = operator.ask("POST", f"{owner.home}/suspension", {"reason": f"a{char}b"})
        for reply in (name, reason):
            refused(reply, 422, "bad_text")
            assert f"U+{ord(char):04X}" in reply.json["detail"]
    assert owner.get(owner.home)["suspended_ms"] is None
    taken = server.ask("POST", PAGE, registration("b@example.org", name="Åsa 李 🎥"))
    assert taken.json["name"] == "Åsa 李 🎥"


BAD_ADDRESSES = ["/v1/agreement/%ff", "/healthz?x=%ff", "/v1/notices?state=%c0%80", "/v1/accounts?after=%00"]


def test_addresses_are_utf_8(server: Server) -> None:
    operator = add_operator(server)
    for path in BAD_ADDRESSES:
        refused(operator.ask("GET", path), 400, "malformed")
    refused(operator.ask("DELETE", "/v1/devices/1/recordings?from=0&to=1&reason=%e9"), 400, "malformed")


@pytest.mark.parametrize("raw", [b"/a%zz", b"/%C3%A9", b"/a", b"/%", b"/%0a"])
def test_addresses_that_are_let_through(raw: bytes) -> None:
    check_address(raw, raw)


@pytest.mark.parametrize("slash", ["%2f", "%2F", "%5c"])
def test_an_encoded_slash_in_a_path_is_refused(server: Server, slash: str) -> None:
    """A proxy that guards /v1/accounts/1 has not seen that path."""
    operator = add_operator(server)
    refused(operator.ask("GET", f"/v1/accounts{slash}1"), 400, "malformed")
    assert operator.ask("GET", f"/v1/accounts?address=a{slash}b").status == 200, "a query has no path"


@pytest.mark.parametrize("number", ["1_0", "%2B1", "%201", "1.0", "1e1", "%D9%A1", "0x1"])
def test_a_number_is_digits_in_every_path_and_query(server: Server, number: str) -> None:
    """Python's int() takes several of these, and a program in front would not."""
    operator = add_operator(server)
    asked = 0
    for path, operations in json.loads(operator.ask("GET", "/openapi.json").body)["paths"].items():
        for parameter in operations.get("get", {}).get("parameters", []):
            kinds = [parameter["schema"], *parameter["schema"].get("anyOf", [])]
            if not any(kind.get("type") == "integer" for kind in kinds):
                continue
            values = {parameter["name"]: number} if parameter["in"] == "path" else {}
            address = re.sub(r"{(\w+)}", lambda match: values.get(match[1], "1"), path)  # noqa: B023
            if parameter["in"] == "query":
                address += f"?{parameter['name']}={number}"
            refused(operator.ask("GET", address), 400, "malformed")
            asked += 1
    assert asked > 15


def test_a_nul_in_an_address_is_not() -> None:
    with pytest.raises(BadBody):
        check_address(b"/%00", b"")


def test_the_methods_of_a_page_are_told(server: Server) -> None:
    reply = server.ask("PATCH", "/v1/accounts")
    refused(reply, 405, "method_not_allowed")
    assert reply.headers["allow"] == "GET, HEAD, POST"
    assert server.ask("PUT", "/v1/accounts/1").headers["allow"] == "GET, HEAD, PATCH"


def test_a_body_may_be_left_out_where_nothing_is_required(server: Server) -> None:
    owner = add_owner(server)
    device = owner.add_device()
    for headers in (
        {},
        {"Content_Type": "application/x-www-form-urlencoded"},
    ):  # as curl -X POST and curl -d ''
        assert owner.ask("POST", f"/v1/devices/{device}/viewer-tokens", **headers).status == 201
    reply = owner.ask("POST", f"/v1/devices/{device}/token")
    refused(reply, 400, "malformed")
    assert "reason" in reply.json["detail"], "it says what is missing"


@pytest.mark.parametrize("size", [0, 10, MAX_BODY_BYTES + 1, 8_000_000])
@pytest.mark.parametrize("path", ["chunks/1700000000000", "live/7.ts"])
def test_a_chunk_sent_to_this_port_is_told_the_other_one(server: Server, path: str, size: int) -> None:
    for method in ("PUT", "POST"):
        reply = server.send(method, f"/v1/devices/1/{path}", bytes(size), {"Content-Type": "video/mp2t"})
        assert reply.status in ((413,) if size > MAX_BODY_BYTES else (404, 405, 415))
        assert "ingest port" in reply.json["detail"]
