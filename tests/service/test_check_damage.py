"""`check --deep` asks the engine: whatever SQLite's own check reports of catalog and key store, it reports too."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from service.checks import check_folder
from service.folder import open_folder
from storage.errors import ClipkeepError
from tests.retention.world import fast_folder
from tests.servers.catalogs import sqlite_only
from tests.service.test_checks import Folder, quiet

pytestmark = sqlite_only


@pytest.fixture(scope="module")
def root() -> Iterator[Path]:
    with fast_folder() as root:
        folder = Folder(root)
        assert folder.check(deep=True).broken == []
        for name in ("catalog.db", "keys/keys.db"):  # all of it in the file itself
            with closing(sqlite3.connect(root / name)) as connection:
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        yield root


def put(path: Path, content: bytes) -> None:
    """A whole file at rest, with nothing in a log beside it."""
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    path.write_bytes(content)


def found_by_sqlite(path: Path) -> bool:
    with closing(sqlite3.connect(path)) as connection:
        try:
            rows = connection.execute("PRAGMA integrity_check").fetchall()
        except (sqlite3.DatabaseError, UnicodeDecodeError):  # a sentence may quote what is damaged
            return True
    return rows != [("ok",)]


def found_by_us(root: Path) -> bool:
    try:
        with open_folder(root, environ={}) as opened:
            return check_folder(opened, deep=True, progress=quiet).broken_count > 0
    except ClipkeepError:  # it can't even be opened, and that is said
        return True


def damaged(page: bytes, first: bool, how: str) -> bytes:
    at = 100 if first else 0  # the file's header is everybody's to notice
    if how == "cells":  # the count of them, and where they are
        return page[: at + 3] + b"\x7f\xff" + page[at + 5 :]
    if how == "kind":  # another kind of page
        return page[:at] + b"\x07" + page[at + 1 :]
    if how == "words":  # definitions that are none, and no text: SQLite's error quotes them
        return page.replace(b"CREATE ", b"CREATE\xe7")
    middle = len(page) - 64
    return page[:middle] + bytes(byte ^ 0xFF for byte in page[middle:])  # the content of the first rows


@pytest.mark.parametrize("how", ["cells", "kind", "content", "words"])
@pytest.mark.parametrize("name", ["catalog.db", "keys/keys.db"])
def test_one_page_of_any_kind(root: Path, name: str, how: str) -> None:
    path = root / name
    whole = path.read_bytes()
    size = int.from_bytes(whole[16:18], "big")
    reported, missed = 0, []
    try:
        for start in range(0, len(whole), size):
            put(
                path,
                whole[:start] + damaged(whole[start : start + size], start == 0, how) + whole[start + size :],
            )
            if not found_by_sqlite(path):
                continue
            reported += 1
            put(path, path.read_bytes())
            if not found_by_us(root):
                missed.append(start // size + 1)
    finally:
        put(path, whole)
    assert reported > 0
    assert missed == [], f"of {reported} pages that SQLite reports"
    assert not found_by_us(root)


@pytest.mark.parametrize(
    ("name", "index"),
    [("catalog.db", "segments"), ("keys/keys.db", "month_")],
)
def test_an_index_that_lacks_a_row_of_its_table(root: Path, name: str, index: str) -> None:
    """Sound pages all of them: only a comparison finds it. What is looked up by the index is not there."""
    path = root / name
    whole = path.read_bytes()
    try:
        with closing(sqlite3.connect(path)) as connection:
            (found,) = connection.execute(
                "SELECT rootpage FROM sqlite_master WHERE type = 'index' AND tbl_name LIKE ? LIMIT 1",
                (f"{index}%",),
            ).fetchone()
            size = connection.execute("PRAGMA page_size").fetchone()[0]
        content = bytearray(path.read_bytes())
        at = (found - 1) * size
        cells = int.from_bytes(content[at + 3 : at + 5], "big")
        assert content[at] == 0x0A  # a leaf
        assert cells > 0
        content[at + 3 : at + 5] = (cells - 1).to_bytes(2, "big")
        put(path, bytes(content))
        assert found_by_us(root)
    finally:
        put(path, whole)
