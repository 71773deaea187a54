"""The S3 store on a real server, SeaweedFS: the contract, and what the server does that a stand-in would not show."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from typing import Any

import pytest

from storage.contracts.store import Around, Outage, StoreContract, put
from storage.lifecycle import difference, wanted_rules
from storage.s3 import S3Store
from storage.trial import ignores_checksums, try_store
from tests.servers.seaweed import SeaweedServer
from tests.storage.raw_server import RawServer, Request, response, s3_error

BUCKET = "recordings"
PREFIX = "deep/prefix"


@pytest.fixture(scope="module")
def client(seaweed: SeaweedServer) -> Iterator[Any]:
    """Boto3's own, to look past the store."""
    client = seaweed.client()
    yield client
    client.close()


@pytest.fixture(scope="module")
def s3(seaweed: SeaweedServer) -> Iterator[S3Store]:
    """One for all tests: making a client takes longer than most of them."""
    seaweed.make_bucket(BUCKET)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in seaweed.environ.items():
            patch.setenv(name, value)
        store = S3Store(BUCKET, PREFIX, endpoint_url=seaweed.url, attempts=1)
        yield store
        store.close()
    seaweed.remove_bucket(BUCKET)


@pytest.fixture
def store(s3: S3Store, seaweed: SeaweedServer, client: Any) -> Iterator[S3Store]:
    yield s3
    while left := seaweed.object_keys(BUCKET)[:1000]:
        client.delete_objects(Bucket=BUCKET, Delete={"Objects": [{"Key": key} for key in left]})


class TestSeaweedStore(StoreContract):
    lists_by_folder = True

    @pytest.fixture
    def store(self, store: S3Store) -> S3Store:
        """The module's, which the contract's own would hide."""
        return store

    @pytest.fixture
    def around(self, store: S3Store, client: Any) -> Around:
        def read(key: str) -> bytes | None:
            try:
                body: bytes = client.get_object(Bucket=BUCKET, Key=f"{PREFIX}/{key}")["Body"].read()
            except client.exceptions.NoSuchKey:
                return None
            return body

        def write(key: str, body: bytes) -> None:
            client.put_object(Bucket=BUCKET, Key=f"{PREFIX}/{key}", Body=body)

        return Around(read, write)

    @pytest.fixture
    def outage(self, seaweed: SeaweedServer) -> Outage:
        @contextmanager
        def killed() -> Iterator[None]:
            seaweed.kill()
            try:
                yield
            finally:
                seaweed.start()

        return killed


def test_it_is_tried_and_found_good(store: S3Store) -> None:
    """What `init --check-store` asks of a store, the refusal of a wrong checksum included."""
    assert try_store(store) == []
    assert not ignores_checksums(store)


@pytest.mark.parametrize("checksums", ["md5", "none"])
def test_puts_with_other_checksums(
    seaweed: SeaweedServer, store: S3Store, client: Any, monkeypatch: pytest.MonkeyPatch, checksums: str
) -> None:
    for name, value in seaweed.environ.items():
        monkeypatch.setenv(name, value)
    other = S3Store(BUCKET, PREFIX, endpoint_url=seaweed.url, attempts=1, checksums=checksums)
    for key in ("first", "direct"):
        put(other, key, b"x" * 100_000)
        assert client.head_object(Bucket=BUCKET, Key=f"{PREFIX}/{key}")["ContentLength"] == 100_000
    assert other.verifies("tried") == (checksums == "md5")
    other.close()


def test_its_expiry_rules_are_kept_as_they_were_put(store: S3Store) -> None:
    """What `store setup --apply` writes and reads again, so that a second run changes nothing."""
    rules = wanted_rules(store.key_prefix, [7, 30], slack_days=3)
    assert store.lifecycle_rules() == []
    store.put_lifecycle_rules(rules)
    assert difference(store.lifecycle_rules(), rules, store.key_prefix).empty
    store.put_lifecycle_rules([])
    assert store.lifecycle_rules() == []
    assert not store.keeps_old_versions()


@pytest.fixture
def without_checksums(seaweed: SeaweedServer) -> Iterator[RawServer]:
    """The server behind one that refuses `x-amz-checksum-*`, as Backblaze B2 does."""

    def relayed(request: Request) -> bytes | None:
        if any(name.startswith("x-amz-checksum-") for name in request.headers):
            return s3_error(400, "InvalidArgument")
        connection = HTTPConnection("127.0.0.1", seaweed.port, timeout=10)
        try:
            connection.request(request.method, request.target, request.body, request.headers)
            answer = connection.getresponse()
            body = answer.read()
        finally:
            connection.close()
        told = {name: value for name, value in answer.getheaders() if not name.startswith("x-amz-checksum-")}
        return response(answer.status, body, **told)

    server = RawServer(kept_body_bytes=1 << 20)
    server.answer, server.confirms = relayed, False
    yield server
    server.close()


def test_behind_one_that_refuses_checksums(
    seaweed: SeaweedServer,
    store: S3Store,
    client: Any,
    without_checksums: RawServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in seaweed.environ.items():
        monkeypatch.setenv(name, value)
    behind = S3Store(BUCKET, PREFIX, endpoint_url=without_checksums.url, attempts=1)
    assert try_store(behind) == []
    for key in ("a", "b"):
        put(behind, key, b"x" * 1000)
        assert client.head_object(Bucket=BUCKET, Key=f"{PREFIX}/{key}")["ContentLength"] == 1000
    refused = [r for r in without_checksums.requests if "x-amz-checksum-crc32" in r.headers]
    assert len(refused) == 1, "one try with it, and then never again"
    behind.close()
