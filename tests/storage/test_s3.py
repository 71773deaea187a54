"""`S3Store` on the wire, and what it makes of a server's bad days."""

from __future__ import annotations

import base64
import hashlib
import ssl
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from botocore.awsrequest import AWSHTTPConnection
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from service.config import SegmentSettings
from storage import checksums
from storage._s3_put import DirectPuts
from storage.contracts.store import put
from storage.errors import (
    CallerError,
    ClipkeepError,
    CorruptError,
    ObjectMissing,
    StoreDenied,
    StoreFull,
    StoreUnavailable,
)
from storage.s3 import S3Store
from storage.s3_wire import PatientConnection
from tests.storage.raw_server import Answer, RawServer, Request, response, s3_error

MIB = 1 << 20
DATE = "Thu, 29 Feb 2024 12:00:00 GMT"
DATE_S = 1709208000.0


@pytest.fixture(autouse=True)
def aws_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Credentials that mean nothing, and none of the machine's own."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))


@pytest.fixture
def store(server: RawServer) -> Iterator[S3Store]:
    store = S3Store("bucket", "pre/fix", endpoint_url=server.url, attempts=1)
    yield store
    store.close()


def always(answer: bytes | None) -> Answer:
    return lambda request: answer


def in_turn(*answers: bytes | None) -> Answer:
    remaining = iter(answers)
    return lambda request: next(remaining)


# What a put sends


def test_a_put_is_one_request_without_a_round_trip_before_it(store: S3Store, server: RawServer) -> None:
    body = bytearray(b"segment" * 100_000)
    store.put("v1/30/a", body, checksums.crc32(body))
    (request,) = server.requests
    assert (request.method, request.target) == ("PUT", "/bucket/pre/fix/v1/30/a")
    assert (request.body_bytes, request.body_crc32) == (len(body), checksums.crc32(body))
    assert request.headers["content-length"] == str(len(body))
    crc_bytes = checksums.crc32(body).to_bytes(4, "big")
    assert request.headers["x-amz-checksum-crc32"] == base64.b64encode(crc_bytes).decode()
    assert request.headers["x-amz-content-sha256"] == "UNSIGNED-PAYLOAD"
    assert request.headers["authorization"].startswith("AWS4-HMAC-SHA256 ")
    for absent in ("expect", "content-md5", "transfer-encoding", "content-encoding", "x-amz-trailer"):
        assert absent not in request.headers


def test_a_known_checksum_as_s3_writes_it(store: S3Store, server: RawServer) -> None:
    put(store, "a", b"123456789")
    assert server.requests[0].headers["x-amz-checksum-crc32"] == "y/Q5Jg=="


def test_an_empty_body_is_sent_as_one(store: S3Store, server: RawServer) -> None:
    put(store, "a", b"")
    (request,) = server.requests
    assert request.headers["content-length"] == "0"
    assert request.headers["x-amz-checksum-crc32"] == "AAAAAA=="


