"""Answers that say yes and are not believed: a store, or a proxy before it, that says 200 and keeps nothing.

Against real sockets, on both ways a put takes: botocore's for the first, ours for those that follow.
"""

from __future__ import annotations

import hashlib
import socket
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import structlog.testing

from service.ready import probe_bytes
from storage import checksums, s3_wire
from storage._s3_put import DirectPuts
from storage.contracts.store import put
from storage.errors import (
    CorruptError,
    StoreDenied,
    StoreFull,
    StoreLacks,
    StoreUnavailable,
    StoreUnconfirmed,
)
from storage.s3 import SINGLE_DELETES_PER_S, S3Store
from storage.s3_answers import not_confirmed
from storage.s3_wire import send_until
from tests.storage.raw_server import RawServer, Request, response, s3_error
from tests.storage.test_s3 import self_signed

ETAG = '"9e107d9d372bb6826bd81d3542a419d6"'
EMPTY = '"d41d8cd98f00b204e9800998ecf8427e"'
DATE = "Sat, 31 Jan 2026 23:59:59 GMT"
PORTAL = (
    b"<!DOCTYPE html><html><head><title>Welcome to the hotel</title></head><body>Log in.<br></body></html>"
)
XHTML = b"<?xml version='1.0'?><html xmlns='http://www.w3.org/1999/xhtml'><body>Log in</body></html>"
WAYS = ["botocore", "direct"]


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")


@pytest.fixture
def server(server: RawServer) -> RawServer:
    server.confirms = False
    return server


@pytest.fixture
def store(server: RawServer) -> Iterator[S3Store]:
    store = S3Store("bucket", "p", endpoint_url=server.url, attempts=1, read_timeout_s=5)
    yield store
    store.close()


def prepared(server: RawServer, store: S3Store, way: str) -> None:
    """Let the next put go this way. The direct one comes after one that a store like S3 answered."""
    server.confirms = True
    if way == "direct":
        put(store, "first", b"x")
    server.confirms = False
    server.requests.clear()


def page(body: bytes) -> bytes:
    return response(200, body, Content_Type="text/html")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "answer",
    [
        response(200),
        response(200, ETag='""'),
        response(200, ETag=EMPTY),
        page(PORTAL),
        page(XHTML),
        page(b""),
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n",
    ],
    ids=["bare", "empty ETag", "ETag of nothing", "html", "xhtml", "typed", "no headers", "closed"],
)
def test_a_200_alone_is_not_stored(server: RawServer, store: S3Store, way: str, answer: bytes) -> None:
    """Invariant 1: 201 is for what is stored."""
    prepared(server, store, way)
    server.answer = lambda request: answer if request.method == "PUT" else response(404)
    server.hangs_up = b"Content-Length" not in answer
    with pytest.raises(StoreUnavailable):
        put(store, "a", b"segment")
    server.confirms, server.hangs_up = True, False
    server.answer = lambda request: response(200)
    put(store, "b", b"segment")  # it heals by itself


@pytest.mark.parametrize("way", WAYS)
def test_an_answer_without_the_checksum_that_came_otherwise(
    server: RawServer, store: S3Store, way: str
) -> None:
    server.confirms = True
    put(store, "first", b"x")
    if way == "botocore":
        store._direct.forget()
    server.confirms = False
    server.answer = lambda request: response(200, ETag=ETAG)
    with pytest.raises(StoreUnavailable, match="without the checksum") as caught:
        put(store, "a", b"segment")
    assert caught.value.code == "not_confirmed"


def a_store_that_tells_no_checksum(
    objects: dict[str, Request], etag: str = ETAG
) -> Callable[[Request], bytes]:
    def answer(request: Request) -> bytes:
        if request.method == "PUT":
            objects[request.target] = request
            return response(200, ETag=etag)
        found = objects.get(request.target)
        if found is None:
            return response(200 if request.target == "/bucket" else 404, Date=DATE)
        return response(200, Content_Length=found.body_bytes, ETag=ETAG, Last_Modified=DATE)

    return answer


@pytest.mark.parametrize("way", WAYS)
def test_a_store_that_tells_no_checksum_is_asked_for_the_object(
    server: RawServer, store: S3Store, way: str
) -> None:
    server.answer = a_store_that_tells_no_checksum({})
    if way == "direct":
        put(store, "first", b"x")
        server.requests.clear()
    put(store, "a", b"segment")
    assert [request.method for request in server.requests] == ["PUT", "HEAD"]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("fault", ["kept nothing", "wrong ETag", "cut"])
