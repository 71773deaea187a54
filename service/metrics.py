"""Metrics: workers publish their counters as small files, the API process reads them for Prometheus."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Protocol

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from ingest.stats import ACK_BUCKETS_MS, Stats
from service.config import Config
from storage.catalog.books import BooksCatalog
from storage.catalog.erasures import ErasuresCatalog
from storage.catalog.reports import ReportsCatalog
from storage.clock import Clock
from storage.days import day_of_ms
from storage.errors import ClipkeepError

STALE_MS = 10_000
"""A worker that has not published for so long is not counted as up."""

_PUBLISHED = {"at_ms", "problem", "store_calls", *(each.name for each in fields(Stats))}


@dataclass(frozen=True, slots=True)
class ApiFigures:
    """What the API process counts of itself."""

    connections: int = 0
    held_bytes: int = 0
    exports: int = 0
    let_go: int = 0
    remux_jobs: int = 0
    remux_failures: int = 0
    remux_kills: int = 0
    handshakes: Mapping[str, int] = field(default_factory=dict)
    """Of TLS, by what became of them."""
    certificates: Mapping[str, float] = field(default_factory=dict)
    """When they end, Unix time, by name."""


@dataclass(frozen=True, slots=True)
class FeedFigures:
    """How far this host is, where home is a server."""

    lag_s: float
    applied: int


SETTINGS = (
    "ingest.budget_bytes",
    "api.max_bytes_held",
    "api.max_exports",
    "http.max_connections",
    "hosts.max_stale_s",
    "schedule.sweep_every_s",
)
"""Settings that figures are to be held against: alarms read them from here, and needn't be changed with them."""

StoreCalls = Mapping[tuple[str, str], int]
"""How often a process asked its store, by (call, outcome)."""


def publish(path: Path, stats: Stats, *, store_calls: StoreCalls, now_ms: int, problem: str) -> None:
    """Write a worker's counters: whole or not at all, no more durable than a metric need be."""
    values = asdict(stats)
    values["answers"] = [[status, code, count] for (status, code), count in stats.answers.items()]
    values["store_calls"] = [[call, outcome, count] for (call, outcome), count in store_calls.items()]
    values["handshakes"] = dict(stats.handshakes)
    values["at_ms"] = now_ms
    values["problem"] = problem
    path.parent.mkdir(mode=0o700, exist_ok=True)
    fresh = path.with_suffix(".new")
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(json.dumps(values))
    os.replace(fresh, path)


def published(run: Path) -> dict[str, dict[str, Any]]:
    """What every worker published last, by its name. Files that are not whole are left out."""
    found = {}
    for path in sorted(run.glob("*.json")):
        try:
            values = json.loads(path.read_text())
        except (OSError, ValueError):
            continue
        if isinstance(values, dict) and values.keys() >= _PUBLISHED:
            found[path.stem] = values
    return found


class MetricsCatalog(ReportsCatalog, ErasuresCatalog, BooksCatalog, Protocol):
    """Sums, erasures that are not cleared yet, and what waits in the account books."""


class ClipkeepCollector:
    """Turns published counters, this process's own and the catalog's totals into Prometheus metrics."""

    def __init__(
        self,
        run: Path,
        catalog: MetricsCatalog,
        clock: Clock,
        own_calls: StoreCalls,
        api: ApiFigures,
        feed: FeedFigures | None,
        config: Config,
    ) -> None:
        self._run = run
        self._catalog = catalog
        self._clock = clock
        self._own_calls = own_calls
        self._api = api
        self._feed = feed
        self._config = config

    def collect(self) -> Iterator[Metric]:
        workers = published(self._run)
        yield from _worker_metrics(workers, self._clock.now_ms())
        yield _store_metric(workers, self._own_calls)
        yield from _api_metrics(self._api)
        yield from _tls_metrics(workers, self._api)
        yield _settings_metric(self._config)
        if self._feed is not None:
            yield _gauge("clipkeep_feed_lag_seconds", "Since this host last asked home", self._feed.lag_s)
            yield _gauge("clipkeep_feed_change", "Last change of rights on this host", self._feed.applied)
        try:
            yield from self._catalog_metrics()
        except ClipkeepError:
            yield _gauge("clipkeep_catalog_up", "1 when the catalog can be read", 0)

    def _catalog_metrics(self) -> Iterator[Metric]:
        totals = self._catalog.totals()
        now_ms = self._clock.now_ms()
        yield _gauge("clipkeep_catalog_up", "1 when the catalog can be read", 1)
        yield _gauge("clipkeep_stored_chunks", "Chunks that can be served", totals.chunks)
        yield _gauge("clipkeep_stored_segment_bytes", "Bytes of committed segments", totals.segment_bytes)
        segments = GaugeMetricFamily(
            "clipkeep_catalog_segments", "Segment keys in the catalog, by state", labels=["state"]
        )
        for state, count in totals.segments.items():
            segments.add_metric([state], count)
        yield segments
        oldest_ms = totals.oldest_tombstone_ms
        age_s = 0.0 if oldest_ms is None else max(0.0, (now_ms - oldest_ms) / 1000)
        yield _gauge("clipkeep_oldest_undeleted_seconds", "How long the oldest due delete is overdue", age_s)
        yield _gauge(
            "clipkeep_failing_deletes", "Deletes that failed and are retried", totals.failing_tombstones
        )
        yield from _sweep_metrics(self._catalog, now_ms)
        yield from _account_metrics(self._catalog, now_ms)


