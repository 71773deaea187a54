"""`sweep`, `check`, `catalog rebuild`: what operators schedule, and what they run when in doubt."""

from __future__ import annotations

from collections.abc import Iterator
from json import dumps
from typing import Annotated, Any

import typer

from retention.sweep import Progress, Sweep, SweepLimits, SweepReport
from service import terminal
from service.checks import check_folder, rebuild_catalog
from service.commands.sweeps import clear_after_ms, failures_noted, who_runs
from service.folder import Opened, open_folder
from service.repair import repair_orphans
from service.terminal import DEFAULT_DATA, AcceptClock, Data, Json, Store
from service.tls.contexts import tls_faults

catalog_app = typer.Typer(
    help="The catalog: rebuild its chunk rows, migrate it to a new release, copy it to PostgreSQL.",
    no_args_is_help=True,
)


def sweep_of(
    opened: Opened, progress: Progress, *, max_deletes_per_s: float | None = None, who: str = ""
) -> Sweep:
    """The sweep of one data folder, with its configured limits. `who` runs it: for the report."""
    retention = opened.config.retention
    return Sweep(
        catalog=opened.catalog,
        store=opened.store,
        vault=opened.vault,
        bitmap=opened.bitmap,
        clock=opened.clock,
        limits=SweepLimits(
            expiry_slack_ms=round(retention.expiry_slack_s * 1000),
            delete_delay_ms=round(retention.delete_delay_s * 1000),
            prepare_ttl_ms=round(opened.config.segments.prepare_ttl_s * 1000),
            lapse_grace_days=retention.lapse_grace_days,
            max_clock_skew_ms=round(retention.max_clock_skew_s * 1000),
            max_rest_ms=round(retention.max_rest_h * 3_600_000),
            bulk_limit=retention.bulk_limit,
            lease_ms=round(retention.lease_s * 1000),
            retry_ms=round(retention.retry_s * 1000),
            rewrite_bytes=retention.rewrite_bytes_per_sweep,
            max_deletes_per_s=max_deletes_per_s,
            clear_after_ms=clear_after_ms(opened.config),
            price_per_gb_month=retention.price_per_gb_month,
        ),
        progress=progress,
        who=who or who_runs(),
        home=opened.home_clock,
    )


def sweep(
    data: Data = DEFAULT_DATA,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what a pass would do now, and write nothing.")
    ] = False,
    allow_bulk: Annotated[
        bool, typer.Option("--allow-bulk", help="Erase more lapsed devices in one pass than the bulk limit.")
    ] = False,
    accept_catalog: Annotated[
        bool,
        typer.Option(
            "--accept-catalog",
            help="This catalog is the newest there is, though the store has seen a newer one: that is lost.",
        ),
    ] = False,
    accept_clock: AcceptClock = False,
    max_deletes_per_s: Annotated[
        float | None,
        typer.Option("--max-deletes-per-s", help="Delete no more objects a second than this.", min=1),
    ] = None,
    store: Store = None,
    json: Json = False,
) -> None:
    """Make one pass over everything whose time is over. Safe to run at any time, from cron or a timer.

    Expired days are un-indexed as a whole, lapsed and terminated devices lose their keys after their grace, and
    objects whose delete delay is over go from the store. A pass that was killed is simply run again; failed
    deletes are retried by later passes. Exit code 1 when a guard refused, when something failed, or when more
    devices than the bulk limit are to be erased: those wait for --allow-bulk, the rest of the pass is done.
    """
    with (
        terminal.ended_cleanly("what was done stays done, and the next sweep goes on"),
        open_folder(data, store_url=store) as opened,
        terminal.progress_bar() as progress,
    ):
        one_pass = sweep_of(opened, progress, max_deletes_per_s=max_deletes_per_s)
        if dry_run:
            opened.require_own_store()
            plan = one_pass.plan(
                allow_bulk=allow_bulk, accept_catalog=accept_catalog, accept_clock=accept_clock
            )
            show = _print_plan if json else _show_plan
            show(plan.summary(), one_pass.due_keys(plan))
            return
        with failures_noted(opened, one_pass):
            opened.require_own_store()
            report = one_pass.run(
                allow_bulk=allow_bulk, accept_catalog=accept_catalog, accept_clock=accept_clock
            )
    terminal.report(report.as_dict(), json, lambda: _show_report(report.as_dict()))
    left = left_undone(report)
    for sentence in left:
        terminal.say(sentence)
    if left:
        raise typer.Exit(1)


def left_undone(report: SweepReport) -> list[str]:
    """What the operator has to know of a pass that did not do everything."""
    left = []
    if report.failed_delete_count:
        left.append(
            f"{report.failed_delete_count} objects could not be deleted; they are tried again by the next sweeps"
        )
    if report.delete_failure:
        left.append(f"deleting was broken off: {report.delete_failure}; the next sweep goes on")
    if report.key_store_failure:
        left.append(f"data keys could not be destroyed: {report.key_store_failure}; the next sweep goes on")
    if report.failed_rewrites:
        left.append(
            f"{len(report.failed_rewrites)} segments could not be rewritten; `clipkeep check --deep` says more"
        )
    if report.held_back_devices:
        left.append(
            f"{report.held_back_devices} devices are to be erased, more than [retention] bulk_limit; none was. Look at"
            " `clipkeep sweep --dry-run`, then run it with --allow-bulk"
        )
    return left


