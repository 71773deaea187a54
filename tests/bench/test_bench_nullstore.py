"""The null store answers boto3 as S3 does, and counts."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from bench.nullstore import encode
from bench.s3calls import MAX_KEPT_BYTES, Answer, Request, S3Calls, parse_head
from bench.stage import NullStoreClient, null_store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NullStoreClient]:
    with null_store(tmp_path_factory.mktemp("store"), (), 0.0) as running:
        yield running


def client_of(store: NullStoreClient) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{store.port}",
        aws_access_key_id="bench",
        aws_secret_access_key="bench",
        region_name="us-east-1",
        config=Config(retries={"total_max_attempts": 1}),
    )


@pytest.fixture
def s3(store: NullStoreClient) -> Iterator[Any]:
    client = client_of(store)
    control(store, "POST", "/_reset")
    yield client
    client.close()


def control(store: NullStoreClient, method: str, path: str) -> dict[str, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", store.port, timeout=5)
    try:
        connection.request(method, path)
        document: dict[str, Any] = json.loads(connection.getresponse().read())
    finally:
        connection.close()
    return document


@pytest.mark.parametrize("size", [0, 1, 65_536, 3_000_001])
def test_put_is_taken_and_counted(s3: Any, store: NullStoreClient, size: int) -> None:
    for index in range(3):
        s3.put_object(Bucket="bench", Key=f"x/{index}", Body=bytearray(size))
    stats = store.stats()
    assert stats["calls"] == {"PUT": 3}
    assert stats["calls_total"] == 3
    assert stats["body_bytes"] == 3 * size


def test_the_other_calls_that_clipkeep_makes(s3: Any, store: NullStoreClient) -> None:
    headers = s3.head_bucket(Bucket="bench")["ResponseMetadata"]["HTTPHeaders"]
    assert "date" in headers
    assert s3.list_objects_v2(Bucket="bench", Prefix="x/")["KeyCount"] == 0
    keys = ["x/a", "x/b&c", "x/<d>"]
    deleted = s3.delete_objects(Bucket="bench", Delete={"Objects": [{"Key": key} for key in keys]})
    assert [entry["Key"] for entry in deleted["Deleted"]] == keys
    quiet = s3.delete_objects(Bucket="bench", Delete={"Objects": [{"Key": "x"}], "Quiet": True})
    assert "Deleted" not in quiet
    assert "Errors" not in quiet
    with pytest.raises(ClientError, match="NoSuchKey"):
        s3.get_object(Bucket="bench", Key="x/a", Range="bytes=0-9")
    with pytest.raises(ClientError, match="404"):
        s3.head_object(Bucket="bench", Key="x/a")
    s3.delete_object(Bucket="bench", Key="x/a")
    assert store.stats()["calls"] == {"HEAD": 2, "GET": 2, "POST": 2, "DELETE": 1}


def test_a_thousand_long_keys_are_deleted_in_one_call(s3: Any) -> None:
    keys = [f"{index:04d}" + "k" * 500 for index in range(1000)]
    deleted = s3.delete_objects(Bucket="bench", Delete={"Objects": [{"Key": key} for key in keys]})
    assert len(deleted["Deleted"]) == 1000


def test_reset_counts_from_zero(s3: Any, store: NullStoreClient) -> None:
    s3.put_object(Bucket="bench", Key="x", Body=b"abc")
    assert control(store, "POST", "/_reset")["calls_total"] == 0
    assert store.stats()["body_bytes"] == 0


def test_latency_delays_every_call_but_the_bench_s_own(tmp_path: Path) -> None:
    with null_store(tmp_path, (), 150.0) as slow:
        client = client_of(slow)
        began_s = time.monotonic()
        client.put_object(Bucket="bench", Key="x", Body=b"abc")
        put_s = time.monotonic() - began_s
        began_s = time.monotonic()
        slow.stats()
        stats_s = time.monotonic() - began_s
        client.close()
    assert put_s >= 0.15
    assert stats_s < 0.15


@pytest.mark.parametrize(
    "sent",
    [b"nonsense\r\n\r\n", b"PUT /b/k HTTP/1.1\r\nContent-Length: -1\r\n\r\n", b"x" * 100_000],
    ids=["no request", "negative length", "endless head"],
)
def test_what_is_not_http_is_hung_up_on(store: NullStoreClient, sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", store.port), timeout=5) as sock:
        try:
            sock.sendall(sent)
            received = sock.recv(100)
        except ConnectionError:
            received = b""
    assert received == b""
    assert store.stats()["calls_total"] >= 0  # it lives


def test_chunked_is_refused_as_s3_does(store: NullStoreClient) -> None:
    with socket.create_connection(("127.0.0.1", store.port), timeout=5) as sock:
        sock.sendall(b"PUT /b/k HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")
        assert sock.recv(1000).startswith(b"HTTP/1.1 411 ")


def test_expect_is_answered_before_the_body(store: NullStoreClient) -> None:
    with socket.create_connection(("127.0.0.1", store.port), timeout=5) as sock:
        sock.sendall(b"PUT /b/k HTTP/1.1\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n")
        assert sock.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(b"abc")
        assert sock.recv(1000).startswith(b"HTTP/1.1 200 OK\r\n")


def test_parse_head() -> None:
    head = b"PUT /b/k?x=1 HTTP/1.1\r\nHost: h\r\ncontent-LENGTH:  12 \r\nExpect: 100-Continue"
    assert parse_head(head) == Request("PUT", "/b/k?x=1", 12, wants_continue=True)
    with pytest.raises(ValueError, match="not enough values"):
        parse_head(b"PUT")


def test_an_answer_to_head_has_no_body() -> None:
    assert encode(Answer(404, b"<Error/>"), is_head=True).endswith(b"Content-Length: 8\r\n\r\n")


def test_a_multipart_upload_as_tus_servers_make_it(s3: Any) -> None:
    s3.put_object(Bucket="bench", Key="a.info", Body=b'{"size": 3}', Metadata={"upload-id": "7"})
    kept = s3.get_object(Bucket="bench", Key="a.info")
    assert (kept["Body"].read(), kept["Metadata"]) == (b'{"size": 3}', {"upload-id": "7"})
    upload = {
        "Bucket": "bench",
        "Key": "a",
        "UploadId": s3.create_multipart_upload(Bucket="bench", Key="a")["UploadId"],
    }
    assert "Parts" not in s3.list_parts(**upload)
    tag = s3.upload_part(**upload, PartNumber=1, Body=b"abc")["ETag"]
    (part,) = s3.list_parts(**upload)["Parts"]
    assert (part["PartNumber"], part["Size"], part["ETag"]) == (1, 3, tag)
    done = s3.complete_multipart_upload(
        **upload, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    )
    assert done["Key"] == "a"
    with pytest.raises(ClientError, match="NoSuchUpload"):
        s3.list_parts(**upload)
    s3.delete_object(Bucket="bench", Key="a.info")
    with pytest.raises(ClientError, match="NoSuchKey"):
        s3.get_object(Bucket="bench", Key="a.info")


def test_a_chunked_part_that_says_its_length_is_taken(store: NullStoreClient) -> None:
    with socket.create_connection(("127.0.0.1", store.port), timeout=5) as sock:
        sock.sendall(
            b"PUT /b/k HTTP/1.1\r\nTransfer-Encoding: chunked\r\nX-Amz-Decoded-Content-Length: 3\r\n\r\n"
        )
        for piece in (b"3\r\na", b"bc\r\n0\r", b"\n\r\n"):
            sock.sendall(piece)
            time.sleep(0.01)
        assert sock.recv(1000).startswith(b"HTTP/1.1 200 ")


def test_what_is_kept_is_bounded() -> None:
    calls = S3Calls(max_kept=2)
    for number in range(3):
        calls.answer(Request("PUT", f"/b/{number}.info", 1), b"x")
    statuses = [calls.answer(Request("GET", f"/b/{number}.info", 0), b"").status for number in range(3)]
    assert statuses == [404, 200, 200]
    calls.answer(Request("PUT", "/b/large.info", 1), b"x" * (MAX_KEPT_BYTES + 1))
    assert calls.answer(Request("GET", "/b/large.info", 0), b"").status == 404


def test_the_next_object_can_be_looked_into(s3: Any, store: NullStoreClient) -> None:
    control(store, "POST", "/_sample")
    assert control(store, "GET", "/_sample") is None
    s3.put_object(Bucket="bench", Key="x", Body=b"abc", ChecksumCRC32="NSRBwg==")
    s3.put_object(Bucket="bench", Key="y", Body=b"def")
    sample = control(store, "GET", "/_sample")
    assert sample == {"target": "/bench/x", "checksum": True, "body": "YWJj"}
