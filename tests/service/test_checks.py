"""`check` finds each kind of damage and nothing else; `catalog rebuild` gives every row back."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import zstandard

from service.checks import MAX_LISTED, CheckResult, check_folder, rebuild_catalog
from service.folder import Opened, open_folder
from storage.checksums import crc32
from storage.days import ms_of_day
from storage.errors import StoreUnavailable
from storage.media_facts import FACTS_BYTES
from storage.objects import ObjectInfo
from storage.rows.devices import EraseState
from storage.rows.recordings import ChunkRow
from storage.segment import _FOOTER, FOOTER_BYTES, parse_footer, parse_segment
from tests.retention.world import DELAY_MS, NOON, TODAY, WEEK, World, fast_folder
from tests.servers.catalogs import home_settings
from tests.servers.raw_catalogs import change_chunk, drop_day, run_raw

ENDS = TODAY + WEEK + 1
CAPTURES = [NOON, NOON + 2000, NOON + 4000]


def quiet(phase: str, done: int, of: int) -> None:
    pass


class Folder:
    """A data folder that holds two devices' chunks in two segments."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "config.toml").write_text(home_settings(root))
        with World(root, local=True) as world:
            self.one, self.other = world.add(), world.add()
            self.key = world.keep([(d, ms) for d in (self.one, self.other) for ms in CAPTURES])
            self.second = world.keep([(self.one, NOON + 9000)])

    @property
    def object(self) -> Path:
        return self.root / "objects" / self.key

    def check(self, *, deep: bool = False) -> CheckResult:
        with open_folder(self.root, environ={}) as opened:
            return check_folder(opened, deep=deep, progress=quiet)

    def sql(self, statement: str, *values: object) -> None:
        run_raw(self.root, statement, *values)

    def change(self, changes: dict[str, Any], capture_ms: int = NOON) -> None:
        """One row of the first device."""
        change_chunk(self.root, ENDS, self.one, capture_ms, changes)

    def rows(self) -> list[ChunkRow]:
        with open_folder(self.root, environ={}) as opened:
            days = {row.expires_on for row in opened.catalog.segments()}
            return [row for day in sorted(days) for row in opened.catalog.day_rows(day)]


@pytest.fixture
def folder() -> Iterator[Folder]:
    with fast_folder() as root:
        yield Folder(root)


def broken(folder: Folder, *words: str, deep: bool = False) -> None:
    """The check finds something, and one sentence has all these words."""
    result = folder.check(deep=deep)
    assert result.broken_count == len(result.broken) > 0
    assert any(all(word in sentence for word in words) for sentence in result.broken), result.broken


def sound(folder: Folder) -> CheckResult:
    for deep in (False, True):
        result = folder.check(deep=deep)
        assert (result.broken, result.broken_count, result.notes) == ([], 0, [])
    return result


# --- check ------------------------------------------------------------------------------------------------------


def test_a_sound_folder(folder: Folder) -> None:
    result = sound(folder)
    assert (result.segments, result.chunks, result.objects) == (2, 7, 2)
    assert result.object_bytes == sum(
        (folder.root / "objects" / key).stat().st_size for key in (folder.key, folder.second)
    )


def test_what_is_under_way_is_no_fault(folder: Folder) -> None:
    """Prepared keys with and without an object, and objects that a sweep has yet to delete."""
    with World(folder.root, local=True) as world:
        world.put([(folder.one, NOON + 1)])
        world.catalog.prepare(worker="w", class_days=31, expires_on=ENDS, count=3, now_ms=NOON)
        sound(folder)
        world.clock.ms = ms_of_day(ENDS + 1)
        world.sweep().run()
        sound(folder)
        world.clock.ms += DELAY_MS
        world.sweep().run()
        assert world.objects() == set()
    sound(folder)


def test_deleted_ranges_and_erased_devices_are_no_fault(folder: Folder) -> None:
    with World(folder.root, local=True) as world:
        world.catalog.delete_range(
            folder.other, NOON, NOON + 1, reason="x", who="me", now_ms=NOON, delete_after_ms=NOON
        )
        sound(folder)
        world.terminate(folder.one, erase=True)
        world.vault.destroy_device(folder.one, below_epoch=1)
        sound(folder)  # its rows are still there, without a key
        world.sweep().run()
    assert sound(folder).chunks == 2


def test_a_missing_object(folder: Folder) -> None:
    folder.object.unlink()
    broken(folder, folder.key, "6 chunks", "the object is missing")
    broken(folder, folder.key, "no such", deep=True)


@pytest.mark.parametrize("by", [-1, 1])
def test_an_object_of_another_size(folder: Folder, by: int) -> None:
    size = folder.object.stat().st_size + by
    os.truncate(folder.object, size)
    broken(folder, folder.key, f"{size} bytes in the store", f"{size - by} in the catalog")


