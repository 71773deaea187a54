"""What was measured, and what follows from it. Pure: no process, no clock, no terminal."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

MB = 1_000_000
GB = 1_000_000_000
BUSY = 0.9
"""A core busier than this had nothing left to give."""
DISTURBED = 0.05
"""Foreign work beyond this share of the pinned cores' time makes a run doubtful."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """One run of one server at one chunk size, number of connections and of workers.

    Times in s, sizes in bytes, acks in ms.

    `chunks` and `body_bytes` are those acknowledged with 201 inside the window; `errors` counts everything
    else by status or exception, the warm-up's included. `server_cpu_s` and `peak_memory_bytes` are sums over
    the server's whole process tree; `others_cpu_s` is what the machine spent on anything but server,
    load and store.
    """

    server: str
    size_bytes: int
    connections: int
    workers: int
    run: int
    window_s: float
    chunks: int
    body_bytes: int
    errors: Mapping[str, int]
    ack_ms: Mapping[str, float]
    server_cpu_s: float
    load_cpu_s: float
    store_cpu_s: float
    others_cpu_s: float
    store_calls: int
    peak_memory_bytes: int
    server_cores: int
    load_cores: int
    catalog_cpu_s: float = 0.0
    """Of the catalog's own server (PostgreSQL), which is not part of the server's tree."""
    ciphers: tuple[str, ...] = ()
    """Versions and ciphers that connections agreed on; none in clear."""

    @property
    def mb_per_s(self) -> float:
        return self.body_bytes / MB / self.window_s if self.window_s else 0.0

    @property
    def cpu_s_per_gb(self) -> float | None:
        return self.server_cpu_s / (self.body_bytes / GB) if self.body_bytes else None

    @property
    def cpu_s_per_gb_with_catalog(self) -> float | None:
        return (self.server_cpu_s + self.catalog_cpu_s) / (self.body_bytes / GB) if self.body_bytes else None

    @property
    def store_calls_per_1000(self) -> float | None:
        """None also when the store was not the null store, which counts."""
        return self.store_calls * 1000 / self.chunks if self.chunks and self.store_calls else None

    @property
    def server_busy(self) -> float:
        """Share of the server's cores that it used, 0 to 1 (more when nothing is pinned)."""
        return self.server_cpu_s / (self.window_s * self.server_cores) if self.window_s else 0.0

    @property
    def load_busy(self) -> float:
        """Share of the load's cores that generator and store used; each of the two can use one core."""
        usable = min(self.load_cores, 2)
        return (self.load_cpu_s + self.store_cpu_s) / (self.window_s * usable) if self.window_s else 0.0

    @property
    def limited_by_load(self) -> bool:
        """True when the load's core was the limit and the server's was not: the figure is a lower bound."""
        return self.load_busy > BUSY and self.server_busy < BUSY

    @property
    def disturbed(self) -> bool:
        """True when something else on the machine took part of the pinned cores' time."""
        return self.others_cpu_s > DISTURBED * self.window_s * (self.server_cores + self.load_cores)

    def as_json(self) -> dict[str, Any]:
        return {
            **asdict(self),
            "mb_per_s": self.mb_per_s,
            "cpu_s_per_gb": self.cpu_s_per_gb,
            "cpu_s_per_gb_with_catalog": self.cpu_s_per_gb_with_catalog,
            "store_calls_per_1000": self.store_calls_per_1000,
            "server_busy": self.server_busy,
            "load_busy": self.load_busy,
            "limited_by_load": self.limited_by_load,
            "disturbed": self.disturbed,
        }


@dataclass(frozen=True, slots=True)
class Summary:
    """Medians over the runs of one server at one size; `mb_per_s_min` and `_max` are the spread."""

    server: str
    size_bytes: int
    connections: int
    workers: int
    runs: int
    mb_per_s: float
    mb_per_s_min: float
    mb_per_s_max: float
    cpu_s_per_gb: float | None
    store_calls_per_1000: float | None
    peak_memory_bytes: float
    ack_p50_ms: float
    ack_p99_ms: float
    errors: int
    limited_by_load: int
    disturbed: int


@dataclass(frozen=True, slots=True)
class Ratio:
    """Clipkeep over a peer: the median over the runs of the ratio within each run, where the two were neighbours
    in time, and the least and the most of them. `throughput` is better above 1, `cpu` (CPU-seconds per GB) below.
    """

    peer: str
    size_bytes: int
    connections: int
    workers: int
    runs: int
    throughput: float
    throughput_min: float
    throughput_max: float
    cpu: float
    cpu_min: float
    cpu_max: float


def summarise(measurements: Iterable[Measurement]) -> list[Summary]:
    """Group by workers, connections (fewest first), size (largest first) and server (in order of appearance)."""
    groups: dict[tuple[int, int, int, str], list[Measurement]] = {}
    for one in measurements:
        key = (one.workers, one.connections, -one.size_bytes, one.server)
        groups.setdefault(key, []).append(one)
    return [_summary(group) for _, group in sorted(groups.items(), key=lambda item: item[0][:3])]