def test_the_bytearray_itself_goes_out_in_one_send(store: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[object] = []
    send = PatientConnection.send

    def record(connection: Any, data: object) -> None:
        sent.append(data)
        send(connection, data)

    monkeypatch.setattr(PatientConnection, "send", record)
    body = bytearray(3 * MIB)
    store.put("a", body, checksums.crc32(body))
    assert len(sent) == 2  # the head, the body; see test_s3_put.py for the puts that follow
    assert sent[1] is body


@pytest.mark.parametrize("direct", [True, False])
def test_a_put_makes_no_copy_of_the_body(
    store: S3Store, direct: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not direct:
        monkeypatch.setattr(DirectPuts, "put", lambda *_: None)
    body = bytearray(16 * MIB)
    crc32 = checksums.crc32(body)
    store.put("warm", body, crc32)
    tracemalloc.start()
    try:
        store.put("a", body, crc32)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < MIB, peak_bytes


def test_connections_are_kept(store: S3Store, server: RawServer) -> None:
    for n in range(5):
        put(store, f"a/{n}", b"x")
    assert (len(server.requests), server.connections) == (5, 1)


def test_a_body_may_leave_more_slowly_than_a_connection_is_made(server: RawServer) -> None:
    """urllib3 would give it the connect timeout; neither a new nor a kept connection may."""
    server.before_body = lambda: threading.Event().wait(0.4)
    store = S3Store(
        "bucket", "", endpoint_url=server.url, attempts=1, connect_timeout_s=0.1, read_timeout_s=10
    )
    body = bytearray(32 * MIB)  # more than the sockets' buffers hold
    for key in ("new", "kept"):
        store.put(key, body, checksums.crc32(body))
    assert server.connections == 1
    store.close()


def test_a_body_that_does_not_leave_in_time_ends_the_put(server: RawServer) -> None:
    """The bound of a put, on which `prepare_ttl` relies, holds for its body as a whole."""
    gone = threading.Event()
    server.before_body = lambda: gone.wait(10)
    store = S3Store("bucket", "", endpoint_url=server.url, attempts=1, read_timeout_s=0.3)
    body = bytearray(32 * MIB)
    began_s = time.monotonic()
    with pytest.raises(StoreUnavailable):
        store.put("a", body, checksums.crc32(body))
    assert time.monotonic() - began_s < 3
    gone.set()
    store.close()


def test_a_socket_has_its_timeout_back_after_a_body(server: RawServer) -> None:
    """Or the answer would be waited for without end."""
    store = S3Store("bucket", "", endpoint_url=server.url, attempts=1, read_timeout_s=0.3)
    body = bytearray(MIB)
    store.put("a", body, checksums.crc32(body))

    def late(request: Request) -> bytes:
        threading.Event().wait(1)
        return response(200)

    server.answer = late
    with pytest.raises(StoreUnavailable, match="did not answer"):
        store.put("b", body, checksums.crc32(body))
    store.close()


def test_the_connect_timeout_is_still_that_of_connecting(
    server: RawServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[float] = []
    connect = AWSHTTPConnection.connect

    def record(connection: Any) -> None:
        seen.append(connection.timeout)
        connect(connection)

    monkeypatch.setattr(AWSHTTPConnection, "connect", record)
    store = S3Store("bucket", "", endpoint_url=server.url, connect_timeout_s=4.5, read_timeout_s=30)
    put(store, "a", b"x")
    assert seen == [4.5]
    store.close()


def test_over_tls_nothing_is_different(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """botocore chooses trailers and signing by scheme; none of that may come back with https."""
    monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "server.pem"))
    server = RawServer(self_signed(tmp_path / "server.pem"))
    server.before_body = lambda: threading.Event().wait(0.8)
    store = S3Store(
        "bucket", "", endpoint_url=server.url, attempts=1, connect_timeout_s=0.5, read_timeout_s=10
    )
    body = bytearray(32 * MIB)
    for key in ("new", "kept"):
        store.put(key, body, checksums.crc32(body))
    store.close()
    server.close()
    assert server.connections == 1
    for request in server.requests:
        assert (request.body_bytes, request.body_crc32) == (len(body), checksums.crc32(body))
        assert request.headers["x-amz-content-sha256"] == "UNSIGNED-PAYLOAD"
        assert "x-amz-checksum-crc32" in request.headers
        for absent in ("expect", "transfer-encoding", "content-encoding", "x-amz-trailer"):
            assert absent not in request.headers


def self_signed(path: Path) -> ssl.SSLContext:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    address = x509.IPAddress(ip_address("127.0.0.1"))
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(private + certificate.public_bytes(pem))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context


# Retries and bounds


def test_transient_failures_are_retried_and_the_tries_are_bounded(server: RawServer) -> None:
    store = S3Store("bucket", "", endpoint_url=server.url, attempts=3)
    server.answer = in_turn(s3_error(500, "InternalError"), None, response(200))
    put(store, "a", b"body")
    assert [request.body for request in server.requests] == [b"body"] * 3
    server.answer = always(s3_error(500, "InternalError"))
    with pytest.raises(StoreUnavailable):
        put(store, "b", b"body")
    assert len(server.requests) == 7  # the direct one, and three
    with pytest.raises(StoreUnavailable):
        put(store, "c", b"body")
    assert len(server.requests) == 10
    store.close()


def test_a_silent_server_is_left_after_the_read_timeout(server: RawServer) -> None:
    released = threading.Event()

    def silent(request: Request) -> None:
        released.wait()

    server.answer = silent
    store = S3Store("bucket", "", endpoint_url=server.url, attempts=2, read_timeout_s=0.1)
    try:
        with pytest.raises(StoreUnavailable):
            put(store, "a", b"body")
        assert len(server.requests) == 2
    finally:
        released.set()
        store.close()


def test_the_bound_of_a_put_counts_every_timeout(server: RawServer) -> None:
    store = S3Store(
        "bucket", "", endpoint_url=server.url, connect_timeout_s=1.0, read_timeout_s=10.0, attempts=2
    )
    assert store.put_bound_s == 10.0 + 3 * (9 * 1.0 + 2 * 10.0) + (1.0 + 5.0)
    store.close()


def test_by_default_a_prepared_key_outlives_two_puts(server: RawServer) -> None:
    store = S3Store("bucket", "", endpoint_url=server.url)
    assert 2 * store.put_bound_s < SegmentSettings().prepare_ttl_s
    store.close()


# Errors


@pytest.mark.parametrize(
    ("answer", "error", "code"),
    [
        (s3_error(500, "InternalError"), StoreUnavailable, "store_unavailable"),
        (s3_error(503, "SlowDown"), StoreUnavailable, "slow_down"),
        (s3_error(503, "ServiceUnavailable"), StoreUnavailable, "store_unavailable"),
        (s3_error(429, "TooManyRequests"), StoreUnavailable, "slow_down"),
        (response(502, b"<html>Bad Gateway</html>"), StoreUnavailable, "store_unavailable"),
        (response(404, b"<html><br>Not Found</html>"), StoreDenied, "store_denied"),
        (b"no HTTP at all\r\n\r\n", StoreUnavailable, "store_unavailable"),
        (None, StoreUnavailable, "store_unavailable"),
        (s3_error(400, "RequestTimeout"), StoreUnavailable, "store_unavailable"),
        (s3_error(400, "IncompleteBody"), StoreUnavailable, "store_unavailable"),
        (s3_error(409, "OperationAborted"), StoreUnavailable, "store_unavailable"),
        (s3_error(403, "AccessDenied"), StoreDenied, "store_denied"),
        (s3_error(403, "InvalidAccessKeyId"), StoreDenied, "store_denied"),
        (s3_error(403, "SignatureDoesNotMatch"), StoreDenied, "store_denied"),
        (s3_error(403, "RequestTimeTooSkewed"), StoreDenied, "store_denied"),
        (s3_error(404, "NoSuchBucket"), StoreDenied, "store_denied"),
        (s3_error(404, "NoSuchKey"), StoreDenied, "store_denied"),  # of a put, it makes no sense
        (s3_error(400, "ExpiredToken"), StoreDenied, "store_denied"),
        (s3_error(400, "EntityTooLarge"), StoreDenied, "store_denied"),
        (s3_error(400, "BadDigest"), CorruptError, "bad_digest"),
        (s3_error(400, "XAmzContentChecksumMismatch"), CorruptError, "bad_digest"),
        (s3_error(507, "XMinioStorageFull"), StoreFull, "store_full"),
        (response(507), StoreFull, "store_full"),
        (s3_error(403, "QuotaExceeded"), StoreFull, "store_full"),
        (response(200, x_amz_checksum_crc32="AAAAAA=="), CorruptError, "bad_digest"),
    ],
)
def test_a_put_says_whose_fault_it_is(
    store: S3Store, server: RawServer, answer: bytes | None, error: type[ClipkeepError], code: str
) -> None:
    server.answer = always(answer)
    with pytest.raises(error) as caught:
        put(store, "a/b", b"body")
    assert (type(caught.value), caught.value.code, caught.value.subject) == (error, code, "a/b")
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        ("NoSuchBucket", "create the bucket"),
        ("InvalidAccessKeyId", "AWS_ACCESS_KEY_ID"),
        ("SignatureDoesNotMatch", "AWS_SECRET_ACCESS_KEY"),
        ("RequestTimeTooSkewed", "synchronise"),
        ("AccessDenied", "policy"),
    ],
)
def test_a_refusal_says_what_to_do(store: S3Store, server: RawServer, code: str, advice: str) -> None:
    server.answer = always(s3_error(403, code))
    with pytest.raises(StoreDenied, match=advice):
        put(store, "a/b", b"body")


