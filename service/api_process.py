"""The API process: playback for people and players, health, metrics. Beside that it keeps house, see
`service.housekeeping`. The bitmap is kept by the feed process."""

from __future__ import annotations

import argparse
import math
import shutil
import sys
from collections.abc import Awaitable, Callable
from dataclasses import asdict, fields, replace
from functools import partial
from pathlib import Path

import structlog
import trio

from ingest.server import listen
from retention.freshness import Freshness
from service.agreement import my_data
from service.agreement.consents import unsubscribe_url
from service.agreement.openid.opening import open_providers
from service.agreement.senders import open_senders
from service.api import ApiServices, create_app
from service.child import (
    allowed_connections,
    die_with_supervisor,
    on_reload_signal,
    on_stop_signal,
    say_ready,
)
from service.clients import Clients, parse_proxies
from service.errands.child import InChild
from service.folder import Opened, host_name, open_folder
from service.housekeeping import Chore, DaysAhead, UploadsForgotten, Uses, chores, keep_house
from service.http import HttpLimits, HttpServer
from service.keeping import Keeping
from service.logs import configure_logs
from service.metrics import STALE_MS, ApiFigures, FeedFigures, published, render
from service.playback import Playback
from service.playback.used import Used
from service.promises import promises_of
from service.ready import Question
from service.remuxing.limits import RemuxLimits
from service.tls.contexts import handshakes_of, open_tls
from storage.clock import boottime_ns
from storage.counted import CountedStore
from storage.errors import ClipkeepError

KEEP_UP_EVERY_S = 2.0
"""With rotations of the wrapping key: whoever rotates waits for the hosts that serve."""
OLD_EXPORTS_EVERY_S = 3600.0
CLIPS_EVERY_S = 1.0
"""How soon a clip is begun, and goes on. Each look costs a read of an index."""
"""Each look lists what the store has of them."""
OWN_FILES = 256
"""Open files kept for what is no client's connection: catalog, keys, books, logs, the store's own connections."""
PROBE_FRESH_S = 1.0
"""However often `/readyz` is asked, the store is asked no more often."""
PROBE_WAIT_S = 2.0
"""Well within what those who ask for readiness wait themselves; a store call may take a minute to fail."""

_log = structlog.get_logger("api")


FOR_STRANGERS = {
    "store_unavailable": "the object store does not answer",
    "store_denied": "the object store refuses: its bucket, credentials or permissions",
    "catalog_unavailable": "the catalog can't be read or written",
    "catalog_full": "the disk of the catalog's server is full",
    "key_store_unavailable": "the vault can't be read",
    "key_store_full": "the disk of the vault's server is full",
    "key_store_corrupt": "the vault is damaged",
    "data_disk_full": "the data disk is full",
    "store_full": "the object store is full",
    "catalog_replaced": "the catalog's file is not the one that was opened",
    "key_store_replaced": "a file of the key store is not the one that was opened",
    "host_stale": "this host has not heard from home for too long",
    "bitmap_replaced": "the bitmap's file is not the one that was opened",
}
"""What `/readyz` says to anybody, by code: no keys, addresses or words of a store, which are the log's."""


def for_strangers(code: str) -> str:
    return FOR_STRANGERS.get(code, "does not work") + "; the operator's log says more"


class Prober:
    """Asks catalog, vault and store on behalf of all who want to know: once at a time, and nobody waits long.

    Args:
        probe: raises a ClipkeepError when something is wrong.
        unanswered: what is wrong when `probe` has not returned after so many seconds.
    """

    def __init__(
        self, probe: Callable[[], Awaitable[None]], unanswered: Callable[[float], ClipkeepError]
    ) -> None:
        self._probe = probe
        self._unanswered = unanswered
        self._wanted = trio.Event()
        self._answered = trio.Event()
        self._answered_s = -math.inf
        self._problem: ClipkeepError | None = None

    async def run(self) -> None:
        """The owning task of the questions."""
        while True:
            await self._wanted.wait()
            self._wanted = trio.Event()
            try:
                await self._probe()
            except ClipkeepError as error:
                self._problem = error
            else:
                self._problem = None
            self._answered_s = trio.current_time()
            self._answered.set()
            self._answered = trio.Event()

    async def problem(self) -> ClipkeepError | None:
        """What is wrong, as of at most `PROBE_FRESH_S` ago; no answer within `PROBE_WAIT_S` is wrong too."""
        if trio.current_time() - self._answered_s < PROBE_FRESH_S:
            return self._problem
        self._wanted.set()
        with trio.move_on_after(PROBE_WAIT_S) as patience:
            await self._answered.wait()
        if patience.cancelled_caught:
            return self._unanswered(PROBE_WAIT_S)
        return self._problem


