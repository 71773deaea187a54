"""`clipkeep host invite`, `host join` and `hosts`: what is written, what is refused, and what is said."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from service.commands.hosts import _document
from service.folder import open_folder
from service.joining import Invite, kept_apart
from storage.open_store import open_store
from storage.rows.hosts import HostRow
from tests.servers.catalogs import empty_database, sqlite_only
from tests.service.test_cli_postgres import _no_variables as _no_variables
from tests.service.test_cli_postgres import document, refused, run


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """The data folder of the first host."""
    data = tmp_path / "first"
    addresses = (
        "--catalog",
        empty_database(tmp_path / "data"),
        "--vault",
        empty_database(tmp_path / "vault"),
    )
    document(data, "init", *addresses, "--store", (tmp_path / "objects").as_uri())
    return data


@pytest.fixture
def invitation(tmp_path: Path, home: Path) -> Path:
    path = tmp_path / "invitation"
    config = home / "config.toml"
    config.write_text(config.read_text().replace("# max_stale_s = 5.0", "max_stale_s = 7.5"))
    document(home, "device", "add", "--plan", "annual")
    document(home, "host", "invite", "--out", str(path))
    return path


def changed(path: Path, **fields: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_another_host_has_the_same_home_and_what_its_folder_says(
    tmp_path: Path, home: Path, invitation: Path
) -> None:
    assert invitation.stat().st_mode & 0o777 == 0o600
    other = tmp_path / "second"
    document(other, "host", "join", str(invitation))
    assert "max_stale_s = 7.5" in (other / "config.toml").read_text()
    assert (other / "keys/master.key").read_bytes() == (home / "keys/master.key").read_bytes()
    assert (other / "keys/master.key").stat().st_mode & 0o777 == 0o600
    assert other.stat().st_mode & 0o777 == 0o700
    assert not (other / "config.new").exists()
    device = document(home, "device", "add", "--plan", "annual")
    assert document(other, "device", "show", "--device", str(device["device"]))["device"] == device["device"]
    assert document(other, "hosts")["hosts"] == []
    with open_folder(other) as opened:
        assert not opened.settle_numbers(ask_store=True), "nobody is logged out because a host has joined"
        opened.entitlements.recover()
        row = opened.bitmap.read(int(str(device["device"])))
        assert row is not None, "its rows are made anew, those from before the invitation too"


def test_a_rotation_reaches_a_host_that_has_joined_and_not_served_yet(
    tmp_path: Path, home: Path, invitation: Path
) -> None:
    """And the one that made the home, which has not served either."""
    other = tmp_path / "second"
    document(other, "host", "join", str(invitation))
    for folder in (home, other, home):
        document(folder, "keys", "rotate")
    for folder in (home, other):
        assert document(folder, "device", "add", "--plan", "annual")["device"]


def test_a_join_that_was_killed_is_run_again(tmp_path: Path, home: Path, invitation: Path) -> None:
    """A pod's folder outlives its first container, and home may list the host already."""
    other = tmp_path / "second"
    document(other, "host", "join", str(invitation))
    listed = document(home, "keys", "show")["hosts"]
    (other / "config.toml").rename(other / "config.new")  # the last step was not reached
    document(other, "host", "join", str(invitation))
    assert not (other / "config.new").exists()
    hosts = document(home, "keys", "show")["hosts"]
    assert len(hosts) == len(listed), "it is the same host"  # type: ignore[arg-type]
    assert document(other, "hosts")["hosts"] == []
    (other / "config.toml").unlink()
    assert "exists" in refused(other, "host", "join", str(invitation)), "not what a join left"


def test_who_invites_is_told_what_each_host_would_keep_for_itself(tmp_path: Path, home: Path) -> None:
    told = document(home, "host", "invite", "--out", str(tmp_path / "one"))["warnings"]
    assert "[notices]" in str(told)
    assert "warning: [notices]" in run(home, "host", "invite", "--out", str(tmp_path / "two")).err
    with open_folder(home) as opened:
        mine = opened.config
    notices = replace(mine.notices, mail="smtp://mail.example:25", mobile="https://sms.example/")
    theirs = replace(mine, notices=notices)
    assert kept_apart(theirs) == []


def test_an_invitation_is_its_owners_alone_and_never_overwritten(
    tmp_path: Path, home: Path, invitation: Path
) -> None:
    before = invitation.read_text()
    assert "exists" in refused(home, "host", "invite", "--out", str(invitation))
    assert invitation.read_text() == before
    invitation.chmod(0o640)
    assert "invite_open" in refused(tmp_path / "second", "host", "join", str(invitation))
    assert not (tmp_path / "second").exists()


