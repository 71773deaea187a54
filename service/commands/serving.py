"""`serve`: the service itself."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated

import structlog
import trio
import typer

from retention.account_keys import destroy_again
from retention.destruction import last_month_destroyed, replay_destructions
from retention.filelock import holding
from retention.reopening import adopt_key_months
from service import terminal
from service.agreement import packages
from service.config_text import load_config
from service.folder import DataFolder, Opened, open_folder
from service.logs import configure_logs
from service.promises import require_promises
from service.supervisor import Address, Supervisor, children_of, claim, first_error, parse_address
from service.terminal import DEFAULT_DATA, Data, Json, Store
from service.tls.contexts import open_tls
from storage.errors import CallerError, CorruptError, WorldError

MAX_WORKERS = 256

_log = structlog.get_logger("supervisor")


def serve(
    data: Data = DEFAULT_DATA,
    ingest: Annotated[
        str, typer.Option("--ingest", help="HOST:PORT where devices upload; port 0 picks a free one.")
    ] = "127.0.0.1:8080",
    api: Annotated[
        str, typer.Option("--api", help="HOST:PORT for people, players, /metrics; port 0 picks a free one.")
    ] = "127.0.0.1:8081",
    workers: Annotated[
        int, typer.Option("--workers", help="Ingest processes, about one a core.", min=1, max=MAX_WORKERS)
    ] = 1,
    store: Store = None,
    json: Json = False,
) -> None:
    """Take uploads and play recordings back, until SIGTERM or Ctrl-C.

    A stop is graceful: no new connections, bodies under way finish, are stored and acknowledged, up to
    `stop_deadline_s`. Logs are JSON lines on stderr, from `starting` to `stopped`. Once all processes serve, stdout
    says the addresses: with --json in one document.
    """
    configure_logs("supervisor")
    _log.info("starting", workers=workers)
    folder = DataFolder(data)
    config = load_config(folder.config, os.environ)
    deadline_s = config.ingest.stop_deadline_s
    tls = open_tls(config.tls)
    if tls is not None:
        _log.info("tls", days=tls.days_left(), names=len(tls.expires_s()))
    host = secrets.token_hex(8)
    with alone(folder):
        for stale in folder.run.glob("*.json"):
            stale.unlink()  # counters of workers that no longer run
        with open_folder(data, store_url=store) as opened:
            _settle_numbers(opened)
            opened.bitmap.stamp(0)  # of an earlier run: until the feed has asked, nothing is served
            if opened.has_hosts:
                opened.feed(
                    host
                ).register()  # before the rows are read: what is committed after waits for this host
            opened.entitlements.recover()
            _repeat_destructions(opened)
            adopt_key_months(opened.catalog, opened.vault)
            for detail in packages.unlike_config(opened.desk, config.retention):
                _log.warning("not_sold", detail=detail)
        for whose, promise in require_promises(config.home).items():
            _log.info("promise", of=whose, survives=promise.survives.word, detail=promise.said)
        with (
            claim(parse_address(ingest, option="--ingest"), option="--ingest") as ingest_at,
            claim(parse_address(api, option="--api"), option="--api") as api_at,
        ):
            children = children_of(
                data=data,
                ingest=ingest_at,
                api=api_at,
                workers=workers,
                store_url=store,
                host=host,
                schedule=config.schedule.on,
            )
        supervisor = Supervisor(children, stop_deadline_s=deadline_s, reloads=tls is not None)
        with first_error():
            trio.run(_serve, supervisor, ingest_at, api_at, data, json, tls is not None)
        _log.info("stopped", restarts=supervisor.restarts)


def _settle_numbers(opened: Opened) -> None:
    """Before the bitmap takes the catalog's word: a new one tells that nobody here knows how old the catalog is.

    Raises:
        CallerError: `another_store`.
    """
    try:
        opened.require_own_store()
        if opened.settle_numbers(ask_store=True):
            detail = (
                "this catalog may be an older one: numbers and tokens start above all that may be out, and everybody"
                " logs in anew. Tokens that were voided since the backup are valid again: `clipkeep device new-token`"
            )
            _log.warning("numbers_raised", detail=detail)
    except (WorldError, CorruptError) as error:
        _log.warning(
            "numbers_not_reserved", code=error.code, detail=f"{error}; a running service tries again"
        )


def _repeat_destructions(opened: Opened) -> None:
    """Where the vault was restored from a backup, destroy anew what has been destroyed since, before anybody reads."""
    again = replay_destructions(opened.catalog, opened.vault, now_ms=opened.clock.now_ms())
    if month := last_month_destroyed(opened.catalog):
        again += opened.vault.destroy_months(month)
    again += destroy_again(opened.catalog, opened.vault)
    if again:
        _log.warning("destroyed_anew", keys=again, detail="a restored key store had them again")


@contextmanager
def alone(folder: DataFolder) -> Iterator[None]:
    """Hold the lock of the one service that may run on a data folder."""
    folder.run.mkdir(mode=0o700, exist_ok=True)
    with ExitStack() as stack:
        try:
            stack.enter_context(holding(folder.run / "serve.lock", 1.0, name="service"))
        except WorldError as error:
            if error.code != "service_busy":
                raise
            raise CallerError(
                "another `clipkeep serve` runs on this data folder; stop it first",
                subject=str(folder.root),
                code="busy",
            ) from error
        yield


IN_CLEAR = (
    "ports that others reach are in clear: whoever is on the way can read tokens, passwords and recordings. Set [tls]"
    " certificate and key, or listen on loopback behind what terminates TLS"
)


async def _serve(
    supervisor: Supervisor, ingest: Address, api: Address, data: Path, as_json: bool, is_tls: bool
) -> None:
    scheme = "https" if is_tls else "http"
    async with trio.open_nursery() as nursery:
        await nursery.start(supervisor.run)
        document = {
            "ingest": f"{scheme}://{ingest}",
            "api": f"{scheme}://{api}",
            "data": str(data),
            "pid": os.getpid(),
        }
        if not is_tls and not (_is_loopback(ingest) and _is_loopback(api)):
            _log.warning("in_clear", detail=IN_CLEAR)
        _log.info("serving", version=version("clipkeep"), **document)
        terminal.report(
            document,
            as_json,
            lambda: print(
                f"clipkeep serves: devices at {scheme}://{ingest}, people at {scheme}://{api}"
                f" (docs at /docs){'' if is_tls else ', in clear'}"
            ),
        )
        sys.stdout.flush()


def _is_loopback(address: Address) -> bool:
    try:
        return ip_address(address.host).is_loopback
    except ValueError:
        return address.host == "localhost"


def register(app: typer.Typer) -> None:
    app.command()(serve)