def _summary(group: Sequence[Measurement]) -> Summary:
    speeds = [one.mb_per_s for one in group]
    return Summary(
        server=group[0].server,
        size_bytes=group[0].size_bytes,
        connections=group[0].connections,
        workers=group[0].workers,
        runs=len(group),
        mb_per_s=statistics.median(speeds),
        mb_per_s_min=min(speeds),
        mb_per_s_max=max(speeds),
        cpu_s_per_gb=_median(one.cpu_s_per_gb for one in group),
        store_calls_per_1000=_median(one.store_calls_per_1000 for one in group),
        peak_memory_bytes=statistics.median(one.peak_memory_bytes for one in group),
        ack_p50_ms=statistics.median(one.ack_ms["p50"] for one in group),
        ack_p99_ms=statistics.median(one.ack_ms["p99"] for one in group),
        errors=sum(sum(one.errors.values()) for one in group),
        limited_by_load=sum(one.limited_by_load for one in group),
        disturbed=sum(one.disturbed for one in group),
    )


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def ratios(measurements: Sequence[Measurement], subject: str = "clipkeep") -> list[Ratio]:
    """Compare `subject` with each peer at each size, number of connections and of workers, in the runs in which
    both acknowledged something; in the order of `summarise`."""
    ours = {(_place(one), one.run): one for one in measurements if one.server == subject}
    found = []
    for peer in summarise(measurements):
        theirs = [one for one in measurements if (one.server, _place(one)) == (peer.server, _place(peer))]
        pairs = [(ours.get((_place(one), one.run)), one) for one in theirs]
        throughput, cpu = [], []
        for mine, their in pairs:
            if mine is not None and mine.cpu_s_per_gb and their.cpu_s_per_gb:
                throughput.append(mine.mb_per_s / their.mb_per_s)
                cpu.append(mine.cpu_s_per_gb / their.cpu_s_per_gb)
        if peer.server != subject and throughput:
            found.append(Ratio(peer.server, *_place(peer), len(cpu), *_spread(throughput), *_spread(cpu)))
    return found


def _place(one: Measurement | Summary) -> tuple[int, int, int]:
    return one.size_bytes, one.connections, one.workers


def _spread(values: Sequence[float]) -> tuple[float, float, float]:
    return statistics.median(values), min(values), max(values)


def uploads_document(
    bench: str,
    facts: Mapping[str, Any],
    settings: Mapping[str, Any],
    measurements: Sequence[Measurement],
    skipped: Mapping[str, str],
    promises: Mapping[str, Sequence[str]],
    ended: str,
) -> dict[str, Any]:
    """Build the one JSON document of `ingest` or `compare`. `ended` is `complete` or why it stopped before."""
    summaries = summarise(measurements)
    return {
        "bench": bench,
        "ended": ended,
        **facts,
        "settings": dict(settings),
        "skipped": dict(skipped),
        "promises": {name: list(lines) for name, lines in promises.items()},
        "summary": [asdict(one) for one in summaries],
        "ratios": [asdict(one) for one in ratios(measurements)],
        "measurements": [one.as_json() for one in measurements],
    }


def _pairs(
    measurements: Sequence[Measurement], one: str, other: str
) -> dict[int, list[tuple[Measurement, Measurement]]]:
    """By chunk size, what was measured of both servers in the same run."""
    pairs: dict[int, list[tuple[Measurement, Measurement]]] = {}
    for a in measurements:
        for b in measurements:
            if (a.server, b.server) == (one, other) and (a.size_bytes, a.run, a.connections, a.workers) == (
                b.size_bytes,
                b.run,
                b.connections,
                b.workers,
            ):
                pairs.setdefault(a.size_bytes, []).append((a, b))
    return pairs


def hosts_ratios(measurements: Sequence[Measurement], many: str, one: str) -> list[str]:
    """What several hosts take in and cost over what one does in the same run: a line per size, medians over the
    runs, PostgreSQL's CPU counted with both."""
    lines = []
    for size, pairs in _pairs(measurements, many, one).items():
        found = [
            (
                a.mb_per_s / b.mb_per_s,
                a.cpu_s_per_gb_with_catalog / b.cpu_s_per_gb_with_catalog,
                1 - a.cpu_s_per_gb / a.cpu_s_per_gb_with_catalog,
                1 - b.cpu_s_per_gb / b.cpu_s_per_gb_with_catalog,
            )
            for a, b in pairs
            if a.cpu_s_per_gb
            and a.cpu_s_per_gb_with_catalog
            and b.cpu_s_per_gb
            and b.cpu_s_per_gb_with_catalog
        ]
        if found:
            speed, cost, of_many, of_one = (statistics.median(values) for values in zip(*found, strict=True))
            lines.append(
                f"{many} over {one} at {size} bytes: {speed:.2f} times its bytes a second, {cost:.2f} times its"
                f" CPU-s/GB; PostgreSQL's share of the CPU {of_many:.0%} and {of_one:.0%}"
            )
    return lines


def catalog_ratios(measurements: Sequence[Measurement], one: str, other: str) -> list[str]:
    """What a gigabyte costs with one server over what it costs with the other in the same run: a line per size, medians
    over the runs, without and with the CPU of the catalog's own server."""
    lines = []
    for size, pairs in _pairs(measurements, one, other).items():
        costs = [
            (a.cpu_s_per_gb / b.cpu_s_per_gb, a.cpu_s_per_gb_with_catalog / b.cpu_s_per_gb)
            for a, b in pairs
            if a.cpu_s_per_gb and a.cpu_s_per_gb_with_catalog and b.cpu_s_per_gb
        ]
        if costs:
            without, with_it = (statistics.median(values) for values in zip(*costs, strict=True))
            lines.append(
                f"{one} over {other} at {size} bytes, CPU-s/GB: {without:.2f} times without the catalog's server,"
                f" {with_it:.2f} times with it"
            )
    return lines
