"""The command line: the contract's names, help everywhere, one JSON document, and no traceback ever."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import structlog
import typer

from service.cli import COMMANDS, application, main
from service.folder import open_folder
from service.playback.gate import Gate, Viewer
from service.playback.used import Used
from storage.days import MS_PER_DAY
from tests.retention.world import DELAY_MS, NOON, WEEK, World, fast_folder
from tests.servers.catalogs import empty_address, sqlite_only

CLIPKEEP = Path(sys.executable).with_name("clipkeep")
COMMON = {"--data", "--json"}


@dataclass(frozen=True)
class Done:
    """A command that ended."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)

    @property
    def error(self) -> str:
        """The code of the refusal, which `--json` and the person are told alike."""
        assert self.code == 1, self
        error, detail = str(self.document["error"]), self.document["detail"]
        last = self.err.rstrip().splitlines()[-1]
        if last.startswith("{"):  # of `serve`: the last line of its log
            line = json.loads(last)
            assert (line["event"], line["code"], line["detail"]) == ("cannot_serve", error, detail)
        else:
            assert self.err.rstrip().endswith(f"({error})")
            assert detail in self.err
        return error


Run = Callable[..., Done]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """Run a command in this process, through the same `main` as the installed one."""
    for name in list(os.environ):
        if name.startswith("CLIPKEEP_") and "_TEST_" not in name:
            monkeypatch.delenv(name)
    monkeypatch.setenv("CLIPKEEP_HOME_SURVIVES", "server_crash")  # the servers of tests do not sync
    structlog.reset_defaults()  # a test that looked at logs leaves it configured

    def run_one(*args: object) -> Done:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["clipkeep", *map(str, args)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        code = ended.value.code
        return Done(code if isinstance(code, int) else 0, out, err)

    yield run_one
    structlog.reset_defaults()  # `serve` configured it to write where this test's stderr was


@pytest.fixture
def data() -> Iterator[Path]:
    with fast_folder() as folder:
        yield folder / "data"


@pytest.fixture
def made(run: Run, data: Path) -> Path:
    """A data folder with a test clock and one device on trial."""
    assert run("init", "--data", data, "--test-clock", "--catalog", empty_address(data)).code == 0
    assert run("device", "add", "--plan", "trial", "--data", data).code == 0
    return data


# --- what there is ----------------------------------------------------------------------------------------------


@cache
def commands() -> Mapping[str, Any]:
    """Every command of the tree by its words. Made once: that takes a third of a second."""
    return MappingProxyType(commands_in(typer.main.get_command(application()), ""))


def commands_in(group: Any, name: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for word, command in group.commands.items():
        words = f"{name} {word}".strip()
        if hasattr(command, "commands"):
            assert command.help, words
            found |= commands_in(command, words)
        else:
            found[words] = command
    return found


def options(command: Any) -> set[str]:
    return {option for parameter in command.params for option in parameter.opts}


def test_every_command_is_found_where_the_table_says() -> None:
    """Only the modules of the command that is asked for are loaded."""
    everything = typer.main.get_command(application())
    assert set(everything.commands) == {*COMMANDS}  # type: ignore[attr-defined]
    for name in COMMANDS:
        alone = typer.main.get_command(application((name,))).commands[name]  # type: ignore[attr-defined]
        with_all = everything.commands[name]  # type: ignore[attr-defined]
        assert getattr(alone, "commands", {}).keys() == getattr(with_all, "commands", {}).keys(), name


@pytest.mark.parametrize("words", sorted(commands()))
def test_every_command_and_option_is_documented(words: str) -> None:
    command = commands()[words]
    assert len(command.help or "") > 15
    for parameter in command.params:
        assert getattr(parameter, "help", None), f"{words} {parameter.name} has no help"


DOCS = Path(__file__).parents[2] / "docs"
PAGES = ("design.md", "operations.md", "benchmarks.md")
"""The contract, how it is run, and the bench."""


def named_in_docs(before: str) -> set[str]:
    """What is named as a command. `keys rotate|show` names two.

    Args:
        before: what stands before it, a pattern.
    """
    text = " ".join("\n".join((DOCS / page).read_text() for page in PAGES).split())
    found = set()
    for group, word in re.findall(rf"(?={before}([a-z|-]+)(?: ([a-z|-]+))?)", text):
        for first in group.split("|"):
            found |= {first, *(f"{first} {second}" for second in word.split("|") if second)}
    return found


@pytest.mark.parametrize("words", sorted(commands()))
def test_every_command_is_in_the_docs(words: str) -> None:
    assert words in named_in_docs("(?:clipkeep |`)"), f"`clipkeep {words}` is in none of {', '.join(PAGES)}"


def test_the_docs_name_no_command_that_is_not_there() -> None:
    there = commands()
    groups = {words.split()[0] for words in there if " " in words}
    named = {words for words in named_in_docs("clipkeep ") if " " in words and words.split()[0] in groups}
    assert named
    assert named <= there.keys()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("account add", {*COMMON, "--email", "--mobile", "--name", "--accepts", "--password-stdin"}),
        ("account list", {*COMMON, "--state", "--closing", "--address", "--after", "--limit"}),
        *(
            (f"account {verb}", {*COMMON, "--account"})
            for verb in ("show", "withdraw", "approve", "send-code")
        ),
        *(
            (f"account {verb}", {*COMMON, "--account", "--after", "--limit"})
            for verb in ("events", "payments")
        ),
        *(
            (f"account {verb}", {*COMMON, "--account", "--reason"})
            for verb in ("suspend", "resume", "reject")
        ),
        ("account cancel", {*COMMON, "--account", "--reason", "--dry-run"}),
        ("account block", {*COMMON, "--account", "--kind", "--detail"}),
        ("account unblock", {*COMMON, "--block"}),
        ("corrections ask", {*COMMON, "--account", "--field", "--detail", "--within-days"}),
        ("corrections list", {*COMMON, "--account", "--all", "--after", "--limit"}),
        ("corrections withdraw", {*COMMON, "--account", "--reason"}),
        ("corrections step", COMMON),
        ("accounts dormant", {*COMMON, "--suspend", "--after", "--limit"}),
        ("notices list", {*COMMON, "--state", "--account", "--after", "--limit"}),
        ("notices send", {*COMMON, "--limit"}),
        ("notices confirm", {*COMMON, "--notice"}),
        ("notices announce", {*COMMON, "--subject", "--body", "--body-file", "--reference", "--dry-run"}),
        ("notices announce", {"--from", "--until", "--suspended-too"}),
        ("notices advertise", {*COMMON, "--subject", "--body", "--body-file", "--reference"}),
        ("account consents", {*COMMON, "--account"}),
        (
            "account consent",
            {
                *COMMON,
                "--account",
                "--to",
                "--yes",
            },
        ),
        ("partners export", {*COMMON, "--to", "--reason"}),
        ("partners list", COMMON),
        ("notices withdraw", {*COMMON, "--reference"}),
        *((f"privacy {verb}", COMMON) for verb in ("show", "list", "publish")),
        ("agreement show", {*COMMON, "--version"}),
        ("agreement publish", {*COMMON, "--file"}),
        ("operator-token", {*COMMON, "--hours", "--revoke-all"}),
        ("device add", {*COMMON, "--account", "--count", "--plan", "--retention-days", "--starts-on"}),
        ("device add", {"--serial"}),
        ("device list", {*COMMON, "--account", "--name", "--silent", "--after", "--limit"}),
        ("device kept", {*COMMON, "--device"}),
        ("device rename", {*COMMON, "--device", "--name", "--label"}),
        ("init", {"--check-store", "--data", "--json", "--store"}),
        ("serve", {"--data", "--json", "--store", "--ingest", "--api", "--workers"}),
        ("plan start", {*COMMON, "--device", "--plan", "--retention-days", "--starts-on"}),
        ("plan cancel", {*COMMON, "--device", "--plan", "--reason"}),
        ("plan list", {*COMMON, "--device"}),
        ("plan prices", COMMON),
        ("renew", {*COMMON, "--limit"}),
        ("refund quote", {*COMMON, "--plan"}),
        ("refund paid", {*COMMON, "--reference", "--reason"}),
        ("refund credit", {*COMMON, "--plan", "--minor", "--currency", "--reason", "--reference"}),
        ("device terminate", {*COMMON, "--device", "--reason", "--erase"}),
        ("recordings delete", {*COMMON, "--device", "--from", "--to", "--reason"}),
        ("device share", {*COMMON, "--device", "--from", "--to", "--hours", "--url"}),
        ("device shares", {*COMMON, "--device"}),
        ("device unshare", {*COMMON, "--device", "--share", "--reason"}),
        ("viewer-token", {*COMMON, "--device", "--hours", "--url"}),
        (
            "sweep",
            {*COMMON, "--store", "--dry-run", "--allow-bulk", "--accept-catalog", "--max-deletes-per-s"},
        ),
        ("check", {*COMMON, "--store", "--deep", "--repair", "--older-than-hours", "--allow-bulk"}),
        ("catalog rebuild", {*COMMON, "--store"}),
        ("catalog migrate", COMMON),
    ],
)
def test_the_contract(words: str, expected: set[str]) -> None:
    assert expected <= options(commands()[words])


