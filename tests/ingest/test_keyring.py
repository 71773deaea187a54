"""The worker's key cache: batching, whose error it is, cancellation, bounds."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import pytest
import trio
import trio.testing
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ingest.keyring import Keyring
from storage.errors import CallerError, ClipkeepError, CorruptError, KeyDestroyed, WorldError
from storage.keys import KeyId, KeyStore


def key_id(device: int) -> KeyId:
    return KeyId(device, 0, 202601)


class Source:
    """A key store in memory, which notes its calls and can be held up."""

    def __init__(self) -> None:
        self.calls: list[list[KeyId]] = []
        self.faults: dict[KeyId, ClipkeepError] = {}
        self.fault: Exception | None = None
        self.open = threading.Event()
        self.open.set()
        self.threads: set[int] = set()

    def __call__(self, ids: Collection[KeyId]) -> Mapping[KeyId, bytes | ClipkeepError]:
        self.calls.append(list(ids))
        self.threads.add(threading.get_ident())
        assert self.open.wait(10)
        if self.fault is not None:
            raise self.fault
        return {i: self.faults.get(i, bytes([i.device % 256]) * 32) for i in ids}


@pytest.fixture
def source() -> Source:
    return Source()


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(5):
        while not condition():  # noqa: ASYNC110 - it comes true in a thread
            await trio.sleep(0.001)


def same(cipher: AESGCM, device: int) -> bool:
    nonce = bytes(12)
    return cipher.encrypt(nonce, b"x", None) == AESGCM(bytes([device % 256]) * 32).encrypt(nonce, b"x", None)


async def test_a_key_store_that_hangs_is_waited_for_once(
    source: Source, nursery: trio.Nursery, mock_clock: trio.testing.MockClock
) -> None:
    """Also by who asks while another's fetch hangs: until then his wait began anew when that one ended."""
    keyring = Keyring(source, wait_s=20)
    await nursery.start(keyring.run)
    source.open.clear()
    waited_s: dict[int, float] = {}

    async def ask(device: int) -> None:
        began_s = trio.current_time()
        with pytest.raises(WorldError, match="has not answered for 20 s") as caught:
            await keyring.load(key_id(device))
        assert caught.value.code == "key_store_unavailable"
        waited_s[device] = trio.current_time() - began_s

    async with trio.open_nursery() as cameras:
        cameras.start_soon(ask, 1)
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(15)
        for device in (2, 3):
            cameras.start_soon(ask, device)
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(5)
        await trio.testing.wait_all_tasks_blocked()
        assert waited_s == {1: 20}
        mock_clock.jump(15)
    assert waited_s == dict.fromkeys((1, 2, 3), 20)
    source.open.set()
    mock_clock.rate = 1
    assert same(await keyring.load(key_id(1)), 1), "what came late is there"
    assert source.calls == [[key_id(1)]], "nobody waits for the others any more"


async def test_a_miss_is_loaded_and_then_cached(source: Source, nursery: trio.Nursery) -> None:
    keyring = Keyring(source)
    await nursery.start(keyring.run)
    assert keyring.cached(key_id(1)) is None
    cipher = await keyring.load(key_id(1))
    assert same(cipher, 1)
    assert keyring.cached(key_id(1)) is cipher
    assert await keyring.load(key_id(1)) is cipher
    assert source.calls == [[key_id(1)]]
    assert threading.get_ident() not in source.threads, "the store blocks, so it is called in a thread"


async def test_load_is_a_checkpoint_also_on_a_hit(source: Source, nursery: trio.Nursery) -> None:
    keyring = Keyring(source)
    await nursery.start(keyring.run)
    await keyring.load(key_id(1))
    with trio.testing.assert_checkpoints():
        await keyring.load(key_id(1))


async def test_misses_together_are_one_call(source: Source, nursery: trio.Nursery) -> None:
    """While one fetch is under way, whatever is missed goes into the next one, each id once."""
    keyring = Keyring(source)
    await nursery.start(keyring.run)
    found: list[tuple[int, AESGCM]] = []

    async def want(device: int) -> None:
        found.append((device, await keyring.load(key_id(device))))

    source.open.clear()
    async with trio.open_nursery() as waiters:
        waiters.start_soon(want, 0)
        await until(lambda: len(source.calls) == 1)
        for device in (*range(100), *range(100)):
            waiters.start_soon(want, device)
        await trio.testing.wait_all_tasks_blocked()
        source.open.set()
    assert len(found) == 201
    assert all(same(cipher, device) for device, cipher in found)
    assert [len(call) for call in source.calls] == [1, 99], "id 0 was being fetched already"


