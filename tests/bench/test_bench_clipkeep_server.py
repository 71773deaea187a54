"""The Clipkeep driver keeps to the command line's contract; a stand-in for the command checks it."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from bench import clipkeep_server
from bench.children import Child
from bench.clipkeep_server import ClipkeepServer
from bench.errors import BenchError
from bench.procfs import session_stats
from bench.servers import Setup
from bench.wire import Device

STAND_IN = """#!{python}
import json, os, pathlib, sys, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Ready(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/readyz" else 404)
        self.send_header("Content-Length", "0")
        self.end_headers()

def option(name):
    return sys.argv[sys.argv.index(name) + 1]

data = pathlib.Path(option("--data"))
with (data.parent / "commands").open("a") as commands:
    print(*sys.argv[1:], file=commands)
if sys.argv[1] == "init":
    assert os.environ["CLIPKEEP_S3_ENDPOINT"] == "http://127.0.0.1:4242"
    data.mkdir()
elif sys.argv[1:3] == ["device", "add"]:
    count = int(option("--count"))
    print(json.dumps({{"devices": [{{"device": n, "token": f"t{{n}}"}} for n in range(1, count + 1)]}}))
else:
    {serve}
"""
SERVES = """host, port = option("--api").split(":")
    ThreadingHTTPServer((host, int(port)), Ready).serve_forever()"""


def stand_in(folder: Path, monkeypatch: pytest.MonkeyPatch, serve: str = SERVES) -> Setup:
    program = folder / "clipkeep"
    program.write_text(STAND_IN.format(python=sys.executable, serve=serve))
    program.chmod(0o700)
    monkeypatch.setattr(clipkeep_server, "_program", lambda: str(program))
    monkeypatch.setattr(clipkeep_server, "check_promises", lambda *_: ("checked",))
    return Setup(store_port=4242, folder=folder, devices=3, workers=2, cpus=())


def test_it_prepares_once_and_starts_often(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    setup = stand_in(tmp_path, monkeypatch)
    sessions = []
    for _ in range(2):
        with ClipkeepServer().start(setup) as running:
            sessions.append(running.session)
            assert session_stats(running.session)
            assert running.target.devices == (Device(1, "t1"), Device(2, "t2"), Device(3, "t3"))
    assert not any(session_stats(session) for session in sessions)
    data = tmp_path / "clipkeep-data"
    commands = (tmp_path / "commands").read_text().splitlines()
    assert re.fullmatch(
        rf"init --data {re.escape(str(data))} --store s3://bench/[0-9a-f]{{8}} --catalog sqlite", commands[0]
    )
    assert commands[1] == f"device add --data {data} --count 3 --plan annual --json"
    assert len(commands) == 4
    for command in commands[2:]:
        assert command.startswith(f"serve --data {data} --workers 2 --ingest 127.0.0.1:")
        assert " --api 127.0.0.1:" in command
    assert (tmp_path / "devices.json").stat().st_mode & 0o777 == 0o600


def test_a_service_that_ends_early_is_told_with_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = stand_in(tmp_path, monkeypatch, serve='sys.exit("the disk is on fire")')
    with (
        pytest.raises(BenchError, match=r"(?s)ended before it was ready.*the disk is on fire"),
        ClipkeepServer().start(setup),
    ):
        pass


def test_a_command_that_fails_is_told_with_its_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    setup = stand_in(tmp_path, monkeypatch)
    (tmp_path / "commands").mkdir()  # the stand-in cannot write there
    with pytest.raises(BenchError, match=r"(?s)`clipkeep init` failed:.*IsADirectoryError"):
        ClipkeepServer().start(setup).__enter__()


def test_a_child_that_ignores_sigterm_is_ended_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.children.END_GRACE_S", 0.2)
    code = (
        "import json, signal, subprocess, sys\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print(json.dumps({'child': child.pid}), flush=True)\n"
        "signal.pause()\n"
    )
    with Child("stubborn", [sys.executable, "-c", code], folder=tmp_path) as child:
        assert child.event(10)["child"] in session_stats(child.session)
        assert child.is_running()
    left = session_stats(child.session).values()
    assert {fields[0] for fields in left} <= {"Z"}  # killed; whoever adopted it reaps it in its own time
    child.end()


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("print('hello', flush=True); input()", "not a JSON object"),
        ("raise SystemExit('no luck')", r"(?s)ended early.*no luck"),
        ("input()", "said nothing in time"),
    ],
)
def test_a_child_that_does_not_speak_is_told(tmp_path: Path, code: str, words: str) -> None:
    with (
        Child("mute", [sys.executable, "-c", code], folder=tmp_path) as child,
        pytest.raises(BenchError, match=words),
    ):
        child.event(2.0 if "input()" not in code or "print" in code else 0.3)