def test_no_credentials_is_for_a_person_to_mend(server: RawServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    store = S3Store("bucket", "", endpoint_url=server.url)
    with pytest.raises(StoreDenied, match="set AWS_ACCESS_KEY_ID"):
        put(store, "a", b"x")
    assert server.requests == []
    store.close()


def test_a_bucket_that_cannot_exist_is_the_callers_fault(server: RawServer) -> None:
    store = S3Store("no bucket", "", endpoint_url=server.url)
    with pytest.raises(CallerError):
        put(store, "a", b"x")
    store.close()


@pytest.mark.parametrize(("chars", "possible"), [(511, True), (512, False)])
def test_a_prefix_leaves_room_for_the_longest_key(server: RawServer, chars: int, possible: bool) -> None:
    if possible:
        return S3Store("bucket", "p" * chars, endpoint_url=server.url).close()
    with pytest.raises(CallerError):
        S3Store("bucket", "p" * chars, endpoint_url=server.url)


# Reads


def test_a_range_is_asked_for_and_given(store: S3Store, server: RawServer) -> None:
    server.answer = always(response(206, b"3456", Content_Range="bytes 3-6/10"))
    assert store.get_range("a", 3, 4) == b"3456"
    assert server.requests[0].headers["range"] == "bytes=3-6"
    assert "x-amz-checksum-mode" not in server.requests[0].headers


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (s3_error(416, "InvalidRange"), CorruptError),
        (response(416), CorruptError),
        (s3_error(404, "NoSuchBucket"), StoreDenied),
        (
            response(404, b"<html><br>Not Found</html>"),
            StoreDenied,
        ),  # a proxy's: the bucket's HEAD gets it too
        (s3_error(403, "AccessDenied"), StoreDenied),
        (s3_error(503, "SlowDown"), StoreUnavailable),
    ],
)
def test_a_read_is_exact_or_an_error(
    store: S3Store, server: RawServer, answer: bytes, error: type[ClipkeepError]
) -> None:
    server.answer = always(answer)
    with pytest.raises(error) as caught:
        store.get_range("a", 3, 4)
    assert type(caught.value) is error