async def test_a_batch_is_bounded(source: Source, nursery: trio.Nursery) -> None:
    keyring = Keyring(source, batch_keys=10)
    await nursery.start(keyring.run)
    source.open.clear()
    async with trio.open_nursery() as waiters:
        waiters.start_soon(keyring.load, key_id(0))
        await until(lambda: len(source.calls) == 1)
        for device in range(1, 26):
            waiters.start_soon(keyring.load, key_id(device))
        await trio.testing.wait_all_tasks_blocked()
        source.open.set()
    assert [len(call) for call in source.calls] == [1, 10, 10, 5]


async def test_an_error_goes_to_those_it_concerns(source: Source, nursery: trio.Nursery) -> None:
    """Invariant 9: the device erased meanwhile is refused, its neighbours in the batch are not."""
    keyring = Keyring(source)
    await nursery.start(keyring.run)
    source.faults = {
        key_id(2): KeyDestroyed("gone", subject="device 2"),
        key_id(3): CorruptError("flipped", subject="device 3", code="key_store_corrupt"),
    }
    caught: list[ClipkeepError] = []
    found: list[int] = []

    async def want(device: int) -> None:
        try:
            await keyring.load(key_id(device))
            found.append(device)
        except ClipkeepError as error:
            caught.append(error)

    async with trio.open_nursery() as waiters:
        for device in (1, 2, 2, 3, 4):
            waiters.start_soon(want, device)
    assert sorted(found) == [1, 4]
    assert sorted((type(e).__name__, e.code, e.subject, e.detail) for e in caught) == [
        ("CorruptError", "key_store_corrupt", "device 3", "flipped"),
        ("KeyDestroyed", "key_destroyed", "device 2", "gone"),
        ("KeyDestroyed", "key_destroyed", "device 2", "gone"),
    ]
    assert len({id(error) for error in caught}) == 3, "each task raises an instance of its own"
    source.faults.clear()
    assert same(await keyring.load(key_id(3)), 3), "an error is not cached"


async def test_a_failed_call_fails_its_batch_and_no_other(source: Source, nursery: trio.Nursery) -> None:
    keyring = Keyring(source)
    await nursery.start(keyring.run)
    source.fault = WorldError("disk full", code="key_store_unavailable")
    with pytest.raises(WorldError, match="disk full"):
        await keyring.load(key_id(1))
    source.fault = None
    assert same(await keyring.load(key_id(1)), 1)


async def test_an_id_without_an_outcome_is_destroyed(nursery: trio.Nursery) -> None:
    keyring = Keyring(lambda ids: {})
    await nursery.start(keyring.run)
    with pytest.raises(KeyDestroyed, match="device 1"):
        await keyring.load(key_id(1))


async def test_a_cancelled_waiter_hurts_nobody(source: Source, nursery: trio.Nursery) -> None:
    keyring = Keyring(source)
    await nursery.start(keyring.run)
    found: list[AESGCM] = []

    async def want(device: int) -> None:
        found.append(await keyring.load(key_id(device)))

    source.open.clear()
    async with trio.open_nursery() as waiters:
        waiters.start_soon(want, 0)
        await until(lambda: len(source.calls) == 1)
        waiters.start_soon(want, 1)
        async with trio.open_nursery() as cancelled:
            for device in (0, 1, 2):  # being fetched; waited for by another too; waited for by nobody else
                cancelled.start_soon(want, device)
            await trio.testing.wait_all_tasks_blocked()
            cancelled.cancel_scope.cancel()
        source.open.set()
    assert len(found) == 2
    assert source.calls == [[key_id(0)], [key_id(1)]], "what nobody waits for is not fetched"


async def test_all_cancelled_leaves_the_keyring_working(source: Source, nursery: trio.Nursery) -> None:
    keyring = Keyring(source)
    await nursery.start(keyring.run)
    with trio.CancelScope() as scope:
        scope.cancel()
        await keyring.load(key_id(1))
    assert same(await keyring.load(key_id(2)), 2)
    assert source.calls[-1] == [key_id(2)]  # the owner may or may not have taken id 1 before the cancellation


async def test_least_recently_used_goes_first(source: Source, nursery: trio.Nursery) -> None:
    keyring = Keyring(source, max_keys=3)
    await nursery.start(keyring.run)
    for device in (1, 2, 3):
        await keyring.load(key_id(device))
    assert keyring.cached(key_id(1)) is not None
    await keyring.load(key_id(4))
    assert len(keyring) == 3
    assert [device for device in (1, 2, 3, 4) if keyring.cached(key_id(device))] == [1, 3, 4]


async def test_a_batch_larger_than_the_cache_reaches_every_waiter(
    source: Source, nursery: trio.Nursery
) -> None:
    keyring = Keyring(source, max_keys=2)
    await nursery.start(keyring.run)
    async with trio.open_nursery() as waiters:
        for device in range(20):
            waiters.start_soon(keyring.load, key_id(device))
    assert len(keyring) == 2