class ApiProcess:
    """The parts of the API process, joined up."""

    def __init__(self, opened: Opened, store_url: str | None = None) -> None:
        self._store_url = store_url
        self._store = CountedStore(opened.store)
        self.opened = opened = replace(opened, store=self._store)
        self._freshness = Freshness(opened.bitmap, opened.max_stale_ns)
        self._tls = open_tls(opened.config.tls)
        self._question = Question()
        self._prober = Prober(self._probe, self._question.unanswered)
        self._used = Used()
        self._used_accounts = Used()
        self.uses = Uses(opened.desk, devices=self._used, accounts=self._used_accounts)
        self._figures: Callable[[], ApiFigures] = ApiFigures
        """What this process counts; set with its server."""
        self._promises = promises_of(opened.config.home)
        self._exports_cleared = False
        self._keeping = Keeping(opened.catalog, self._store, opened.vault, opened.clock)
        self._told: dict[str, str] = {}
        """What was not ready when somebody asked last."""

    async def _probe(self) -> None:
        # A store that hangs is left to itself: its answer is not worth the wait of a stop.
        await trio.to_thread.run_sync(self._question.ask, self.opened, abandon_on_cancel=True)

    def services(self) -> ApiServices:
        opened = self.opened
        return ApiServices(
            catalog=opened.catalog,
            store=opened.store,
            vault=opened.vault,
            bitmap=opened.bitmap,
            max_stale_ns=opened.max_stale_ns,
            clock=opened.clock,
            token_secret=opened.vault.token_secret,
            desk=opened.desk,
            report_keys=opened.report_keys,
            used=self._used,
            used_accounts=self._used_accounts,
            delete_delay_ms=round(opened.config.retention.delete_delay_s * 1000),
            ready=self.ready,
            survives=lambda: {whose: found.survives.word for whose, found in self._promises.items()},
            metrics=self.metrics,
            operation=opened.catalog,
            workers=partial(published, opened.folder.run),
            errands=InChild(opened.folder.root, self._store_url),
            answer_s=opened.config.home.answer_s,
            providers=open_providers(opened.config.openid),
            openid_threads=opened.config.openid.threads,
            ingest_tls=self._tls is not None,
            remux=RemuxLimits(**asdict(opened.config.remux)),
            **asdict(opened.config.api),
        )

    def metrics(self) -> bytes:
        """The whole of `/metrics`. Blocks."""
        opened = self.opened
        feed = FeedFigures(self._feed_lag_s(), opened.bitmap.last_change) if opened.has_hosts else None
        calls = self._store.calls()
        return render(
            opened.folder.run, opened.catalog, opened.clock, calls, self._figures(), feed, opened.config
        )

    def _feed_lag_s(self) -> float:
        """Since the feed of this host asked home."""
        return (boottime_ns() - self.opened.bitmap.asked_ns) / 1e9

    def _chores(self) -> list[Chore]:
        opened = self.opened
        senders = open_senders(
            opened.config.notices, opened.folder.notices, partial(unsubscribe_url, opened.desk)
        )
        every_s = opened.config.agreement.housekeeping_s
        made = chores(opened.desk, senders, self.uses, opened.witness, every_s=every_s)
        return [
            *made,
            Chore("numbers", every_s, opened.settle_numbers),
            Chore("wrapping_keys", KEEP_UP_EVERY_S, self._keep_up),
            Chore("exports", every_s, self._make_export),
            Chore("kept_clips", CLIPS_EVERY_S, self._keeping.run),
            Chore("old_exports", max(every_s, OLD_EXPORTS_EVERY_S), self._tidy_exports),
            Chore("promise", every_s, self._look_at_promises),
            Chore("days", every_s, DaysAhead(opened.catalog, opened.clock)),
            Chore("uploads", every_s, UploadsForgotten(opened.catalog, opened.clock)),
        ]

    def _keep_up(self) -> None:
        config = self.opened.config
        self.opened.vault.keep_up(host_name(config), lasting=config.hosts.lasting)

    def _make_export(self) -> dict[str, int]:
        opened = self.opened
        if not self._exports_cleared:  # what a killed process left of one
            shutil.rmtree(opened.folder.root / my_data.FOLDER, ignore_errors=True)
            self._exports_cleared = True
        made = my_data.make_next(
            opened.desk, opened.store, opened.catalog, opened.folder.root / my_data.FOLDER
        )
        return {"made": made}

    def _tidy_exports(self) -> dict[str, int]:
        return {"deleted": my_data.tidy(self.opened.desk, self.opened.store)}

    def _look_at_promises(self) -> None:
        """Settings change while a server runs, and a standby that took over has its own."""
        found = promises_of(self.opened.config.home)
        for whose, promise in found.items():
            if promise != self._promises.get(whose):
                _log.warning("promise_changed", of=whose, survives=promise.survives.word, detail=promise.said)
        self._promises = found

    async def ready(self) -> dict[str, str]:
        """What keeps the service from taking chunks, by component; empty when nothing does."""
        problems: dict[str, str] = {}
        details: dict[str, str] = {}
        problem = await self._prober.problem()
        if problem is not None:
            problems[problem.code] = for_strangers(problem.code)
            details[problem.code] = str(problem)
        if self._freshness.is_stale():
            problems["host_stale"] = for_strangers("host_stale")
            details["host_stale"] = f"the feed asked home {self._feed_lag_s():.1f} s ago"
        now_ms = self.opened.clock.now_ms()
        workers = published(self.opened.folder.run)
        if not workers:
            problems["workers"] = "no ingest worker has started yet"
        for name, values in workers.items():
            if abs(now_ms - values["at_ms"]) > STALE_MS:
                problems[name] = "this worker does not report any more"
            elif values["problem"]:
                code = values["problem"].partition(":")[0]
                problems[name] = f"{code}: {for_strangers(code)}"
                details[name] = values["problem"]
        if problems.keys() != self._told.keys():
            _log.warning("not_ready", problems=problems | details) if problems else _log.info("ready")
        self._told = problems
        return problems

    async def run(self, host: str, port: int) -> None:
        """Serve until SIGTERM or SIGINT.

        Raises:
            CallerError: `bad_config`, the senders of notices.
        """
        tasks = self._chores()
        server = self._server()
        deadline_s = self.opened.config.ingest.stop_deadline_s
        with trio.CancelScope() as all_of_it:

            def stop() -> None:
                all_of_it.deadline = min(all_of_it.deadline, trio.current_time() + deadline_s)
                server.stop()

            async with trio.open_nursery() as nursery:
                await nursery.start(on_stop_signal, stop)
                if self._tls is not None:
                    await nursery.start(on_reload_signal, self._tls.reload)
                nursery.start_soon(self._prober.run)
                nursery.start_soon(keep_house, tasks)
                async with trio.open_nursery() as serving:  # ends when the answers under way have been sent
                    await serving.start(server.run, listen(host, port))
                    say_ready()
                nursery.cancel_scope.cancel()
        if all_of_it.cancelled_caught:
            _log.warning("stopped_at_deadline", deadline_s=deadline_s)
        await trio.to_thread.run_sync(self.uses.note)

    def _server(self) -> HttpServer:
        """The server of the port, with as many connections as this process may have files for."""
        config = self.opened.config
        wanted = config.http.max_connections
        own_files = OWN_FILES + 2 * config.api.store_threads
        most = allowed_connections(wanted, own_files)
        if most < wanted:
            _log.warning("fewer_connections", wanted=wanted, allowed=most)
        limits = {spec.name: getattr(config.http, spec.name) for spec in fields(HttpLimits)}
        app = create_app(self.services())
        server = HttpServer(
            app,
            HttpLimits(**limits | {"max_connections": most}),
            now_s=lambda: self.opened.clock.now_ms() / 1000,
            clients=Clients(parse_proxies(config.http.trusted_proxies), config.http.forwarded_header),
            handshakes=handshakes_of(
                self._tls, config.tls, config.http.trusted_proxies if config.http.proxy_protocol else ""
            ),
        )
        self._figures = partial(self._api_figures, server, app.state.api.playback)
        return server

    def _api_figures(self, server: HttpServer, playback: Playback) -> ApiFigures:
        return ApiFigures(
            connections=server.connections,
            held_bytes=playback.memory.held,
            exports=playback.exports.under_way.held,
            let_go=server.let_go,
            remux_jobs=playback.remuxer.figures.jobs,
            remux_failures=playback.remuxer.figures.failures,
            remux_kills=playback.remuxer.figures.kills,
            handshakes={} if server.handshakes is None else dict(server.handshakes.outcomes),
            certificates={} if self._tls is None else self._tls.expires_s(),
        )


def main() -> None:
    parser = argparse.ArgumentParser(description="The API process; started by `clipkeep serve`.")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--store")
    args = parser.parse_args()
    configure_logs(args.name)
    die_with_supervisor()
    try:
        with open_folder(args.data, store_url=args.store, serves=True) as opened:
            trio.run(ApiProcess(opened, args.store).run, args.host, args.port)
    except ClipkeepError as error:
        _log.error("cannot_serve", code=error.code, detail=str(error))
        sys.exit(1)


if __name__ == "__main__":
    main()