def _tls_metrics(workers: Mapping[str, Mapping[str, Any]], api: ApiFigures) -> Iterator[Metric]:
    """Nothing where no TLS is configured."""
    expires = GaugeMetricFamily(
        "clipkeep_tls_certificate_expires_timestamp_seconds",
        "When the certificate that is served for a name ends, Unix time",
        labels=["name"],
    )
    for name, expires_s in api.certificates.items():
        expires.add_metric([name], expires_s)
    yield expires
    handshakes = CounterMetricFamily(
        "clipkeep_tls_handshakes", "Handshakes, by what became of them", labels=["process", "outcome"]
    )
    by_process = {name: values["handshakes"] for name, values in workers.items()} | {"api": api.handshakes}
    for name, outcomes in by_process.items():
        for outcome, count in outcomes.items():
            handshakes.add_metric([name, outcome], count)
    yield handshakes


def _sweep_metrics(catalog: MetricsCatalog, now_ms: int) -> Iterator[Metric]:
    last = catalog.last_sweep()
    if last is not None:
        finished_ms = last["finished_ms"]
        lag_s = (now_ms - finished_ms) / 1000
        yield _gauge("clipkeep_sweep_lag_seconds", "Since the last sweep that finished", lag_s)
        yield _gauge(
            "clipkeep_sweep_last_success_timestamp_seconds",
            "When the last sweep finished, Unix time",
            finished_ms / 1000,
        )
        yield _gauge(
            "clipkeep_sweep_held_back_devices",
            "Erasures that the last sweep left out, because they are more than the bulk limit",
            last.get("held_back_devices", 0),
        )
        keys_failed = float(bool(last.get("key_store_failure")))
        yield _gauge(
            "clipkeep_sweep_key_store_failed", "1 when the last sweep could not destroy keys", keys_failed
        )
    failures = catalog.failures_since_success()
    yield _gauge("clipkeep_sweep_failures", "Sweeps that failed since the last that finished", failures)
    erasures = GaugeMetricFamily(
        "clipkeep_open_erasures", "Erasures that are not cleared yet, by how far they are", labels=["state"]
    )
    for state, count in catalog.erasure_counts().items():
        erasures.add_metric([state], count)
    yield erasures
    marked_ms = catalog.oldest_waiting_erasure_ms()
    yield _gauge(
        "clipkeep_oldest_erasure_seconds",
        "Since the oldest erasure was decided whose keys or rows are still there; 0 when there is none",
        0 if marked_ms is None else max(0, now_ms - marked_ms) / 1000,
    )


def _account_metrics(catalog: BooksCatalog, now_ms: int) -> Iterator[Metric]:
    """What waits in the account books, for an operator or for a scheduled job."""
    with catalog.books() as books:
        backlog = books.backlog(on=day_of_ms(now_ms))

    def by_state(name: str, doc: str, **counts: int) -> Metric:
        gauge = GaugeMetricFamily(name, doc, labels=["state"])
        for state, count in counts.items():
            gauge.add_metric([state], count)
        return gauge

    def age_s(since_ms: int | None) -> float:
        return 0.0 if since_ms is None else max(0.0, (now_ms - since_ms) / 1000)

    yield by_state(
        "clipkeep_notices",
        "Notices that are not delivered: queued, or failed for good",
        queued=backlog.queued_notices,
        failed=backlog.failed_notices,
    )
    yield _gauge(
        "clipkeep_notices_overdue_seconds",
        "How long the notice that is due longest is overdue",
        age_s(backlog.first_due_ms),
    )
    yield by_state(
        "clipkeep_closings",
        "Cancellations of accounts that wait: requested for an operator, approved for the delivery of notices",
        requested=backlog.requested_closings,
        approved=backlog.approved_closings,
    )
    yield _gauge(
        "clipkeep_overdue_renewals",
        "Plans that renew themselves, whose paid period is over: neither charged nor let lapse",
        backlog.overdue_renewals,
    )
    yield _gauge(
        "clipkeep_pending_payments", "Charges and refunds that are not settled", backlog.pending_payments
    )
    yield _gauge(
        "clipkeep_oldest_pending_payment_seconds",
        "How long the oldest of them has been pending",
        age_s(backlog.oldest_pending_ms),
    )
    yield _gauge(
        "clipkeep_failed_refunds",
        "Refunds that the gateway refused and nobody has paid by other means",
        backlog.failed_refunds,
    )
    yield _gauge(
        "clipkeep_open_disputes", "Charges that whoever paid asks back from the bank", backlog.open_disputes
    )