async def test_purge(source: Source, nursery: trio.Nursery) -> None:
    """Invariant 10: a cached key of an erased device is dropped, its neighbours stay."""
    keyring = Keyring(source)
    await nursery.start(keyring.run)
    for device in range(10):
        await keyring.load(key_id(device))
    assert keyring.purge(lambda i: i.device % 2 == 0) == 5
    assert keyring.purge(lambda i: i.device % 2 == 0) == 0
    assert len(keyring) == 5
    assert keyring.cached(key_id(1)) is None
    assert keyring.cached(key_id(2)) is not None


async def test_a_key_fetched_across_a_purge_is_not_cached(source: Source, nursery: trio.Nursery) -> None:
    """Invariant 10: read just before its destruction, it would else stay after the purge that was meant for it."""
    keyring = Keyring(source)
    await nursery.start(keyring.run)
    source.open.clear()
    async with trio.open_nursery() as waiters:
        waiters.start_soon(keyring.load, key_id(1))
        await until(lambda: len(source.calls) == 1)
        keyring.purge(lambda i: i != key_id(1))
        source.open.set()
    assert keyring.cached(key_id(1)) is None


async def test_a_live_key_fetched_across_a_purge_is_cached(source: Source, nursery: trio.Nursery) -> None:
    """Purges come each second. A vault that answers slower would else be asked for every chunk."""
    keyring = Keyring(source)
    await nursery.start(keyring.run)
    source.open.clear()
    async with trio.open_nursery() as waiters:
        waiters.start_soon(keyring.load, key_id(1))
        waiters.start_soon(keyring.load, key_id(2))
        await until(lambda: len(source.calls) == 1)
        keyring.purge(lambda i: i != key_id(2))
        keyring.purge(lambda i: True)
        source.open.set()
    assert keyring.cached(key_id(1)) is not None
    assert keyring.cached(key_id(2)) is None


async def test_load_when_nobody_runs_it(source: Source) -> None:
    keyring = Keyring(source)
    with pytest.raises(WorldError) as caught:
        await keyring.load(key_id(1))
    assert caught.value.code == "key_store_unavailable"


async def test_stopping_delivers_what_is_under_way_and_refuses_the_rest(source: Source) -> None:
    keyring = Keyring(source)
    outcomes: dict[int, object] = {}

    async def want(device: int) -> None:
        try:
            outcomes[device] = await keyring.load(key_id(device))
        except WorldError as error:
            outcomes[device] = error.code

    source.open.clear()
    async with trio.open_nursery() as waiters, trio.open_nursery() as owner:
        await owner.start(keyring.run)
        waiters.start_soon(want, 1)
        await until(lambda: len(source.calls) == 1)
        waiters.start_soon(want, 2)
        await trio.testing.wait_all_tasks_blocked()
        owner.cancel_scope.cancel()
        source.open.set()
    assert isinstance(outcomes[1], AESGCM)
    assert outcomes[2] == "key_store_unavailable"


async def test_a_bug_in_the_source_ends_the_owner_and_strands_nobody(source: Source) -> None:
    keyring = Keyring(source)
    source.fault = ZeroDivisionError()
    codes: list[str] = []

    async def want() -> None:
        try:
            await keyring.load(key_id(1))
        except WorldError as error:
            codes.append(error.code)

    async with trio.open_nursery() as waiters:
        with pytest.RaisesGroup(ZeroDivisionError):
            async with trio.open_nursery() as owner:
                await owner.start(keyring.run)
                waiters.start_soon(want)
    assert codes == ["key_store_unavailable"]


async def test_one_owner(source: Source, nursery: trio.Nursery) -> None:
    keyring = Keyring(source)
    await nursery.start(keyring.run)
    with pytest.raises(CallerError, match="already"):
        await keyring.run()
    assert same(await keyring.load(key_id(1)), 1)


@pytest.mark.parametrize(("max_keys", "batch_keys"), [(0, 1), (1, 0), (1, 10_001)])
def test_bounds(source: Source, max_keys: int, batch_keys: int) -> None:
    with pytest.raises(CallerError, match="max_keys"):
        Keyring(source, max_keys=max_keys, batch_keys=batch_keys)


async def test_in_front_of_the_real_store(tmp_path: Path, nursery: trio.Nursery) -> None:
    """Invariants 9 and 10: destroyed in the store and purged here, the key is gone; what encrypted with it, too."""
    with KeyStore.create(tmp_path / "keys") as store:
        keyring = Keyring(store.ensure_each)
        await nursery.start(keyring.run)
        cipher = await keyring.load(key_id(1))
        (key,) = store.get([key_id(1)]).values()
        assert cipher.decrypt(bytes(12), AESGCM(key).encrypt(bytes(12), b"video", None), None) == b"video"
        store.destroy_device(1, below_epoch=1)
        assert keyring.purge(lambda i: i.device != 1) == 1
        with pytest.raises(KeyDestroyed):
            await keyring.load(key_id(1))
        assert await keyring.load(key_id(1)._replace(epoch=1))
        nursery.cancel_scope.cancel()
