"""The schedule of a home: what has to be done now and then, by one of its hosts at a time.

Each host looks every `LOOK_EVERY_S` at the newest run of each job, which home keeps. Whoever finds one due takes the
lease of the schedule, looks again, runs what is due, and gives the lease back. The lease spares work and is no
promise: a job is safe when two run it at once (the sweep has a lease of its own, and fences; a charge has one
reference). A run whose process was killed never ended: another host runs it anew, `ANEW_AFTER_MS` later.

    due? -- lease taken -- due still? -- noted as begun -- run -- noted as ended -- lease given back
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import MappingProxyType

import structlog

from service.config import ScheduleSettings
from storage.catalog.schedule import ScheduleCatalog
from storage.clock import Clock
from storage.days import MS_PER_DAY
from storage.errors import ClipkeepError
from storage.rows.schedule import RunRow

LEASE = "schedule"
LEASE_MS = 60_000
LOOK_EVERY_S = 5.0
RENEW_EVERY_S = 15.0
"""Of the lease, while a job runs."""
ANEW_AFTER_MS = 120_000
"""A job whose run has not ended for so long, and whose runner lost the lease, is run anew."""
ROTATE_AFTER_MS = 3 * 3_600_000
DONE = "done"

_log = structlog.get_logger("schedule")


@dataclass(frozen=True, slots=True)
class Job:
    """`run` blocks, and returns what is left to be said: empty when all was done.

    Args:
        every_ms: one run in each such stretch of time since 1970.
        after_ms: when in it.
    """

    name: str
    every_ms: int
    after_ms: int
    run: Callable[[], str]

    def slot_ms(self, now_ms: int) -> int:
        """When the last run was to begin."""
        return now_ms - (now_ms - self.after_ms) % self.every_ms


def is_due(job: Job, last: RunRow | None, now_ms: int) -> bool:
    """Whether a run is to begin now. One that is missed is made up for, once.

    Args:
        last: the newest run. One that lies ahead was noted by a clock that was wrong, and counts for nothing.
    """
    if last is None or last.began_ms > now_ms + job.every_ms:
        return True
    if last.ended_ms is None:
        return now_ms - last.began_ms > ANEW_AFTER_MS
    return last.began_ms < job.slot_ms(now_ms)


def jobs_of(
    settings: ScheduleSettings, runs: Mapping[str, Callable[[], str]] = MappingProxyType({})
) -> list[Job]:
    """All jobs. Hourly ones are at 20 and 40 past: a day ends at 00:15 UTC, and what is renewed needs no sweep. The
    age of the wrapping key is looked at daily.

    Args:
        runs: what each job does, by its name. Who only asks when jobs are due leaves it out.
    """
    sweep_ms, renew_ms = round(settings.sweep_every_s * 1000), round(settings.renew_every_s * 1000)
    return [
        Job("sweep", sweep_ms, sweep_ms // 3, runs.get("sweep", str)),
        Job("renew", renew_ms, renew_ms * 2 // 3, runs.get("renew", str)),
        *(
            [Job("rotate", MS_PER_DAY, ROTATE_AFTER_MS, runs.get("rotate", str))]
            if settings.rotate_days
            else []
        ),
    ]


class Schedule:
    """The schedule as one host carries it out. Blocks; for one thread, but for `keep`.

    Args:
        clock: home's, where it is another machine's.
        host: this host's name.
        holder: a random id of this process.
        require: raises ClipkeepError when this host may run none of the jobs, for its clock is off home's. A run that
            it began and could not carry out would be the one of that stretch of time, and no other host would act.
    """

    def __init__(
        self,
        catalog: ScheduleCatalog,
        clock: Clock,
        jobs: Sequence[Job],
        *,
        host: str,
        holder: str,
        require: Callable[[], None] = lambda: None,
    ) -> None:
        self._catalog = catalog
        self._clock = clock
        self._jobs = jobs
        self._host = host
        self._holder = holder
        self._require = require

    def due(self) -> list[Job]:
        """What is to be run now. Changes nothing. Raises WorldError."""
        runs = self._catalog.scheduled_runs()
        now_ms = self._clock.now_ms()
        return [job for job in self._jobs if is_due(job, runs.get(job.name), now_ms)]

    def run_due(self) -> int:
        """Run what is due, unless another host does. Returns how many jobs were run.

        Raises:
            WorldError: home does not answer. A run that was begun then counts as one that never ended.
            ClipkeepError: this host may run none.
        """
        if not self.due():
            return 0
        self._require()
        with self._leased() as is_mine:
            due = self.due() if is_mine else []
            for job in due:
                self._run(job)
        return len(due)

    def keep(self) -> None:
        """Keep the lease while a job runs, for whatever thread. Raises WorldError."""
        self._acquire()

    @contextmanager
    def _leased(self) -> Iterator[bool]:
        fence = self._acquire()
        try:
            yield fence is not None
        finally:
            if fence is not None:
                with suppress(ClipkeepError):  # it runs out by itself
                    self._catalog.release_lease(LEASE, fence=fence)

    def _acquire(self) -> int | None:
        return self._catalog.acquire_lease(
            LEASE, holder=self._holder, ttl_ms=LEASE_MS, now_ms=self._clock.now_ms()
        )

    def _run(self, job: Job) -> None:
        begun = RunRow(job.name, self._host, self._clock.now_ms(), None, "", "")
        self._catalog.note_run(begun)
        outcome, detail = DONE, ""
        try:
            detail = job.run()
        except ClipkeepError as error:
            outcome, detail = error.code, str(error)
            _log.warning("job_failed", job=job.name, code=error.code, detail=str(error))
        except Exception as error:  # a fault of ours: the others go on
            outcome, detail = "bug", type(error).__name__
            _log.error("bug", job=job.name, exc_info=error)
        else:
            _log.info("job_done", job=job.name, detail=detail)
        self._catalog.note_run(begun._replace(ended_ms=self._clock.now_ms(), outcome=outcome, detail=detail))