def _gauge(name: str, doc: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, doc, value=value)


def _worker_metrics(workers: dict[str, dict[str, Any]], now_ms: int) -> Iterator[Metric]:
    up = GaugeMetricFamily("clipkeep_worker_up", "1 when the worker takes chunks", labels=["worker"])
    for name, values in workers.items():
        fresh = abs(now_ms - values["at_ms"]) < STALE_MS
        up.add_metric([name], float(fresh and not values["problem"]))
    yield up
    for key, doc in (
        ("chunks", "Chunks stored and acknowledged"),
        ("chunk_bytes", "Bytes of these chunks"),
        ("segments", "Segments put to the store"),
        ("stored_bytes", "Bytes put to the store"),
        ("failed_segments", "Segments that could not be stored; their chunks were answered 503"),
    ):
        counter = CounterMetricFamily(f"clipkeep_ingest_{key}", doc, labels=["worker"])
        for name, values in workers.items():
            counter.add_metric([name], values[key])
        yield counter
    for key, doc in (("connections", "Open device connections"), ("budget_bytes", "Bytes in flight")):
        gauge = GaugeMetricFamily(f"clipkeep_ingest_{key}", doc, labels=["worker"])
        for name, values in workers.items():
            gauge.add_metric([name], values[key])
        yield gauge
    yield from _answer_metrics(workers)


def _store_metric(workers: dict[str, dict[str, Any]], own_calls: StoreCalls) -> Metric:
    calls = CounterMetricFamily(
        "clipkeep_store_calls",
        "Calls to the object store, by outcome: ok or the code of the error",
        labels=["process", "call", "outcome"],
    )
    for name, values in workers.items():
        for call, outcome, count in values["store_calls"]:
            calls.add_metric([name, call, outcome], count)
    for (call, outcome), count in own_calls.items():
        calls.add_metric(["api", call, outcome], count)
    return calls


def _answer_metrics(workers: dict[str, dict[str, Any]]) -> Iterator[Metric]:
    answers = CounterMetricFamily(
        "clipkeep_ingest_answers",
        "Answers to devices, by status and code",
        labels=["worker", "status", "code"],
    )
    latency = HistogramMetricFamily(
        "clipkeep_ingest_ack_seconds", "From a body's last byte to its acknowledgement", labels=["worker"]
    )
    for name, values in workers.items():
        for status, code, count in values["answers"]:
            answers.add_metric([name, str(status), code], count)
        total = 0
        buckets = []
        bounds = [*(str(bound / 1000) for bound in ACK_BUCKETS_MS), "+Inf"]
        for bound, count in zip(bounds, values["ack_ms_buckets"], strict=True):
            total += count
            buckets.append((bound, float(total)))
        latency.add_metric([name], buckets, values["ack_ms_sum"] / 1000)
    yield answers
    yield latency


def _api_metrics(api: ApiFigures) -> Iterator[Metric]:
    yield _gauge("clipkeep_api_connections", "Open connections to the API port", api.connections)
    yield _gauge("clipkeep_api_held_bytes", "Bytes of recordings held for readers", api.held_bytes)
    yield _gauge("clipkeep_api_exports", "Exports under way", api.exports)
    yield CounterMetricFamily(
        "clipkeep_api_slow_readers", "Readers let go for reading too slowly", value=api.let_go
    )
    yield CounterMetricFamily(
        "clipkeep_remux_jobs", "Chunks put into MP4, pictures made, or tried", value=api.remux_jobs
    )
    yield CounterMetricFamily(
        "clipkeep_remux_failures",
        "Of these, those that this could not be done with",
        value=api.remux_failures,
    )
    yield CounterMetricFamily(
        "clipkeep_remux_kills",
        "Of these, those that broke their process, or took too long",
        value=api.remux_kills,
    )


def _settings_metric(config: Config) -> Metric:
    settings = GaugeMetricFamily(
        "clipkeep_setting", "Settings of this host that figures are to be held against", labels=["key"]
    )
    for key in SETTINGS:
        section, _, name = key.partition(".")
        settings.add_metric([key], getattr(getattr(config, section), name))
    return settings


def render(
    run: Path,
    catalog: MetricsCatalog,
    clock: Clock,
    own_calls: StoreCalls,
    api: ApiFigures | None = None,
    feed: FeedFigures | None = None,
    config: Config | None = None,
) -> bytes:
    """The whole of `/metrics`, in Prometheus' text format. `own_calls` and `api` are the API process's; `feed` is None
    where home is on this host; without `config` all settings are the defaults."""
    registry = CollectorRegistry()
    registry.register(
        ClipkeepCollector(run, catalog, clock, own_calls, api or ApiFigures(), feed, config or Config())
    )
    return generate_latest(registry)
