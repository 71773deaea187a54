"""Puts that go out without botocore: the same request, and anything but a plain success is botocore's."""

from __future__ import annotations

import base64
import re
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest, AWSResponse
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.utils import percent_encode

from storage import _s3_put, checksums
from storage._s3_put import DirectPuts, Pattern, Signer, pattern_of, plain_200
from storage.contracts.store import put
from storage.errors import CallerError, CorruptError, StoreUnavailable
from storage.s3 import S3Store
from storage.s3_wire import NEAR_RTT_S, LastSent, SentRequest, unpace_when_near
from tests.storage.raw_server import RawServer, Request, response, s3_error
from tests.storage.test_s3 import aws_environment, in_turn, self_signed  # noqa: F401 - the first is a fixture

MIB = 1 << 20
NOW = datetime(2026, 1, 31, 23, 59, 59, tzinfo=UTC)
KEYS = Credentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
SESSION_KEYS = Credentials("ASIAEXAMPLE", "secret/with+signs", "token/with+and==")


@pytest.fixture
def store(server: RawServer) -> Iterator[S3Store]:
    """One whose next put is direct."""
    store = S3Store("bucket", "pre/fix", endpoint_url=server.url, attempts=1, read_timeout_s=1.0)
    put(store, "first", b"x")
    server.requests.clear()
    yield store
    store.close()


def is_direct(request: Request) -> bool:
    return "amz-sdk-invocation-id" not in request.headers


def ways(server: RawServer) -> str:
    """One letter a request: direct or botocore's."""
    return "".join("d" if is_direct(request) else "b" for request in server.requests)


# The signature


def authorization_by_botocore(
    url: str, headers: Mapping[str, str], keys: Credentials, region: str, monkeypatch: pytest.MonkeyPatch
) -> str:
    monkeypatch.setattr(
        "botocore.auth.get_current_datetime",
        lambda: datetime.strptime(headers["x-amz-date"], "%Y%m%dT%H%M%SZ"),
    )
    request = AWSRequest("PUT", url, {"x-amz-checksum-crc32": headers["x-amz-checksum-crc32"]}, b"")
    request.context["client_config"] = Config(s3={"payload_signing_enabled": False})
    request.context["payload_signing_enabled"] = False
    S3SigV4Auth(keys.get_frozen_credentials(), "s3", region).add_auth(request)
    return str(request.headers["Authorization"])