def test_what_makes_no_host_leaves_nothing(tmp_path: Path, home: Path, invitation: Path) -> None:
    other, good = tmp_path / "second", invitation.read_text()
    for fields, code in (
        ({"expires_ms": 1}, "invite_expired"),
        ({"home": 7}, "another_home"),
        ({"newest_change": "9"}, "bad_invite"),
        ({"clipkeep_invite": 2}, "bad_invite"),
        ({"more": 1}, "bad_invite"),
        ({"master_key": "?"}, "bad_invite"),
        ({"expires_ms": "soon"}, "bad_invite"),
        ({"config": "[home]\ncatalog = 7\n"}, "bad_config"),
    ):
        invitation.write_text(good)
        changed(invitation, **fields)
        assert code in refused(other, "host", "join", str(invitation)), fields
        assert not list(other.rglob("*"))
    for text in ("", "[]", "7", "no invitation", "\0"):
        invitation.write_text(text)
        assert "bad_invite" in refused(other, "host", "join", str(invitation))
    invitation.write_bytes(b"\xff")
    assert "bad_invite" in refused(other, "host", "join", str(invitation))
    assert "folder_unavailable" in refused(other, "host", "join", str(tmp_path / "nothing"))
    invitation.write_text(good)
    assert "exists" in refused(home, "host", "join", str(invitation))
    assert run(other, "host", "join", str(invitation)).code == 0


def test_a_rotation_ends_earlier_invitations(tmp_path: Path, home: Path, invitation: Path) -> None:
    document(home, "keys", "rotate")
    said = refused(tmp_path / "second", "host", "join", str(invitation))
    assert "invite_expired" in said
    assert "host invite" in said
    assert not list((tmp_path / "second").rglob("*"))


@pytest.mark.parametrize("command", [("host", "join"), ("serve",), ("sweep",), ("sweep", "--dry-run")])
def test_a_host_with_another_store_acknowledges_and_deletes_nothing(
    tmp_path: Path, home: Path, invitation: Path, command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another share or bucket in its environment. (One that is not mounted is told from a store by itself.)"""
    with open_folder(home) as opened:
        opened.settle_numbers(ask_store=True)
        opened.require_own_store()
    other = tmp_path / "second"
    if command != ("host", "join"):
        document(other, "host", "join", str(invitation))
    open_store((tmp_path / "elsewhere").as_uri(), environ={}, create=True).close()
    before = sorted((tmp_path / "elsewhere").rglob("*"))
    monkeypatch.setenv("CLIPKEEP_STORE_URL", (tmp_path / "elsewhere").as_uri())
    said = refused(other, *command, *([str(invitation)] if "join" in command else []))
    assert "another_store" in said
    assert "store accept" in said
    assert sorted((tmp_path / "elsewhere").rglob("*")) == before


def test_an_invitation_is_read_as_it_was_written() -> None:
    made = Invite(home=5, expires_ms=7, newest_change=9, config="[home]\n", master_key=bytes(range(256)))
    assert Invite.from_text(made.as_text(), Path("x")) == made


@sqlite_only
def test_a_home_in_its_folder_invites_nobody_and_says_what_to_do(tmp_path: Path) -> None:
    data = tmp_path / "data"
    document(data, "init")
    said = refused(data, "host", "invite", "--out", str(tmp_path / "invitation"))
    assert "home_is_here" in said
    assert all(word in said for word in ("catalog copy", "init --vault", "[store] url"))
    assert not (tmp_path / "invitation").exists()
    assert "home is this data folder" in run(data, "hosts").out


def test_the_list_says_how_far_each_host_is(tmp_path: Path, home: Path) -> None:
    with open_folder(home) as opened:
        opened.feed("id-a").register()
        opened.feed("id-a").step()
    [host] = document(home, "hosts")["hosts"]  # type: ignore[misc]
    assert (host["host"], host["behind"], host["state"]) == ("id-a", 0, "serves")
    said = run(home, "hosts").out
    assert host["name"] in said
    assert "serves" in said


def test_the_list_tells_who_is_silent_whose_clock_is_off_and_that_nobody_serves(home: Path) -> None:
    assert "no host serves this home now: clipkeep serve" in run(home, "hosts").out
    host = HostRow("id", "a", "1", 0, 10_000, 7, 50, 250, 0, 5000)
    for row, state, shown in (
        (host, "serves", "serves"),
        (host._replace(asked_ms=4999), "silent", "silent"),
        (host._replace(offset_ms=-60_001), "serves", "serves, clock is off"),
    ):
        told = _document(row, now_ms=10_000, newest=9)
        assert (told["state"], told["_state"], told["behind"]) == (state, shown, 2)
