"""Every object store against the contract, and each by its own particulars."""

from __future__ import annotations

import itertools
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import pytest
from moto.s3.models import s3_backends
from moto.s3.responses import S3Response
from moto.server import ThreadedMotoServer

from storage.contracts.store import Around, Outage, StoreContract, put
from storage.counted import CountedStore
from storage.errors import ObjectMissing, StoreDenied, StoreUnavailable
from storage.faults import Fault, FaultKind, FaultyStore, no_faults, random_plan
from storage.local import LocalStore
from storage.memory import MemoryStore
from storage.s3 import S3Store
from tests.storage.raw_server import RawServer, Request, response

BUCKET = "recordings"
PER_HOP = ("connection", "transfer-encoding")


class TestMemoryStore(StoreContract):
    @pytest.fixture
    def store(self) -> MemoryStore:
        return MemoryStore()

    @pytest.fixture
    def around(self, store: MemoryStore) -> Around:
        return Around(store.objects.get, store.objects.__setitem__)

    @pytest.fixture
    def outage(self) -> Outage:
        pytest.skip("memory is never away")

    def test_times_are_of_the_clock_it_was_given(self) -> None:
        clock = itertools.count(1_700_000_000)
        store = MemoryStore(now_s=lambda: float(next(clock)))
        put(store, "a", b"")
        assert store.head("a").modified_s == 1_700_000_000.0
        assert store.server_time_s() == 1_700_000_001.0
        assert MemoryStore().server_time_s() is None


class TestLocalStore(StoreContract):
    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        return tmp_path / "objects"

    @pytest.fixture
    def store(self, root: Path) -> LocalStore:
        return LocalStore(root, create=True)

    @pytest.fixture
    def around(self, root: Path) -> Around:
        def read(key: str) -> bytes | None:
            return (root / key).read_bytes() if (root / key).is_file() else None

        def write(key: str, body: bytes) -> None:
            (root / key).parent.mkdir(parents=True, exist_ok=True)
            (root / key).write_bytes(body)

        return Around(read, write)

    @pytest.fixture
    def outage(self, root: Path) -> Outage:
        @contextmanager
        def unmounted() -> Iterator[None]:
            """What an unmounted disk leaves behind: the empty folder it was mounted on."""
            away = root.with_name("away")
            root.rename(away)
            root.mkdir()
            try:
                yield
                assert list(root.iterdir()) == []
            finally:
                root.rmdir()
                away.rename(root)

        return unmounted


@pytest.fixture(scope="module")
def moto_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def moto(moto_port: int) -> Iterator[list[Any]]:
    """A running server, in a list: the outage replaces it by another, over the same objects."""
    running = [_moto(moto_port)]
    yield running
    running[0].stop()


def _moto(port: int) -> Any:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
    server.start()
    return server


@pytest.fixture(scope="module")
def s3(moto: list[Any], moto_port: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Store]:
    """One for all tests: making a client takes longer than most of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_CONFIG_FILE", str(tmp_path_factory.mktemp("aws") / "none"))
        store = S3Store(BUCKET, "deep/prefix", endpoint_url=f"http://127.0.0.1:{moto_port}", attempts=1)
        yield store
        store.close()


class TestS3Store(StoreContract):
    """Over a server that ends each connection, so that all puts are botocore's; see `TestS3StoreDirectly`."""

    verifies_crc32 = False  # moto takes any; that S3's refusal is understood, test_s3.py tests

    @pytest.fixture
    def store(self, s3: S3Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Store]:
        # moto reads an object's file after another thread has overwritten and closed it, and answers 500: also to a
        # HEAD, and to the put itself, whose answer is made of that file.
        lock, answer = threading.Lock(), S3Response._key_response

        def one_at_a_time(response: S3Response, request: Any, full_url: str) -> Any:
            with lock:
                return answer(response, request, full_url)

        monkeypatch.setattr(S3Response, "_key_response", one_at_a_time)
        self.backend.create_bucket(BUCKET, "us-east-1")
        yield s3
        self.backend.reset()

    @property
    def backend(self) -> Any:
        return s3_backends["123456789012"]["aws"]

    @pytest.fixture
    def around(self, store: S3Store) -> Around:
        def read(key: str) -> bytes | None:
            found = self.backend.buckets[BUCKET].keys.get(f"deep/prefix/{key}")
            return None if found is None else found.value

        def write(key: str, body: bytes) -> None:
            self.backend.put_object(BUCKET, f"deep/prefix/{key}", body)

        return Around(read, write)

    @pytest.fixture
    def outage(self, moto: list[Any], moto_port: int) -> Outage:
        @contextmanager
        def stopped() -> Iterator[None]:
            moto[0].stop()
            try:
                yield
            finally:
                moto[0] = _moto(moto_port)

        return stopped

    def test_neighbours_outside_the_prefix_are_not_ours(self, store: S3Store) -> None:
        for key in ("other/a", "deep/prefix2/a", "deep/prefi"):
            self.backend.put_object(BUCKET, key, b"x")
        put(store, "a", b"x")
        assert [info.key for info in store.list("")] == ["a"]

    def test_no_prefix_is_a_prefix(self, store: S3Store, moto_port: int) -> None:
        bare = S3Store(BUCKET, "", endpoint_url=f"http://127.0.0.1:{moto_port}")
        put(bare, "a/b", b"x")
        put(store, "c", b"x")
        assert [info.key for info in bare.list("")] == ["a/b", "deep/prefix/c"]
        bare.close()

    def test_a_missing_bucket_is_never_a_missing_object(self, store: S3Store, moto_port: int) -> None:
        lost = S3Store("no-such-bucket", "p", endpoint_url=f"http://127.0.0.1:{moto_port}")
        calls: list[Callable[[], object]] = [
            lost.server_time_s,
            lambda: put(lost, "a", b"x"),
            lambda: lost.head("a"),
            lambda: lost.get_range("a", 0, 1),
            lambda: list(lost.list("")),
            lambda: lost.delete_many(["a"]),
        ]
        for call in calls:
            with pytest.raises(StoreDenied, match="create the bucket or correct its name"):
                call()
        lost.close()


