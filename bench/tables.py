"""Results as tables that a person reads. Pure: returns rich renderables and lines, prints nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from bench.entitlement import EntitlementResult
from bench.idle import IdleResult
from bench.latency import FEW, SHARE, LatencySummary
from bench.limits import Limit
from bench.playback import PlaybackMeasurement
from bench.results import DISTURBED, MB, Measurement, Ratio, Summary, ratios, summarise
from bench.slowclients import SlowSummary
from bench.svg import number

KIB = 1024


def size_text(size_bytes: int) -> str:
    """Write a size as people say it: 65536 is 64 KiB."""
    for unit, factor in (("MiB", KIB * KIB), ("KiB", KIB)):
        if size_bytes >= factor and size_bytes % factor == 0:
            return f"{size_bytes // factor} {unit}"
    return f"{size_bytes} B"


def duration_text(seconds: float) -> str:
    """Write a duration in s up to two minutes, in min beyond."""
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min"


def upload_tables(name: str, measurements: Sequence[Measurement]) -> list[Table]:
    """Medians, a line per size and server, for each number of connections and workers; then ratios when there
    is a peer to compare with. All fit 80 columns."""
    summaries = summarise(measurements)
    tables = []
    for workers, connections in dict.fromkeys((one.workers, one.connections) for one in summaries):
        measured = [one for one in measurements if (one.workers, one.connections) == (workers, connections)]
        here = summarise(measured)
        tables.append(_medians(f"{name}: {count_text(connections, 'connection')}, ", workers, here))
        compared = ratios(measured)
        if compared:
            tables.append(_ratio_table(compared))
    return tables


def count_text(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"


def _medians(title: str, workers: int, summaries: Sequence[Summary]) -> Table:
    counts = {one.runs for one in summaries}
    runs = str(max(counts)) if len(counts) == 1 else f"{min(counts)} to {max(counts)}"
    table = _table(f"{title}{count_text(workers, 'worker')}; medians, runs: {runs}", "chunk", "server")
    for heading in _FIGURES:
        table.add_column(heading, justify="right", no_wrap=True)
    for one in summaries:
        table.add_row(size_text(one.size_bytes), one.server, *_figures(one))
    table.caption = f"MB = {MB:,} bytes; calls: to the store, per 1000 chunks; acks in ms"
    return table


def _table(title: str, *words: str) -> Table:
    table = Table(
        title=title, title_justify="left", caption_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0)
    )
    for word in words:
        table.add_column(word, no_wrap=True)
    return table


def _ratio_table(compared: Sequence[Ratio]) -> Table:
    table = _table("clipkeep beside its peers: medians of the ratios within each run", "chunk", "peer")
    for heading in ("throughput", "min–max", "CPU per GB", "min–max"):
        table.add_column(heading, justify="right")
    for one in compared:
        speed = (f"{one.throughput:.2f} ×", f"{one.throughput_min:.2f}–{one.throughput_max:.2f}")
        cost = (f"{one.cpu:.2f} ×", f"{one.cpu_min:.2f}–{one.cpu_max:.2f}")
        table.add_row(size_text(one.size_bytes), one.peer, *speed, *cost)
    return table


_FIGURES = ("MB/s", "min–max", "CPU-s/GB", "calls", "peak MB", "p50", "p99")


def _figures(one: Summary) -> list[str]:
    return [
        f"{one.mb_per_s:.0f}",
        f"{one.mb_per_s_min:.0f}–{one.mb_per_s_max:.0f}",
        _number(one.cpu_s_per_gb, 2),
        _number(one.store_calls_per_1000, 0),
        f"{one.peak_memory_bytes / MB:.0f}",
        f"{one.ack_p50_ms:.0f}",
        f"{one.ack_p99_ms:.0f}",
    ]


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def upload_notes(measurements: Sequence[Measurement], skipped: Mapping[str, str]) -> list[str]:
    """Say what a reader must know before believing the table."""
    notes = [f"skipped {name}: {reason}" for name, reason in skipped.items()]
    for one in summarise(measurements):
        where = f"{one.server} at {size_text(one.size_bytes)}"
        if one.limited_by_load:
            notes.append(
                f"{where}: the load generator was the limit in {one.limited_by_load} of {one.runs} runs, "
                "so this is a lower bound"
            )
        if one.errors:
            kinds = sorted({kind for m in measurements if m.server == one.server for kind in m.errors})
            notes.append(f"{where}: {one.errors} uploads were not acknowledged ({', '.join(kinds)})")
    ciphers = sorted({cipher for one in measurements for cipher in one.ciphers})
    if ciphers:
        same = (
            "all servers" if len(ciphers) == 1 else "NOT THE SAME with all, so these costs can't be compared"
        )
        notes.append(f"over {', '.join(ciphers)}: {same}")
    disturbed = sum(one.disturbed for one in measurements)
    if disturbed:
        notes.append(
            f"other work on this machine took CPU time in {disturbed} of {len(measurements)} steps: "
            "repeat on a quiet machine"
        )
    return notes


def promise_lines(promises: Mapping[str, Sequence[str]]) -> list[str]:
    """Say under which promises each server was measured."""
    lines = []
    for name, said in promises.items():
        lines.append(f"{name} was measured with")
        lines += [f"    {line}" for line in said]
    return lines


KIND_WORDS = {SHARE: "share of top", FEW: "few cameras"}


def latency_table(summaries: Sequence[LatencySummary]) -> Table:
    table = _table(
        "latency: open loop, acks in ms from when a chunk was meant to be sent; medians", "load", "server"
    )
    for heading in ("conn.", "chunks/s", "MB/s", "busy", "p50", "p90", "p99", "max", "late"):
        table.add_column(heading, justify="right", no_wrap=True)
    for one in summaries:
        acks = (f"{one.ack_ms[name]:.0f}" for name in ("p50", "p90", "p99", "max"))
        rate = f"{one.rate_per_s:.0f}"
        load = (one.kind, one.server, str(one.connections), rate, f"{one.mb_per_s:.0f}")
        table.add_row(*load, f"{one.server_busy:.0%}", *acks, f"{one.late_p99_ms:.0f}")
    table.caption = "busy: of the server's core; late: p99 of the wait for a free connection, within the acks"
    return table


def slow_table(summaries: Sequence[SlowSummary], slow: int) -> Table:
    table = _table(f"slow-clients: the fast ones alone, and beside {slow} slow ones; medians", "server")
    for heading in ("MB/s", "beside", "ratio", "p99 ms", "beside", "ratio", "slow acks", "errors"):
        table.add_column(heading, justify="right", no_wrap=True)
    for one in summaries:
        speeds = (f"{one.alone_mb_per_s:.0f}", f"{one.beside_mb_per_s:.0f}", f"{one.throughput:.2f} ×")
        # Without an acknowledgement there is no p99; a ratio of 0 would look like a gain.
        is_starved = not one.beside_mb_per_s
        beside, ratio = ("–", "–") if is_starved else (f"{one.beside_p99_ms:.0f}", f"{one.p99:.2f} ×")
        tails = (f"{one.alone_p99_ms:.0f}", beside, ratio)
        table.add_row(one.server, *speeds, *tails, str(one.slow_acks), str(one.slow_errors))
    return table


def playback_table(measurements: Sequence[PlaybackMeasurement]) -> Table:
    table = _table("playback: ms", "read")
    for heading in ("p50", "p99", "max", "store", "MB/s", "CPU-s/GB", "more MB"):
        table.add_column(heading, justify="right", no_wrap=True)
    for one in measurements:
        times = (number(one.ms[name]) for name in ("p50", "p99", "max"))
        store = number(one.store_ms["p50"]) if one.store_ms else "–"
        more = None if one.more_memory_bytes is None else one.more_memory_bytes / MB
        speed = (_number(one.mb_per_s, 0), _number(one.cpu_s_per_gb, 2), _number(more, 0))
        table.add_row(f"{one.kind} ({one.count} ×)", *times, store, *speed)
    table.caption = "store: p50 of reading as many bytes from the files; more MB: memory grew by, at most"
    return table


def against_table(result: Mapping[str, Any]) -> Table:
    table = _table("against: acks in ms")
    for heading in ("chunks", "seconds", "MB/s", "p50", "p90", "p99", "max", "errors"):
        table.add_column(heading, justify="right", no_wrap=True)
    acks = (f"{result['ack_ms'][name]:.0f}" for name in ("p50", "p90", "p99", "max"))
    speed = result["bytes"] / MB / result["window_s"] if result["window_s"] else 0.0
    errors = sum(result["errors"].values())
    table.add_row(str(result["chunks"]), f"{result['window_s']:.1f}", f"{speed:.0f}", *acks, str(errors))
    return table


def disturbed_note(others_cpu_s: Sequence[float], window_s: float, cores: int) -> list[str]:
    """Say when other work on the machine took CPU time that the bench counted on."""
    disturbed = sum(one > DISTURBED * window_s * cores for one in others_cpu_s)
    if not disturbed:
        return []
    return [
        f"other work on this machine took CPU time in {disturbed} of {len(others_cpu_s)} steps: "
        "repeat on a quiet machine"
    ]


def idle_table(results: Sequence[IdleResult]) -> Table:
    table = _table("idle: memory of the whole server, MB", "server")
    for heading in ("connections", "RSS without", "RSS with", "more RSS", "more PSS", "KB each"):
        table.add_column(heading, justify="right")
    for one in results:
        table.add_row(
            one.server,
            str(one.connections),
            f"{one.without.rss_bytes / MB:.1f}",
            f"{one.with_all.rss_bytes / MB:.1f}",
            f"{one.rss_mb:.1f}",
            f"{one.pss_mb:.1f}",
            f"{one.kb_per_connection:.1f}",
        )
    return table


def entitlement_table(result: EntitlementResult) -> Table:
    table = _table("entitlement: ns per check, loop included")
    for heading in ("devices", "checks", "best", "median", "p99", "loop alone"):
        table.add_column(heading, justify="right")
    figures = (result.best_ns, result.median_ns, result.p99_ns, result.loop_ns)
    table.add_row(f"{result.rows:,}", f"{result.checks:,}", *(f"{x:.0f}" for x in figures))
    return table


def limits_table(found: Sequence[Limit]) -> Table:
    table = _table("limits: CPU-s/GB of each part alone", "chunk")
    for heading in ("receive", "checksums", "cipher", "send", "sum", "a copy"):
        table.add_column(heading, justify="right")
    for one in found:
        parts = (one.receive, one.checksums, one.cipher, one.send, one.total, one.copy)
        table.add_row(size_text(one.size_bytes), *(f"{part:.3f}" for part in parts))
    return table


def peers_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    table = _table("peers", "peer", "here")
    table.add_column("installed by", overflow="fold")
    for row in rows:
        table.add_row(row["peer"], row["missing"] or "yes", "\n".join(row["install"]))
    return table
