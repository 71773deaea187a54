"""`check` finds damage of kept clips too, and `catalog rebuild` gives their rows back from their objects."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.rows.clips import ClipState, clip_of_key
from storage.rows.recordings import ChunkRow
from tests.retention.world import World, fast_folder
from tests.service.test_checks import CAPTURES, Folder, broken, rebuilt, sound
from tests.service.test_keeping import begun, clips_of, decrypted, keeper, rows_of


class Kept(Folder):
    """A folder of recordings in which three chunks of the first device are kept as a clip, too."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        with World(root, local=True) as world:
            begun(world, self.one, CAPTURES[0], CAPTURES[-1] + 1)
            assert keeper(world).run() == {"clip_objects": 1}
            [self.clip] = clips_of(world, self.one)
            [self.clip_object] = [key for key in world.objects() if clip_of_key(key) is not None]
        assert (self.clip.state, self.clip.chunks) == (ClipState.READY, 3)

    @property
    def object(self) -> Path:
        return self.root / "objects" / self.clip_object

    def clip_rows(self) -> list[ChunkRow]:
        with World(self.root, local=True) as world:
            return rows_of(world, self.clip)


@pytest.fixture
def folder() -> Iterator[Kept]:
    with fast_folder() as root:
        yield Kept(root)


def test_a_clip_is_checked_like_all_chunks(folder: Kept) -> None:
    result = sound(folder)
    assert (result.segments, result.objects, result.chunks) == (3, 3, 10)


@pytest.mark.parametrize("at", [20, -100])
def test_a_flipped_bit_of_a_clip_is_found_by_a_deep_check(folder: Kept, at: int) -> None:
    data = bytearray(folder.object.read_bytes())
    data[at] ^= 4
    folder.object.write_bytes(data)
    assert folder.check().broken == []
    broken(folder, folder.clip_object, deep=True)


def test_an_object_of_a_clip_that_is_missing(folder: Kept) -> None:
    folder.object.unlink()
    broken(folder, folder.clip_object, "the object is missing")
    broken(folder, folder.clip_object, "no such", deep=True)


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("DELETE FROM kept_chunks WHERE capture_ms = {ms}", "says 3 chunks, has 2 rows"),
        ("DELETE FROM kept_clips", "has rows of chunks, and is no clip"),
        ("UPDATE account_keys SET account = NULL WHERE account = -{clip}", "has no key"),
    ],
)
def test_rows_of_clips_that_disagree(folder: Kept, statement: str, words: str) -> None:
    folder.sql(statement.format(ms=CAPTURES[1], clip=folder.clip.clip_id))
    broken(folder, f"kept clip {folder.clip.clip_id}", words)


@pytest.mark.parametrize("lost", ["", f" WHERE capture_ms = {CAPTURES[1]}"])
def test_a_rebuild_gives_the_rows_of_a_clip_back(folder: Kept, lost: str) -> None:
    before = folder.clip_rows()
    folder.sql("DELETE FROM kept_chunks" + lost)
    assert folder.check().broken_count > 0
    result = rebuilt(folder)
    assert (result["segments"], result["unreadable"]) == (3, {})
    assert result["chunks"] == (1 if lost else 3)
    assert folder.clip_rows() == before
    sound(folder)
    with World(folder.root, local=True) as world:
        assert sorted(decrypted(world, folder.clip)) == CAPTURES


def test_a_rebuild_gives_no_rows_to_a_clip_that_was_deleted(folder: Kept) -> None:
    with World(folder.root, local=True) as world:
        world.catalog.transact(
            lambda books: books.drop_clip(folder.one, folder.clip.clip_id, now_ms=world.clock.ms),
            now_ms=world.clock.ms,
        )
    assert rebuilt(folder)["chunks"] == 0
    assert folder.clip_rows() == []
