"""One ingest worker process: builds the pipeline from the configuration, serves, and stops without loss."""

from __future__ import annotations

import argparse
import gc
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import fields, replace
from functools import partial
from pathlib import Path

import structlog
import trio

from ingest.budget import Budget
from ingest.committing import Uploads
from ingest.gathering import Gathering
from ingest.health import Health
from ingest.keyring import Keyring
from ingest.receiving import Limits, Receiver
from ingest.resumable.finishing import CUT_BYTES
from ingest.server import IngestServer, listen
from ingest.sightings import FLUSH_EVERY_S
from ingest.stats import Stats
from ingest.upload_limits import EXCHANGE_S
from retention.destruction import KEY_CACHE_S
from retention.freshness import Freshness
from service.child import (
    allowed_connections,
    die_with_supervisor,
    on_reload_signal,
    on_stop_signal,
    say_ready,
)
from service.config import IngestSettings
from service.folder import Opened, open_folder
from service.logs import configure_logs
from service.metrics import publish
from service.ready import PROBE_PREFIX, Question, probe_bytes, require_files
from service.tls.contexts import handshakes_of, open_tls
from storage.checksums import crc32
from storage.counted import CountedStore
from storage.days import day_of_ms
from storage.errors import ClipkeepError, WorldError
from storage.vault import KeyId

PUBLISH_EVERY_S = KEY_CACHE_S
EXCHANGED_AT_ONCE = 2000
"""Devices in one transaction of the catalog: some 10 ms, for which commits may wait."""
TRIM_EVERY = 30
"""Rounds of housekeeping between two looks at free memory: longer than any wave of uploads."""
GC_THRESHOLDS = (20_000, 50, 50)
"""Objects made between collections: Python's own (700, 10, 10) spends 3 % of the time at full load."""
OWN_FILES = 192
"""Open files kept for what is not a device's connection: catalog, keys, logs, and the connections that are about to end
while others take their place. Two for each segment come on top."""

_log = structlog.get_logger("worker")


