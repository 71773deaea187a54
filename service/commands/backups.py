"""`clipkeep backup` and `clipkeep restore`."""

from __future__ import annotations

import os
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from service import terminal
from service.backups.making import Destinations, Made, make_backup, prune
from service.backups.rehearsing import SAMPLES, Rehearsed, rehearse
from service.backups.restoring import Backup, restore
from service.config_text import load_config
from service.folder import DataFolder, Opened, open_folder
from service.terminal import DEFAULT_DATA, Data, Json, Store
from storage.clock import SystemClock
from storage.days import MS_PER_DAY
from storage.errors import CorruptError, WorldError

BASE_BACKUP_DAYS = 8
"""A base backup a week, and a day to make it."""
MAX_SAID = 5
"""Findings told in a message."""


def backup(
    to: Annotated[
        Path,
        typer.Option("--to", help="The folder that catalog, configuration and payments go to; it is there."),
    ],
    keys_to: Annotated[
        Path,
        typer.Option("--keys-to", help="The folder that keys go to, best on another disk; it is there."),
    ],
    verify: Annotated[
        bool,
        typer.Option(
            "--verify",
            help=f"Rehearse: make a folder of the copy, open it, and read up to {SAMPLES} recordings by it.",
        ),
    ] = False,
    prune_old: Annotated[
        bool,
        typer.Option(
            "--prune",
            help="Then remove backups of this home that are older than [retention] key_backup_days, from both.",
        ),
    ] = False,
    server_elsewhere: Annotated[
        bool,
        typer.Option(
            "--server-elsewhere",
            help="PostgreSQL is backed up in a way that it can't tell of, such as pg_dump or snapshots: don't ask it.",
        ),
    ] = False,
    base_backup_days: Annotated[
        int,
        typer.Option(
            "--base-backup-days", help="How old PostgreSQL's last base backup may be.", min=1, max=365
        ),
    ] = BASE_BACKUP_DAYS,
    data: Data = DEFAULT_DATA,
    store: Store = None,
    json: Json = False,
) -> None:
    """Copy all that a home needs but its objects, beside a running service; keys apart.

    Each destination gets a folder, named by the time, with a manifest of checksums. Of a catalog or a vault on
    PostgreSQL the server's own backups are looked at instead: exit code 1 when they do not run, all else is copied.

    An S3 store is its own copy. Local objects are not in it: rsync them afterwards. The environment of the service is
    not in it either. A copy can read what was erased since, so delete it after [retention] key_backup_days (--prune).

    Example: `clipkeep backup --to /backup/clipkeep --keys-to /keys/clipkeep --verify --prune`
    """
    places = Destinations(to, keys_to)
    with (
        terminal.ended_cleanly("nothing of this backup is left, and nothing was removed"),
        open_folder(data, store_url=store) as opened,
    ):
        now_ms = SystemClock().now_ms()
        with terminal.progress_bar() as progress:
            made = make_backup(opened, places, now_ms=now_ms, progress=progress)
        for warning in (*places.warnings(data), *_of_objects(opened, store)):
            terminal.say(f"warning: {warning}")
        problems = [] if server_elsewhere else _server_problems(made, now_ms, base_backup_days)
        rehearsed = _rehearsed(opened, made) if verify else None
        kept_ms = opened.config.retention.key_backup_days * MS_PER_DAY
        _require_sound(made, problems, rehearsed)  # what is older is kept until one is made that is good
        gone = prune(places, home=made.manifest.home, before_ms=now_ms - kept_ms) if prune_old else []
    document: dict[str, Any] = {
        "backup": str(made.data),
        "keys": str(made.keys),
        "files": len(made.manifest.files),
        "bytes": sum(kept.bytes for kept in made.manifest.files),
        "catalog": made.manifest.catalog,
        "vault": made.manifest.vault,
        "delete_by": _time(now_ms + kept_ms),
        "recordings_read": rehearsed.read if rehearsed else None,
        "removed": gone,
    }
    terminal.report(document, json)


def _rehearsed(opened: Opened, made: Made) -> Rehearsed:
    whole = Backup.read(made.data, made.keys)
    return rehearse(whole, scratch=opened.folder.run, store_url=opened.store_url, environ=os.environ)


def _server_problems(made: Made, now_ms: int, base_backup_days: int) -> list[str]:
    max_age_ms = base_backup_days * MS_PER_DAY
    for server in made.servers:
        for note in server.notes():
            terminal.say(f"{server.subject}: {note}")
    return [
        f"{server.subject}: {problem}"
        for server in made.servers
        for problem in server.problems(now_ms=now_ms, max_age_ms=max_age_ms)
    ]