def test_defaults_of_the_contract() -> None:
    defaults = {p.name: p.default for p in commands()["serve"].params}
    assert (defaults["ingest"], defaults["api"]) == ("127.0.0.1:8080", "127.0.0.1:8081")
    assert str(defaults["data"]) == "clipkeep-data"
    assert {p.name: p.default for p in commands()["viewer-token"].params}["hours"] == 24


def test_the_data_folder_may_come_from_the_environment(
    run: Run, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLIPKEEP_DATA", str(made))
    assert run("device", "list", "--json").document["devices"][0]["device"] == 1


def test_a_list_says_where_it_stops(run: Run, made: Path) -> None:
    assert run("device", "add", "--count", 4, "--data", made).code == 0
    cut, whole = (run("device", "list", "--limit", n, "--data", made) for n in (3, 6))
    assert "--after 3" in cut.out
    assert "--after" not in whole.out
    document = run("device", "list", "--limit", 3, "--data", made, "--json").document
    assert document["next"] == 3
    rest = run("device", "list", "--after", 3, "--data", made, "--json").document
    assert ([row["device"] for row in rest["devices"]], rest["next"]) == ([4, 5], None)


LISTS = [
    words
    for words, command in commands().items()
    if any(p.name == "after" and not getattr(p, "is_flag", False) for p in command.params)
]


@pytest.mark.parametrize("words", LISTS)
def test_every_list_that_has_pages_tells_programs_the_next_one(run: Run, made: Path, words: str) -> None:
    of_one = {"account events": "--account", "account payments": "--account", "device clips": "--device"}
    more = [of_one[words], "1"] if words in of_one else []
    assert run(*words.split(), *more, "--data", made, "--json").document["next"] is None


def test_the_release_is_told(run: Run) -> None:
    done = run("--version")
    assert done.code == 0
    assert re.fullmatch(r"clipkeep [0-9.]+ \(hot path: (compiled|Python)\)\n", done.out)


# --- init -------------------------------------------------------------------------------------------------------


def test_init_makes_a_folder_that_is_private_and_says_what_is_next(run: Run, data: Path) -> None:
    done = run("init", "--data", data)
    assert "clipkeep serve" in done.out
    names = {path.name for path in data.iterdir()}
    assert names == {"config.toml", "keys", "catalog.db", "entitlements.bitmap", "objects"}
    assert data.stat().st_mode & 0o777 == 0o700
    assert run("check", "--data", data).code == 0


def modes(folder: Path) -> dict[str, int]:
    """Of the folder and all in it, the part that is for others."""
    found = [folder, *folder.rglob("*")]
    return {str(path.relative_to(folder)): path.stat().st_mode & 0o077 for path in found}


def test_what_init_makes_is_its_owners_alone_whatever_the_umask(run: Run, data: Path) -> None:
    before = os.umask(0)
    try:
        assert run("init", "--data", data).code == 0
    finally:
        os.umask(before)
    assert set(modes(data).values()) == {0}, modes(data)


def test_init_closes_an_empty_folder_that_is_there(run: Run, data: Path) -> None:
    data.mkdir()
    data.chmod(0o755)
    assert run("init", "--data", data).code == 0
    assert data.stat().st_mode & 0o777 == 0o700


def test_init_leaves_a_folder_alone_that_others_use(run: Run, data: Path) -> None:
    data.mkdir()
    data.chmod(0o755)
    (data / "theirs").touch()
    done = run("init", "--data", data, "--json")
    assert done.error == "folder_open"
    assert "chmod 700" in done.err
    assert [path.name for path in data.iterdir()] == ["theirs"]
    assert data.stat().st_mode & 0o777 == 0o755
    data.chmod(0o700)
    assert run("init", "--data", data).code == 0


def test_config_shows_no_secret(run: Run, made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIPKEEP_NOTICES_SMTP_PASSWORD", "Hunter2")
    monkeypatch.setenv("CLIPKEEP_NOTICES_MOBILE", "https://hook.example/Hunter2")
    shown, document = run("config", "--data", made), run("config", "--data", made, "--json")
    assert "Hunter2" not in shown.out + document.out
    assert document.document["notices"]["smtp_password"] == "***"
    assert document.document["notices"]["mobile"] == "https://hook.example/***"
    assert document.document["clock"] == {"test": True}


@pytest.mark.parametrize(
    ("variable", "code"),
    [
        ("CLIPKEEP_STORE_URL", "bad_store_url"),
        ("CLIPKEEP_S3_ENDPOINT", "bad_endpoint"),
    ],
)
def test_no_error_repeats_credentials(
    run: Run, made: Path, monkeypatch: pytest.MonkeyPatch, variable: str, code: str
) -> None:
    monkeypatch.setenv("CLIPKEEP_STORE_URL", "s3://bucket/prefix")
    monkeypatch.setenv(variable, "s3://ada:Hunter2@host:9000")
    done = run("device", "list", "--data", made, "--json")
    assert done.error == code
    assert "Hunter2" not in done.out + done.err
    assert "***@host" in done.err


def test_init_makes_and_tries_the_store_that_the_environment_names(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`serve` reads it there too: a folder that says another one would be served from two stores."""
    monkeypatch.setenv("CLIPKEEP_STORE_URL", "s3://ada:Hunter2@host:9000")
    assert run("init", "--check-store", "--data", tmp_path / "a", "--json").error == "bad_store_url"
    assert not (tmp_path / "a").exists()
    url = (tmp_path / "elsewhere").as_uri()
    monkeypatch.setenv("CLIPKEEP_STORE_URL", url)
    assert run("init", "--data", tmp_path / "b", "--json").document["store"] == url
    monkeypatch.delenv("CLIPKEEP_STORE_URL")
    assert run("config", "--data", tmp_path / "b", "--json").document["store"]["url"] == url


def test_init_refuses_what_is_there_and_leaves_it(run: Run, made: Path) -> None:
    def files() -> dict[Path, bytes]:
        found = {path for path in made.rglob("*") if path.is_file()}
        return {path: path.read_bytes()[:4096] for path in found if path.suffix != ".bitmap"}

    before = files()
    assert run("init", "--data", made, "--json").error == "exists"
    assert files() == before


@sqlite_only
@pytest.mark.parametrize("left", ["keys", "catalog.db", "entitlements.bitmap"])
def test_an_init_that_was_interrupted_is_never_overwritten(run: Run, made: Path, left: str) -> None:
    """Nobody knows whether those keys are needed: a person decides."""
    for path in made.iterdir():
        if path.name != left:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    done = run("init", "--data", made, "--json")
    assert done.error == "exists"
    assert left in done.document["detail"]
    assert (made / left).exists()


@pytest.mark.parametrize("store", ["nfs://x", "file://host/x", "s3://", "file:///proc/no/such"])
def test_a_bad_store_leaves_nothing_behind(run: Run, data: Path, store: str) -> None:
    done = run("init", "--data", data, "--store", store, "--json")
    assert done.error in ("bad_store_url", "store_denied", "store_unavailable", "store_gone", "bad_request")
    assert not data.exists() or list(data.iterdir()) == []
    assert run("init", "--data", data).code == 0


def test_init_stores_the_store(run: Run, data: Path) -> None:
    url = (data.parent / "elsewhere").as_uri()
    assert run("init", "--data", data, "--store", url, "--json").document["store"] == url
    assert f'\nurl = "{url}"' in (data / "config.toml").read_text()
    assert not (data / "objects").exists()
    assert run("check", "--data", data).code == 0
    shutil.rmtree(data.parent / "elsewhere")
    assert run("check", "--data", data, "--json").error == "store_gone"


# --- devices and plans ------------------------------------------------------------------------------------------


def shown(run: Run, data: Path, device: int = 1) -> dict[str, Any]:
    found: dict[str, Any] = run("device", "show", "--device", device, "--data", data, "--json").document
    return found


def test_the_life_of_a_device(run: Run, made: Path) -> None:
    def go(*words: object) -> Any:
        done = run(*words, "--data", made, "--json")
        assert done.code == 0, done
        return done.document

    today = datetime.now(UTC).date()
    first = shown(run, made)
    assert (first["state"], first["retention_days"]) == ("recording", 7)
    assert first["entitled_through"] == (today + timedelta(days=13)).isoformat()
    assert go("device", "add").keys() == {"device", "token"}
    assert shown(run, made, 2)["state"] == "no plan"
    assert [d["device"] for d in go("device", "add", "--count", 3)["devices"]] == [3, 4, 5]

    plan = go("plan", "start", "--device", 2, "--plan", "monthly", "--retention-days", 90)
    assert (plan["starts_on"], plan["renews"], plan["retention_days"]) == (today.isoformat(), True, 90)
    cancelled = go("plan", "cancel", "--device", 2)
    assert (cancelled["cancelled_on"], cancelled["renews"]) == (today.isoformat(), False)
    assert shown(run, made, 2)["state"] == "recording"

    future = (today + timedelta(days=5)).isoformat()
    go("plan", "start", "--device", 3, "--plan", "annual", "--starts-on", future)
    assert shown(run, made, 3)["state"] == "not started"
    go("plan", "start", "--device", 4, "--plan", "trial", "--starts-on", "2020-01-01")
    assert shown(run, made, 4)["state"] == "lapsed"

    go("device", "suspend", "--device", 1, "--reason", "unpaid")
    assert shown(run, made)["state"] == "suspended"
    go("device", "resume", "--device", 1, "--reason", "paid")
    token = go("device", "new-token", "--device", 1, "--reason", "lost")["token"]
    assert token != first["token"]
    assert shown(run, made)["token"] == token
    go("device", "terminate", "--device", 1, "--reason", "abuse", "--erase")
    assert shown(run, made)["erasure"] == "erasing"
    assert (
        run("plan", "start", "--device", 1, "--plan", "monthly", "--data", made, "--json").error
        == "terminated"
    )
    report = go("sweep")
    assert [d["device"] for d in report["erased_devices"]] == [1, 4]
    assert shown(run, made)["erasure"] == "erased"
    assert len(go("device", "list", "--after", 3, "--limit", 1)["devices"]) == 1


def test_devices_are_named_and_found(run: Run, made: Path) -> None:
    def listed(*words: object) -> list[int]:
        document = run("device", "list", *words, "--data", made, "--json").document
        return [row["device"] for row in document["devices"]]

    assert run("device", "add", "--count", 2, "--data", made).code == 0
    for device, name in ((1, "Front door"), (2, "Back door")):
        reply = run("device", "rename", "--device", device, "--name", name, "--data", made, "--json")
        assert reply.document["name"] == name
    run("device", "rename", "--device", 2, "--label", "Elm Street", "--data", made)
    assert run("device", "show", "--device", 2, "--data", made, "--json").document["label"] == "Elm Street"
    assert listed("--account", 1, "--name", "DOOR") == [1, 2]
    assert listed("--account", 1, "--name", "elm") == [2]
    assert listed("--account", 1, "--name", "door", "--limit", 1) == [1]
    assert listed("--account", 1, "--after", 1)[0] == 2
    assert set(listed("--silent", 5)) <= set(listed())
    drawn = run("device", "list", "--account", 1, "--name", "door", "--limit", 1, "--data", made)
    assert "Front door" in drawn.out
    assert "--after 1" in drawn.out
    kept = run("device", "kept", "--device", 1, "--data", made, "--json").document
    assert kept == {"device": 1, "chunks": 0, "length_bytes": 0, "duration_ms": 0, "days": []}
    for wrong in (
        ("list", "--name", "door"),
        ("list", "--account", 1, "--silent", 5),
        ("rename", "--device", 1),
    ):
        assert run("device", *wrong, "--data", made, "--json").error == "bad_usage"


def test_cancelling_goes_from_the_last_plan_to_the_first(run: Run, made: Path) -> None:
    today = datetime.now(UTC).date()
    first = run("plan", "start", "--device", 1, "--plan", "annual", "--data", made, "--json").document
    second = run("plan", "start", "--device", 1, "--plan", "monthly", "--data", made, "--json").document
    assert (
        second["starts_on"]
        == (datetime.fromisoformat(first["ends_on"]) + timedelta(days=1)).date().isoformat()
    )
    for plan in (second, first):
        cancelled = run("plan", "cancel", "--device", 1, "--data", made, "--json").document
        assert (cancelled["plan"], cancelled["starts_on"]) == (plan["plan"], plan["starts_on"])
        assert cancelled["cancelled_on"] == today.isoformat()
    done = run("plan", "cancel", "--device", 1, "--data", made, "--json")
    assert done.error == "no_running_plan", "the trial ended when the plan began"


def test_a_viewer_token_and_its_life(run: Run, made: Path) -> None:
    words = ("viewer-token", "--device", 1, "--data", made)
    document = run(*words, "--hours", 2, "--json").document
    assert abs(document["expires_s"] - datetime.now(UTC).timestamp() - 7200) < 60
    assert run(*words).out.strip().startswith(document["token"][:4])


def test_a_viewer_token_comes_with_addresses_that_play(run: Run, made: Path) -> None:
    run("clock", "--advance", "3d", "--data", made)
    words = ("viewer-token", "--device", 1, "--data", made)
    document = run(*words, "--url", "https://video.example/", "--json").document
    base, token = "https://video.example/v1/devices/1/playlist.m3u8", document["token"]
    assert document["live"] == f"{base}?token={token}"
    asked = parse_qs(urlsplit(document["last_hour"]).query)
    assert int(asked["to"][0]) - int(asked["from"][0]) == 3_600_000
    assert abs(int(asked["to"][0]) / 1000 - time.time() - 3 * 86_400) < 60, "by the service's clock"
    assert document["last_hour"].startswith(f"{base}?from=")
    done = run(*words)
    assert done.out.strip().count("\n") == 0, "a script takes stdout for the token"
    assert "http://127.0.0.1:8081/v1/devices/1/playlist.m3u8?from=" in done.err


def test_a_viewer_token_lasts_its_hours_after_the_clock_was_set_back(run: Run, made: Path) -> None:
    """Readers are judged by the last day that was swept (invariant 12): by it the token was void at once."""
    run("clock", "--advance", "9d", "--data", made)
    assert run("sweep", "--data", made).code == 0
    run("clock", "--offset", "0d", "--data", made)
    token = run("viewer-token", "--device", 1, "--hours", 2, "--data", made, "--json").document["token"]
    with open_folder(made) as opened:
        gate = Gate(opened.bitmap, opened.clock, opened.vault.token_secret, Used())
        assert opened.bitmap.closed_through * MS_PER_DAY > opened.clock.now_ms()
        assert gate.ask(Viewer(1, token)).device == 1


def test_recordings_are_deleted_by_range(run: Run, made: Path) -> None:
    with World(made, local=True) as world:
        world.keep([(1, NOON), (1, NOON + 2000)])
    words = (
        "recordings",
        "delete",
        "--device",
        1,
        "--from",
        NOON,
        "--reason",
        "asked",
        "--data",
        made,
        "--json",
    )
    document = run(*words, "--to", NOON + 1).document
    assert (document["deleted_chunks"], document["dead_segments"]) == (1, 0)
    assert run(*words, "--to", NOON + 9999).document["dead_segments"] == 1


# --- sweep, check, rebuild, clock -------------------------------------------------------------------------------


def test_a_sweep_dry_and_wet(run: Run, made: Path) -> None:
    with World(made, local=True) as world:
        key = world.keep([(1, NOON)])
    words = ("sweep", "--data", made)
    dry = run(*words, "--dry-run", "--json").document
    assert [d["segments"] for d in dry["expire"]] == [1]
    assert "2025-06-23" in run(*words, "--dry-run").out
    assert "days expired" in run(*words).out
    run("clock", "--advance", f"{DELAY_MS}ms", "--data", made)
    assert run(*words, "--dry-run", "--json").document["delete"] == [key]
    told = run(*words, "--dry-run").out
    assert key in told
    assert "1 objects to delete" in told
    assert run(*words, "--json").document["deleted_objects"] == 1
    assert run(*words, "--dry-run").out == "nothing to do\n"


def test_a_sweep_that_left_something_says_so_and_fails(
    run: Run, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Invariant 14."""
    run("clock", "--advance", "20d", "--data", made)
    monkeypatch.setenv("CLIPKEEP_RETENTION_BULK_LIMIT", "0")
    done = run("sweep", "--data", made, "--json")
    assert (done.code, done.document["held_back_devices"]) == (1, 1)
    assert "--allow-bulk" in done.err
    assert "with --allow-bulk" in run("sweep", "--dry-run", "--data", made).out
    assert run("sweep", "--allow-bulk", "--data", made).code == 0
    assert shown(run, made)["erasure"] == "erased"


def test_a_second_sweep_at_once_is_refused(run: Run, made: Path) -> None:
    with World(made, local=True) as world:
        now_ms = int(datetime.now(UTC).timestamp() * 1000)
        world.catalog.acquire_lease("sweep", holder="other", ttl_ms=60_000, now_ms=now_ms)
    assert run("sweep", "--data", made, "--json").error == "busy"


@sqlite_only
def test_check_fails_when_something_is_broken_and_rebuild_mends_rows(run: Run, made: Path) -> None:
    with World(made, local=True) as world:
        key = world.keep([(1, NOON)])
    assert run("check", "--deep", "--data", made).code == 0
    with closing(sqlite3.connect(made / "catalog.db")) as connection:
        connection.execute(f"DROP TABLE chunks_{NOON // MS_PER_DAY + WEEK + 1}")
    done = run("check", "--data", made, "--json")
    assert (done.code, done.document["broken_count"]) == (1, len(done.document["broken"]))
    assert "BROKEN" in run("check", "--data", made).out
    assert run("catalog", "rebuild", "--data", made, "--json").document["chunks"] == 1
    assert run("check", "--deep", "--data", made).code == 0
    (made / "objects" / key).unlink()
    done = run("catalog", "rebuild", "--data", made, "--json")
    assert (done.code, list(done.document["unreadable"])) == (1, [key])


def test_the_clock_moves_only_where_it_may(run: Run, made: Path, data: Path) -> None:
    words = ("clock", "--data", made, "--json")
    assert run(*words).document["offset_ms"] == 0
    assert run(*words, "--offset", "15d").document["offset_ms"] == 15 * MS_PER_DAY
    assert run(*words, "--advance", "90m").document["offset_ms"] == 15 * MS_PER_DAY + 5_400_000
    assert run(*words, "--offset", "-1s").document["offset_ms"] == -1000
    assert shown(run, made)["state"] == "recording"
    run(*words, "--offset", "15d")
    assert shown(run, made)["state"] == "lapsed"
    text = (made / "config.toml").read_text().replace("test = true", "test = false")
    (made / "config.toml").write_text(text)
    assert run(*words, "--offset", "1d").error == "real_clock"
    assert shown(run, made)["state"] == "recording"


def test_the_configuration_in_force_is_printed(run: Run, made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIPKEEP_SEGMENTS_LINGER_MS", "42")
    assert "\nlinger_ms = 42\n" in run("config", "--data", made).out


# --- wrong use --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        "",
        "frobnicate",
        "device",
        "device frobnicate",
        "device add --count 0",
        "device add --count many",
        "device show",
        "device show --device 0",
        "device show --device 99999999999999999999",
        "device show --device one",
        "device list --limit 0",
        "device list --after 99999999999999999999",
        "device terminate --device 1",
        "plan start --device 1",
        "plan list",
        "plan cancel --device 1 --plan 0",
        "renew --limit 0",
        "refund",
        "refund quote --plan 0",
        "refund quote --plan 99999999999999999999",
        "refund credit --plan 1 --minor 0 --reason x",
        "refund credit --plan 1 --minor 5.5 --reason x",
        "recordings delete --device 1 --from 0 --to 99999999999999999999 --reason x",
        "recordings delete --device 1 --from -1 --to 5 --reason x",
        "device suspend --device 1 --reason=",
        f"device terminate --device 1 --reason {'x' * 501}",
        f"recordings delete --device 1 --from 0 --to 5 --reason {'x' * 501}",
        "serve --workers 0",
        "serve --workers 1000",
        "viewer-token --device 1 --hours 0",
        "viewer-token --device 1 --hours inf",
        "viewer-token --device 1 --hours 99999",
        "sweep --dry-run yes",
        "init extra",
    ],
)
def test_wrong_usage_is_a_message(run: Run, made: Path, words: str) -> None:
    done = run(*words.split(), *(["--data", made] if " --" in words else []))
    assert done.code == 2
    assert "Usage:" in done.out + done.err
    assert "Traceback" not in done.out + done.err


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("device show --device 77", "not_found"),
        ("device suspend --device 77 --reason x", "not_found"),
        ("device add --retention-days 7", "bad_usage"),
        ("device add --count 1000000 --plan trial", "too_many_devices"),
        ("device add --plan trial --retention-days 30", "trial_retention_fixed"),
        ("device add --plan monthly --retention-days 256", "bad_retention_days"),
        ("device add --plan monthly --retention-days 99999999999999999999", "bad_retention_days"),
        ("plan start --device 1 --plan monthly --starts-on yesterday", "bad_date"),
        ("plan start --device 1 --plan monthly --starts-on 2025-02-30", "bad_date"),
        ("plan start --device 1 --plan monthly --starts-on 1969-12-31", "bad_plan_dates"),
        ("plan start --device 1 --plan annual --starts-on 9999-12-31", "date_out_of_range"),
        ("plan start --device 1 --plan trial", "plan_overlaps"),
        ("plan cancel --device 1", "trial_cannot_be_cancelled"),
        ("plan cancel --device 1 --plan 1", "trial_cannot_be_cancelled"),
        ("plan cancel --device 1 --plan 2", "not_found"),
        ("plan cancel --device 77", "not_found"),
        ("plan cancel --device 1 --reason \x1b", "bad_text"),
        ("plan list --device 77", "not_found"),
        ("device terminate --device 77 --reason x", "not_found"),
        ("refund quote --plan 1", "trial_cannot_be_cancelled"),
        ("refund quote --plan 77", "not_found"),
        ("refund paid --reference r1 --reason x", "not_found"),
        ("refund credit --plan 1 --minor 5 --reason x", "not_found"),
        ("refund credit --plan 1 --minor 5 --reason x --currency dollars", "wrong_currency"),
        ("refund credit --plan 1 --minor 5 --reason x --reference ../x", "bad_reference"),
        ("recordings delete --device 1 --from 5 --to 5 --reason x", "bad_range"),
        ("recordings delete --device 77 --from 5 --to 6 --reason x", "not_found"),
        ("viewer-token --device 77", "not_found"),
        ("device share --device 77 --from 0 --to 1", "not_found"),
        ("device share --device 1 --from 1 --to 1", "bad_range"),
        ("device share --device 1 --from 0 --to 1 --hours 2161", "bad_hours"),
        ("device shares --device 77", "not_found"),
        ("device unshare --device 1 --share 1 --reason x", "not_found"),
        ("clock --offset soon", "bad_offset"),
        ("clock --offset 99999999999999999999d", "bad_offset"),
        ("clock --advance 20000d", "bad_offset"),
        ("device add --plan weekly", "not_found"),
        ("package add x --kind monthly --retention-days 7 --price 599", "bad_price"),
        ("package add x --kind monthly --retention-days 7", "bad_package"),
        ("package price trial --price USD=1", "bad_package"),
        ("package end weekly", "not_found"),
        ("sweep --store gopher://x", "bad_store_url"),
        ("serve --ingest 8080", "bad_address"),
        ("serve --ingest 127.0.0.1:99999", "bad_address"),
        ("serve --api 127.0.0.1:²", "bad_address"),
        ("serve --ingest 203.0.113.1:80", "cannot_listen"),
    ],
)
def test_what_cannot_be_done_has_a_code(
    run: Run, made: Path, monkeypatch: pytest.MonkeyPatch, words: str, code: str
) -> None:
    if code == "too_many_devices":
        (made / "entitlements.bitmap").unlink()
        monkeypatch.setenv("CLIPKEEP_RETENTION_MAX_DEVICES", "1000")
    before = run("device", "list", "--data", made, "--json").document
    assert run(*words.split(), "--data", made, "--json").error == code
    assert run("device", "list", "--data", made, "--json").document == before