class Worker:
    """The parts of one worker, joined up."""

    def __init__(self, opened: Opened, name: str) -> None:
        config = opened.config
        self.name = name
        self._store = CountedStore(opened.store)
        self.opened = opened = replace(opened, store=self._store)
        self.stats = Stats()
        self._unpublished: int | None = None
        """Why the last counters could not be published, an errno."""
        self._telling_turn = trio.Lock()
        """What is due is told by one task at a time: a periodic turn may still run when the last one of all begins."""
        self._counts_alone = False
        """The catalog could not be told of what devices with limits uploaded."""
        self._sees_alone = False
        """The catalog could not be told of what was seen of devices."""
        self.keyring = Keyring(
            opened.vault.ensure_each,
            max_keys=config.ingest.max_cached_keys,
            wait_s=config.home.answer_s,
        )
        self._question = Question()
        self.health = Health(self._probe, self._look, unanswered=self._question.unanswered)
        self.uploads = Uploads(
            store=opened.store,
            catalog=opened.catalog,
            keyring=self.keyring,
            clock=opened.clock,
            health=self.health,
            stats=self.stats,
            worker=name,
            linger_s=config.segments.linger_ms / 1000,
            target_bytes=config.segments.target_bytes,
            max_segments=config.segments.max_segments,
            prepare_ttl_ms=round(config.segments.prepare_ttl_s * 1000),
            gathering=Gathering(
                days=config.segments.gather_days,
                wait_s=config.segments.gather_wait_ms / 1000,
                chunks=config.segments.gather_chunks,
                bytes_=config.segments.gather_bytes,
            ),
            prepared=self._note_prepared,
        )
        self.budget = Budget(
            config.ingest.budget_bytes, config.ingest.share_bytes, wait_s=config.ingest.budget_wait_s
        )
        self._freshness = Freshness(opened.bitmap, opened.max_stale_ns)
        self._receiver = receiver = Receiver(
            limits=limits_of(config.ingest),
            budget=self.budget,
            bitmap=opened.bitmap,
            uploads=self.uploads,
            health=self.health,
            stats=self.stats,
            clock=opened.clock,
            token_secret=opened.vault.token_secret,
            freshness=self._freshness,
        )
        own_files = OWN_FILES + 2 * config.segments.max_segments
        most = allowed_connections(config.ingest.max_connections, own_files)
        if most < config.ingest.max_connections:
            _log.warning("fewer_connections", wanted=config.ingest.max_connections, allowed=most)
        self._tls = open_tls(config.tls)
        self.server = IngestServer(
            receiver,
            self.stats,
            max_connections=most,
            handshakes=handshakes_of(self._tls, config.tls, config.ingest.trusted_proxies),
        )

    async def run(self, host: str, port: int) -> None:
        """Serve until SIGTERM or SIGINT, then finish what is under way, up to the deadline."""
        deadline_s = self.opened.config.ingest.stop_deadline_s
        with trio.CancelScope() as all_of_it:

            def stop() -> None:
                all_of_it.deadline = min(all_of_it.deadline, trio.current_time() + deadline_s)
                self.server.stop()

            async with trio.open_nursery() as parts:
                await parts.start(on_stop_signal, stop)
                if self._tls is not None:
                    await parts.start(on_reload_signal, self._tls.reload)
                await parts.start(self.keyring.run)
                await parts.start(self.health.run)
                await parts.start(self.uploads.run)
                parts.start_soon(self._housekeeping)
                parts.start_soon(self._exchanging)
                parts.start_soon(self._telling)
                async with trio.open_nursery() as serving:
                    await serving.start(self.server.run, listen(host, port))
                    say_ready()
                await self.uploads.drain()
                self._receiver.counts.unreported(self.opened.clock.now_ms())
                async with self._telling_turn:
                    await self._exchange()
                    await self._tell(all_of_it=True)
                parts.cancel_scope.cancel()
        self._publish()
        if all_of_it.cancelled_caught:
            _log.warning("stopped_at_deadline", deadline_s=deadline_s)

    async def _housekeeping(self) -> None:
        """Publish counters, drop keys of erased devices, and give back memory that nothing used for long."""
        turn = 0
        while True:
            self._publish()
            self.keyring.purge(self._live_keys())
            turn += 1
            if turn % TRIM_EVERY == 0:
                self._receiver.pool.trim()
            await trio.sleep(PUBLISH_EVERY_S)

    async def _exchanging(self) -> None:
        """Have the uploads of devices with limits counted together with those of other workers, on whatever hosts."""
        while True:
            await trio.sleep(EXCHANGE_S)
            async with self._telling_turn:
                await self._exchange()

    async def _exchange(self) -> None:
        counts, catalog = self._receiver.counts, self.opened.catalog
        now_ms = self.opened.clock.now_ms()
        day = day_of_ms(now_ms)
        page_is_full = True
        while page_is_full and (sent := counts.due(now_ms, EXCHANGED_AT_ONCE)):
            try:
                sums = await trio.to_thread.run_sync(catalog.add_uploads, day, sent)
            except WorldError as error:  # it stays due; while the catalog is away nothing is taken either
                if not self._counts_alone:
                    _log.warning("uploads_not_counted_together", code=error.code, detail=str(error))
                self._counts_alone = True
                return
            self._counts_alone = False
            counts.learn(day, sent, sums, trio.current_time())
            page_is_full = len(sent) == EXCHANGED_AT_ONCE

    async def _telling(self) -> None:
        """Have the catalog know when devices were last seen, and what they were refused."""
        while True:
            await trio.sleep(FLUSH_EVERY_S)
            async with self._telling_turn:
                await self._tell()

    async def _tell(self, *, all_of_it: bool = False) -> None:
        """Once, so much as is told at once; `all_of_it` in several turns."""
        sightings, asked_s = self._receiver.sightings, trio.current_time()
        while True:
            now_s, now_ms = trio.current_time(), self.opened.clock.now_ms()
            seen, refused = sightings.due(now_s, now_ms, before_s=asked_s if all_of_it else None)
            if not seen and not refused:
                return
            try:
                await trio.to_thread.run_sync(self.opened.catalog.note_sightings, seen, refused)
            except WorldError as error:  # it stays due
                if not self._sees_alone:
                    _log.warning("sightings_not_kept", code=error.code, detail=str(error))
                self._sees_alone = True
                return
            self._sees_alone = False
            sightings.told(seen, refused, now_s)
            if not all_of_it:
                return

    async def _look(self) -> None:
        self.uploads.require_answers()
        await trio.to_thread.run_sync(require_files, self.opened)

    async def _probe(self) -> None:
        """Store something, and delete it again."""
        body = bytearray(probe_bytes(self.health.problem, self.opened.config.segments.target_bytes))

        def put() -> None:
            key = f"{PROBE_PREFIX}{self.name}"
            self._store.put(key, body, crc32(body))
            with suppress(WorldError):  # it stored, which is what was asked; the next one takes its place
                self._store.delete_many([key])

        # A store that hangs is left to itself: its answer is not worth the wait of a stop.
        ask = partial(self._question.ask, self.opened, put=put)
        await trio.to_thread.run_sync(ask, abandon_on_cancel=True)

    def _note_prepared(self, segment_id: int) -> None:
        """Remember on this host how far the catalog was, so that a sweep notices an older one (invariant 3)."""
        with suppress(WorldError), self.opened.bitmap.locked():
            self.opened.bitmap.raise_segment_high_water(segment_id)

    def _live_keys(self) -> Callable[[KeyId], bool]:
        """For `Keyring.purge`: whether a key may still be needed, as of now. Of a host that does not hear home none is:
        what was destroyed meanwhile it does not know."""
        if self._freshness.is_stale():
            return lambda key_id: False
        probe = self.opened.bitmap.probe
        return lambda key_id: probe(key_id.device, 0, 0)[3] == key_id.epoch

    def _publish(self) -> None:
        self.stats.budget_bytes = self.budget.in_use_bytes
        problem = self.health.problem
        try:
            publish(
                self.opened.folder.run / f"{self.name}.json",
                self.stats,
                store_calls=self._store.calls(),
                now_ms=self.opened.clock.now_ms(),
                problem="" if problem is None else f"{problem.code}: {problem}",
            )
        except OSError as error:  # a full disk, above all: no reason to stop serving
            if self._unpublished != error.errno:
                _log.warning("not_published", detail=str(error))
            self._unpublished = error.errno
        else:
            self._unpublished = None


def limits_of(settings: IngestSettings) -> Limits:
    """The part of the configuration that a connection looks at. Where the budget has no room for cutting uploads, none
    is taken that would have to be cut."""
    limits = Limits(**{field.name: getattr(settings, field.name) for field in fields(Limits)})
    has_room = settings.budget_bytes >= 2 * CUT_BYTES
    return limits if has_room else replace(limits, max_upload_bytes=limits.max_chunk_bytes)


def main() -> None:
    parser = argparse.ArgumentParser(description="One ingest worker; started by `clipkeep serve`.")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--store")
    args = parser.parse_args()
    configure_logs(args.name)
    die_with_supervisor()
    # What was imported lives as long as the process, and requests make no cycles: collect rarely, and not that.
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    try:
        with open_folder(args.data, store_url=args.store, serves=True) as opened:
            worker = Worker(opened, args.name)
            trio.run(worker.run, args.host, args.port)
    except ClipkeepError as error:
        _log.error("cannot_serve", code=error.code, detail=str(error))
        sys.exit(1)


if __name__ == "__main__":
    main()
