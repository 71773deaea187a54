"""`LocalStore` beyond the contract: durability step by step, real crashes, real full disks, absent disks."""

from __future__ import annotations

import errno
import itertools
import os
import resource
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from storage.contracts.store import put
from storage.errors import CallerError, StoreDenied, StoreFull, StoreUnavailable
from storage.local import LEFTOVER_AGE_S, TEMP_NAME, LocalStore


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "objects"


@pytest.fixture
def store(root: Path) -> LocalStore:
    return LocalStore(root, create=True)


def test_a_removed_root_is_not_made_again(store: LocalStore, root: Path) -> None:
    root.rename(root.with_name("away"))
    for call in (
        lambda: put(store, "a/b", b"x"),
        lambda: store.delete_many(["a/b"]),
        store.server_time_s,
    ):
        with pytest.raises(StoreUnavailable) as caught:
            call()
        assert caught.value.code == "store_gone"
    assert not root.exists()


def assert_away(store: LocalStore) -> None:
    """Every operation says that there is no store; none makes one or takes it for an empty one."""
    for operation in (
        store.server_time_s,
        lambda: put(store, "a/b", b"x"),
        lambda: store.get_range("a/b", 0, 1),
        lambda: store.head("a/b"),
        lambda: list(store.list("")),
        lambda: store.delete_many(["a/b"]),
    ):
        with pytest.raises(StoreUnavailable):
            operation()


def test_a_store_that_is_away_at_the_start_heals_by_itself(root: Path) -> None:
    store = LocalStore(root)
    assert_away(store)
    root.mkdir()
    assert_away(store)
    LocalStore(root, create=True)  # the disk is mounted
    put(store, "a/b", b"x")
    assert LocalStore(root, create=True).get_range("a/b", 0, 1) == b"x"


def test_a_root_that_is_a_file_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert_away(LocalStore(tmp_path / "file"))


def test_what_is_not_a_key_is_neither_listed_nor_touched(store: LocalStore, root: Path) -> None:
    (root / "lost+found").mkdir(mode=0)
    (root / "a file").write_bytes(b"")
    put(store, "a/b", b"x")
    assert [info.key for info in store.list("")] == ["a/b"]


def test_deletes_leave_no_empty_folders(store: LocalStore, root: Path) -> None:
    put(store, "v1/30/2024-02-29/w0/1", b"x")
    put(store, "v1/30/2024-03-01/w0/1", b"x")
    store.delete_many(["v1/30/2024-02-29/w0/1"])
    assert sorted(path.name for path in (root / "v1/30").iterdir()) == ["2024-03-01"]


@pytest.mark.parametrize("key", ["a/b/c", "a"])
def test_a_key_across_a_file_or_folder_is_the_callers_fault(store: LocalStore, key: str) -> None:
    put(store, "a/b", b"x")
    with pytest.raises(CallerError):
        put(store, key, b"x")
    assert [info.key for info in store.list("")] == ["a/b"]


@pytest.mark.parametrize(("chars", "possible"), [(255, True), (256, False)])
def test_a_part_longer_than_a_file_name_is_the_callers_fault(
    store: LocalStore, chars: int, possible: bool
) -> None:
    if possible:
        return put(store, "n" * chars, b"x")
    with pytest.raises(CallerError):
        put(store, "n" * chars, b"x")


