"""`schedule`: what the service does by itself, when it did it last, and when it will."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import typer

from service import terminal
from service.folder import open_folder
from service.schedule import Job, is_due, jobs_of
from service.terminal import DEFAULT_DATA, Data, Json
from storage.rows.schedule import RunRow


def schedule(data: Data = DEFAULT_DATA, json: Json = False) -> None:
    """List what the service does by itself: each job's last run, on which host, how it ended, and when the next begins.

    A running service sweeps and renews hourly, on one host at a time ([schedule] in config.toml; `on = false` is for
    those who run `clipkeep sweep` and `clipkeep renew` from timers). A run that went wrong is made again at its next
    time; to make one now, run the command of its name. Times are UTC. With rotate_days a third job looks once a day how
    old the wrapping key is, and does what `clipkeep keys rotate` does.
    """
    with open_folder(data) as opened:
        settings = opened.config.schedule
        runs = opened.catalog.scheduled_runs()
        now_ms = (opened.home_clock or opened.clock).now_ms()
    jobs = [_document(job, runs.get(job.name), now_ms) for job in jobs_of(settings)]

    def human() -> None:
        if not settings.on:
            print("[schedule] on = false: the service does none of this by itself")
        columns = ("job", "last run", "took", "host", "outcome", "next")
        terminal.table(f"{len(jobs)} jobs", columns, [_line(job, is_on=settings.on) for job in jobs])

    terminal.report({"on": settings.on, "jobs": jobs}, json, human)


def _document(job: Job, last: RunRow | None, now_ms: int) -> dict[str, Any]:
    next_ms = now_ms if is_due(job, last, now_ms) else job.slot_ms(now_ms) + job.every_ms
    document: dict[str, Any] = {
        "job": job.name,
        "every_s": job.every_ms / 1000,
        "next_ms": next_ms,
        "due": next_ms <= now_ms,
    }
    if last is not None:
        document |= {key: value for key, value in last._asdict().items() if key != "job"}
    return document


def _line(job: dict[str, Any], *, is_on: bool) -> list[str]:
    began_ms, ended_ms = job.get("began_ms"), job.get("ended_ms")
    took = "" if began_ms is None or ended_ms is None else f"{(ended_ms - began_ms) / 1000:.1f} s"
    outcome = job.get("outcome") or ("under way" if began_ms is not None else "")
    said = f"{outcome}: {job['detail']}" if job.get("detail") else outcome
    return [
        job["job"],
        _moment(began_ms),
        took,
        terminal.visible(job.get("host", "")),
        terminal.visible(said),
        "" if not is_on else "now" if job["due"] else _moment(job["next_ms"]),
    ]


def _moment(ms: int | None) -> str:
    return "never" if ms is None else f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d %H:%M:%S}"


def register(app: typer.Typer) -> None:
    app.command()(schedule)