def test_and_not_believed_when_it_has_another_or_none(
    server: RawServer, store: S3Store, way: str, fault: str
) -> None:
    objects: dict[str, Request] = {}
    honest = a_store_that_tells_no_checksum(objects)
    server.answer = honest
    if way == "direct":
        put(store, "first", b"x")

    def lies(request: Request) -> bytes:
        if request.method == "PUT" and fault == "kept nothing":
            return response(200, ETag=ETAG)
        if request.method == "PUT" and fault == "wrong ETag":
            return a_store_that_tells_no_checksum(objects, '"0123456789abcdef0123456789abcdef"')(request)
        answer = honest(request)
        if request.method == "PUT":
            request.body_bytes -= 1
        return answer

    server.answer = lies
    with pytest.raises(StoreUnavailable) as caught:
        put(store, "a", b"segment")
    assert caught.value.code == "not_confirmed"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("then", ["reads the rest", "hangs up"])
def test_an_answer_before_the_body_was_read_does_not_count(
    server: RawServer, store: S3Store, way: str, then: str
) -> None:
    """It holds all that S3 would say, by an echo of what was asked: it knows nothing of the body all the same.
    The body is more than sockets hold, so that the answer is there before the end of it leaves."""
    prepared(server, store, way)
    body = bytearray(b"segment" * 3_000_000)
    server.early = lambda request: response(
        200, ETag=ETAG, x_amz_checksum_crc32=request.headers["x-amz-checksum-crc32"]
    )
    server.reads_on = then == "reads the rest"
    with pytest.raises(StoreUnavailable):
        store.put("a", body, checksums.crc32(body))


