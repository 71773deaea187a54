"""The schedule process: runs the sweep and `renew` when they are due, where `[schedule] on` says so.

In a process of its own, so that a pass over millions of chunks takes no time from uploads and viewers. Where several
hosts serve one home each has one, and one of them acts: see `service.schedule`.
"""

from __future__ import annotations

import argparse
import os
import secrets
import sys
import threading
from pathlib import Path

import structlog
import trio

from service.agreement import renewing
from service.child import die_with_supervisor, on_stop_signal, say_ready
from service.commands.sweeping import left_undone, sweep_of
from service.commands.sweeps import failures_noted
from service.folder import Opened, host_name, open_folder
from service.logs import configure_logs
from service.schedule import LOOK_EVERY_S, RENEW_EVERY_S, Schedule, jobs_of
from service.supervisor import first_error
from storage.days import MS_PER_DAY
from storage.errors import ClipkeepError

NICE = 10
STOP_WITHIN_S = 10.0
"""For the job under way to come to a point where it can be left; it is carried on by the next run in any case."""

_log = structlog.get_logger("schedule")


class Stopping(ClipkeepError):
    """The service stops; the next run goes on."""

    code = "stopping"


class ScheduleProcess:
    """The parts of the schedule process, joined up."""

    def __init__(self, opened: Opened) -> None:
        self._opened = opened
        self._stop = threading.Event()
        """For the job, which is in a thread; `_stopping` says the same to the loop."""
        self._stopping = trio.Event()
        self._schedule = Schedule(
            opened.catalog,
            opened.home_clock or opened.clock,
            jobs_of(
                opened.config.schedule, {"sweep": self._sweep, "renew": self._renew, "rotate": self._rotate}
            ),
            host=host_name(opened.config),
            holder=secrets.token_hex(8),
            require=opened.witness.require_home,
        )

    def _sweep(self) -> str:
        one_pass = sweep_of(self._opened, self._progress)
        with failures_noted(self._opened, one_pass):
            self._opened.require_own_store()
            report = one_pass.run()
        return "; ".join(left_undone(report))

    def _progress(self, phase: str, done: int, of: int) -> None:
        if self._stop.is_set():
            raise Stopping(f"while {phase}: {done} of {of}")

    def _renew(self) -> str:
        self._opened.witness.note()
        report = renewing.renew(self._opened.desk)
        said = []
        if report.refund_failed:
            said.append(f"{report.refund_failed} refunds were refused: `clipkeep payments list` has them")
        if report.waiting:
            said.append(f"{report.waiting} payments wait for the payment gateway")
        elif not report.complete:
            said.append("there is more than one run takes")
        return "; ".join(said)

    def _rotate(self) -> str:
        vault, days = self._opened.vault, self._opened.config.schedule.rotate_days
        age_ms = self._opened.clock.now_ms() - vault.inventory().rotated_ms
        if age_ms < days * MS_PER_DAY:
            return f"the wrapping key is {age_ms // MS_PER_DAY} days old"
        done = vault.rotate(self._progress)
        waiting = "; ".join(f"{name} has the old wrapping key still" for name in done.waiting_for)
        return f"{done.rewrapped} keys wrapped anew" + (f"; {waiting}" if waiting else "")

    async def run(self) -> None:
        """Look again and again, until SIGTERM or SIGINT."""
        with trio.CancelScope() as all_of_it:

            def stop() -> None:
                self._stop.set()
                self._stopping.set()
                all_of_it.deadline = trio.current_time() + STOP_WITHIN_S

            async with trio.open_nursery() as nursery:
                await nursery.start(on_stop_signal, stop)
                say_ready()
                await self._look()
                nursery.cancel_scope.cancel()
        if all_of_it.cancelled_caught:
            _log.warning("stopped_at_deadline", deadline_s=STOP_WITHIN_S)

    async def _look(self) -> None:
        told = ""
        while not self._stop.is_set():
            try:
                await self._run_due()
                told = ""
            except ClipkeepError as error:
                if error.code != told:
                    _log.warning("schedule_stands_still", code=error.code, detail=str(error))
                told = error.code
            with trio.move_on_after(LOOK_EVERY_S):
                await self._stopping.wait()

    async def _run_due(self) -> None:
        with first_error():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._keep)
                await trio.to_thread.run_sync(self._schedule.run_due, abandon_on_cancel=True)
                nursery.cancel_scope.cancel()

    async def _keep(self) -> None:
        while True:
            await trio.sleep(RENEW_EVERY_S)
            try:
                await trio.to_thread.run_sync(self._schedule.keep)
            except ClipkeepError:
                continue  # the job itself meets what is wrong, and says it


def main() -> None:
    parser = argparse.ArgumentParser(description="The schedule process; started by `clipkeep serve`.")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--store")
    args = parser.parse_args()
    configure_logs(args.name)
    die_with_supervisor()
    os.nice(NICE)
    try:
        with open_folder(args.data, store_url=args.store) as opened:
            trio.run(ScheduleProcess(opened).run)
    except ClipkeepError as error:
        _log.error("cannot_serve", code=error.code, detail=str(error))
        sys.exit(1)


if __name__ == "__main__":
    main()
