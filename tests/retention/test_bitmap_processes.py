"""The bitmap under real processes: readers beside writers, and writers that are killed.

The children are this file run as a script. They are slowed down in the middle of a row, writers and
readers, so that half-written and half-copied rows are the rule and not a rare accident.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from retention.bitmap import BUSY, PRESENT, EntitlementBitmap, Row
from storage.errors import WorldError

A = Row(PRESENT, 7, 20_000, 0x11111111, 0x222222, int("01" * 192, 2))
B = Row(PRESENT | 4, 250, 20_111, 0xEEEEEEEE, 0xDDDDDD, int("0110" * 96, 2))
TODAY = 20_200
DEVICES = range(1, 5)
READS = 60_000


class SlowMap:
    """Stands before a bitmap's mapping and stops in the middle of each row stored or copied."""

    def __init__(self, real: Any, pause: Callable[[], None]) -> None:
        self.real, self.pause = real, pause

    def __getitem__(self, key: Any) -> Any:
        if not isinstance(key, slice):
            return self.real[key]
        middle = (key.start + key.stop) // 2
        start = self.real[key.start : middle]
        self.pause()
        return start + self.real[middle : key.stop]

    def __setitem__(self, key: Any, value: Any) -> None:
        if isinstance(key, slice):
            middle = (key.start + key.stop) // 2
            self.real[key.start : middle] = value[: middle - key.start]
            self.pause()
            self.real[middle : key.stop] = value[middle - key.start :]
        else:
            self.real[key] = value

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)


def say(text: str) -> None:
    print(text, flush=True)


def some_microseconds() -> None:
    sum(range(100))


def sleep_for_ever() -> None:
    time.sleep(600)


def flip(path: Path) -> None:
    """Write A and B in turns to all devices, until killed."""
    with EntitlementBitmap.open(path, writable=True) as bitmap:
        bitmap._map = SlowMap(bitmap._map, some_microseconds)  # type: ignore[assignment]
        for turn in range(10**9):
            with bitmap.locked():
                for device in DEVICES:
                    bitmap.write(device, (A, B)[turn % 2])
            if turn == 0:
                say("ready")


def watch(path: Path) -> None:
    """Probe and read, and say how often which answer came."""
    seen: Counter[str] = Counter()
    with EntitlementBitmap.open(path) as bitmap:
        bitmap._map = SlowMap(bitmap._map, some_microseconds)  # type: ignore[assignment]
        names = {answer(A): "A", answer(B): "B", (BUSY, 0, 0, 0, False, False, 0): "busy"}
        for turn in range(READS):
            device = DEVICES[turn % len(DEVICES)]
            seen[names.get(bitmap.probe(device, TODAY + 1, TODAY), "mixed")] += 1
            try:
                row = bitmap.read(device)
            except WorldError:
                seen["busy"] += 1
            else:
                seen["A" if row == A else "B" if row == B else "mixed"] += 1
    say(json.dumps(seen))


def answer(row: Row) -> tuple[int, int, int, int, bool, bool, int]:
    head = (row.flags, row.class_days, row.token_generation, row.erase_epoch)
    return (*head, row.allows(TODAY), row.allows(TODAY + 1), row.limit_class)


def hold(path: Path) -> None:
    """Write device 1 whole, then hold the lock until killed."""
    with EntitlementBitmap.open(path, writable=True) as bitmap, bitmap.locked():
        bitmap.write(1, B)
        say("ready")
        sleep_for_ever()


def stop_in_the_middle(path: Path) -> None:
    """Stop in the middle of the row of device 2 until killed."""

    def pause() -> None:
        say("ready")
        sleep_for_ever()

    with EntitlementBitmap.open(path, writable=True) as bitmap, bitmap.locked():
        bitmap._map = SlowMap(bitmap._map, pause)  # type: ignore[assignment]
        bitmap.write(2, B)


ROLES = {role.__name__: role for role in (flip, watch, hold, stop_in_the_middle)}


@contextmanager
def child(role: Callable[[Path], None], path: Path) -> Iterator[subprocess.Popen[str]]:
    """A child in this role, killed (SIGKILL) at the end."""
    command = [sys.executable, __file__, role.__name__, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "bitmap"
    EntitlementBitmap.create(path, 100)
    with EntitlementBitmap.open(path, writable=True) as bitmap, bitmap.locked():
        for device in DEVICES:
            bitmap.write(device, A)
    return path


def test_readers_never_see_a_mixture(path: Path) -> None:
    """Invariant 2: an answer is the row before a change or the row after it, or a denial."""
    with child(flip, path) as one, child(flip, path) as other:
        assert (line(one), line(other)) == ("ready", "ready")
        with child(watch, path) as first, child(watch, path) as second:
            seen = Counter(json.loads(line(first))) + Counter(json.loads(line(second)))
    assert seen["mixed"] == 0
    assert seen["A"] > 0
    assert seen["B"] > 0
    assert seen.total() == 2 * 2 * READS


def test_a_writer_killed_with_the_lock_frees_it_and_leaves_its_mark(path: Path) -> None:
    with EntitlementBitmap.open(path, writable=True) as bitmap:
        with child(hold, path) as process:
            assert line(process) == "ready"
            with pytest.raises(WorldError) as caught, bitmap.locked(wait_s=0.05):
                pass
            assert caught.value.code == "bitmap_busy"
        with bitmap.locked(wait_s=1):
            assert bitmap.unfinished == 1
            assert bitmap.read(1) == B
            bitmap.write(1, A)
            bitmap.settle()
        assert bitmap.unfinished == 0


def test_a_writer_killed_in_the_middle_of_a_row_leaves_it_denied_until_it_is_rewritten(path: Path) -> None:
    """Invariant 2."""
    with EntitlementBitmap.open(path, writable=True) as bitmap:
        with child(stop_in_the_middle, path) as process:
            assert line(process) == "ready"
            assert bitmap.probe(2, TODAY, TODAY)[0] == BUSY
        assert bitmap.probe(2, TODAY, TODAY) == (BUSY, 0, 0, 0, False, False, 0)
        assert bitmap.probe(1, TODAY + 1, TODAY) == answer(A)
        assert bitmap.probe(3, TODAY + 1, TODAY) == answer(A)
        with bitmap.locked(wait_s=1):
            assert bitmap.unfinished == 2
            with pytest.raises(WorldError) as caught:
                bitmap.read(2)
            assert caught.value.code == "row_unfinished"
            bitmap.write(2, B)
            bitmap.settle()
        assert bitmap.probe(2, TODAY + 1, TODAY) == answer(B)
        assert bitmap.unfinished == 0


if __name__ == "__main__":
    ROLES[sys.argv[1]](Path(sys.argv[2]))