def test_a_life_that_is_no_number_is_refused(run: Run, made: Path) -> None:
    """By Typer in newer releases, by us where it passes."""
    assert run("viewer-token", "--device", 1, "--hours", "nan", "--data", made).code in (1, 2)


def test_a_file_in_the_way(run: Run, data: Path) -> None:
    data.write_text("")
    assert run("init", "--data", data, "--json").error == "folder_unavailable"
    assert run("init", "--data", data / "in a file", "--json").error == "folder_unavailable"
    assert run("sweep", "--data", data, "--json").error == "no_data_folder"
    assert run("sweep", "--data", data.parent / "absent", "--json").error == "no_data_folder"


def test_an_error_of_the_system_is_no_traceback(
    run: Run, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object, **named: object) -> None:
        raise OSError(28, "No space left on device", "/somewhere")

    monkeypatch.setattr("service.terminal.report", full)
    done = run("device", "list", "--data", made, "--json")
    assert done.error == "os_error"
    assert "/somewhere" in done.err


# --- the installed command, as a person meets it ----------------------------------------------------------------


def installed(*args: object, **environ: str) -> Done:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CLIPKEEP_")}
    done = subprocess.run(
        [CLIPKEEP, *map(str, args)], capture_output=True, text=True, env=kept | environ, timeout=60
    )
    return Done(done.returncode, done.stdout, done.stderr)


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2 + 1)