NOT_THE_RANGE = {
    "too few": response(206, b"345", Content_Range="bytes 3-5/6"),
    "another range": response(206, b"2345", Content_Range="bytes 2-5/10"),
    "nothing": response(200),
    "nothing, of this range": response(206, Content_Range="bytes 3-6/10"),
    "a page": response(200, b"<html>log in</html>"),
    "ranges are ignored": response(200, b"0123456789"),
    "so too, and it happens to fit": response(200, b"0123"),
    "no length": response(
        206, b"3456", Content_Range="bytes 3-6/10", Content_Length=None, Connection="close"
    ),
}


def of_an_object(size_bytes: int, *gets: bytes) -> Answer:
    """A store that tells this size, and answers GETs with these in turn, the last for ever."""
    head = response(200, Content_Length=size_bytes, ETag='"abc"', Last_Modified=DATE)
    remaining = list(gets)

    def answer(request: Request) -> bytes:
        if request.method == "HEAD":
            return head
        return remaining.pop(0) if len(remaining) > 1 else remaining[0]

    return answer


@pytest.mark.parametrize("wrong", NOT_THE_RANGE.values(), ids=NOT_THE_RANGE.keys())
def test_an_answer_that_is_not_the_range_is_told_from_an_object_that_is_short(
    store: S3Store, server: RawServer, wrong: bytes
) -> None:
    server.answer = of_an_object(6, wrong)
    with pytest.raises(CorruptError) as short:
        store.get_range("a", 3, 4)
    assert short.value.code == "short_object"
    server.answer = of_an_object(7, wrong)
    with pytest.raises(StoreUnavailable, match="look for a proxy") as caught:
        store.get_range("a", 3, 4)
    assert caught.value.code == "wrong_range"
    assert [request.method for request in server.requests[-4:]] == ["GET", "HEAD"] * 2, "and is asked twice"
    server.answer = of_an_object(7, wrong, response(206, b"3456", Content_Range="bytes 3-6/7"))
    assert store.get_range("a", 3, 4) == b"3456"


def test_an_answer_to_everything_is_nothing_of_the_objects(store: S3Store, server: RawServer) -> None:
    server.answer = always(response(200))
    with pytest.raises(StoreUnavailable):
        store.get_range("a", 3, 4)


@pytest.mark.parametrize("connection", ["keep-alive", "close"])
def test_a_body_that_breaks_off_is_the_worlds_fault_not_the_objects(
    server: RawServer, connection: str
) -> None:
    """Whether nothing more comes, or the server hangs up: the object itself may be whole."""
    server.answer = always(
        response(206, b"34", Content_Range="bytes 3-6/10", Content_Length=4, Connection=connection)
    )
    store = S3Store("bucket", "", endpoint_url=server.url, attempts=1, read_timeout_s=0.2)
    with pytest.raises(StoreUnavailable):
        store.get_range("a", 3, 4)
    store.close()


@pytest.mark.parametrize("call", [lambda store: store.head("a"), lambda store: store.get_range("a", 3, 4)])
def test_a_missing_object_is_told_from_a_missing_bucket(
    store: S3Store, server: RawServer, call: Callable[[S3Store], object]
) -> None:
    server.answer = in_turn(response(404), response(200, Date=DATE))
    with pytest.raises(ObjectMissing):
        call(store)
    server.answer = in_turn(response(404), response(404), s3_error(404, "NoSuchBucket"))
    with pytest.raises(StoreDenied, match="create the bucket"):
        call(store)
    server.answer = in_turn(response(404), s3_error(500, "InternalError"))
    with pytest.raises(StoreUnavailable):
        call(store)


