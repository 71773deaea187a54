"""A rotation of the wrapping key with several hosts, each with a master.key of its own, on a real server."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from storage import _key_files
from storage._key_files import MASTER_MAGIC, read_key_file
from storage.contracts.vault import code_of
from storage.errors import CorruptError, WorldError
from storage.open_vault import create_vault, open_vault
from storage.postgres import vault_hosts, vault_rotation
from storage.postgres.vault import PostgresVault
from storage.postgres.vault_rotation import rotate
from storage.vault import KeyId, Rotation

IDS = [KeyId(n, 0, 202601 + n % 2) for n in range(1, 6)]


class Host:
    """A machine with keys/ of its own."""

    def __init__(self, url: str, keys: Path, name: str) -> None:
        self.url, self.master, self.name = url, keys / "master.key", name
        self.vault = self.open()

    def open(self) -> PostgresVault:
        vault = open_vault(self.url, self.master)
        assert isinstance(vault, PostgresVault)
        return vault

    def keep_up(self) -> None:
        self.vault.keep_up(self.name)

    def rotate(self, pause: Callable[[], object] = lambda: None) -> Rotation:
        return rotate(
            self.vault._database,
            self.master,
            self.vault._wrapping_keys,
            lambda phase, done, of: None,
            lambda seconds: (pause(), None)[1],
        )

    def wrapping_keys(self) -> list[int]:
        return [number for number, _ in read_key_file(self.master, MASTER_MAGIC)]


@pytest.fixture
def hosts(database_url: str, tmp_path: Path) -> Iterator[tuple[Host, Host]]:
    """Two that serve; the second was invited."""
    made = []
    for name in "ab":
        keys = tmp_path / name
        keys.mkdir(mode=0o700)
        if name == "a":
            create_vault(database_url, keys / "master.key")
        else:
            shutil.copy(tmp_path / "a" / "master.key", keys / "master.key")
        made.append(Host(database_url, keys, name))
        made[-1].keep_up()
    a, b = made
    yield a, b
    for host in made:
        host.vault.close()


def away(host: Host) -> None:
    """It has not been heard for a while."""
    with psycopg.connect(host.url, autocommit=True) as connection:
        connection.execute("UPDATE vault_hosts SET seen_ms = seen_ms - 60000 WHERE name = %s", (host.name,))


def test_hosts_that_serve_have_the_new_key_before_it_is_used(hosts: tuple[Host, Host]) -> None:
    a, b = hosts
    before, [old] = a.vault.ensure(IDS), a.wrapping_keys()
    looks: list[list[int]] = []

    def other_host() -> None:
        looks.append(b.wrapping_keys())
        assert b.vault.get(IDS) == before
        b.keep_up()
        b.vault.ensure([KeyId(len(looks), 9, 202601)])

    done = a.rotate(other_host)
    assert done.waiting_for == ()
    assert done.retired == (old,)
    assert a.wrapping_keys() == b.wrapping_keys() == [done.wrapping_key_id]
    assert looks[0] == [old]
    assert [old, done.wrapping_key_id] in looks
    assert a.vault.get(IDS) == b.vault.get(IDS) == before
    assert a.vault.gone_before(1 << 60) > 0


def test_one_that_serves_and_takes_nothing_stops_the_rotation_and_nothing_else(
    hosts: tuple[Host, Host],
) -> None:
    a, b = hosts
    before, [old] = a.vault.ensure(IDS), a.wrapping_keys()
    with pytest.raises(WorldError) as caught:
        a.rotate()
    assert caught.value.code == "hosts_lack_key"
    assert "b: not there yet" in str(caught.value)
    assert a.vault.inventory().current_wrapping_key == old
    assert b.vault.ensure([*IDS, KeyId(9, 0, 202601)]).items() >= before.items()
    done = a.rotate(b.keep_up)
    assert done.resumed
    assert a.wrapping_keys() == b.wrapping_keys() == [done.wrapping_key_id] != [old]


@pytest.mark.parametrize("rotations", [1, 2, 3])
def test_one_that_was_away_takes_it_when_it_is_back(hosts: tuple[Host, Host], rotations: int) -> None:
    a, b = hosts
    before = a.vault.ensure(IDS)
    b.vault.close()
    away(b)
    for _ in range(rotations):
        done = a.rotate()
        assert done.waiting_for == ("b",)
    assert a.vault.gone_before(1 << 60) == 0, "the old wrapping key is on a machine still"
    b.vault = b.open()
    assert b.vault.get(IDS) == before
    b.keep_up()
    assert b.wrapping_keys() == a.wrapping_keys() == [done.wrapping_key_id]
    assert a.vault.gone_before(1 << 60) > 0


def test_a_host_that_joins_is_no_rotation(hosts: tuple[Host, Host], tmp_path: Path) -> None:
    """What is destroyed after a rotation waits for the next one, whoever joins; and what a rotation ended does not wait
    for those who never had the earlier wrapping key."""
    a, b = hosts
    a.vault.ensure(IDS)
    a.rotate(b.keep_up)
    for host in hosts:
        host.keep_up()
    rotated_ms = a.vault.gone_before(1 << 60)
    window_end_ms = _now_ms(a.url)
    assert a.vault.gone_before(window_end_ms) == rotated_ms > 0
    a.vault.destroy_device(1, below_epoch=1)
    keys = tmp_path / "c"
    keys.mkdir(mode=0o700)
    (keys / "master.key").write_bytes(a.master.read_bytes())
    (keys / "master.key").chmod(0o600)
    joined = Host(a.url, keys, "c")
    joined.keep_up()
    for host in (a, b, joined):
        assert host.vault.gone_before(1 << 60) == rotated_ms, (
            "the destroyed key is under the wrapping key of now"
        )
        assert host.vault.gone_before(window_end_ms) == rotated_ms, "the new host never had the earlier one"
        assert host.vault.inventory().rotated_ms == rotated_ms
    joined.vault.close()


def test_a_vault_of_an_earlier_release_was_rotated_when_its_master_key_was_written(
    hosts: tuple[Host, Host],
) -> None:
    a, _ = hosts
    with psycopg.connect(a.url, autocommit=True) as connection:
        connection.execute("DROP TABLE vault_rotations, vault_hosts")
    written_ms = 1_700_000_000_000
    os.utime(a.master, ns=(written_ms * 1_000_000, written_ms * 1_000_000))
    assert a.vault.gone_before(written_ms) == a.vault.inventory().rotated_ms == written_ms
    assert a.vault.gone_before(written_ms - 1) == 0
    a.keep_up()
    assert a.vault.gone_before(written_ms) == a.vault.inventory().rotated_ms == written_ms


def _now_ms(url: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint").fetchone()
    assert row is not None
    return int(row[0])


def test_a_copy_of_an_earlier_master_key_opens_nothing_new(hosts: tuple[Host, Host], tmp_path: Path) -> None:
    """Not with all that was ever in the database, nor with a host key of its own."""
    a, b = hosts
    a.vault.ensure(IDS)
    shutil.copytree(b.master.parent, tmp_path / "stolen", ignore=shutil.ignore_patterns("host.key"))
    b.vault.close()
    away(b)
    a.rotate()
    thief = tmp_path / "stolen" / "master.key"
    assert code_of(lambda: open_vault(a.url, thief)) == "key_store_corrupt"
    with psycopg.connect(a.url) as connection:
        [handed] = connection.execute("SELECT handed FROM vault_hosts WHERE name = 'b'").fetchone() or ()
    entries = read_key_file(thief, MASTER_MAGIC)
    assert handed
    assert vault_hosts.opened(X25519PrivateKey.generate(), handed, entries) == []
    assert len(vault_hosts.opened(vault_hosts.host_key(b.master), handed, entries)) == 1


def test_who_only_writes_to_the_database_names_no_host_and_hands_no_key(hosts: tuple[Host, Host]) -> None:
    a, b = hosts
    [old] = a.wrapping_keys()
    forger = X25519PrivateKey.generate()
    mine, theirs = (old, bytes(32)), (1 << 62 | 7, b"F" * 32)
    forged = vault_hosts._sealed(vault_hosts.host_key(b.master).public_key().public_bytes_raw(), mine, theirs)
    with psycopg.connect(a.url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO vault_hosts SELECT %s, 'forged', lasting, vouched_with, vouch, holds, '', seen_ms, NULL"
            " FROM vault_hosts WHERE name = 'b'",
            (forger.public_key().public_bytes_raw(),),
        )
        connection.execute(
            "UPDATE vault_hosts SET handed = %s WHERE name = 'b'", (vault_hosts._HANDED.pack(*forged),)
        )
    b.keep_up()
    assert b.wrapping_keys() == [old]
    done = a.rotate(b.keep_up)
    assert b.wrapping_keys() == [done.wrapping_key_id]
    assert done.waiting_for == ("forged",)
    with psycopg.connect(a.url) as connection:
        [handed] = connection.execute("SELECT handed FROM vault_hosts WHERE name = 'forged'").fetchone() or ()
    assert handed == b""


def test_a_host_that_is_gone_for_good_is_forgotten(hosts: tuple[Host, Host]) -> None:
    a, b = hosts
    assert code_of(lambda: a.vault.forget_host("b")) == "host_serves"
    assert code_of(lambda: a.vault.forget_host("c")) == "no_such_host"
    b.vault.close()
    away(b)
    a.rotate()
    a.vault.forget_host("b")
    assert [host.name for host in a.vault.hosts()] == ["a"]
    assert a.rotate().waiting_for == ()
    assert a.vault.gone_before(1 << 60) > 0
    with pytest.raises(CorruptError, match=r"copy keys/master\.key from one of the others"):
        b.open()


def test_one_whose_keys_go_with_it_is_waited_for_ten_minutes(hosts: tuple[Host, Host]) -> None:
    a, b = hosts
    b.vault.keep_up("b", lasting=False)
    b.vault.close()
    for _ in range(9):
        away(b)
    a.keep_up()
    assert a.rotate().waiting_for == ("b",)
    away(b)
    a.keep_up()
    assert [host.name for host in a.vault.hosts()] == ["a"]
    assert a.vault.gone_before(1 << 60) > 0


def test_a_rotation_that_was_interrupted_goes_on_from_the_other_host(hosts: tuple[Host, Host]) -> None:
    """b has taken the key, and a died before it was current: b's rotation finishes that one."""
    a, b = hosts
    before = a.vault.ensure(IDS)

    class Died(Exception):
        pass

    def die() -> None:
        b.keep_up()
        raise Died

    with pytest.raises(Died):
        a.rotate(die)
    assert len(b.wrapping_keys()) == 2
    done = b.rotate(a.keep_up)
    assert done.resumed
    assert a.wrapping_keys() == b.wrapping_keys() == [done.wrapping_key_id]
    assert a.vault.get(IDS) == b.vault.get(IDS) == before


