"""Aggregation, tables, and the ways to share out cores and steps: all pure."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from bench.console import parse_counts, parse_sizes
from bench.errors import BenchError
from bench.machine import Cores, share_out
from bench.peers.starlette_peer import MAX_THREADS, THREADS, pool_threads
from bench.procfs import spent_s, stat_fields
from bench.results import GB, Measurement, catalog_ratios, hosts_ratios, ratios, summarise, uploads_document
from bench.run import IngestSettings, forecast_s, plan
from bench.servers import Server, all_servers, choose, split_available
from bench.tables import count_text, duration_text, promise_lines, size_text, upload_notes, upload_tables

MIB = 1024 * 1024
NOWHERE = Path("/nonexistent")

ONE = Measurement(
    server="clipkeep",
    size_bytes=MIB,
    connections=256,
    workers=1,
    run=1,
    window_s=2.0,
    chunks=2000,
    body_bytes=2_000_000_000,
    errors={},
    ack_ms={"p50": 20.0, "p90": 30.0, "p99": 40.0, "max": 50.0},
    server_cpu_s=1.9,
    load_cpu_s=0.5,
    store_cpu_s=0.5,
    others_cpu_s=0.0,
    store_calls=250,
    peak_memory_bytes=300_000_000,
    server_cores=1,
    load_cores=1,
)
PEER = replace(ONE, server="starlette", body_bytes=400_000_000, chunks=400, store_calls=400)


def test_a_measurement_derives_its_figures() -> None:
    assert ONE.mb_per_s == 1000
    assert ONE.cpu_s_per_gb == pytest.approx(0.95)
    assert ONE.store_calls_per_1000 == 125
    assert ONE.server_busy == pytest.approx(0.95)
    assert ONE.load_busy == pytest.approx(0.5)


def test_nothing_acknowledged_gives_no_figures_and_no_crash() -> None:
    none = replace(ONE, chunks=0, body_bytes=0, errors={"503": 7})
    assert none.mb_per_s == 0
    assert none.cpu_s_per_gb is None
    assert none.store_calls_per_1000 is None
    (summary,) = summarise([none])
    assert summary.cpu_s_per_gb is None
    assert summary.errors == 7
    assert ratios([none, PEER]) == []
    assert shown([none])


@pytest.mark.parametrize(
    ("server_s", "load_s", "limited"),
    [(1.0, 1.9, True), (1.9, 1.9, False), (1.0, 1.0, False)],
)
def test_the_load_is_the_limit_only_when_its_core_is_full_and_the_server_s_is_not(
    server_s: float, load_s: float, limited: bool
) -> None:
    assert replace(ONE, server_cpu_s=server_s, load_cpu_s=load_s, store_cpu_s=0.0).limited_by_load is limited


def test_other_work_on_the_machine_is_noticed() -> None:
    assert not replace(ONE, others_cpu_s=0.2).disturbed
    assert replace(ONE, others_cpu_s=0.21).disturbed


def test_summaries_are_medians_by_size_and_server() -> None:
    fast, slow = replace(ONE, run=2, window_s=1.0), replace(ONE, run=3, window_s=4.0)
    small = replace(ONE, size_bytes=65536)
    summaries = summarise([small, ONE, PEER, fast, slow])
    assert [(x.size_bytes, x.server, x.runs) for x in summaries] == [
        (MIB, "clipkeep", 3),
        (MIB, "starlette", 1),
        (65536, "clipkeep", 1),
    ]
    assert (summaries[0].mb_per_s, summaries[0].mb_per_s_min, summaries[0].mb_per_s_max) == (1000, 500, 2000)


def test_ratios_need_both_at_one_size() -> None:
    (ratio,) = ratios([ONE, PEER, replace(PEER, size_bytes=65536), replace(PEER, run=2)])
    assert (ratio.peer, ratio.size_bytes) == ("starlette", MIB)
    assert ratio.throughput == pytest.approx(5)
    assert ratio.cpu == pytest.approx(0.2)


def test_ratios_are_taken_within_each_run() -> None:
    """A slow minute of the machine that hits both leaves the ratio alone."""
    slow = [replace(one, run=2, window_s=20.0) for one in (ONE, PEER)]
    lone = [replace(ONE, run=3), replace(PEER, run=3, window_s=4.0)]
    (ratio,) = ratios([ONE, PEER, *slow, *lone])
    assert (ratio.runs, ratio.throughput, ratio.throughput_max) == (3, pytest.approx(5), pytest.approx(10))


def test_the_document_is_json_and_complete() -> None:
    facts = {"commit": "abc"}
    promises = {"clipkeep": ("all of them",)}
    document = uploads_document(
        "compare", facts, {"runs": 1}, [ONE, PEER], {"nginx": "not there"}, promises, "complete"
    )
    again = json.loads(json.dumps(document))
    assert (again["bench"], again["ended"]) == ("compare", "complete")
    assert again["promises"] == {"clipkeep": ["all of them"]}
    assert again["commit"] == "abc"
    assert again["skipped"] == {"nginx": "not there"}
    assert [x["mb_per_s"] for x in again["measurements"]] == [1000, 200]
    assert again["ratios"][0]["throughput"] == pytest.approx(5)


def shown(measurements: list[Measurement]) -> str:
    console = Console(file=io.StringIO(), width=80)
    for table in upload_tables("ingest", measurements):
        console.print(table)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_tables_fit_80_columns() -> None:
    text = shown([ONE, PEER, replace(ONE, size_bytes=256 * 1024), replace(PEER, size_bytes=256 * 1024)])
    assert "…" not in text
    assert "5.00 ×" in text
    assert "256 KiB" in text


def test_notes_say_what_a_reader_must_know() -> None:
    limited = replace(ONE, server_cpu_s=0.1, load_cpu_s=2.0, others_cpu_s=1.0, errors={"503": 3})
    notes = "\n".join(upload_notes([limited], {"tusd": "no go"}))
    for words in ("skipped tusd: no go", "load generator was the limit", "other work", "3 uploads", "503"):
        assert words in notes
    assert upload_notes([ONE], {}) == []


def test_plan_interleaves_and_alternates() -> None:
    settings = IngestSettings(sizes=(2000, 1000), runs=2, seconds=3, warmup=1)
    servers: tuple[Server, ...] = all_servers(NOWHERE)
    steps = [(x.run, x.size_bytes, x.server.name) for x in plan(settings, servers)]
    names = [server.name for server in servers]
    assert steps == [
        *((1, size, name) for size in (2000, 1000) for name in names),
        *((2, size, name) for size in (2000, 1000) for name in reversed(names)),
    ]
    assert forecast_s(settings, len(servers)) == len(steps) * 8


@pytest.mark.parametrize(
    "change",
    [
        {"sizes": ()},
        {"sizes": (17 * MIB,)},
        {"runs": 0},
        {"connections": (256, 10_001)},
        {"workers": (0,)},
        {"seconds": 0.0},
    ],
)
def test_settings_are_bounded(change: dict[str, object]) -> None:
    with pytest.raises(BenchError, match="must be between"):
        replace(IngestSettings(), **change).checked()  # type: ignore[arg-type]
    assert IngestSettings().checked() == IngestSettings()


def test_cores_are_kept_apart_when_there_are_enough() -> None:
    assert share_out([5, 3], 1) == Cores((3,), (5,))
    assert share_out([0, 1, 2, 3], 2) == Cores((0, 1), (2, 3))
    assert share_out([0], 1) == Cores((), ())
    assert share_out([0, 1], 2) == Cores((), ())
    with pytest.raises(BenchError):
        share_out([0], 0)


@pytest.mark.parametrize(
    ("text", "sizes"),
    [
        ("1MiB,256KiB,64KiB", (MIB, 262_144, 65_536)),
        ("188", (188,)),
        ("64k, 2m", (65_536, 2 * MIB)),
        ("512 kib", (524_288,)),
        ("7b", (7,)),
    ],
)
def test_parse_sizes(text: str, sizes: tuple[int, ...]) -> None:
    assert parse_sizes(text) == sizes


@pytest.mark.parametrize("text", ["", "1,", "big", "1GiB", "-5", "1.5MiB", "1kk"])
def test_parse_sizes_refuses(text: str) -> None:
    with pytest.raises(BenchError, match="is not a size"):
        parse_sizes(text)


def test_words_for_sizes_and_times() -> None:
    assert [size_text(x) for x in (MIB, 65536, 1000)] == ["1 MiB", "64 KiB", "1000 B"]
    assert [duration_text(x) for x in (119, 150)] == ["119 s", "2.5 min"]


def test_servers_are_chosen_by_name() -> None:
    names = ["clipkeep", "starlette", "tus-node", "tusd", "nginx-default", "nginx-relay"]
    assert [server.name for server in choose([], NOWHERE)] == names
    assert [server.name for server in choose(["tusd", "starlette"], NOWHERE)] == ["starlette", "tusd"]
    with pytest.raises(BenchError, match="known: clipkeep, starlette"):
        choose(["apache"], NOWHERE)


def test_a_peer_that_is_not_installed_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    here, skipped = split_available(all_servers(NOWHERE))
    assert here == []
    assert skipped["tusd"] == "tusd is not installed; `clipkeep bench peers --install tusd`"
    assert "starlette" in skipped["starlette"]
    assert all("--install" in reason for reason in skipped.values())


@pytest.mark.parametrize("server", all_servers(Path("peers")), ids=lambda server: server.name)
def test_every_server_says_how_it_is_installed(server: Server) -> None:
    commands = server.install_commands()
    assert commands
    assert all(word and isinstance(word, str) for argv in commands for word in argv)


def test_counts_and_promises_in_words() -> None:
    assert parse_counts("1, 2,40") == (1, 2, 40)
    with pytest.raises(BenchError, match="is not a number"):
        parse_counts("1,x")
    assert [count_text(n, "worker") for n in (1, 2)] == ["1 worker", "2 workers"]
    assert promise_lines({"a": ("x", "y")}) == ["a was measured with", "    x", "    y"]


def test_the_peer_gets_threads_for_the_store_s_latency() -> None:
    assert [pool_threads(x) for x in (0.0, 0.05, 10.0)] == [THREADS, THREADS + 50, MAX_THREADS]


def test_stat_fields_survive_a_name_with_parentheses() -> None:
    assert stat_fields("12 (a) b) S 1 12 34")[:4] == ["S", "1", "12", "34"]


def test_what_a_gigabyte_costs_with_a_catalogs_server_is_told_within_each_run() -> None:
    def run(number: int, cpu_s: float, own_s: float) -> list[Measurement]:
        plain = replace(ONE, server="clipkeep", run=number, body_bytes=GB, server_cpu_s=1.0 * number)
        return [
            plain,
            replace(
                plain, server="clipkeep-postgres", server_cpu_s=cpu_s * number, catalog_cpu_s=own_s * number
            ),
        ]

    measured = [*run(1, 1.1, 0.3), *run(2, 1.0, 0.2), *run(3, 1.02, 0.5)]
    [line] = catalog_ratios(measured, "clipkeep-postgres", "clipkeep")
    assert "1.02 times without" in line
    assert "1.40 times with it" in line
    assert catalog_ratios(measured[:1], "clipkeep-postgres", "clipkeep") == []


def test_what_several_hosts_take_in_and_cost_is_told_beside_one() -> None:
    def run(number: int, body_bytes: int, cpu_s: float) -> list[Measurement]:
        one = replace(
            ONE, server="clipkeep-hosts-1", run=number, body_bytes=GB, server_cpu_s=0.9, catalog_cpu_s=0.1
        )
        many = replace(
            one, server="clipkeep-hosts-3", body_bytes=body_bytes, server_cpu_s=cpu_s, catalog_cpu_s=0.4
        )
        return [one, many]

    measured = [*run(1, GB, 0.6), *run(2, 2 * GB, 1.6), *run(3, GB, 1.1)]
    [line] = hosts_ratios(measured, "clipkeep-hosts-3", "clipkeep-hosts-1")
    assert "1.00 times its bytes a second" in line
    assert "1.00 times its CPU-s/GB" in line
    assert "27% and 10%" in line
    assert hosts_ratios(measured[1:2], "clipkeep-hosts-3", "clipkeep-hosts-1") == []


def test_cpu_of_processes_that_ended_between_two_looks_is_not_taken_off() -> None:
    """Sums over those that lived at each look gave less than nothing."""
    assert spent_s({7: 5.0, 8: 3.0}, {8: 3.5, 9: 0.25}) == 0.75