@pytest.fixture(scope="module")
def relay(moto: list[Any], moto_port: int) -> Iterator[RawServer]:
    """Answers what moto does, whose own server ends each connection."""

    def relayed(request: Request) -> bytes | None:
        connection = HTTPConnection("127.0.0.1", moto_port, timeout=10)
        try:
            connection.request(request.method, request.target, request.body, request.headers)
            answer = connection.getresponse()
            body = answer.read()
        except (OSError, HTTPException):
            return None
        finally:
            connection.close()
        fields = {name: value for name, value in answer.getheaders() if name.lower() not in PER_HOP}
        fields.setdefault("Content-Length", str(len(body)))
        return response(answer.status, body, **fields)

    server = RawServer(kept_body_bytes=32 << 20)
    server.answer = relayed
    yield server
    server.close()


@pytest.fixture(scope="module")
def relayed_s3(relay: RawServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Store]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_CONFIG_FILE", str(tmp_path_factory.mktemp("aws") / "none"))
        store = S3Store(BUCKET, "deep/prefix", endpoint_url=relay.url, attempts=1)
        yield store
        store.close()


class TestS3StoreDirectly(TestS3Store):
    """Over connections that are kept, so that puts go out without botocore (`storage._s3_put`)."""

    @pytest.fixture
    def s3(self, relayed_s3: S3Store) -> S3Store:
        return relayed_s3

    @pytest.fixture(autouse=True)
    def warm(self, store: S3Store) -> None:
        """So that the next put is direct."""
        store._direct._paused_until_s = 0.0
        put(store, "warm", b"x")
        store.delete_many(["warm"])

    def test_its_puts_are_direct(self, store: S3Store, relay: RawServer, around: Around) -> None:
        put(store, "a", b"x" * 100_000)
        *_, sent, confirmed = relay.requests
        assert (sent.method, confirmed.method) == ("PUT", "HEAD")  # this server tells no checksum
        assert "amz-sdk-invocation-id" not in sent.headers
        assert around.read("a") == b"x" * 100_000


class TestFaultyStoreOnAGoodDay(StoreContract):
    @pytest.fixture
    def store(self) -> FaultyStore:
        return FaultyStore(MemoryStore(), sleep=_never)

    @pytest.fixture
    def around(self, store: FaultyStore) -> Around:
        assert isinstance(store.inner, MemoryStore)
        return Around(store.inner.objects.get, store.inner.objects.__setitem__)

    @pytest.fixture
    def outage(self, store: FaultyStore) -> Outage:
        @contextmanager
        def failing() -> Iterator[None]:
            store.plan = lambda op, key, nth: Fault(FaultKind.BEFORE)
            yield
            store.plan = no_faults

        return failing


class TestFaultyStoreWithLatency(TestFaultyStoreOnAGoodDay):
    @pytest.fixture
    def slept(self) -> list[float]:
        return []

    @pytest.fixture
    def store(self, slept: list[float]) -> FaultyStore:
        return FaultyStore(MemoryStore(), random_plan(7, {}, latency_s=(0.1, 2.0)), sleep=slept.append)

    def test_latency_passes_on_the_clock_that_was_given(self, store: FaultyStore, slept: list[float]) -> None:
        put(store, "a", b"x")
        store.head("a")
        assert len(slept) == 2
        assert all(0.1 <= latency_s <= 2.0 for latency_s in slept)


class TestCountedStore(StoreContract):
    @pytest.fixture
    def store(self) -> CountedStore:
        return CountedStore(FaultyStore(MemoryStore(), sleep=_never))

    @pytest.fixture
    def faulty(self, store: CountedStore) -> FaultyStore:
        assert isinstance(store.inner, FaultyStore)
        return store.inner

    @pytest.fixture
    def around(self, faulty: FaultyStore) -> Around:
        assert isinstance(faulty.inner, MemoryStore)
        return Around(faulty.inner.objects.get, faulty.inner.objects.__setitem__)

    @pytest.fixture
    def outage(self, faulty: FaultyStore) -> Outage:
        @contextmanager
        def failing() -> Iterator[None]:
            faulty.plan = lambda op, key, nth: Fault(FaultKind.BEFORE)
            yield
            faulty.plan = no_faults

        return failing

    def test_calls_and_their_outcomes_are_counted(self, store: CountedStore, outage: Outage) -> None:
        put(store, "a", b"x")
        store.get_range("a", 0, 1)
        store.head("a")
        store.server_time_s()
        assert [info.key for info in store.list("")] == ["a"]
        store.delete_many(["a", "b"])
        with pytest.raises(ObjectMissing):
            store.head("a")
        with outage():
            for _ in range(2):
                with pytest.raises(StoreUnavailable):
                    put(store, "a", b"x")
            with pytest.raises(StoreUnavailable):
                list(store.list(""))
        once = ["put", "get_range", "head", "server_time", "list", "delete_many"]
        assert store.calls() == {
            **{(call, "ok"): 1 for call in once},
            ("head", "object_missing"): 1,
            ("put", "store_unavailable"): 2,
            ("list", "store_unavailable"): 1,
        }


def _never(latency_s: float) -> None:
    raise AssertionError("nothing to wait for")
