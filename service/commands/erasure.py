"""`erasure`: the records of what was erased, and the proof that it is."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from retention.proof import Proof, Prover
from service import terminal
from service.commands.showing import next_after, next_page
from service.folder import Opened, open_folder
from service.terminal import DEFAULT_DATA, Data, Device, Json, Store
from storage.errors import NotFound
from storage.open_vault import opened_backup
from storage.rows.devices import ErasureRecord

erasure_app = typer.Typer(
    help="Erasures: list and show their records, verify that nothing decrypts.", no_args_is_help=True
)


@erasure_app.command("list")
def erasure_list(
    after: Annotated[int, typer.Option("--after", help="Only records with higher numbers.", min=0)] = 0,
    limit: Annotated[int, typer.Option("--limit", help="At most so many.", min=1, max=100_000)] = 100,
    data: Data = DEFAULT_DATA,
    json: Json = False,
) -> None:
    """List erasure records, oldest first: which device, why, and how far it has come."""
    with open_folder(data) as opened:
        rows = [_shown(record) for record in opened.catalog.erasures(after_id=after, limit=limit)]
    columns = ("number", "device", "why", "who", "state", "marked", "keys_destroyed", "cleared")

    def draw() -> None:
        terminal.table("erasures", columns, [[row[name] for name in columns] for row in rows])
        next_page(rows, limit, "number")

    terminal.report({"erasures": rows, "next": next_after(rows, limit, "number")}, json, draw)


@erasure_app.command("show")
def erasure_show(device: Device, data: Data = DEFAULT_DATA, json: Json = False) -> None:
    """Show a device's erasure records: what, why, when each step was done, how it was verified. No personal data."""
    with open_folder(data) as opened:
        rows = [_shown(record) for record in _records(opened, device)]

    def human() -> None:
        for row in rows:
            print("\n".join(f"{name}: {value}" for name, value in row.items()), end="\n\n")

    terminal.report({"device": device, "erasures": rows}, json, human)


@erasure_app.command("verify")
def erasure_verify(
    device: Device,
    backup: Annotated[
        list[Path] | None,
        typer.Option(
            "--backup",
            help="A backup to attack with as well: of keys/, or a PostgreSQL base backup of the vault (plain format);"
            " may be given again.",
        ),
    ] = None,
    master_key: Annotated[
        Path | None,
        typer.Option(
            "--master-key",
            help="The file of wrapping keys for base backups, such as a copy from before a rotation; by default this"
            " host's own.",
        ),
    ] = None,
    data: Data = DEFAULT_DATA,
    store: Store = None,
    json: Json = False,
) -> None:
    """Try to decrypt what a device stored before its erasure, with every key that is left. It must fail.

    The chunks are found in the objects themselves. Neighbours in the same objects must still decrypt. Exit code 1 when
    anything of the device does, when a key of it is left, or when something could not be looked at. A
    backup of keys/ that is given must be writable: its database is opened, not changed. Of a base backup the raw files
    are read: what the server has deleted, and its log, included.
    """
    with ExitStack() as stack:
        opened = stack.enter_context(open_folder(data, store_url=store))
        record = _records(opened, device)[-1]
        keys = master_key or opened.folder.master_key
        backups = [stack.enter_context(opened_backup(folder, keys)) for folder in backup or ()]
        progress = stack.enter_context(terminal.progress_bar())
        prover = Prover(opened.catalog, opened.store, opened.vault, backups, progress)
        proof = prover.prove(device, record.epoch)
        if proof.holds:
            opened.catalog.note_verified(record.erasure_id, proof.told(), now_ms=opened.clock.now_ms())
    document = {**asdict(proof), "holds": proof.holds, "state": record.state}
    terminal.report(document, json, lambda: _print_proof(proof))
    if not proof.holds:
        raise typer.Exit(1)


def _records(opened: Opened, device: int) -> list[ErasureRecord]:
    found = opened.catalog.erasures(device=device)
    if not found:
        raise NotFound("nothing of this device was ever marked for erasure", subject=f"device {device}")
    return found


def _print_proof(proof: Proof) -> None:
    if proof.account_keys_left:
        print(
            f"{proof.account_keys_left} keys of accounts that have ended can still be read: delete the backups that"
            " hold them, or the master.key of their time"
        )
    if proof.holds:
        print(f"erased: {proof.told()}")
        return
    if proof.own_keys:
        print(f"NOT ERASED  {proof.own_keys} keys of device {proof.device} are left")
    for title, lines in (
        ("DECRYPTS", proof.decrypted),
        ("NEIGHBOUR LOST", proof.neighbours_lost),
        ("UNREADABLE", proof.unreadable),
    ):
        for line in lines:
            print(f"{title}  {line}")


def _shown(record: ErasureRecord) -> dict[str, Any]:
    return {
        "number": record.erasure_id,
        "device": record.device,
        "epoch": record.epoch,
        "state": record.state,
        "why": record.why,
        "who": record.who,
        "marked": _time(record.marked_ms),
        "keys_destroyed": _time(record.keys_destroyed_ms),
        "keys": record.keys_destroyed,
        "unindexed": _time(record.unindexed_ms),
        "chunks": record.unindexed_chunks,
        "cleared": _time(record.cleared_ms),
        "verified": _time(record.verified_ms),
        "verified_how": record.verified,
    }


def _time(ms: int | None) -> str | None:
    return None if ms is None else datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="seconds")


def register(app: typer.Typer) -> None:
    app.add_typer(erasure_app, name="erasure")