def _of_objects(opened: Opened, store: str | None) -> list[str]:
    url = opened.folder.store_url(opened.config, store)
    if not url.startswith("file:"):
        return []
    return [f"objects are not in it: copy {url.removeprefix('file://')} now, after this, with rsync -a"]


def _require_sound(made: Made, problems: list[str], rehearsed: Rehearsed | None) -> None:
    if rehearsed is not None and rehearsed.wrong:
        _refuse_rehearsed(made.data, rehearsed)
    if problems:
        raise WorldError(
            f"all else was copied, but not this: {'; '.join(problems)}. When it is backed up in a way that it can't"
            " tell of, say --server-elsewhere",
            subject=str(made.data),
            code="server_not_backed_up",
        )


def _refuse_rehearsed(subject: Path, rehearsed: Rehearsed) -> None:
    raise CorruptError(
        f"the copy is there, but its rehearsal found {len(rehearsed.wrong)} things wrong, {rehearsed.read} recordings"
        f" could be read: {'; '.join(rehearsed.wrong[:MAX_SAID])}. Look at `clipkeep check --deep`, and keep the backup"
        " from before",
        subject=str(subject),
        code="backup_unfit",
    )


def restore_backup(
    backup: Annotated[Path, typer.Option("--from", help="The folder of one backup, in what was --to.")],
    keys: Annotated[Path, typer.Option("--keys", help="The folder of its keys, in what was --keys-to.")],
    verify: Annotated[
        bool,
        typer.Option(
            "--verify",
            help=f"Only rehearse: in a temporary folder (TMPDIR), which goes again, up to {SAMPLES} recordings are"
            " read. --data is left alone.",
        ),
    ] = False,
    data: Data = DEFAULT_DATA,
    store: Store = None,
    json: Json = False,
) -> None:
    """Make a data folder of a backup. Every byte is compared first; a folder in which something is, is refused.

    It says what is to be done next. As long as the old folder may still be served somewhere, do not serve this one: two
    services would charge and sweep beside one another.

    Example: `clipkeep restore --from /backup/2027-01-31T020000.000Z --keys /keys/2027-01-31T020000.000Z`
    """
    with terminal.ended_cleanly("nothing serves this folder yet; the same command begins anew"):
        whole = Backup.read(backup, keys)
        if verify:
            scratch = Path(tempfile.gettempdir())
            found = rehearse(whole, scratch=scratch, store_url=store, environ=os.environ)
        else:
            restore(whole, data)
    if verify:
        if found.wrong:
            _refuse_rehearsed(backup, found)
        terminal.report({"backup": str(backup), "recordings_read": found.read}, json)
        return
    config = load_config(DataFolder(data).config, os.environ)
    local = DataFolder(data).store_url(config, store).startswith("file:")
    steps = next_steps(whole, data, local=local)
    document = {
        "data": str(data),
        "backup": whole.manifest.name,
        "made_at": _time(whole.manifest.made_ms),
        "release": whole.manifest.release,
        "next": steps,
    }

    def told() -> None:
        print(f"made {data} of the backup of {document['made_at']}. Next:")
        for number, step in enumerate(steps, start=1):
            print(f"  {number}. {step}")

    terminal.report(document, json, told)


def next_steps(backup: Backup, data: Path, *, local: bool) -> list[str]:
    """What is to be done with a folder that was put back. See *A restored catalog* in docs/operations.md."""
    steps = [
        "put back the environment of the service (AWS_*, CLIPKEEP_*, passwords): it is in no backup",
        *(["put the copy of the objects back, whole, where the configuration says"] if local else []),
    ]
    for whose, where in (("catalog", backup.manifest.catalog), ("vault", backup.manifest.vault)):
        if where == "server":
            steps.append(
                f"the {whose} is on its server: if that was lost, restore it there with the server's tools"
            )
    steps += [
        f"clipkeep check --data {data} says what is missing",
        f"clipkeep serve --data {data}: numbers start above all that may be out, and all log-ins end",
        f"clipkeep sweep --dry-run --accept-catalog --data {data}; when that is right, once without --dry-run. Until"
        " then every sweep refuses (catalog_restored)",
        f"clipkeep keys rotate --data {data}, when it serves: as after each copy of keys that was put back",
        f"clipkeep books check --data {data}; enter again what is known of plans begun since",
        f"clipkeep device new-token --data {data} for each device whose token was voided since: it is good again",
    ]
    return steps


def _time(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="seconds")


def register(app: typer.Typer) -> None:
    app.command()(backup)
    app.command("restore")(restore_backup)