# Deletes


def deleted(*lines: str) -> bytes:
    return response(200, f"<DeleteResult>{''.join(lines)}</DeleteResult>".encode())


def test_a_delete_is_one_request_with_both_checksums(store: S3Store, server: RawServer) -> None:
    server.answer = always(deleted("<Deleted><Key>pre/fix/a</Key></Deleted>"))
    assert store.delete_many(["a"]) == {"a": None}
    (request,) = server.requests
    assert request.target == "/bucket?delete"
    assert b"<Key>pre/fix/a</Key>" in request.body
    assert b"<Quiet>false</Quiet>" in request.body
    assert request.headers["content-md5"] == base64.b64encode(hashlib.md5(request.body).digest()).decode()
    crc_bytes = checksums.crc32(request.body).to_bytes(4, "big")
    assert request.headers["x-amz-checksum-crc32"] == base64.b64encode(crc_bytes).decode()


def test_each_key_has_its_own_result(store: S3Store, server: RawServer) -> None:
    server.answer = always(
        deleted(
            "<Deleted><Key>pre/fix/a</Key></Deleted>",
            "<Error><Key>pre/fix/b</Key><Code>AccessDenied</Code></Error>",
            "<Error><Key>pre/fix/c</Key><Code>NoSuchKey</Code></Error>",
            "<Error><Key>pre/fix/d</Key></Error>",
        )
    )
    assert store.delete_many(["a", "b", "c", "d", "e"]) == {
        "a": None,
        "b": "AccessDenied",
        "c": None,
        "d": "Unknown",
        "e": "Unconfirmed",
    }


def test_nothing_to_delete_is_no_request(store: S3Store, server: RawServer) -> None:
    assert store.delete_many([]) == {}
    assert server.requests == []


# Lists and the clock


def test_a_listing_goes_on_page_by_page(store: S3Store, server: RawServer) -> None:
    entry = "<Contents><Key>pre/fix/{}</Key><Size>3</Size><LastModified>2024-02-29T12:00:00Z</LastModified></Contents>"
    page = "<ListBucketResult>{}</ListBucketResult>"
    more = "<IsTruncated>true</IsTruncated><NextContinuationToken>next</NextContinuationToken>"
    server.answer = in_turn(
        response(200, page.format(more + entry.format("a/1")).encode()),
        response(200, page.format(entry.format("a/2")).encode()),
    )
    infos = list(store.list("a/"))
    assert [(info.key, info.size_bytes, info.modified_s) for info in infos] == [
        ("a/1", 3, DATE_S),
        ("a/2", 3, DATE_S),
    ]
    assert "prefix=pre%2Ffix%2Fa%2F" in server.requests[0].target
    assert "continuation-token=next" in server.requests[1].target


def test_an_answer_that_is_no_s3_is_no_empty_listing(store: S3Store, server: RawServer) -> None:
    server.answer = always(response(200, b"<html><br>Welcome"))
    with pytest.raises(StoreUnavailable):
        list(store.list(""))


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([response(200, Date=DATE)], DATE_S),
        ([response(403), response(200, b"<ListBucketResult/>", Date=DATE)], DATE_S),
        ([response(200)], None),
        ([response(200, Date="half past nine")], None),
    ],
)
def test_the_servers_clock_is_its_date_header(
    store: S3Store, server: RawServer, answers: list[bytes], expected: float | None
) -> None:
    server.answer = in_turn(*answers)
    assert store.server_time_s() == expected
    assert [request.method for request in server.requests] == ["HEAD", "GET"][: len(answers)]


@pytest.mark.parametrize(
    "call",
    [
        lambda store: store.server_time_s(),
        lambda store: list(store.list("")),
        lambda store: store.delete_many(["a"]),
        lambda store: store.head("a"),
    ],
)
@pytest.mark.parametrize(
    ("answer", "error"),
    [(s3_error(403, "AccessDenied"), StoreDenied), (s3_error(500, "Oops"), StoreUnavailable)],
)
def test_every_call_translates(
    store: S3Store,
    server: RawServer,
    call: Callable[[S3Store], object],
    answer: bytes,
    error: type[ClipkeepError],
) -> None:
    server.answer = always(answer)
    with pytest.raises(error) as caught:
        call(store)
    assert caught.value.__cause__ is not None
