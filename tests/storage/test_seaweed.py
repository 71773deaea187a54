"""The S3 store on a real server, SeaweedFS: the contract, and what the server does that a stand-in would not show."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from storage.s3 import S3Store
from tests.servers.seaweed import SeaweedServer
from tests.storage.store_contract import Around, Outage, StoreContract

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
