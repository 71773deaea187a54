"""`sweeps`: what the passes of the sweep did, who ran them, and what they saved; and the failed ones."""

from __future__ import annotations

import os
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from retention.destruction import KEY_CACHE_S
from retention.sweep import Sweep, SweepReport
from service import terminal
from service.config import DAY_S, Config
from service.folder import Opened, open_folder
from service.terminal import DEFAULT_DATA, Data, Json
from storage.catalog.reports import MAX_SWEEP_REPORTS
from storage.errors import ClipkeepError

UNDER_WAY_S = 60.0
"""What was begun with a key just before it was dropped from memory: a chunk's encryption, a page of an export. A
generous guess."""


def clear_after_ms(config: Config) -> int:
    """From the destruction of keys until caches are past their time and backups are gone."""
    caches_s = max(KEY_CACHE_S, config.api.purge_every_s) + UNDER_WAY_S
    return round(1000 * max(caches_s, config.retention.key_backup_days * DAY_S))


def who_runs() -> str:
    """Who runs this process, for the report: a number and a host, no name of a person."""
    return f"uid {os.getuid()} on {socket.gethostname()}"


@contextmanager
def failures_noted(opened: Opened, one_pass: Sweep) -> Iterator[None]:
    """Keep in the catalog that a pass did not end well, and what it had done, for metrics and people. `busy` is no
    failure."""
    try:
        yield
    except ClipkeepError as error:
        if error.code != "busy":
            _note_failed(opened, error.code, str(error), one_pass.report)
        raise
    except KeyboardInterrupt:
        _note_failed(
            opened, "interrupted", "by a person or a signal; the next sweep goes on", one_pass.report
        )
        raise


def _note_failed(opened: Opened, code: str, detail: str, report: SweepReport | None) -> None:
    if report is not None:
        detail = f"{detail} (until then, by {report.who}: {_done(report.as_dict())})"
    with suppress(ClipkeepError):  # the first error is the one to tell
        opened.catalog.note_failed_sweep(code, detail, now_ms=opened.clock.now_ms())


def sweeps(
    limit: Annotated[
        int, typer.Option("--limit", help="At most so many.", min=1, max=MAX_SWEEP_REPORTS)
    ] = 20,
    data: Data = DEFAULT_DATA,
    json: Json = False,
) -> None:
    """List the newest sweeps: when, by whom, what and why, bytes deleted and what they no longer cost a month.

    With --json the whole reports. The newest 1000 are kept in the catalog, and as many failed passes.
    """
    with open_folder(data) as opened:
        reports = opened.catalog.sweep_reports(limit=limit)
        failed = opened.catalog.failed_sweeps(limit=limit)
    terminal.report({"sweeps": reports, "failed": failed}, json, lambda: _show(reports, failed, limit))


def _show(reports: list[dict[str, Any]], failed: list[dict[str, Any]], limit: int) -> None:
    columns = ["finished", "who", "why", "objects deleted", "bytes", "saved a month"]
    terminal.table("sweeps", columns, [_row(report) for report in reports])
    if limit in (len(reports), len(failed)):
        print(f"these are the newest {limit}, and there may be older ones: --limit up to {MAX_SWEEP_REPORTS}")
    if failed:
        rows = [[_time(failure["at_ms"]), failure["code"], failure["detail"]] for failure in failed]
        terminal.table("failed sweeps", ["at", "code", "what to do"], rows)


def _row(report: dict[str, Any]) -> list[object]:
    return [
        _time(report["finished_ms"]),
        report.get("who", ""),
        _why(report),
        report["deleted_objects"],
        report["deleted_bytes"],
        f"{report.get('saved_per_month', 0.0):.2f}",
    ]


def _why(report: dict[str, Any]) -> str:
    """What a pass acted on, in a line."""
    causes: Counter[str] = Counter()
    for why, count in report.get("erased_by_cause", {}).items():
        causes[why.partition(",")[0]] += count
    counts = {"days expired": len(report["days"])}
    counts |= {f"devices {why}": count for why, count in sorted(causes.items())}
    counts["keys reclaimed"] = report["reclaimed_keys"]
    counts["segments rewritten"] = report.get("rewritten_segments", 0)
    parts = [f"{count} {what}" for what, count in counts.items() if count]
    if not parts and report["deleted_objects"]:
        return "what earlier ones un-indexed"
    return ", ".join(parts) or "nothing new"


def _done(report: dict[str, Any]) -> str:
    """What a pass that did not end had done."""
    return f"{_why(report)}; {report['deleted_objects']} objects deleted, {report['deleted_bytes']} bytes"


def _time(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="seconds")


def register(app: typer.Typer) -> None:
    app.command()(sweeps)