@pytest.mark.parametrize("way", WAYS)
def test_a_small_body_waits_for_an_answer_to_its_head(
    server: RawServer, store: S3Store, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would have left, whole, before the answer could be here."""
    prepared(server, store, way)
    monkeypatch.setattr(s3_wire, "LEAST_LOOK_S", 60.0)  # as long as a busy machine needs
    monkeypatch.setattr(s3_wire, "MOST_LOOK_S", 60.0)
    server.early = lambda request: response(
        200, ETag=ETAG, x_amz_checksum_crc32=request.headers["x-amz-checksum-crc32"]
    )
    server.reads_on = True
    with pytest.raises(StoreUnconfirmed):
        put(store, "a", b"segment")


@pytest.mark.parametrize(
    ("problem", "size_bytes"),
    [
        (None, 1024),
        (StoreUnavailable("it is away"), 1024),
        (StoreFull("no room"), 12_000_000),
        (not_confirmed("a", "the store answered 200 before it had the body"), 12_000_000),
    ],
)
def test_the_probe_is_as_large_as_what_failed(problem: StoreUnavailable | None, size_bytes: int) -> None:
    assert probe_bytes(problem, 12_000_000) == size_bytes


def test_over_tls_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate = tmp_path / "server.pem"
    server = RawServer(self_signed(certificate))
    monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate))
    store = S3Store("bucket", "", endpoint_url=server.url, attempts=1, read_timeout_s=5)
    put(store, "first", b"x")
    put(store, "second", b"x")  # directly: tickets of the session may have come meanwhile
    body = bytearray(b"segment" * 3_000_000)
    server.early = lambda request: response(
        200, ETag=ETAG, x_amz_checksum_crc32=request.headers["x-amz-checksum-crc32"]
    )
    direct: list[object] = []
    real = DirectPuts.put

    def watched(*args: Any) -> Any:
        direct.append(real(*args))
        return direct[-1]

    monkeypatch.setattr(DirectPuts, "put", watched)
    with suppress(StoreUnavailable):
        store.put("a", body, checksums.crc32(body))
    assert direct == [None]
    store.close()
    server.close()


def test_a_refusal_may_come_early(server: RawServer, store: S3Store) -> None:
    """A store that has no room says so before it has read it all."""
    body = bytearray(b"segment" * 3_000_000)
    server.early = lambda request: s3_error(507, "XMinioStorageFull")
    server.reads_on = True
    with pytest.raises(StoreUnavailable) as caught:
        store.put("a", body, checksums.crc32(body))
    assert caught.value.code == "store_full"


# Calls with a document for an answer


CALLS: list[Callable[[S3Store], object]] = [
    lambda store: list(store.list("")),
    lambda store: store.delete_many(["a", "b"]),
    lambda store: store.lifecycle_rules(),
    lambda store: store.keeps_old_versions(),
]


@pytest.mark.parametrize("call", CALLS, ids=["list", "delete", "lifecycle", "versioning"])
@pytest.mark.parametrize(
    "body",
    [b"", PORTAL, XHTML, b"<Error><Code>InternalError</Code></Error>", b'{"ok": true}'],
    ids=["empty", "html", "xhtml", "error", "json"],
)
def test_a_page_is_no_document(
    server: RawServer, store: S3Store, call: Callable[[S3Store], object], body: bytes
) -> None:
    """An empty listing is an empty store, no rules may be replaced by ours, a deleted key is forgotten."""
    server.answer = lambda request: page(body)
    with pytest.raises(StoreUnavailable):
        call(store)


@pytest.mark.parametrize(
    "answer",
    [response(200), page(PORTAL), response(200, ETag=ETAG), response(200, Last_Modified=DATE)],
)
def test_an_object_is_not_there_for_a_200(server: RawServer, store: S3Store, answer: bytes) -> None:
    server.answer = lambda request: answer
    with pytest.raises(StoreUnavailable) as caught:
        store.head("a")
    assert caught.value.code == "not_confirmed"


# Stores that lack something


def without_checksums(request: Request) -> bytes:
    """As Backblaze B2 answers."""
    if "x-amz-checksum-crc32" in request.headers:
        text = "Unsupported header 'x-amz-checksum-crc32' received for this API call."
        return response(400, f"<Error><Code>InvalidArgument</Code><Message>{text}</Message></Error>".encode())
    if request.method == "PUT":
        return response(200, ETag=ETAG)
    return response(200, Content_Length=7, ETag=ETAG, Last_Modified=DATE)


def test_a_store_that_knows_no_checksums_gets_the_md5(server: RawServer, store: S3Store) -> None:
    server.answer = without_checksums
    with structlog.testing.capture_logs() as logs:
        for key in "abc":
            put(store, key, b"segment")
    puts = [request.headers for request in server.requests if request.method == "PUT"]
    assert ["x-amz-checksum-crc32" in headers for headers in puts] == [True, False, False, False]
    md5 = b64encode(hashlib.md5(b"segment", usedforsecurity=False).digest()).decode()
    assert [headers.get("content-md5") for headers in puts] == [None, md5, md5, md5]
    assert "amz-sdk-request" not in puts[-1], "the later ones go out directly"
    assert [line["event"] for line in logs] == ["store_takes_no_checksum"]


def test_a_body_that_flipped_is_no_lack_of_the_store(server: RawServer, store: S3Store) -> None:
    """versitygw's words for a wrong checksum have "checksum" in them. The body must not be put again without, and later
    puts go as before."""
    text = "The CRC32 you specified did not match the calculated checksum."

    def verifying(request: Request) -> bytes:
        computed = b64encode(request.body_crc32.to_bytes(4, "big")).decode()
        if request.headers.get("x-amz-checksum-crc32") in (None, computed):
            return response(200, ETag=ETAG, x_amz_checksum_crc32=computed)
        return response(400, f"<Error><Code>BadDigest</Code><Message>{text}</Message></Error>".encode())

    server.answer = verifying
    put(store, "a", b"segment")
    with pytest.raises(CorruptError) as caught:
        store.put("b", bytearray(b"segmenT"), checksums.crc32(b"segment"))
    assert caught.value.code == "bad_digest"
    put(store, "c", b"segment")
    assert all("x-amz-checksum-crc32" in request.headers for request in server.requests)


@pytest.mark.parametrize("setting", ["md5", "none", "crc32"])
def test_the_setting_holds(server: RawServer, setting: str) -> None:
    store = S3Store("bucket", "", endpoint_url=server.url, attempts=1, checksums=setting)
    server.answer = without_checksums
    try:
        if setting == "crc32":
            with pytest.raises(StoreDenied, match="Unsupported header"):
                put(store, "a", b"segment")
            return
        for key in "ab":
            put(store, key, b"segment")
    finally:
        store.close()
    for request in server.requests:
        if request.method == "PUT":
            assert ("content-md5" in request.headers) is (setting == "md5")
            assert "x-amz-checksum-crc32" not in request.headers


def test_another_refusal_is_not_the_checksum_s(server: RawServer, store: S3Store) -> None:
    server.answer = lambda request: s3_error(403, "AccessDenied")
    with pytest.raises(StoreDenied):
        put(store, "a", b"segment")
    assert len(server.requests) == 1


def test_what_is_refused_without_a_checksum_too_is_told_as_it_was(server: RawServer, store: S3Store) -> None:
    server.answer = lambda request: s3_error(400, "InvalidArgument")
    with pytest.raises(StoreDenied, match="InvalidArgument"):
        put(store, "a", b"segment")
    server.confirms = True
    server.answer = lambda request: response(200)
    put(store, "b", b"segment")
    assert "x-amz-checksum-crc32" in server.requests[-1].headers, "one bad day does not turn checksums off"


@pytest.mark.parametrize("refusal", [(501, "NotImplemented"), (405, "MethodNotAllowed"), (501, "")])
def test_without_delete_objects_keys_are_deleted_one_by_one(
    server: RawServer, refusal: tuple[int, str]
) -> None:
    slept_s: list[float] = []
    store = S3Store("bucket", "p", endpoint_url=server.url, attempts=1, sleep=slept_s.append)
    answers = {
        "/bucket/p/gone": s3_error(404, "NoSuchKey"),
        "/bucket/p/locked": s3_error(403, "AccessDenied"),
        "/bucket/p/odd": page(XHTML),
    }

    def answer(request: Request) -> bytes:
        if request.method == "POST":
            return s3_error(*refusal)
        return answers.get(request.target, response(204, Content_Length=None))

    server.answer = answer
    keys = ["a", "gone", "locked", "odd", "b"]
    expected = {"a": None, "gone": None, "locked": "store_denied", "odd": "Unconfirmed", "b": None}
    assert store.delete_many(keys) == expected
    assert store.delete_many(keys) == expected
    methods = [request.method for request in server.requests]
    # "Not implemented" may mean the header with the checksum: it is asked once more without it.
    assert methods.count("POST") == (2 if refusal[1] == "NotImplemented" else 1), "and never again"
    assert slept_s == [1 / SINGLE_DELETES_PER_S] * 8
    store.close()


@pytest.mark.parametrize("call", CALLS[2:], ids=["lifecycle", "versioning"])
def test_what_a_store_lacks_is_no_outage(
    server: RawServer, store: S3Store, call: Callable[[S3Store], object]
) -> None:
    server.answer = lambda request: s3_error(501, "NotImplemented")
    with pytest.raises(StoreLacks):
        call(store)


@pytest.mark.parametrize("setting", ["crc32", "md5"])
@pytest.mark.parametrize("looks", [True, False])
def test_a_store_that_ignores_checksums_is_found_out(server: RawServer, setting: str, looks: bool) -> None:
    store = S3Store("bucket", "", endpoint_url=server.url, attempts=1, checksums=setting)

    def answer(request: Request) -> bytes:
        if request.method == "POST":
            return response(200, b"<DeleteResult><Deleted><Key>health/trial</Key></Deleted></DeleteResult>")
        return s3_error(400, "BadDigest") if looks else response(200, ETag=ETAG)

    server.answer = answer
    assert store.verifies("health/trial") is looks
    assert [request.method for request in server.requests] == ["PUT", *([] if looks else ["POST"])]
    store.close()


def test_a_wrong_checksum_of_the_store_is_corruption(server: RawServer, store: S3Store) -> None:
    server.answer = lambda request: response(200, ETag=ETAG, x_amz_checksum_crc32="AAAAAA==")
    with pytest.raises(CorruptError):
        put(store, "a", b"segment")


def test_a_peer_that_is_gone_is_an_early_answer() -> None:
    """What `send_until` sees of a connection that ended: nobody can have read the body then."""
    for ends in (True, False):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            if ends:
                theirs.shutdown(socket.SHUT_WR)
            assert send_until(time.monotonic() + 10, ours, b"head", bytearray(b"body")) is ends
            assert theirs.recv(100) == b"headbody"