def test_an_orphan_is_broken_once_it_is_older_than_the_floor(folder: Folder) -> None:
    orphan = folder.object.with_name("0123orphan")
    orphan.write_bytes(b"x")
    result = folder.check()
    assert result.broken == []
    assert len(result.notes) == 1
    assert "0123orphan" in result.notes[0]
    old_s = orphan.stat().st_mtime - 2 * 600 - 1
    os.utime(orphan, (old_s, old_s))
    broken(folder, "0123orphan", "the catalog does not know")


def test_files_that_are_no_segments_are_not_ours(folder: Folder) -> None:
    (folder.root / "objects" / "notes.txt").write_text("mine")
    sound(folder)


@pytest.mark.parametrize("at", [0, 20, 0.5, -100, -1])
def test_a_flipped_bit_is_found_by_a_deep_check(folder: Folder, at: float) -> None:
    data = bytearray(folder.object.read_bytes())
    data[int(at * len(data)) if isinstance(at, float) else at] ^= 4
    folder.object.write_bytes(data)
    assert folder.check().broken == []
    broken(folder, folder.key, deep=True)


def test_the_object_of_another_segment_under_its_key(folder: Folder) -> None:
    other = folder.root / "objects" / folder.second
    other.write_bytes(folder.object.read_bytes())
    folder.sql(f"UPDATE segments SET size_bytes = {other.stat().st_size} WHERE key = '{folder.second}'")
    assert folder.check().broken == []
    broken(folder, folder.second, "another segment", deep=True)


@pytest.mark.parametrize(
    "change",
    [
        *({"ordinal": 5}, {"ordinal": 77}, {"offset": lambda old: old + 1}, {"length": lambda old: old - 1}),
        *({"crc32": 0}, {"epoch": 1}, {"duration_ms": 1}, {"nonce": bytes(12)}),
        *({"capture_ms": NOON + 1}, {"device": 2}),
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_row_that_points_elsewhere(folder: Folder, change: dict[str, Any]) -> None:
    """Invariant 11."""
    folder.sql(f"DELETE FROM chunks_{ENDS} WHERE device = 2 AND capture_ms = {NOON}")
    folder.change(change)
    broken(folder, "points at another chunk", deep=True)


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM chunks_{ENDS} WHERE device = 1",
        "DELETE FROM days",
        "UPDATE segments SET state = 2, delete_after_ms = 5",
        "UPDATE segments SET state = 0",
        "DELETE FROM segments WHERE segment_id = 1",
        "UPDATE segments SET expires_on = expires_on + 1",
        "UPDATE segments SET live_chunks = live_chunks - 1",
        "UPDATE segments SET refused = ?",
        None,
    ],
)
def test_rows_that_disagree(folder: Folder, statement: str | None) -> None:
    """Invariant 4."""
    if statement is None:
        drop_day(folder.root, ENDS)
    else:
        folder.sql(statement.format(ENDS=ENDS), *[bytes(4)] * statement.count("?"))
    for deep in (False, True):
        assert folder.check(deep=deep).broken_count > 0


def test_a_data_key_that_is_gone_though_nobody_erased(folder: Folder) -> None:
    """Invariant 1."""
    with World(folder.root, local=True) as world:
        world.vault.destroy_device(folder.one, below_epoch=1)
    assert folder.check().broken == []
    broken(folder, f"device {folder.one} at {NOON}", "its data key is gone", deep=True)


@pytest.mark.parametrize("change", [{"facts": b"\1"}, {"facts": b"\1" * FACTS_BYTES}, {"media": 2}])
def test_media_facts_that_are_not_those_of_the_index(folder: Folder, change: dict[str, Any]) -> None:
    """Playback goes by the row: with other facts than the index has it shows discontinuities that are none."""
    folder.change(change)
    assert folder.check().broken == []
    broken(folder, f"device {folder.one} at {NOON}", "media facts", deep=True)


def test_a_row_of_a_release_that_kept_no_facts_is_sound(folder: Folder) -> None:
    for capture_ms in CAPTURES:
        folder.change({"facts": b""}, capture_ms)
    sound(folder)


def with_index(data: bytes, compressed: bytes, chunks: int | None = None) -> bytes:
    """The object with this in the place of its index, and sound checksums."""
    footer = parse_footer(data[-FOOTER_BYTES:], len(data))
    fields = [*_FOOTER.unpack(data[-FOOTER_BYTES:-4])]
    fields[4] = footer.chunks if chunks is None else chunks
    fields[6], fields[7] = len(compressed), crc32(compressed)
    packed = _FOOTER.pack(*fields)
    return data[: footer.index_offset] + compressed + packed + crc32(packed).to_bytes(4, "little")


