"""The feed process: keeps this host's entitlement bitmap, and nothing else. No client reaches it, so none can stall it.

Two tasks, which don't wait for each other:

    feed    where home is a server: every `[hosts] feed_s` one step (`retention.feed`)
    keeper  every second: what a killed writer left, rows that begin or end at midnight UTC; where home is this folder,
            what commands that were killed had committed

It opens no vault and no store, and holds no key.
"""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import closing
from pathlib import Path

import structlog
import trio

from retention.bitmap import EntitlementBitmap
from retention.entitlements import Entitlements
from retention.feed import Feed, Step
from retention.witness import MAX_OFFSET_MS
from service.child import die_with_supervisor, on_stop_signal, say_ready
from service.config import Config
from service.config_text import load_config
from service.folder import DataFolder, feed_of, opened_clock
from service.logs import configure_logs
from storage.errors import ClipkeepError
from storage.open_catalog import is_file, open_catalog

KEEP_EVERY_S = 1.0
FORGET_EVERY_S = 60.0
STOP_WITHIN_S = 2.0
"""For taking this host from the list; where home does not answer, its time on the feed runs out."""

_log = structlog.get_logger("feed")


class FeedProcess:
    """The parts of the feed process, joined up.

    Args:
        feed: None where home is this folder.
    """

    def __init__(self, entitlements: Entitlements, feed: Feed | None, config: Config) -> None:
        self._entitlements = entitlements
        self._feed = feed
        self._config = config.hosts
        self._fed = trio.Event()
        self._told = ""
        """What is wrong, as the log has it."""
        self._clock_told = False

    async def run(self) -> None:
        """Keep the bitmap until SIGTERM or SIGINT. The supervisor sends that when nothing else of this host runs."""
        async with trio.open_nursery() as nursery:
            await nursery.start(on_stop_signal, nursery.cancel_scope.cancel)
            nursery.start_soon(self._keep)
            if self._feed is not None:
                nursery.start_soon(self._feeding, self._feed)
                nursery.start_soon(self._forgetting, self._feed)
                await self._fed.wait()
            say_ready()
        if self._feed is not None:
            with trio.move_on_after(STOP_WITHIN_S):
                await trio.to_thread.run_sync(self._leave, self._feed, abandon_on_cancel=True)

    async def _feeding(self, feed: Feed) -> None:
        while True:
            began_s = trio.current_time()
            try:
                step = await trio.to_thread.run_sync(feed.step)
            except ClipkeepError as error:
                self._tell(error.code, str(error))
            else:
                self._note(step)
            await trio.sleep(max(0.0, began_s + self._config.feed_s - trio.current_time()))

    def _note(self, step: Step) -> None:
        if not step.stamped:
            if self._fed.is_set():
                self._tell(
                    "host_was_away", f"home had not heard this host for {step.lag_ms} ms; it asks anew"
                )
            return
        if self._told:
            _log.info("feed_goes_on", lag_ms=step.lag_ms)
        self._told = ""
        self._fed.set()
        is_off = abs(step.offset_ms) > MAX_OFFSET_MS
        if is_off and not self._clock_told:
            off = f"this host's clock is {step.offset_ms / 1000:+.0f} s off home's"
            detail = f"{off}: set it right; it sweeps and settles nothing until then"
            _log.warning("clock_off_home", detail=detail)
        self._clock_told = is_off

    def _tell(self, code: str, detail: str) -> None:
        if code != self._told:
            _log.warning("feed_stands_still", code=code, detail=detail)
        self._told = code

    async def _forgetting(self, feed: Feed) -> None:
        while True:
            await trio.sleep(FORGET_EVERY_S)
            try:
                gone = await trio.to_thread.run_sync(feed.forget, round(self._config.forget_s * 1000))
            except ClipkeepError:
                continue  # the feed says what is wrong
            if gone:
                _log.info("hosts_forgotten", hosts=gone)

    async def _keep(self) -> None:
        rolled_on, told = 0, ""
        keep = self._entitlements.replay if self._feed is None else self._entitlements.mend
        while True:
            try:
                await trio.to_thread.run_sync(keep)
                today = self._entitlements.today()
                if today != rolled_on:
                    rows = await trio.to_thread.run_sync(self._entitlements.roll)
                    rolled_on = today
                    _log.info("rolled", rows=rows)
                told = ""
            except ClipkeepError as error:
                if error.code != told:
                    _log.warning("bitmap_not_kept", code=error.code, detail=str(error))
                told = error.code
            await trio.sleep(KEEP_EVERY_S)

    def _leave(self, feed: Feed) -> None:
        try:
            feed.leave()
        except ClipkeepError as error:
            _log.warning("not_left", code=error.code, detail=str(error))


def main() -> None:
    parser = argparse.ArgumentParser(description="The feed process; started by `clipkeep serve`.")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--host-id", required=True)
    args = parser.parse_args()
    configure_logs(args.name)
    die_with_supervisor()
    try:
        run(DataFolder(args.data), args.host_id)
    except ClipkeepError as error:
        _log.error("cannot_serve", code=error.code, detail=str(error))
        sys.exit(1)


def run(folder: DataFolder, host: str) -> None:
    """Open what the feed needs of a data folder, and run it."""
    config = load_config(folder.config, os.environ)
    answer_s = config.home.answer_s
    with (
        closing(open_catalog(config.home.catalog, folder.catalog, answer_s=answer_s)) as catalog,
        # Of its own, and impatient: an answer that comes later than this is no use to the feed.
        closing(
            open_catalog(
                config.home.catalog, folder.catalog, answer_s=min(answer_s, config.hosts.max_stale_s)
            )
        ) as followed,
        opened_clock(folder, config) as clock,
        EntitlementBitmap.open(folder.bitmap, writable=True) as bitmap,
    ):
        feed = None
        if not is_file(config.home.catalog):
            feed = feed_of(followed, bitmap, Entitlements(followed, bitmap, clock), clock, config, host)
        trio.run(FeedProcess(Entitlements(catalog, bitmap, clock), feed, config).run)


if __name__ == "__main__":
    main()