def test_one_that_was_killed_before_it_handed_anything_over_does_not_shut_a_host_out(
    hosts: tuple[Host, Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    """a has a new key in its file, and nobody else knows of it. b's rotation reaches a all the same."""
    a, b = hosts
    before = a.vault.ensure(IDS)

    class Died(Exception):
        pass

    def die(*args: object) -> None:
        raise Died

    with monkeypatch.context() as patch:
        patch.setattr(vault_rotation, "hand", die)
        with pytest.raises(Died):
            a.rotate()
    assert len(a.wrapping_keys()) == 2
    a.keep_up()
    done = b.rotate(a.keep_up)
    assert done.waiting_for == ()
    assert a.wrapping_keys() == b.wrapping_keys() == [done.wrapping_key_id]
    made = b.vault.ensure([KeyId(9, 0, 202601)])
    assert a.vault.get([*IDS, KeyId(9, 0, 202601)]) == before | made


def test_two_rotations_at_once_do_the_work_of_one(hosts: tuple[Host, Host]) -> None:
    """b begins while a waits for b, which then has a's new key by itself."""
    a, b = hosts
    before = a.vault.ensure(IDS)
    done: list[Rotation] = []

    def other_host() -> None:
        if not done:
            done.append(b.rotate(a.keep_up))

    assert a.rotate(other_host).wrapping_key_id == done[0].wrapping_key_id
    for host in hosts:
        host.keep_up()
        assert host.wrapping_keys() == [done[0].wrapping_key_id]
        assert host.vault.get(IDS) == before


def test_a_rotation_that_another_one_has_overtaken_wraps_nothing_with_its_own_key(
    hosts: tuple[Host, Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hosts have dropped that key by then."""
    a, b = hosts
    before, began = a.vault.ensure(IDS), vault_rotation._rewrap_all
    others: list[Rotation] = []

    def overtaken(*args: Any) -> Any:
        with monkeypatch.context() as inner:
            inner.setattr(vault_rotation, "_rewrap_all", began)
            for _ in range(2):
                others.append(b.rotate(a.keep_up))
        return began(*args)

    with monkeypatch.context() as patch:
        patch.setattr(vault_rotation, "_rewrap_all", overtaken)
        a.rotate(b.keep_up)
    assert a.wrapping_keys() == b.wrapping_keys() == [others[-1].wrapping_key_id]
    assert a.vault.get(IDS) == b.vault.get(IDS) == before


def test_who_rotates_while_it_does_not_serve_is_handed_the_next_one(hosts: tuple[Host, Host]) -> None:
    """Its row is of before its own rotation, and the wrapping key of then is nowhere any more."""
    a, b = hosts
    before = a.vault.ensure(IDS)
    a.rotate(b.keep_up)
    a.vault.close()
    away(a)
    b.rotate()
    a.vault = a.open()
    assert a.vault.get(IDS) == before


def test_a_folder_that_is_put_back_from_its_backup_takes_what_it_had_taken(
    hosts: tuple[Host, Host], tmp_path: Path
) -> None:
    a, b = hosts
    before = a.vault.ensure(IDS)
    shutil.copytree(b.master.parent, tmp_path / "backup")
    for _ in range(3):
        a.rotate(b.keep_up)
    b.vault.close()
    shutil.rmtree(b.master.parent)
    shutil.copytree(tmp_path / "backup", b.master.parent)
    b.vault = b.open()
    assert b.vault.get(IDS) == before
    b.keep_up()
    assert b.wrapping_keys() == a.wrapping_keys()


def test_a_host_that_was_killed_while_it_dropped_the_old_key_has_it_until_that_is_overwritten(
    hosts: tuple[Host, Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file that was replaced lies beside the new one."""
    a, b = hosts
    old, shredded = b.master.with_suffix(".old"), _key_files.shred_leftovers

    class Killed(BaseException):
        pass

    def killed(path: Path) -> bool:
        if path == b.master and old.exists() and len(b.wrapping_keys()) == 1:
            raise Killed
        return shredded(path)

    def drop() -> None:
        with suppress(Killed):
            b.keep_up()

    with monkeypatch.context() as patch:
        patch.setattr(_key_files, "shred_leftovers", killed)
        patch.setattr(vault_rotation, "shred_leftovers", killed)
        a.rotate(drop)
        assert old.exists()
        drop()
        assert a.vault.gone_before(1 << 60) == b.vault.gone_before(1 << 60) == 0
        assert [len(host.wrapping_keys) for host in a.vault.hosts()] == [1, 2]
    b.keep_up()
    assert not old.exists()
    assert a.vault.gone_before(1 << 60) > 0


def test_a_vault_of_an_earlier_release_gets_its_list_of_hosts(database_url: str, tmp_path: Path) -> None:
    create_vault(database_url, tmp_path / "master.key")
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("DROP TABLE vault_hosts")
    host = Host(database_url, tmp_path, "a")
    assert host.vault.hosts() == []
    assert host.rotate().waiting_for == ()
    host.keep_up()
    assert [each.name for each in host.vault.hosts()] == ["a"]
    host.vault.close()