def compressed_index(data: bytes) -> bytes:
    return data[parse_footer(data[-FOOTER_BYTES:], len(data)).index_offset : -FOOTER_BYTES]


MIXED: dict[str, Callable[[bytes, bytes], bytes]] = {
    "of another segment": lambda mine, others: with_index(mine, compressed_index(others)),
    "with another's number of rows": lambda mine, others: with_index(mine, compressed_index(others), 6),
    "cut": lambda mine, others: with_index(mine, compressed_index(mine)[:-9]),
    "half another's": lambda mine, others: with_index(
        mine, compressed_index(mine)[:60] + compressed_index(others)[60:]
    ),
    "without a frame": lambda mine, others: with_index(mine, b"\0" * 100),
    "of chunks of the same lengths": lambda mine, others: with_index(mine, shifted_index(mine)),
    "with another checksum": lambda mine, others: with_index(mine, shifted_index(mine, "crc64")),
}


def shifted_index(data: bytes, name: str = "capture_ms") -> bytes:
    """An index that is sound by itself: its places fit."""
    rows = parse_segment(data)[1].copy()
    rows[name] += 1
    return zstandard.ZstdCompressor().compress(rows.tobytes())


@pytest.mark.parametrize("how", MIXED)
def test_an_index_that_was_mixed_up_is_reported_and_not_rebuilt_from(folder: Folder, how: str) -> None:
    """As a compressor that two threads used at once made them: checksums and all."""
    mixed = MIXED[how](folder.object.read_bytes(), (folder.root / "objects" / folder.second).read_bytes())
    folder.object.write_bytes(mixed)
    folder.sql(f"UPDATE segments SET size_bytes = {len(mixed)} WHERE key = '{folder.key}'")
    assert folder.check().broken == []
    broken(folder, folder.key, deep=True)
    before = folder.rows()
    assert rebuilt(folder)["chunks"] == 0, "rows that are there stay"
    assert folder.rows() == before
    drop_day(folder.root, ENDS)
    result = rebuilt(folder)
    if how != "with another checksum":  # the chunks are those of the object all the same
        assert isinstance(result["unreadable"], dict)
        assert list(result["unreadable"]) == [folder.key]
        assert result["chunks"] == 1, "the other segment's"


def test_a_chunk_that_is_damaged_does_not_keep_its_neighbours_from_a_rebuild(folder: Folder) -> None:
    data = bytearray(folder.object.read_bytes())
    data[20] ^= 4
    folder.object.write_bytes(data)
    drop_day(folder.root, ENDS)
    assert rebuilt(folder)["chunks"] == 7


def test_a_day_of_which_nothing_is_stored_has_its_table_again(folder: Folder) -> None:
    """As one that was made ahead, and lost: `check` names the rebuild, which made tables of segments' days only."""
    folder.sql(f"INSERT INTO days VALUES ({ENDS + 5})")
    broken(folder, f"day {ENDS + 5}", "its table is missing")
    assert rebuilt(folder)["chunks"] == 0
    assert folder.check().broken == []


def test_a_row_of_a_device_that_does_not_exist(folder: Folder) -> None:
    with World(folder.root, local=True) as world:
        world.vault.destroy_device(folder.one, below_epoch=1)
    for table in ("plans", "devices"):
        folder.sql(f"DELETE FROM {table} WHERE device = 1")
    broken(folder, f"device {folder.one}", "its data key is gone", deep=True)


def test_a_store_that_is_gone_is_an_error_and_not_a_finding(folder: Folder) -> None:
    (folder.root / "objects").rename(folder.root / "unmounted")
    with pytest.raises(StoreUnavailable):
        folder.check()


def test_findings_are_bounded_and_counted() -> None:
    result = CheckResult()
    for number in range(MAX_LISTED + 5):
        result.found(str(number))
    assert (len(result.broken), result.broken_count) == (MAX_LISTED, MAX_LISTED + 5)


class Busy:
    """Stands before an opened folder's store or catalog: something happens during one of its calls."""

    def __init__(self, real: object, method: str, act: Callable[[], object]) -> None:
        self._real, self._method, self._act = real, method, act

    def __getattr__(self, name: str) -> object:
        if name == self._method:
            self._method = ""
            self._act()
        return getattr(self._real, name)


def during(folder: Folder, part: str, method: str, act: Callable[[World], object]) -> CheckResult:
    with World(folder.root, local=True) as world, open_folder(folder.root, environ={}) as opened:
        busy: Opened = replace(
            opened,
            **{part: Busy(getattr(opened, part), method, lambda: act(world))},  # type: ignore[arg-type]
        )
        return check_folder(busy, deep=True, progress=quiet)