def _print_plan(plan: dict[str, Any], due_keys: Iterator[str]) -> None:
    """One JSON document. The keys of objects come last and are written as they are read."""
    print(dumps(plan)[:-1] + ', "delete": [', end="")
    for number, key in enumerate(due_keys):
        print("," if number else "", dumps(key), sep="\n", end="")
    print("]}")


def _show_plan(plan: dict[str, Any], due_keys: Iterator[str]) -> None:
    devices = ["device", "why"]
    tables = (
        ("would expire", ["day", "segments", "chunks", "bytes"], [list(d.values()) for d in plan["expire"]]),
        ("would erase", devices, [list(d.values()) for d in plan["erase"]]),
        ("would erase with --allow-bulk", devices, [list(d.values()) for d in plan["held_back"]]),
        ("would reclaim", ["prepared key"], [[key] for key in plan["reclaim"]]),
        ("would finish", ["deletion of a range"], [[number] for number in plan["finish_deletions"]]),
        ("would rewrite", ["object"], [[key] for key in plan["rewrite"]]),
    )
    for title, columns, rows in tables:
        if rows:
            terminal.table(title, columns, rows)
    for key in due_keys:
        print(f"would delete {key}")
    if plan["delete_objects"]:
        print(
            f"{plan['delete_objects']} objects to delete, {plan['delete_bytes']} bytes in all that were committed"
        )
    if not plan["delete_objects"] and not any(rows for _, _, rows in tables):
        print("nothing to do")


def _show_report(report: dict[str, Any]) -> None:
    terminal.table(
        "sweep",
        ["what", "count"],
        [
            ["days expired", len(report["days"])],
            ["chunks un-indexed", report["unindexed_chunks"]],
            ["devices erased", sum(report["erased_by_cause"].values())],
            ["devices held back", report["held_back_devices"]],
            ["data keys destroyed", report["destroyed_keys"]],
            ["account keys destroyed", report["destroyed_account_keys"]],
            ["prepared keys reclaimed", report["reclaimed_keys"]],
            ["objects deleted", report["deleted_objects"]],
            ["bytes deleted", report["deleted_bytes"]],
            ["delete calls", report["delete_calls"]],
            ["deletes failed", report["failed_delete_count"]],
            ["segments rewritten", report["rewritten_segments"]],
            ["bytes freed by that, later", report["freed_bytes"]],
        ],
    )


def check(
    data: Data = DEFAULT_DATA,
    deep: Annotated[
        bool, typer.Option("--deep", help="Read every object and compare each chunk's place and checksums.")
    ] = False,
    repair: Annotated[
        bool, typer.Option("--repair", help="Mark objects that the catalog does not know for deletion.")
    ] = False,
    older_than_hours: Annotated[
        float, typer.Option("--older-than-hours", help="With --repair: only objects at least so old.", min=1)
    ] = 24.0,
    allow_bulk: Annotated[
        bool, typer.Option("--allow-bulk", help="With --repair: also more objects than the bulk limit.")
    ] = False,
    store: Store = None,
    json: Json = False,
) -> None:
    """Compare catalog and object store, both ways; exit 1 with a list when something is broken.

    Prepared keys of a running service are no fault, nor are objects that a sweep has yet to delete. With --repair,
    objects that the catalog does not know are marked, and sweeps delete them after the delete delay; nothing is
    marked when there are more than the bulk limit, or when one shows that the catalog was restored.
    """
    with open_folder(data, store_url=store) as opened, terminal.progress_bar() as progress:
        result = check_folder(opened, deep=deep, progress=progress)
        if repair:
            repaired = repair_orphans(
                opened,
                result.orphans,
                older_than_s=older_than_hours * 3600,
                allow_bulk=allow_bulk,
                progress=progress,
            )
            result.note_repaired(repaired)
        for sentence in tls_faults(opened.config.tls):
            result.found(sentence)
    document = result.as_dict()

    def human() -> None:
        for line in result.broken:
            print(f"BROKEN  {line}")
        for line in result.notes:
            print(f"note    {line}")
        if result.lost.objects:
            print(f"LOST    {result.lost.told()}")
        print(
            f"{result.segments} committed segments, {result.chunks} chunks, {result.objects} objects:"
            f" {'sound' if not result.broken_count else str(result.broken_count) + ' broken'}"
        )

    terminal.report(document, json, human)
    if result.broken_count:
        raise typer.Exit(1)


@catalog_app.command("rebuild")
def catalog_rebuild(data: Data = DEFAULT_DATA, store: Store = None, json: Json = False) -> None:
    """Re-create the chunk rows from the committed objects.

    For a catalog whose chunk tables were lost or damaged, while its segment and device rows are there. What
    commits refused, what was deleted and what was erased stays out. Rows that exist are left alone.
    """
    with (
        terminal.ended_cleanly("rows that were made stay; run it again for the rest"),
        open_folder(data, store_url=store) as opened,
        terminal.progress_bar() as progress,
    ):
        result = rebuild_catalog(opened, progress=progress)
    terminal.report(result, json)
    if result["unreadable"]:
        raise typer.Exit(1)


def register(app: typer.Typer) -> None:
    app.command()(sweep)
    app.command()(check)
    app.add_typer(catalog_app, name="catalog")