def scribble(path: Path) -> None:
    path.write_bytes(b"\x93\xff" * (path.stat().st_size // 2) if path.suffix != ".bitmap" else b"")


@pytest.mark.parametrize("damage", [cut, scribble])
@pytest.mark.parametrize(
    "name",
    [
        "config.toml",
        "entitlements.bitmap",
        pytest.param("catalog.db", marks=sqlite_only),
        "keys/master.key",
        "keys/tokens.key",
        "keys/keys.db",
    ],
)
def test_a_damaged_file_is_named(made: Path, name: str, damage: Callable[[Path], None]) -> None:
    path = made / name
    if name == "config.toml":
        path.write_text(f"url = '{'x' * 99}'")
    for extra in ("-wal", "-shm"):
        path.with_name(path.name + extra).unlink(missing_ok=True)
    damage(path)
    done = installed("sweep", "--data", made, "--json")
    assert done.error
    assert str(path) in done.err
    assert "Traceback" not in done.err


@sqlite_only
@pytest.mark.parametrize("name", ["catalog.db", "keys", "objects"])
def test_a_missing_part_is_named_and_never_made_anew(made: Path, name: str) -> None:
    path = made / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    done = installed("sweep", "--data", made, "--json")
    assert done.error
    assert str(path) in done.err
    assert not path.exists()


def test_arguments_that_are_no_text(made: Path) -> None:
    """What is not UTF-8 can be neither stored nor printed: refused as a whole, and nothing is changed."""
    no_text = os.fsdecode(b"\xff")
    for words in (["device", "suspend", "--device", "1", "--reason", no_text], ["check", "--store", no_text]):
        done = installed(*words, "--data", made, "--json")
        assert done.error == "bad_usage"
        assert "Traceback" not in done.err


def handles_sigint(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(caught.split()[1], 16) >> signal.SIGINT - 1 & 1)


@pytest.mark.parametrize("later_s", [0, 0.2])
def test_ctrl_c_while_a_command_still_loads(made: Path, later_s: float) -> None:
    """From the moment on in which our own code runs: before it, Python's start has a handler of its own."""
    with subprocess.Popen([CLIPKEEP, "check", "--data", made], stderr=subprocess.PIPE, text=True) as process:
        for wanted in (True, False):
            while handles_sigint(process.pid) is not wanted:
                assert process.poll() is None
                time.sleep(0.002)
        time.sleep(later_s)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert "Traceback" not in err
    assert process.returncode in (-signal.SIGINT, 130, 0)  # 0: it was quicker


def test_output_that_nobody_reads_is_no_traceback(made: Path) -> None:
    shell = f"{CLIPKEEP} config --data {made} | head -1"
    done = subprocess.run(["sh", "-c", shell], capture_output=True, text=True, timeout=60)
    assert "Traceback" not in done.stderr


def test_a_command_beside_a_service_of_another_boot_still_denies(run: Run, made: Path) -> None:
    """A bitmap that was moved aside is made anew; until a service filled it, it denies."""
    (made / "entitlements.bitmap").unlink()
    assert run("device", "suspend", "--device", 1, "--reason", "x", "--data", made).code == 0
    with World(made, local=True) as world:
        assert world.bitmap.probe(1, 20_000, 20_000)[0] & 2