def swept_away(world: World) -> None:
    world.clock.ms = ms_of_day(ENDS + 1)
    world.sweep().run()
    world.clock.ms += DELAY_MS
    world.sweep().run()


@pytest.mark.parametrize("method", ["broken_rows", "segments", "day_rows"])
@pytest.mark.parametrize("act", ["commit", "sweep", "delete"])
def test_a_service_at_work_is_no_fault(folder: Folder, method: str, act: str) -> None:
    acts: dict[str, Callable[[World], object]] = {
        "commit": lambda world: world.keep([(folder.one, NOON + 1)]),
        "sweep": swept_away,
        "delete": lambda world: world.catalog.delete_range(
            folder.one, NOON, NOON + 1, reason="", who="", now_ms=NOON, delete_after_ms=NOON
        ),
    }
    assert during(folder, "catalog", method, acts[act]).broken == []


def test_an_object_put_after_the_listing_is_no_fault(folder: Folder) -> None:
    def keep(world: World) -> None:
        world.keep([(folder.one, NOON + 1)])

    with World(folder.root, local=True) as world, open_folder(folder.root, environ={}) as opened:
        listed: list[ObjectInfo] = list(opened.store.list("v1/"))
        keep(world)
        opened.store.list = lambda prefix: iter(listed)  # type: ignore[method-assign]
        assert check_folder(opened, deep=False, progress=quiet).broken == []


def test_only_the_last_word_on_objects_is_that_all_are_done(folder: Folder) -> None:
    """A log gets a line a second until then, and one for it: not one for each object."""
    told: list[tuple[int, int]] = []

    def note(phase: str, done: int, of: int) -> None:
        if phase == "objects":
            told.append((done, of))

    with open_folder(folder.root, environ={}) as opened:
        check_folder(opened, deep=True, progress=note)
    *before, last = told
    assert last == (2, 2)
    assert [done for done, _ in before] == [1, 2]
    assert all(done < of for done, of in before)


# --- rebuild ----------------------------------------------------------------------------------------------------


def rebuilt(folder: Folder) -> dict[str, object]:
    with open_folder(folder.root, environ={}) as opened:
        return rebuild_catalog(opened, progress=quiet)


@pytest.mark.parametrize("lost", ["tables", "rows", "some rows", "tables and days"])
def test_a_rebuild_gives_every_row_back(folder: Folder, lost: str) -> None:
    """Honouring what a commit refused, what was deleted and what was erased."""
    with World(folder.root, local=True) as world:
        commit, _ = world.put(
            [(folder.one, NOON + 20_000), (folder.other, NOON + 20_000), (folder.one, NOON)]
        )
        world.catalog.delete_range(
            folder.one, NOON + 20_000, NOON + 20_001, reason="", who="", now_ms=NOON, delete_after_ms=NOON
        )
        world.catalog.commit([commit], now_ms=NOON)  # of it, one was deleted before and one is stored already
        world.catalog.delete_range(
            folder.one, NOON + 2000, NOON + 2001, reason="", who="", now_ms=NOON, delete_after_ms=NOON
        )
        gone = world.add()
        world.keep([(gone, NOON), (folder.other, NOON + 30_000)])
        world.terminate(gone, erase=True)
        world.sweep().run()
        assert world.catalog.device(gone).erase_state is EraseState.ERASED
    before = folder.rows()
    assert len(before) == 8
    if lost.startswith("tables"):
        drop_day(folder.root, ENDS)
    if lost.endswith("days"):
        folder.sql("DELETE FROM days")
    if lost.endswith("rows"):
        folder.sql(
            f"DELETE FROM chunks_{ENDS}" + (f" WHERE capture_ms > {NOON}" if lost == "some rows" else "")
        )
    assert folder.check().broken_count > 0
    result = rebuilt(folder)
    assert (result["segments"], result["unreadable"]) == (4, {})
    assert result["chunks"] == (6 if lost == "some rows" else 8)
    assert folder.rows() == before
    sound(folder)
    assert rebuilt(folder)["chunks"] == 0


def test_a_rebuild_names_what_it_cannot_read_and_does_the_rest(folder: Folder) -> None:
    folder.object.write_bytes(b"nothing of it is left")
    drop_day(folder.root, ENDS)
    result = rebuilt(folder)
    assert (result["segments"], result["chunks"]) == (1, 1)
    assert isinstance(result["unreadable"], dict)
    assert list(result["unreadable"]) == [folder.key]


def test_the_damage_of_these_tests_is_what_they_think(folder: Folder) -> None:
    with open_folder(folder.root, environ={}) as opened:
        first, _ = opened.catalog.segments()
    assert first.key == folder.key
    assert first.crc32 == crc32(folder.object.read_bytes())
    assert len(folder.rows()) == 7
