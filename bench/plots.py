"""From the JSON documents of bench runs to plots: what is drawn of which bench. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bench.results import MB
from bench.svg import Bar, bar_plot, line_plot
from bench.tables import KIND_WORDS, size_text

Document = Mapping[str, Any]
TICKS = ((0.5, "p50"), (0.9, "p90"), (0.99, "p99"), (0.999, "p99.9"))
LIMIT = "limit"
_LIMIT_WORDS = " (limit: receive, checksums, cipher, send alone)"


def plots_of(document: Document, limits: Document | None = None) -> dict[str, str]:
    """Return SVG texts by short name for one document.

    Args:
        limits: a document of `bench limits` of the same machine: its sums are drawn beside CPU figures.
    """
    drawn = _DRAWN.get(document["bench"])
    return drawn(document, limits) if drawn and document["measurements"] else {}


def _uploads(document: Document, limits: Document | None) -> dict[str, str]:
    summary: Sequence[Document] = document["summary"]
    floor = {one["size_bytes"]: one["total"] for one in limits["measurements"]} if limits else {}

    def groups(make: Callable[[Document], Bar | None]) -> dict[str, list[Bar]]:
        found: dict[str, list[Bar]] = {}
        for one in summary:
            bar = make(one)
            if bar is not None:
                found.setdefault(_place(document, one), []).append(bar)
        return found

    speed = groups(lambda one: Bar(one["server"], one["mb_per_s"], one["mb_per_s_min"], one["mb_per_s_max"]))
    cost = groups(lambda one: _bar(one, "cpu_s_per_gb"))
    for one in summary:
        total = floor.get(one["size_bytes"])
        bars = cost.get(_place(document, one), [])
        if total and not any(bar.name == LIMIT for bar in bars):
            bars.append(Bar(LIMIT, total))
    tails = groups(lambda one: Bar(one["server"], one["ack_p99_ms"]))
    cost_title = "CPU-seconds per GB of the whole server" + (_LIMIT_WORDS if floor else "")
    return {
        "throughput": bar_plot("Throughput, MB/s (median; line: least and most)", speed, log=_is_wide(speed)),
        "cpu": bar_plot(cost_title, cost, log=_is_wide(cost)),
        "calls": bar_plot(
            "Store calls per 1000 chunks", groups(lambda one: _bar(one, "store_calls_per_1000")), log=True
        ),
        "ack-p99": bar_plot("Ack p99, ms (closed loop at full load)", tails, log=_is_wide(tails)),
        "memory": bar_plot(
            "Peak memory, MB", groups(lambda one: Bar(one["server"], one["peak_memory_bytes"] / MB))
        ),
    }


def _bar(one: Document, field: str) -> Bar | None:
    return None if one[field] is None else Bar(one["server"], one[field])


def _place(document: Document, one: Document) -> str:
    """Name a group: by what differs between groups."""
    settings = document["settings"]
    text = size_text(one["size_bytes"])
    if len(settings["connections"]) > 1:
        text += f", {one['connections']} connections"
    if len(settings["workers"]) > 1:
        text += f", workers: {one['workers']}"
    return text


def _is_wide(groups: Mapping[str, Sequence[Bar]]) -> bool:
    values = [bar.value for group in groups.values() for bar in group if bar.value > 0]
    return bool(values) and max(values) / min(values) > 50


def _latency(document: Document, _: Document | None) -> dict[str, str]:
    at = [min(share, 0.9995) for share in document["curve_at"]]
    drawn = {}
    for kind, words in KIND_WORDS.items():
        lines = {
            one["server"]: [(_tail(share), ms) for share, ms in zip(at, one["curve_ms"], strict=True)]
            for one in document["summary"]
            if one["kind"] == kind
        }
        if lines:
            title = f"Ack latency, ms, open loop: {words}"
            ticks = [(_tail(share), label) for share, label in TICKS]
            drawn[kind] = line_plot(title, "percentile", ticks, lines)
    return drawn


def _tail(share: float) -> float:
    """Place a quantile so that each further nine is as far as the one before it."""
    return -math.log10(1 - share)


def _slow(document: Document, _: Document | None) -> dict[str, str]:
    summary: Sequence[Document] = document["summary"]

    def groups(what: str) -> dict[str, list[Bar]]:
        slow = document["settings"]["slow"]
        return {
            one["server"]: [
                Bar("alone", one[f"alone_{what}"]),
                Bar(f"beside {slow} slow", one[f"beside_{what}"]),
            ]
            for one in summary
        }

    return {
        "throughput": bar_plot("Fast clients' throughput, MB/s", groups("mb_per_s")),
        "p99": bar_plot("Fast clients' ack p99, ms (no bar: nothing was acknowledged)", groups("p99_ms")),
    }


def _idle(document: Document, _: Document | None) -> dict[str, str]:
    groups = {
        f"{one['connections']} connections": [Bar(one["server"], one["kb_per_connection"])]
        for one in document["measurements"]
    }
    return {"memory": bar_plot("Memory of an idle connection, KB (PSS)", groups)}


def _limits(document: Document, _: Document | None) -> dict[str, str]:
    parts = ("receive", "checksums", "cipher", "send", "total", "copy")
    groups = {
        size_text(one["size_bytes"]): [Bar(part, one[part]) for part in parts]
        for one in document["measurements"]
    }
    return {"parts": bar_plot("Limits: CPU-seconds per GB of each part alone", groups)}


_DRAWN: Mapping[str, Callable[[Document, Document | None], dict[str, str]]] = {
    "ingest": _uploads,
    "compare": _uploads,
    "latency": _latency,
    "slow-clients": _slow,
    "idle": _idle,
    "limits": _limits,
}
