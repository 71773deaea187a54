"""The conformance suite of `storage.objects.ObjectStore`.

To put a new store to it, subclass it in a test module and say how to make one, how to look around it, and
how to take it away:

    class TestMyStore(StoreContract):
        @pytest.fixture
        def store(self): ...        # an empty store

        @pytest.fixture
        def around(self, store): ...  # `Around`: the same objects, not through the store

        @pytest.fixture
        def outage(self, store): ...  # a context manager factory: inside it the store can't be reached

Around is what makes the suite honest: a store that answers from a cache of its own, or forgets what it was
told on the way to the disk, is found out by reading past it. A store that can't verify a CRC-32 by itself
says `verifies_crc32 = False`, one that lists folder by folder `lists_by_folder = True`; nothing else may be left
out.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass

import pytest

from storage import checksums
from storage.errors import CallerError, CorruptError, ObjectMissing, StoreUnavailable
from storage.objects import DELETE_BATCH_KEYS, MAX_KEY_CHARS, ObjectStore


@dataclass(frozen=True)
class Around:
    """The objects of a store, seen and made past it."""

    read: Callable[[str], bytes | None]
    write: Callable[[str, bytes], None]


Outage = Callable[[], AbstractContextManager[None]]


def put(store: ObjectStore, key: str, body: bytes) -> None:
    store.put(key, bytearray(body), checksums.crc32(body))


def key_of(chars: int) -> str:
    """A key of exactly so many characters, in parts that any file system can hold."""
    parts = ["a" * 100] * (chars // 101 + 1)
    return "/".join(parts)[:chars].removesuffix("/").ljust(chars, "z")


BAD_KEYS = [
    "",
    "/",
    "/a",
    "a/",
    "a//b",
    ".",
    "..",
    "../a",
    "a/../b",
    "a/./b",
    "a/..",
    "a b",
    "a\nb",
    "a\n",
    "a\0b",
    "a\\b",
    "ä",
    "a?b",
    "%2e%2e/a",
    key_of(MAX_KEY_CHARS + 1),
]


class StoreContract:
    verifies_crc32 = True
    lists_by_folder = False

    def in_order(self, keys: Iterable[str]) -> list[str]:
        """As this store lists them."""
        return sorted(keys, key=lambda key: key.split("/")) if self.lists_by_folder else sorted(keys)

    @pytest.fixture
    def store(self) -> ObjectStore:
        raise NotImplementedError

    @pytest.fixture
    def around(self, store: ObjectStore) -> Around:
        raise NotImplementedError

    @pytest.fixture
    def outage(self, store: ObjectStore) -> Outage:
        raise NotImplementedError

    # put

    def test_put_stores_the_bytes_under_the_key(self, store: ObjectStore, around: Around) -> None:
        body = bytes(range(256)) * 1000
        put(store, "v1/30/2024-02-29/w0/0001", body)
        assert around.read("v1/30/2024-02-29/w0/0001") == body

    def test_put_of_no_bytes_makes_an_empty_object(self, store: ObjectStore, around: Around) -> None:
        put(store, "a/empty", b"")
        assert around.read("a/empty") == b""
        assert store.head("a/empty").size_bytes == 0
        assert store.get_range("a/empty", 0, 0) == b""

    def test_put_neither_changes_nor_keeps_the_body(self, store: ObjectStore, around: Around) -> None:
        body = bytearray(b"x" * 100_000)
        store.put("a", body, checksums.crc32(body))
        assert body == b"x" * 100_000
        body[:] = b"y" * 100_000
        body.extend(b"and longer")  # a BufferError here: a view of it is still held
        assert around.read("a") == b"x" * 100_000

    def test_put_again_of_the_same_bytes_is_harmless(self, store: ObjectStore, around: Around) -> None:
        put(store, "a/b", b"same")
        put(store, "a/b", b"same")
        assert around.read("a/b") == b"same"
        assert [info.key for info in store.list("")] == ["a/b"]

    def test_put_refuses_bytes_of_another_crc(self, store: ObjectStore, around: Around) -> None:
        if not self.verifies_crc32:
            pytest.skip("this server ignores the checksum it is sent")
        with pytest.raises(CorruptError) as caught:
            store.put("a/b", bytearray(b"body"), checksums.crc32(b"bodx"))
        assert caught.value.code == "bad_digest"
        assert caught.value.subject == "a/b"
        assert around.read("a/b") is None
        assert list(store.list("")) == []

    def test_readers_see_all_or_nothing(self, store: ObjectStore) -> None:
        body = b"0123456789abcdef" * 65536
        done = threading.Event()

        def read() -> int:
            seen = 0
            while not done.is_set():
                for key in (f"w/{n}" for n in range(8)):
                    with suppress(ObjectMissing):
                        assert store.head(key).size_bytes == len(body)
                        assert store.get_range(key, 0, len(body)) == body
                        seen += 1
            return seen

        with ThreadPoolExecutor(2) as pool:
            readers = [pool.submit(read) for _ in range(2)]
            try:
                for n in range(8):
                    put(store, f"w/{n}", body)
                store.delete_many([f"w/{n}" for n in range(8)])
            finally:
                done.set()
            for reader in readers:
                reader.result()

    def test_concurrent_puts_and_deletes_of_neighbours_all_succeed(
        self, store: ObjectStore, around: Around
    ) -> None:
        """Deletes that empty a folder must not take it away from under a put."""

        def work(worker: int) -> None:
            for n in range(20):
                put(store, f"day/w/{worker}-{n}", b"%d %d" % (worker, n))
                if n < 19:
                    assert store.delete_many([f"day/w/{worker}-{n}"]) == {f"day/w/{worker}-{n}": None}

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(work, range(8)))
        assert [info.key for info in store.list("day/")] == [f"day/w/{worker}-19" for worker in range(8)]
        assert all(around.read(f"day/w/{worker}-19") == b"%d 19" % worker for worker in range(8))

    def test_concurrent_puts_of_one_key_and_body_all_succeed(
        self, store: ObjectStore, around: Around
    ) -> None:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda _: put(store, "same/key", b"same" * 1000), range(16)))
        assert around.read("same/key") == b"same" * 1000

    # get_range

    @pytest.mark.parametrize(
        ("start", "length"), [(0, 0), (0, 1), (0, 9), (0, 10), (4, 3), (9, 1), (9, 0), (10, 0)]
    )
    def test_get_range_gives_exactly_the_range(
        self, store: ObjectStore, around: Around, start: int, length: int
    ) -> None:
        around.write("a/b", b"0123456789")
        data = store.get_range("a/b", start, length)
        assert data == b"0123456789"[start : start + length]
        assert isinstance(data, bytes)

    @pytest.mark.parametrize(("start", "length"), [(0, 11), (9, 2), (10, 1), (11, 0), (11, 1), (1 << 40, 1)])
    def test_get_range_past_the_end_is_corrupt(
        self, store: ObjectStore, around: Around, start: int, length: int
    ) -> None:
        around.write("a/b", b"0123456789")
        with pytest.raises(CorruptError) as caught:
            store.get_range("a/b", start, length)
        assert caught.value.subject == "a/b"

    @pytest.mark.parametrize(("start", "length"), [(-1, 1), (0, -1), (-1, 0)])
    def test_get_range_refuses_what_is_no_range(self, store: ObjectStore, start: int, length: int) -> None:
        with pytest.raises(CallerError):
            store.get_range("a/b", start, length)

    def test_get_range_of_many_mebibytes(self, store: ObjectStore, around: Around) -> None:
        body = bytes(range(251)) * 40_000
        around.write("big", body)
        assert store.get_range("big", 1, len(body) - 1) == body[1:]

    # head, and what is missing

    def test_head_tells_size_and_time(self, store: ObjectStore) -> None:
        put(store, "a/b", b"12345")
        info = store.head("a/b")
        assert (info.key, info.size_bytes) == ("a/b", 5)
        now_s = store.server_time_s()
        assert now_s is None or abs(info.modified_s - now_s) < 60

    @pytest.mark.parametrize("key", ["none", "a", "a/b/c", "a/c", key_of(MAX_KEY_CHARS), "n" * 300])
    def test_a_missing_object_is_missing_to_all(self, store: ObjectStore, around: Around, key: str) -> None:
        """Also where the key is a folder of another object's, or has one that is an object."""
        around.write("a/b", b"body")
        with pytest.raises(ObjectMissing) as caught:
            store.head(key)
        assert caught.value.subject == key
        with pytest.raises(ObjectMissing):
            store.get_range(key, 0, 1)
        with pytest.raises(ObjectMissing):
            store.get_range(key, 0, 0)
        assert store.delete_many([key]) == {key: None}
        assert around.read("a/b") == b"body"

    # delete_many

    def test_delete_removes_what_it_is_told_and_nothing_else(
        self, store: ObjectStore, around: Around
    ) -> None:
        for key in ("a/1", "a/2", "a/3", "b/1", "a-1"):
            around.write(key, b"body")
        assert store.delete_many(["a/1", "missing/x", "a/3"]) == {"a/1": None, "missing/x": None, "a/3": None}
        assert around.read("a/1") is None
        assert around.read("a/3") is None
        assert [info.key for info in store.list("")] == self.in_order(["a-1", "a/2", "b/1"])

    def test_delete_again_counts_as_deleted(self, store: ObjectStore) -> None:
        put(store, "a/1", b"body")
        assert store.delete_many(["a/1"]) == {"a/1": None}
        assert store.delete_many(["a/1"]) == {"a/1": None}

    def test_delete_of_a_key_named_twice_answers_once(self, store: ObjectStore) -> None:
        put(store, "a/1", b"body")
        assert store.delete_many(["a/1", "a/1"]) == {"a/1": None}

    def test_a_key_can_be_put_again_where_everything_was_deleted(
        self, store: ObjectStore, around: Around
    ) -> None:
        put(store, "x/y/z", b"1")
        store.delete_many(["x/y/z"])
        put(store, "x/y/other", b"2")
        assert around.read("x/y/other") == b"2"

    def test_delete_batch_limits(self, store: ObjectStore, around: Around) -> None:
        assert store.delete_many([]) == {}
        keys = [f"d/{n // 100}/{n:04}" for n in range(DELETE_BATCH_KEYS + 1)]
        for key in keys:
            around.write(key, b"x")
        with pytest.raises(CallerError):
            store.delete_many(keys)
        assert [info.key for info in store.list("d/")] == sorted(keys)  # untouched, and more than a page
        assert store.delete_many(keys[:DELETE_BATCH_KEYS]) == dict.fromkeys(keys[:DELETE_BATCH_KEYS])
        assert [info.key for info in store.list("d/")] == keys[DELETE_BATCH_KEYS:]

    # list

    def test_list_is_in_key_order_whatever_the_folders(self, store: ObjectStore, around: Around) -> None:
        keys = ["a-b/1", "a.b/1", "a/1", "a/b-c", "a/b/c", "a/b.c", "a0", "a_/1", "A", "B/c", ".h/x", "Z-"]
        for key in keys:
            around.write(key, key.encode())
        listed = list(store.list(""))
        assert [info.key for info in listed] == self.in_order(keys)
        assert [info.size_bytes for info in listed] == [len(key) for key in self.in_order(keys)]

    @pytest.mark.parametrize("prefix", ["a", "a/", "a/b", "a/b/", "a/bc", "ab", "a/b/c", "none", "a/b/c/"])
    def test_list_takes_any_prefix(self, store: ObjectStore, around: Around, prefix: str) -> None:
        keys = ["a/b/c", "a/b/d", "a/bc", "a/x", "ab/c", "b"]
        for key in keys:
            around.write(key, b"x")
        assert [info.key for info in store.list(prefix)] == [key for key in keys if key.startswith(prefix)]

    @pytest.mark.parametrize("prefix", ["../", "/", "a/../", "./"])
    def test_list_never_leaves_the_store(self, store: ObjectStore, around: Around, prefix: str) -> None:
        around.write("a/b", b"x")
        assert list(store.list(prefix)) == []

    def test_list_of_nothing(self, store: ObjectStore) -> None:
        assert list(store.list("")) == []

    # keys

    def test_the_longest_key_works_everywhere(self, store: ObjectStore, around: Around) -> None:
        key = key_of(MAX_KEY_CHARS)
        assert len(key) == MAX_KEY_CHARS
        put(store, key, b"body")
        assert around.read(key) == b"body"
        assert store.head(key).size_bytes == 4
        assert store.get_range(key, 0, 4) == b"body"
        assert [info.key for info in store.list("")] == [key]
        assert store.delete_many([key]) == {key: None}
        assert list(store.list("")) == []

    @pytest.mark.parametrize("key", BAD_KEYS)
    def test_malformed_keys_are_refused_before_anything_is_touched(
        self, store: ObjectStore, around: Around, key: str
    ) -> None:
        around.write("a/b", b"body")
        calls: list[Callable[[], object]] = [
            lambda: put(store, key, b"x"),
            lambda: store.get_range(key, 0, 1),
            lambda: store.get_range(key, 0, 0),
            lambda: store.head(key),
            lambda: store.delete_many(["a/b", key]),
        ]
        for call in calls:
            with pytest.raises(CallerError) as caught:
                call()
            assert caught.value.code == "bad_key"
        assert [info.key for info in store.list("")] == ["a/b"]

    # the store itself

    def test_server_time_is_none_or_close(self, store: ObjectStore) -> None:
        now_s = store.server_time_s()
        assert now_s is None or now_s > 1_600_000_000

    def test_an_unreachable_store_says_so_and_comes_back(
        self, store: ObjectStore, around: Around, outage: Outage
    ) -> None:
        """Above all it never says "missing" or "deleted": a sweep would believe it (invariants 3 and 6)."""
        put(store, "a/b", b"body")
        calls: list[Callable[[], object]] = [
            store.server_time_s,
            lambda: put(store, "a/c", b"new"),
            lambda: store.head("a/b"),
            lambda: store.get_range("a/b", 0, 4),
            lambda: store.get_range("a/none", 0, 4),
            lambda: list(store.list("")),
            lambda: store.delete_many(["a/b"]),
        ]
        with outage():
            for call in calls:
                with pytest.raises(StoreUnavailable):
                    call()
        store.server_time_s()
        assert store.get_range("a/b", 0, 4) == b"body"
        assert around.read("a/c") is None
        put(store, "a/c", b"new")
        assert [info.key for info in store.list("")] == ["a/b", "a/c"]
