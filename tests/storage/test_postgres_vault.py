"""The vault on PostgreSQL: what its contract can't say, on a real server."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from storage._key_files import MASTER_MAGIC, read_key_file
from storage._key_wrapping import WrappingKeys
from storage.contracts.blocks import writing_books
from storage.contracts.books.given import to_erasing
from storage.contracts.vault import NOW, code_of, fresh_ids
from storage.errors import CallerError, CorruptError, WorldError
from storage.open_vault import create_vault, open_vault, opened_backup
from storage.postgres import PostgresCatalog
from storage.postgres.base_backup import BaseBackup
from storage.postgres.vault_rotation import _begin as begin_rotation
from storage.rows.accounts import AccountRow, AnswerRow, EventRow
from storage.vault import KeyId, Vault
from tests.servers.postgres import PostgresServer, any_binaries, postgres_server

IDS = [KeyId(n, 0, 202601 + n % 3) for n in range(1, 8)]


@pytest.fixture
def master_key(tmp_path: Path) -> Path:
    return tmp_path / "master.key"


@pytest.fixture
def vault(database_url: str, master_key: Path) -> Iterator[Vault]:
    create_vault(database_url, master_key)
    with open_vault(database_url, master_key) as vault:
        yield vault


def test_it_is_never_made_in_the_catalogs_database(url: str, master_key: Path) -> None:
    """`url` is of a catalog: who has a copy of it must not have the wrapped keys too."""
    assert code_of(lambda: create_vault(url, master_key)) == "vault_in_catalog"
    assert not master_key.exists()
    with closing(PostgresCatalog.open(url)) as catalog:
        assert list(catalog.broken_rows()) == []


def test_a_making_that_was_interrupted_is_repeated(database_url: str, master_key: Path) -> None:
    """master.key was written, the tables were not."""
    create_vault(database_url, master_key)
    with psycopg.connect(database_url, autocommit=True) as connection:
        for name in ("state", "secrets", "floors", "months", "account_keys", "hosts", "rotations"):
            connection.execute(f"DROP TABLE vault_{name}")  # type: ignore[arg-type]
    kept = master_key.read_bytes()
    create_vault(database_url, master_key)
    assert master_key.read_bytes() == kept
    with open_vault(database_url, master_key) as vault:
        assert vault.get(vault.ensure(IDS))


def test_what_cannot_be_opened(database_url: str, master_key: Path, vault: Vault) -> None:
    assert code_of(lambda: open_vault(database_url)) == "master_key_missing"
    assert code_of(lambda: open_vault("postgresql://a:b@c:port/d", master_key)) in (
        "bad_vault_url",
        "key_store_unavailable",
    )
    wrong = database_url.replace("@127.0.0.1", "x@127.0.0.1")
    with pytest.raises(WorldError, match="PGPASSWORD") as refused:
        open_vault(wrong, master_key)
    assert refused.value.code == "key_store_unavailable"
    assert "clipkeep_test" not in refused.value.subject
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE vault_state SET format = 9")
    with pytest.raises(CorruptError, match="format is 9"):
        open_vault(database_url, master_key)


def test_rows_that_are_not_what_was_written(database_url: str, vault: Vault, master_key: Path) -> None:
    """Each is told by its name, harms no neighbour, and keeps the old wrapping key through a rotation."""
    made = vault.ensure(IDS)
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE vault_month_202602 SET wrapped = %s WHERE device = 1", (bytes(60),))
    outcomes = vault.get_each(IDS)
    assert isinstance(outcomes[IDS[0]], CorruptError)
    assert {k: v for k, v in outcomes.items() if k != IDS[0]} == {
        k: v for k, v in made.items() if k != IDS[0]
    }
    assert any("device 1" in line for line in vault.damage())
    for _ in range(2):
        with pytest.raises(CorruptError, match="device 1"):
            vault.rotate()
        assert len(read_key_file(master_key, MASTER_MAGIC)) == 2
    vault.destroy_device(1, below_epoch=1)
    assert vault.rotate().resumed
    assert len(read_key_file(master_key, MASTER_MAGIC)) == 1
    with psycopg.connect(database_url) as connection:  # moved to another device: the name is authenticated
        connection.execute("UPDATE vault_month_202603 SET device = 99 WHERE device = 2")
    assert isinstance(vault.get_each([KeyId(99, 0, 202603)])[KeyId(99, 0, 202603)], CorruptError)


def test_nothing_in_the_database_unwraps_itself(
    postgres: PostgresServer, database_url: str, vault: Vault
) -> None:
    """No key and no wrapping key is in any file of the server."""
    made, accounts = vault.ensure(IDS), vault.make_account_keys(fresh_ids(3), now_ms=NOW)
    secrets = [*made.values(), *accounts.values(), vault.token_secret]
    secrets += [secret for _, secret in read_key_file(vault._master_key, MASTER_MAGIC)]  # type: ignore[attr-defined]
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("CHECKPOINT")
        [[wrapped]] = connection.execute("SELECT wrapped FROM vault_month_202602 WHERE device = 1").fetchall()
    data = b"".join(path.read_bytes() for path in postgres.data.rglob("*") if path.is_file())
    assert wrapped in data
    assert not any(secret in data for secret in secrets)


def test_rotation_killed_at_every_line(database_url: str, vault: Vault, master_key: Path) -> None:
    """SIGKILL before every line of it, with a real process: every key can be read at once, keys can be made, and a
    further call ends what was begun (invariants 1, 10)."""
    made, accounts = vault.ensure(IDS), vault.make_account_keys(fresh_ids(3), now_ms=NOW)
    vault.destroy_device(7, below_epoch=1)
    del made[IDS[-1]]
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.storage.killed_vault_rotations", database_url, str(master_key)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert child.stdin is not None
    assert child.stdout is not None
    steps = set()
    with child:
        for line in child.stdout:
            told = json.loads(line)
            steps.add(told["step"].split(":")[1])
            with open_vault(database_url, master_key) as again:
                assert again.get(made) == made, told
                assert again.account_keys(list(accounts)) == accounts, told
                assert again.token_secret == vault.token_secret, told
                done = again.rotate()
                assert [number for number, _ in read_key_file(master_key, MASTER_MAGIC)] == [
                    done.wrapping_key_id
                ]
                assert again.inventory().wrapping_keys == {done.wrapping_key_id: 6 + 3}, told
            child.stdin.write("go on\n")
            child.stdin.flush()
    assert child.returncode == 0
    assert steps >= {
        "rotate",
        "_begin",
        "_rewrap_all",
        "rewrap",
        "_retire",
        "replace_key_file",
        "shred_leftovers",
    }
    assert not list(master_key.parent.glob("master.[no]*"))


def test_what_was_destroyed_is_gone_with_the_wrapping_key(
    vault: Vault, master_key: Path, database_url: str
) -> None:
    """And with the last copy of it: not before a rotation, nor within the window after it."""

    def age(ms: int) -> None:
        """The last rotation was at `ms`, and this host dropped the earlier wrapping key then."""
        os.utime(master_key, ns=(ms * 1_000_000, ms * 1_000_000))
        with psycopg.connect(database_url, autocommit=True) as connection:
            connection.execute("UPDATE vault_rotations SET since_ms = %s, ended_ms = %s", (ms, ms))

    vault.ensure(IDS)
    vault.destroy_device(1, below_epoch=1)
    age(NOW - 1000)
    assert vault.gone_before(NOW) == NOW - 1000, "what was destroyed since is not gone"
    vault.rotate()
    age(NOW)
    assert vault.gone_before(NOW - 1) == 0
    assert vault.gone_before(NOW) == NOW
    begin_rotation(vault._database, master_key, vault._wrapping_keys)  # type: ignore[attr-defined]
    age(NOW)
    assert vault.gone_before(NOW + 1) == 0, "two wrapping keys are at hand"


def test_a_server_that_is_killed_and_comes_back(tmp_path: Path) -> None:
    """Keys that were handed out are there, and those that were destroyed are not, through a SIGKILL of the server."""
    with _server() as server:
        create_vault(server.url(), tmp_path / "master.key")
        with open_vault(server.url(), tmp_path / "master.key") as vault:
            made = vault.ensure(IDS)
            vault.destroy_device(1, below_epoch=1)
            server.kill()
            assert code_of(lambda: vault.ensure([KeyId(50, 0, 202601)])) == "key_store_unavailable"
            server.start()
            del made[IDS[0]]
            assert vault.get(IDS) == made
            assert code_of(lambda: vault.ensure([IDS[0]])) == "key_destroyed"


def test_a_base_backup_holds_wrapped_keys_only(tmp_path: Path) -> None:
    """What destruction promises, on the raw files: a destroyed key is there, wrapped, as a dead tuple and in the log.
    Who has the old master.key reads it, who has the one after a rotation does not."""
    master_key = tmp_path / "master.key"
    with _server() as server:
        create_vault(server.url(), master_key)
        with open_vault(server.url(), master_key) as vault:
            made = vault.ensure(KeyId(n, 0, 202601 + n % 3) for n in range(1, 300))
            shutil.copy2(master_key, tmp_path / "old.key")
            vault.destroy_device(7, below_epoch=1)
            gone = {key_id: key for key_id, key in made.items() if key_id.device == 7}
            left = {key_id: key for key_id, key in made.items() if key_id.device != 7}
            first = _backed_up(server, "first")
            assert dict(_keys(first, master_key, 7)) == gone, "no erasure is cleared before a rotation"
            assert dict(_keys(first, master_key)) == made
            vault.rotate()
            second = _backed_up(server, "second")
            assert dict(_keys(first, tmp_path / "old.key", 7)) == gone
            for backup in (first, second):
                assert dict(_keys(backup, master_key, 7)) == {}
            assert dict(_keys(first, master_key)) == {}
            assert dict(_keys(second, master_key)) == left


def test_what_a_base_backup_holds_of_an_account_that_has_ended(tmp_path: Path) -> None:
    """Catalog and vault in two databases of one server, so that one set of raw files has both. No text of anybody is in
    them, and no key but wrapped: the one that was destroyed too, for who has the master.key of its time."""
    master_key = tmp_path / "master.key"
    with _server() as server:
        for name in ("catalog", "vault"):
            server.run("createdb", name)
        create_vault(server.url("vault"), master_key)
        with (
            open_vault(server.url("vault"), master_key) as vault,
            closing(PostgresCatalog.create(server.url("catalog"), vault)) as catalog,
        ):
            with writing_books(catalog, now_ms=NOW) as books:
                rows = [
                    books.add_account(
                        AccountRow(0, "owner", f"Ada of {town}", NOW, email=f"ada@{town}.example")
                    )
                    for town in ("Reykjavik", "Timbuktu")
                ]
                for row in rows:
                    books.add_event(
                        EventRow(0, row.account, None, "told", "owner", f"why {row.name}", {}, NOW)
                    )
                    books.put_answer(AnswerRow(row.account, f"key of {row.name}", b"", 200, "", NOW))
                devices = [books.add_device(row.account).device for row in rows]
            for device, row in zip(devices, rows, strict=True):
                said = f"{row.name} asked"
                catalog.delete_range(device, 0, 1, reason=said, who="owner", now_ms=NOW, delete_after_ms=NOW)
            ids = {row.account: row.key_id for row in catalog.account_keys()}
            keys = vault.account_keys(list(ids.values()))
            shutil.copy2(master_key, tmp_path / "old.key")
            with writing_books(catalog, before_change=lambda *_: None, now_ms=NOW) as books:
                books.change_device(devices[0], to_erasing, what="owner: account cancelled")
                books.erase_account(rows[0].account, cancelled_on=1)
            gone, stays = (ids[row.account] for row in rows)
            first = _backed_up(server, "first")
            data = b"".join(path.read_bytes() for path in first.rglob("*") if path.is_file())
            plain = [text.encode() for row in rows for text in (row.name, str(row.email), "Reykjavik")]
            assert [text for text in [*plain, *keys.values()] if text in data] == []
            assert data.count(gone) > 0, "the same look finds what is there"
            found = dict(BaseBackup(first, master_key).every_account_key())
            assert found[gone] == keys[gone], "nothing is cleared before a rotation"
            assert found.items() >= keys.items()
            vault.rotate()
            second = _backed_up(server, "second")
            assert dict(BaseBackup(first, master_key).every_account_key()) == {}
            found = dict(BaseBackup(second, master_key).every_account_key())
            assert gone not in found
            assert found[stays] == keys[stays]
            assert dict(BaseBackup(second, tmp_path / "old.key").every_account_key())[gone] == keys[gone]
            assert dict(vault.every_account_key())[stays] == keys[stays]


def test_a_base_backup_in_another_format_is_refused(tmp_path: Path, master_key: Path) -> None:
    (tmp_path / "tar").mkdir()
    (tmp_path / "tar" / "backup_manifest").write_text("{}")
    with pytest.raises(CallerError, match="plain") as refused, opened_backup(tmp_path / "tar", master_key):
        pass
    assert refused.value.code == "bad_backup"


@pytest.mark.parametrize("holds", [None, (), ("tokens.key", "master.key")], ids=["missing", "empty", "part"])
def test_what_is_no_backup_is_not_taken_for_a_broken_vault(
    tmp_path: Path, master_key: Path, holds: tuple[str, ...] | None
) -> None:
    given = tmp_path / "given"
    if holds is not None:
        given.mkdir()
        for name in holds:
            (given / name).touch()
    with (
        pytest.raises(CallerError, match=r"keys\.db or PG_VERSION") as refused,
        opened_backup(given, master_key),
    ):
        pass
    assert refused.value.code == "bad_backup"


def test_a_missing_file_of_wrapping_keys_is_told_as_one(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "PG_VERSION").write_text("18")
    none = tmp_path / "none"
    with pytest.raises(CallerError, match="--master-key") as refused, opened_backup(tmp_path, none):
        pass
    assert refused.value.code == "no_master_key"


def test_another_times_master_key_is_told_with_what_to_put_back(database_url: str, master_key: Path) -> None:
    """After a database was put back to a moment before a rotation, for example."""
    create_vault(database_url, master_key)
    master_key.unlink()
    WrappingKeys.create(master_key)
    with pytest.raises(CorruptError, match=r"master\.key from the copy of the same time"):
        open_vault(database_url, master_key)


def _server():  # type: ignore[no-untyped-def]
    return postgres_server(any_binaries())


def _backed_up(server: PostgresServer, name: str) -> Path:
    to = server.folder / name
    server.run("pg_basebackup", "-D", str(to), "-X", "stream", "-c", "fast")
    return to


def _keys(backup: Path, master_key: Path, device: int | None = None) -> Iterator[tuple[KeyId, bytes]]:
    return BaseBackup(backup, master_key).every_key(device=device)