@pytest.mark.parametrize("keys", [KEYS, SESSION_KEYS])
@pytest.mark.parametrize("region", ["us-east-1", "eu-central-1", "cn-north-1"])
@pytest.mark.parametrize(
    ("host", "path"),
    [
        ("s3.example.org:9000", "/bucket/"),
        ("127.0.0.1:80", "/bucket/pre/fix/"),
        ("bucket.s3.eu-central-1.amazonaws.com", "/"),
        ("[::1]:9000", "/bucket/with space/plus+sign/ünïcode/~tilde/per%cent/"),
        ("s3.example.org", "/bucket/a//b/./c/../d/"),
    ],
)
def test_the_signature_is_botocores(
    keys: Credentials, region: str, host: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = percent_encode(path, safe="/~")
    lines = Signer().headers(
        Pattern(host, root, region), "v1/30/a_b.c-d", "20260131T235959Z", "y/Q5Jg==", keys
    )
    headers = dict(line.split(": ", 1) for line in lines.removesuffix("\r\n").split("\r\n"))
    url = f"https://{host}{root}v1/30/a_b.c-d"
    expected = authorization_by_botocore(url, headers, keys, region, monkeypatch)
    # botocore drops port 80 of http and 443 of https only; the parameter says how Host is sent.
    assert headers["Authorization"] == expected
    assert headers["host"] == host
    assert headers.get("x-amz-security-token") == keys.token


def test_a_new_day_another_secret_and_another_region_have_keys_of_their_own() -> None:
    kept = Signer()
    for date in ("20260131T235959Z", "20260201T000000Z", "20260131T235959Z"):
        for keys in (KEYS, SESSION_KEYS):
            for region in ("us-east-1", "eu-west-1"):
                arguments = (Pattern("host", "/bucket/", region), "a", date, "AAAAAA==", keys)
                assert kept.headers(*arguments) == Signer().headers(*arguments)


@pytest.mark.parametrize("token", ["", "token/with+and=="])
def test_what_goes_out_is_what_botocore_would_send(
    server: RawServer,
    token: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if token:
        monkeypatch.setenv("AWS_SESSION_TOKEN", token)
    store = S3Store("bucket", "pre/fix", endpoint_url=server.url, region="eu-west-1")
    store._direct._now_s = NOW.timestamp
    body = bytearray(b"segment" * 1000)
    for _ in range(2):
        store.put("v1/30/a", body, checksums.crc32(body))
    store.close()
    theirs, ours = server.requests
    assert ways(server) == "bd"
    assert (ours.method, ours.target) == (theirs.method, theirs.target)
    assert (ours.body_bytes, ours.body_crc32) == (theirs.body_bytes, theirs.body_crc32)
    same = set(ours.headers) - {"x-amz-date", "authorization", "user-agent"}
    assert {name: ours.headers[name] for name in same} == {name: theirs.headers[name] for name in same}
    unneeded = {"accept-encoding", "amz-sdk-invocation-id", "amz-sdk-request"}
    assert set(theirs.headers) - set(ours.headers) == unneeded
    assert ours.headers["x-amz-date"] == "20260131T235959Z"
    assert ours.headers["user-agent"] == "clipkeep"
    keys = Credentials("test", "test", token or None)
    url = server.url + ours.target
    expected = authorization_by_botocore(url, ours.headers, keys, "eu-west-1", monkeypatch)
    assert ours.headers["authorization"] == expected


def test_credentials_are_asked_for_each_put(store: S3Store, server: RawServer) -> None:
    put(store, "a", b"x")
    store._client._request_signer._credentials = SESSION_KEYS
    put(store, "b", b"x")
    assert ways(server) == "dd"
    assert "Credential=test/" in server.requests[0].headers["authorization"]
    assert "Credential=ASIAEXAMPLE/" in server.requests[1].headers["authorization"]
    assert server.requests[1].headers["x-amz-security-token"] == SESSION_KEYS.token


# What is taken for a pattern


def sent_by_botocore(key: str, *, bucket: str = "clips", keys: Any = KEYS, **settings: Any) -> SentRequest:
    """What botocore would send to AWS, as a pool of urllib3 sees it."""
    seen: list[Any] = []

    def answer(request: Any, **_: Any) -> AWSResponse:
        seen.append(request)
        return AWSResponse(request.url, 200, {}, SimpleNamespace(stream=lambda: iter(()), read=lambda: b""))

    config = Config(
        request_checksum_calculation="when_required",
        **{"s3": {"payload_signing_enabled": False, **settings.pop("s3", {})}, **settings.pop("config", {})},
    )
    client = boto3.client(
        "s3",
        region_name=settings.pop("region", "eu-central-1"),
        aws_access_key_id=keys.access_key,
        aws_secret_access_key=keys.secret_key,
        aws_session_token=keys.token,
        config=config,
        **settings,
    )
    client.meta.events.register("before-send.s3.PutObject", answer)
    client.put_object(Bucket=bucket, Key=key, Body=bytearray(b"x"), ChecksumCRC32="y/Q5Jg==")
    client.close()
    scheme, _, host, port, path = re.fullmatch(  # type: ignore[union-attr]
        r"(https?)://(\[?([^/:\]]+|[^\]/]+)\]?)(?::(\d+))?(/.*)", seen[0].url
    ).group(1, 2, 3, 4, 5)
    pool = SimpleNamespace(scheme=scheme, host=host, port=int(port or {"http": 80, "https": 443}[scheme]))
    return SentRequest(pool, path, seen[0].headers)


@pytest.mark.parametrize("keys", [KEYS, SESSION_KEYS])
@pytest.mark.parametrize(
    ("settings", "pattern"),
    [
        ({}, Pattern("clips.s3.eu-central-1.amazonaws.com", "/pre/", "eu-central-1")),
        ({"region": "us-west-2"}, Pattern("clips.s3.us-west-2.amazonaws.com", "/pre/", "us-west-2")),
        (
            {"region": "cn-north-1"},
            Pattern("clips.s3.cn-north-1.amazonaws.com.cn", "/pre/", "cn-north-1"),
        ),
        ({"bucket": "a.b.c"}, Pattern("s3.eu-central-1.amazonaws.com", "/a.b.c/pre/", "eu-central-1")),
        (
            {"s3": {"addressing_style": "path"}},
            Pattern("s3.eu-central-1.amazonaws.com", "/clips/pre/", "eu-central-1"),
        ),
        (
            {"s3": {"use_accelerate_endpoint": True}},
            Pattern("clips.s3-accelerate.amazonaws.com", "/pre/", "eu-central-1"),
        ),
        (
            {"endpoint_url": "http://store.example:9000", "s3": {"addressing_style": "path"}},
            Pattern("store.example:9000", "/clips/pre/", "eu-central-1"),
        ),
        (
            {"endpoint_url": "http://store.example:80/below", "s3": {"addressing_style": "path"}},
            Pattern("store.example", "/below/clips/pre/", "eu-central-1"),
        ),
        (
            {"endpoint_url": "https://[::1]:9000", "s3": {"addressing_style": "path"}},
            Pattern("[::1]:9000", "/clips/pre/", "eu-central-1"),
        ),
        (
            {
                "endpoint_url": "http://store.example",
                "prefix": "a b+c/é~%",
                "s3": {"addressing_style": "virtual"},
            },
            Pattern("clips.store.example", "/a%20b%2Bc/%C3%A9~%25/", "eu-central-1"),
        ),
    ],
)
def test_a_put_as_botocore_addresses_it_is_a_pattern(
    keys: Credentials, settings: dict[str, Any], pattern: Pattern
) -> None:
    settings = dict(settings)
    sent = sent_by_botocore(f"{settings.pop('prefix', 'pre')}/v1/30/a", keys=keys, **settings)
    assert pattern_of(sent, "v1/30/a", keys) == pattern


def test_what_is_not_surely_the_same_is_no_pattern() -> None:
    sent = sent_by_botocore("pre/a")
    assert pattern_of(sent, "a", KEYS) is not None
    assert pattern_of(sent, "b", KEYS) is None
    assert pattern_of(sent, "re/a", KEYS) is None  # not whole parts of a path
    assert pattern_of(sent, "a", SESSION_KEYS) is None
    assert pattern_of(sent, "a", Credentials(KEYS.access_key, "another")) is None
    for path in ("/pre/a?x-id=PutObject", "/pre/other/a", "/pre/a/"):
        assert pattern_of(SentRequest(sent.pool, path, sent.headers), "a", KEYS) is None
    for host in ("other", "clips.s3.us-east-1.amazonaws.com"):
        pool = SimpleNamespace(scheme="https", host=host, port=443)
        assert pattern_of(SentRequest(pool, sent.path, sent.headers), "a", KEYS) is None


@pytest.mark.parametrize(
    "settings",
    [
        {"config": {"signature_version": "unsigned"}},
        {"config": {"signature_version": "s3"}},  # version 2
        {"s3": {"payload_signing_enabled": True}},
    ],
)
def test_another_way_of_signing_is_no_pattern(settings: dict[str, Any]) -> None:
    if settings.get("config", {}).get("signature_version") == "unsigned":
        from botocore import UNSIGNED

        settings = {"config": {"signature_version": UNSIGNED}}
    assert pattern_of(sent_by_botocore("pre/a", **settings), "a", KEYS) is None


def test_signed_headers_that_are_not_known_are_no_pattern(monkeypatch: pytest.MonkeyPatch) -> None:
    """As S3 Express has them, or whoever hooks into botocore's events."""
    headers = {"x-amz-date": "20260131T235959Z", "x-amz-checksum-crc32": "y/Q5Jg=="}
    request = AWSRequest("PUT", "https://host/pre/a", {**headers, "x-amz-s3session-token": "s"}, b"")
    S3SigV4Auth(KEYS.get_frozen_credentials(), "s3", "eu-west-1").add_auth(request)
    pool = SimpleNamespace(scheme="https", host="host", port=443)
    assert pattern_of(SentRequest(pool, "/pre/a", request.headers), "a", KEYS) is None


def test_without_credentials_nothing_is_sent_directly(store: S3Store, server: RawServer) -> None:
    store._client._request_signer._credentials = None
    with pytest.raises(Exception, match="no usable credentials"):
        put(store, "a", b"x")
    assert server.requests == []


def test_through_a_proxy_all_is_botocores(server: RawServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", server.url)
    monkeypatch.setenv("no_proxy", "")
    store = S3Store("bucket", "", endpoint_url="http://store.invalid:9000")
    for key in ("a", "b", "c"):
        put(store, key, b"x")
    store.close()
    assert ways(server) == "bbb"
    assert server.requests[0].target == "http://store.invalid:9000/bucket/a"


# Anything but a plain success


def late(request: Request) -> bytes:
    time.sleep(1.5)
    return response(200)


@pytest.mark.parametrize(
    "answer",
    [
        s3_error(500, "InternalError"),
        s3_error(503, "SlowDown"),
        s3_error(403, "RequestTimeTooSkewed"),
        s3_error(400, "BadDigest"),
        response(301, Location="http://elsewhere.invalid/"),
        response(307, Location="http://elsewhere.invalid/"),
        response(204),
        response(200, b"<Error><Code>InternalError</Code></Error>"),
        response(200, Transfer_Encoding="chunked", Content_Length=None) + b"0\r\n\r\n",
        response(200, Content_Length=None, Connection="close"),
        response(200).replace(b"HTTP/1.1", b"HTTP/1.0"),
        response(200) + response(200),
        b"HTTP/1.1 100 Continue\r\n\r\n" + response(200),
        response(200)[:-1],
        response(200)[:12],
        b"no HTTP at all\r\n\r\n",
        b"\xff" * 100_000,
        b"HTTP/1.1 200 OK\r\n" + b"x-a: b\r\n" * 10_000,
        None,
        late,
    ],
    ids=lambda answer: "late" if callable(answer) else repr(answer)[:60],
)
def test_what_fails_directly_is_put_by_botocore(
    store: S3Store,
    server: RawServer,
    answer: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers = iter([answer])

    def once(request: Request) -> bytes | None:
        given = next(answers, response(200))
        return given(request) if callable(given) else given

    server.answer = once
    body = bytearray(b"segment" * 20_000)
    store.put("a", body, checksums.crc32(body))
    store.put("b", body, checksums.crc32(body))
    assert ways(server) == "dbb"  # no other direct one for a while
    assert [request.target for request in server.requests] == [f"/bucket/pre/fix/{key}" for key in "aab"]
    assert {request.body_crc32 for request in server.requests} == {checksums.crc32(body)}
    body.append(0)  # nobody holds on to it
    store._direct._paused_until_s = 0.0
    put(store, "c", b"x")
    put(store, "d", b"x")
    assert ways(server) == "dbbbd"


def test_the_pause_is_as_long_as_it_says(
    store: S3Store,
    server: RawServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_s3_put, "PAUSE_S", 0.2)
    server.answer = in_turn(None, *[response(200)] * 4)
    put(store, "a", b"x")
    put(store, "b", b"x")
    time.sleep(0.25)
    put(store, "c", b"x")  # this one is learnt from
    put(store, "d", b"x")
    assert ways(server) == "dbbbd"


def test_an_error_that_stays_is_told_by_botocore(store: S3Store, server: RawServer) -> None:
    server.answer = lambda request: s3_error(503, "SlowDown")
    for _ in range(2):
        with pytest.raises(StoreUnavailable) as caught:
            put(store, "a", b"x")
        assert caught.value.code == "slow_down"
    assert ways(server) == "dbb"


def test_another_checksum_is_corruption_and_not_repeated(store: S3Store, server: RawServer) -> None:
    server.answer = lambda request: response(200, x_amz_checksum_crc32="AAAAAA==")
    with pytest.raises(CorruptError) as caught:
        put(store, "a", b"x")
    assert (caught.value.code, caught.value.subject) == ("bad_digest", "a")
    assert ways(server) == "d"


def test_the_checksum_that_the_store_tells_is_compared(store: S3Store, server: RawServer) -> None:
    crc_bytes = checksums.crc32(b"x").to_bytes(4, "big")
    server.answer = lambda request: response(200, X_Amz_Checksum_Crc32=base64.b64encode(crc_bytes).decode())
    put(store, "a", b"x")
    assert ways(server) == "d"


def test_a_plain_200() -> None:
    assert plain_200(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nETag:x\r\n\r\n") == {
        "content-length": "0",
        "etag": "x",
    }
    for other in (b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n", b"\r\n\r\n"):
        with pytest.raises(ValueError, match="plain"):
            plain_200(other)


# Connections


def test_many_puts_share_one_connection(store: S3Store, server: RawServer) -> None:
    for n in range(50):
        put(store, f"a/{n}", b"x" * n)
    assert (ways(server), server.connections) == ("d" * 50, 1)


def test_reads_and_puts_share_it_too(store: S3Store, server: RawServer) -> None:
    for n in range(3):
        server.answer = lambda request: response(200)
        put(store, f"a/{n}", b"x")
        server.answer = lambda request: response(206, b"3456", Content_Range="bytes 3-6/10")
        assert store.get_range("a", 3, 4) == b"3456"
    assert server.connections == 1


def test_an_idle_connection_that_the_server_closed_is_no_failure(
    store: S3Store,
    server: RawServer,
) -> None:
    put(store, "a", b"x")
    (kept,) = server._open
    kept.shutdown(socket.SHUT_RDWR)
    time.sleep(0.05)
    for key in ("b", "c"):
        put(store, key, b"x")
    assert (ways(server), server.connections) == ("dbd", 2)


def test_an_answer_that_closes_the_connection_is_obeyed(store: S3Store, server: RawServer) -> None:
    server.answer = lambda request: response(200, Connection="close")
    for key in ("a", "b", "c"):
        put(store, key, b"x")
    assert ways(server) == "dbb"
    server.answer = lambda request: response(200)
    put(store, "d", b"x")
    put(store, "e", b"x")
    assert ways(server) == "dbbbd"  # without a pause: nothing failed


def test_threads_share_a_bounded_pool_and_no_put_is_lost(server: RawServer) -> None:
    store = S3Store("bucket", "p", endpoint_url=server.url, max_connections=4, attempts=1)
    keys = [f"{thread}/{n}" for n in range(25) for thread in range(12)]

    def one(key: str) -> None:
        body = bytearray(key.encode() * 1000)
        store.put(key, body, checksums.crc32(body))

    with ThreadPoolExecutor(12) as threads:
        list(threads.map(one, keys))
    arrived = {request.target: request.body_crc32 for request in server.requests}
    assert arrived == {f"/bucket/p/{key}": checksums.crc32(key.encode() * 1000) for key in keys}
    assert len(server.requests) == len(keys)
    assert "d" in ways(server)
    assert store._direct._way is not None
    idle = [kept for kept in store._direct._way[1].pool.queue if kept is not None]
    assert len(idle) <= 4
    store.close()


def test_a_put_after_the_pool_was_closed_is_botocores(store: S3Store, server: RawServer) -> None:
    assert store._direct._way is not None
    store._direct._way[1].close()
    store._client._endpoint.http_session.close()  # which makes another one when it is asked
    put(store, "a", b"x")
    assert ways(server) == "b"


def test_closing_the_store_closes_the_connections(server: RawServer) -> None:
    store = S3Store("bucket", "p", endpoint_url=server.url)
    for key in ("a", "b"):
        put(store, key, b"x")
    assert store._direct._way is not None
    kept = store._direct._way[1].pool.queue[-1]
    assert kept.sock is not None
    store.close()
    assert kept.sock is None


# Time and memory


def test_a_direct_attempt_ends_within_its_time(server: RawServer) -> None:
    """An answer byte by byte, each within any timeout."""
    store = S3Store("bucket", "", endpoint_url=server.url, attempts=1)
    put(store, "first", b"x")
    direct = store._direct
    direct._seconds = 0.3
    gone = threading.Event()

    def slowly(request: Request) -> None:
        for byte in response(200):
            if gone.wait(0.05):
                return
            server._open[0].send(bytes([byte]))

    server.answer = slowly
    began_s = time.monotonic()
    assert direct.put("a", bytearray(b"x"), "AAAAAA==", KEYS) is None
    assert 0.2 < time.monotonic() - began_s < 0.6
    gone.set()
    store.close()


@pytest.mark.parametrize("tls", [False, True])
def test_a_body_that_does_not_leave_ends_within_its_time(
    tls: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = tmp_path / "server.pem"
    server = RawServer(self_signed(certificate) if tls else None)
    monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate))
    store = S3Store("bucket", "", endpoint_url=server.url, attempts=1, read_timeout_s=0.4)
    put(store, "first", b"x")
    gone = threading.Event()
    server.before_body = lambda: gone.wait(10)
    assert store._direct._way is not None
    store._direct._way[1].pool.queue[-1].sock.settimeout(30)  # another one than that of the body
    body = bytearray(32 * MIB)
    crc32 = checksums.crc32(body)
    began_s = time.monotonic()
    with pytest.raises(StoreUnavailable) as caught:
        store.put("a", body, crc32)
    assert 0.7 < time.monotonic() - began_s < 3  # the direct attempt, botocore's
    assert caught.value.__cause__ is not None
    gone.set()
    store.close()
    server.close()


def test_the_body_can_be_used_again_at_once(store: S3Store, server: RawServer) -> None:
    body = bytearray(MIB)
    store.put("a", body, checksums.crc32(body))
    body.append(0)
    server.answer = lambda request: None
    with pytest.raises(StoreUnavailable) as caught:
        store.put("b", body, checksums.crc32(body))
    del body[:]  # while the error, and so its traceback, is held
    assert caught.value.__cause__ is not None
    assert ways(server) == "ddb"


def test_the_late_answer_of_an_interrupted_put_is_not_that_of_the_next(
    store: S3Store,
    server: RawServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(*_: object) -> bytes:
        raise KeyboardInterrupt

    def answer(request: Request) -> bytes:
        if not request.target.endswith("/a"):
            return s3_error(500, "InternalError")
        time.sleep(0.3)
        return response(200)

    server.answer = answer
    with monkeypatch.context() as patch:
        patch.setattr(_s3_put, "receive_until", interrupted)
        with pytest.raises(KeyboardInterrupt):
            put(store, "a", b"x")
    with pytest.raises(StoreUnavailable):
        put(store, "b", b"x")


@pytest.mark.parametrize(
    "answer", [s3_error(500, "InternalError"), response(200)[:12], b"?\r\n\r\n", late], ids=range(4)
)
def test_a_connection_on_which_a_put_failed_is_closed(store: S3Store, server: RawServer, answer: Any) -> None:
    assert store._direct._way is not None
    pool = store._direct._way[1]
    server.answer = answer if callable(answer) else lambda request: answer
    assert store._direct.put("a", bytearray(b"x"), "AAAAAA==", KEYS) is None
    assert ways(server) == "d"
    assert [kept.sock for kept in pool.pool.queue if kept is not None] == [None]


# TLS


def test_over_tls_puts_are_direct(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "server.pem"))
    server = RawServer(self_signed(tmp_path / "server.pem"))
    store = S3Store("bucket", "p", endpoint_url=server.url, attempts=1)
    body = bytearray(range(256)) * 20_000
    for n in range(3):
        store.put(f"a/{n}", body, checksums.crc32(body))
    store.close()
    server.close()
    assert (ways(server), server.connections) == ("bdd", 1)
    assert {request.body_crc32 for request in server.requests} == {checksums.crc32(body)}


def test_a_certificate_that_is_not_trusted_gets_no_put(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor when the store was the right one a moment ago."""
    trusted, other = tmp_path / "trusted.pem", tmp_path / "other.pem"
    monkeypatch.setenv("AWS_CA_BUNDLE", str(trusted))
    server = RawServer(self_signed(trusted))
    store = S3Store("bucket", "p", endpoint_url=server.url, attempts=1)
    for key in ("a", "b"):
        put(store, key, b"x")
    server._tls = self_signed(other)
    for kept in server._open:
        kept.shutdown(socket.SHUT_RDWR)
    time.sleep(0.05)
    with pytest.raises(StoreUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
        put(store, "c", b"x")
    assert ways(server) == "bd"
    store.close()
    server.close()


# Congestion control


class FakeSocket:
    """What the kernel would say of a connection, where another network or another system can't be had."""

    def __init__(self, rtt_us: int, congestion: bytes, refuses: bool = False) -> None:
        self._rtt_us, self.congestion, self._refuses = rtt_us, congestion, refuses

    def getsockopt(self, level: int, option: int, size: int) -> bytes:
        if option == socket.TCP_INFO:
            return b"\xee" * 68 + self._rtt_us.to_bytes(4, "little")
        return self.congestion + b"\0" * (size - len(self.congestion))

    def setsockopt(self, level: int, option: int, value: bytes) -> None:
        if self._refuses:
            raise FileNotFoundError
        assert option == socket.TCP_CONGESTION
        self.congestion = value


NEAR_US = round(NEAR_RTT_S * 1e6)


@pytest.mark.parametrize(
    ("sock", "expected"),
    [
        (FakeSocket(NEAR_US - 1, b"bbr"), b"cubic"),
        (FakeSocket(NEAR_US, b"bbr"), b"bbr"),
        (FakeSocket(80_000, b"bbr"), b"bbr"),
        (FakeSocket(100, b"reno"), b"reno"),
        (FakeSocket(100, b"bbr2"), b"bbr2"),
        (FakeSocket(100, b"bbr", refuses=True), b"bbr"),
    ],
)
def test_only_bbr_to_a_near_store_makes_way(sock: Any, expected: bytes) -> None:
    unpace_when_near(sock)
    assert sock.congestion == expected


@pytest.mark.parametrize(("pacing", "expected"), [("auto", b"cubic"), ("system", b"bbr")])
def test_a_real_connection_follows_the_setting(
    server: RawServer,
    pacing: str,
    expected: bytes,
) -> None:
    with socket.create_connection(("127.0.0.1", int(server.url.rsplit(":")[-1]))) as probe:
        if congestion_of(probe) != b"bbr":
            pytest.skip("the system's connections are not bbr's")
        try:
            probe.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"cubic")
        except OSError:
            pytest.skip("cubic is not available here")
    store = S3Store("bucket", "", endpoint_url=server.url, pacing=pacing)
    put(store, "a", b"x")
    assert store._direct._way is not None
    kept = store._direct._way[1].pool.queue[-1]
    assert congestion_of(kept.sock) == expected
    store.close()


def congestion_of(sock: socket.socket) -> bytes:
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0")


def test_a_pacing_that_does_not_exist_is_the_callers_fault(server: RawServer) -> None:
    with pytest.raises(CallerError, match="auto, system"):
        S3Store("bucket", "", endpoint_url=server.url, pacing="fast")


def test_nothing_is_learnt_before_a_put() -> None:
    direct = DirectPuts(LastSent(), 1.0)
    direct.learn("a", KEYS)
    assert direct.put("a", bytearray(), "AAAAAA==", KEYS) is None