def test_every_folder_up_to_the_root_is_synced_before_put_returns(
    store: LocalStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also those that exist already: a neighbour may have made them and not got to its own fsync."""
    put(store, "a/b/c/1", b"x")
    events: list[str] = []
    fsync, rename = os.fsync, os.rename

    def record_fsync(descriptor: int) -> None:
        events.append(os.readlink(f"/proc/self/fd/{descriptor}").removeprefix(str(root)))
        fsync(descriptor)

    def record_rename(source: str, target: str) -> None:
        events.append("rename")
        rename(source, target)

    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(os, "rename", record_rename)
    put(store, "a/b/c/2", b"x")
    assert events[0].startswith(f"/{TEMP_NAME}/")
    assert events[1:] == ["rename", "/a/b/c", "/a/b", "/a", ""]


def test_each_folder_is_synced_once_for_a_delete_and_before_it_counts(
    store: LocalStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(6):
        put(store, f"d{n % 2}/{n}", b"x")
    synced: list[str] = []

    def failing_fsync(descriptor: int) -> None:
        name = os.readlink(f"/proc/self/fd/{descriptor}").removeprefix(str(root))
        synced.append(name)
        if name == "/d1":
            raise OSError(errno.EIO, "injected")

    monkeypatch.setattr(os, "fsync", failing_fsync)
    results = store.delete_many([f"d{n % 2}/{n}" for n in range(6)])
    assert results == {f"d{n % 2}/{n}": "EIO" if n % 2 else None for n in range(6)}
    assert sorted(name for name in synced if name) == ["/d0", "/d1"]


def test_one_poisoned_object_does_not_stop_the_rest(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(3):
        put(store, f"d/{n}", b"x")
    unlink = os.unlink

    def refuse(path: str) -> None:
        if path.endswith("d/1"):
            raise PermissionError(errno.EACCES, "injected")
        unlink(path)

    monkeypatch.setattr(os, "unlink", refuse)
    assert store.delete_many(["d/0", "d/1", "d/2"]) == {"d/0": None, "d/1": "EACCES", "d/2": None}
    assert [info.key for info in store.list("")] == ["d/1"]


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.ENOSPC, StoreFull),
        (errno.EDQUOT, StoreFull),
        (errno.EIO, StoreUnavailable),
        (errno.EACCES, StoreDenied),
        (errno.EROFS, StoreDenied),
    ],
)
@pytest.mark.parametrize("call", ["write", "fsync", "mkdir", "rename", "open"])
def test_a_failed_put_leaves_nothing_behind(
    store: LocalStore,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    call: str,
    number: int,
    expected: type[Exception],
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(expected) as caught:
            put(store, "a/b", b"body")
    assert type(caught.value) is expected
    assert [path for path in root.rglob("*") if path.is_file()] == []
    put(store, "a/b", b"body")


def test_a_put_not_known_to_be_durable_is_not_called_full(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync, calls = os.fsync, itertools.count()

    def fail_after_the_file(descriptor: int) -> None:
        if next(calls):
            raise OSError(errno.ENOSPC, "injected")
        fsync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail_after_the_file)
        with pytest.raises(StoreUnavailable) as caught:
            put(store, "a/b", b"body")
    assert not isinstance(caught.value, StoreFull)  # it promises that nothing is left behind
    assert store.get_range("a/b", 0, 4) == b"body"


def test_short_writes_are_continued(store: LocalStore, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:1000]))
        put(store, "a", bytes(range(256)) * 50)
    assert (root / "a").read_bytes() == bytes(range(256)) * 50


def test_leftovers_of_the_dead_are_removed_at_open_and_young_ones_kept(store: LocalStore, root: Path) -> None:
    temp = root / TEMP_NAME
    for name, age_s in (("old", LEFTOVER_AGE_S + 60), ("young", LEFTOVER_AGE_S - 60)):
        (temp / name).write_bytes(b"x")
        modified_s = (temp / name).stat().st_mtime - age_s
        os.utime(temp / name, (modified_s, modified_s))
    LocalStore(root)
    assert [path.name for path in temp.iterdir()] == ["young"]


@pytest.mark.parametrize("stage", ["write", "fsync", "rename"])
def test_a_process_killed_in_a_put_leaves_no_object(store: LocalStore, root: Path, stage: str) -> None:
    child = subprocess.Popen([sys.executable, "-c", _HANG_IN_PUT, str(root), stage], stdout=subprocess.PIPE)
    with child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"there\n"
        child.send_signal(signal.SIGKILL)
    assert list(store.list("")) == []
    leftovers = list((root / TEMP_NAME).iterdir())
    assert len(leftovers) == 1
    os.utime(leftovers[0], (0, 0))
    assert list(LocalStore(root).list("")) == []
    assert list((root / TEMP_NAME).iterdir()) == []


def test_a_file_size_limit_reads_as_full(root: Path) -> None:
    LocalStore(root, create=True)
    code = (
        "import sys; from pathlib import Path; from storage.local import LocalStore\n"
        "from storage.checksums import crc32; body = bytearray(1 << 20)\n"
        "LocalStore(Path(sys.argv[1])).put('a/b', body, crc32(body))"
    )
    limit = 1 << 16
    done = subprocess.run(
        [sys.executable, "-c", code, str(root)],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert "storage.errors.StoreFull: a/b: no space left" in done.stderr
    assert [path for path in root.rglob("*") if path.is_file()] == []


def test_a_real_disk_that_is_full(tmp_path: Path) -> None:
    root = tmp_path / "tiny"
    root.mkdir()
    options = ["mount", "-t", "tmpfs", "-o", "size=1m,nr_inodes=100", "tmpfs", str(root)]
    try:
        mounted = subprocess.run(options, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("mounting a small disk is not permitted here")
    try:
        store = LocalStore(root, create=True)
        put(store, "a/1", b"x" * 600_000)
        with pytest.raises(StoreFull):
            put(store, "a/2", b"x" * 600_000)
        assert [path.name for path in root.rglob("*") if path.is_file()] == ["1"]
        store.delete_many(["a/1"])
        put(store, "a/2", b"x" * 600_000)
    finally:
        subprocess.run(["umount", str(root)], check=True)
    with pytest.raises(StoreUnavailable):
        put(store, "a/3", b"x")
    assert list(root.iterdir()) == []


def test_several_stores_share_one_root(tmp_path: Path) -> None:
    """As several processes do, each with its own; here a store per thread."""
    LocalStore(tmp_path / "o", create=True)
    failures: list[BaseException] = []

    def work(worker: int) -> None:
        try:
            store = LocalStore(tmp_path / "o")
            for n in range(15):
                put(store, f"x/y/{worker}-{n}", b"%d" % n)
                store.delete_many([f"x/y/{worker}-{n}"])
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


_HANG_IN_PUT = """
import os, sys, time
from pathlib import Path
from storage.checksums import crc32
from storage.local import LocalStore

stage, real_write = sys.argv[2], os.write

def hang(*args):
    if stage == "write":
        real_write(args[0], args[1][: len(args[1]) // 2])
    print("there", flush=True)
    time.sleep(600)

store = LocalStore(Path(sys.argv[1]))
setattr(os, stage, hang)
body = bytearray(os.urandom(1 << 20))
store.put("a/b", body, crc32(body))
"""
