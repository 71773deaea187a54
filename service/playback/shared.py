"""Share links in use: whether each still is one, as of a moment ago, and how often they were opened.

The gate is synchronous, and asked before each piece of an answer; whether a link was revoked only the catalog knows. So
a link is *learned* before its first use (`learn`), and while it is used it is asked about again, all that are in use in
one query. What was heard longer than STALE_NS ago counts for nothing. So a revocation is in force on every host within
REFRESH_S and the time of a query, and within STALE_NS whatever the catalog does.

Only links whose MAC is right come here (`service.playback.gate`), so a stranger costs no query and no memory.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import structlog
import trio

from ingest import answers
from retention.tokens import ShareClaims
from service.playback.refusals import Refused
from storage.catalog.shares import SharesCatalog
from storage.clock import Clock, boottime_ns
from storage.errors import ClipkeepError
from storage.rows.shares import ShareRow

REFRESH_S = 0.5
"""How often all links in use are asked about: one query by primary key, some 10 us a link."""
STALE_NS = 2_000_000_000
"""What was heard of a link longer ago is believed no more; readers are told to come again."""
IN_USE_NS = 60_000_000_000
"""A link is in use for so long after it was last asked for: a slow reader's next piece may come as late
(`[http] send_grace_s`)."""
MAX_IN_USE = 4096
"""Links remembered at once, some 1 MB. Past it the one not used for longest makes way, and is learned again."""
FLUSH_S = 10.0
"""How often opens are written down, all in one transaction. A killed process loses those of so long."""
STOP_S = 1.0
"""For the last of them, when the process stops."""

_log = structlog.get_logger("playback")


@dataclass(slots=True)
class _Known:
    """A link: when it was asked about, what was heard, and when it was last used. By CLOCK_BOOTTIME."""

    row: ShareRow | None
    asked_ns: int
    used_ns: int


class SharesInUse:
    """The links of one process. `run` must be running for those that are used for longer than STALE_NS.

    Args:
        wait_s: longest wait for a turn to ask.
    """

    def __init__(
        self,
        catalog: SharesCatalog,
        clock: Clock,
        *,
        wait_s: float,
        boottime_ns: Callable[[], int] = boottime_ns,
    ) -> None:
        self._catalog = catalog
        self._clock = clock
        self._wait_s = wait_s
        self._boottime_ns = boottime_ns
        self._known: OrderedDict[int, _Known] = OrderedDict()
        self._opens: dict[int, int] = {}
        self._turn = trio.Lock()
        self._thread = trio.CapacityLimiter(1)

    def is_live(self, claims: ShareClaims) -> bool | None:
        """Whether a link is one; None when it is not known, or no longer."""
        known = self._known.get(claims.share)
        now_ns = self._boottime_ns()
        if known is None or now_ns - known.asked_ns > STALE_NS:
            return None
        known.used_ns = now_ns
        self._known.move_to_end(claims.share)
        return known.row is not None and _is_of(claims, known.row)

    async def learn(self, claims: ShareClaims) -> None:
        """See to it that `is_live` knows. Asks the catalog at most once for all who come meanwhile.

        Raises:
            Refused: `overloaded`, no turn to ask within `wait_s`.
            WorldError: the catalog can't be asked.
        """
        if self.is_live(claims) is not None:
            return
        with trio.move_on_after(self._wait_s) as waiting:
            async with self._turn:
                waiting.deadline = float("inf")  # the answer has time-outs of its own
                if self.is_live(claims) is None:
                    await self._ask([claims.share])
                    return
        if waiting.cancelled_caught:
            raise Refused.by(answers.OVERLOADED)

    def note_open(self, share: int) -> None:
        """A link was opened that the gate has let in."""
        if share in self._opens or len(self._opens) < MAX_IN_USE:
            self._opens[share] = self._opens.get(share, 0) + 1

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep what is known of the links in use new, and write down opens, until cancelled; then the last ones."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep_new)
            task_status.started()
            try:
                while True:
                    await trio.sleep(FLUSH_S)
                    await self.flush()
            finally:
                with trio.move_on_after(STOP_S, shield=True):
                    await self.flush()

    async def flush(self) -> None:
        """Write down the opens. Those that can't be are written with the next ones."""
        if not self._opens:
            return
        opens, self._opens = self._opens, {}
        write = partial(self._catalog.count_opens, opens, now_ms=self._clock.now_ms())
        try:
            # A thread of its own, which a stop leaves behind: the catalog bounds how long it takes.
            await trio.to_thread.run_sync(write, abandon_on_cancel=True)
        except ClipkeepError as error:
            _log.warning("opens_not_counted", code=error.code, links=len(opens))
            for share, count in opens.items():
                if share in self._opens or len(self._opens) < MAX_IN_USE:
                    self._opens[share] = self._opens.get(share, 0) + count

    async def _keep_new(self) -> None:
        while True:
            await trio.sleep(REFRESH_S)
            oldest_ns = self._boottime_ns() - IN_USE_NS
            while self._known and next(iter(self._known.values())).used_ns < oldest_ns:
                self._known.popitem(last=False)
            if not self._known:
                continue
            async with self._turn:
                try:
                    await self._ask(list(self._known))
                except ClipkeepError as error:  # they grow stale, and who comes is told so
                    _log.warning("shares_not_known", code=error.code, links=len(self._known))

    async def _ask(self, numbers: list[int]) -> None:
        asked_ns = self._boottime_ns()  # before: what is committed after it may be missed
        look = partial(self._catalog.shares_by_number, numbers)
        found = {row.share_id: row for row in await trio.to_thread.run_sync(look, limiter=self._thread)}
        for number in numbers:
            known = self._known.get(number)
            if known is None:
                while len(self._known) >= MAX_IN_USE:
                    self._known.popitem(last=False)
                self._known[number] = _Known(found.get(number), asked_ns, asked_ns)
            else:
                known.row, known.asked_ns = found.get(number), asked_ns


def _is_of(claims: ShareClaims, row: ShareRow) -> bool:
    """Whether a token is this row's: after a catalog was restored, a number may be another link's."""
    return (claims.device, claims.from_ms, claims.to_ms, claims.expires_s * 1000) == (
        row.device,
        row.from_ms,
        row.to_ms,
        row.expires_ms,
    ) and (claims.generation, claims.viewer_generation) == (row.token_generation, row.viewer_generation)
