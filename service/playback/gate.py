"""Entitlement: who may read what, as of now. Pure but for the clock and the bitmap; every question takes microseconds.

Nothing here is remembered. A `Grant` is the answer of one moment; whoever waits for anything asks again after it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ingest import answers
from retention.bitmap import BUSY, ERASED, PRESENT, SUSPENDED, TERMINATED, EntitlementBitmap
from retention.freshness import Freshness
from retention.tokens import read_viewer_token
from service.playback.refusals import Refused, expired, not_found
from service.playback.used import Used
from storage.clock import Clock, today
from storage.days import day_of_ms, month_of_day, ms_of_day
from storage.errors import CallerError
from storage.rows.recordings import ChunkRow
from storage.vault import KeyId


@dataclass(frozen=True, slots=True)
class Viewer:
    """Who asks: for which device, and with which token."""

    device: int
    token: str


@dataclass(frozen=True, slots=True)
class Grant:
    """A yes, as of now: chunks of this erase epoch which expire after this day number."""

    device: int
    epoch: int
    today: int
    class_days: int
    token_expires_ms: int

    def covers(self, row: ChunkRow) -> bool:
        return row.epoch == self.epoch and row.expires_on > self.today

    def is_past(self, capture_ms: int) -> bool:
        """Whether a chunk of this time, recorded as the device records today, has expired: a sweep drops the rows
        of what has, so nothing else tells it from what never was."""
        return day_of_ms(capture_ms) + self.class_days < self.today


class Gate:
    """Asks the bitmap. Synchronous: nothing happens between an answer and what is done with it."""

    def __init__(
        self,
        bitmap: EntitlementBitmap,
        clock: Clock,
        token_secret: bytes,
        used: Used,
        freshness: Freshness | None = None,
    ) -> None:
        self._bitmap = bitmap
        self._clock = clock
        self._secret = token_secret
        self._used = used
        self.freshness = freshness or Freshness(bitmap, 0)

    def ask(self, viewer: Viewer) -> Grant:
        """May this viewer read this device's recordings, now? If so, the device is in use.

        The token comes first: who has none learns nothing of the device.

        Raises:
            Refused: `host_stale`, `overloaded` (the row is being written), `bad_token`, `suspended`, `terminated`,
                `erased`, `plan_lapsed`.
        """
        if self.freshness.is_stale():
            raise Refused.by(answers.HOST_STALE)
        day = today(self._clock, self._bitmap.least_day)
        now_ms = max(self._clock.now_ms(), ms_of_day(day))  # tokens, too, are judged by the later day
        flags, class_days, generation, epoch, today_ok, _, _ = self._bitmap.probe(viewer.device, day, day)
        if flags & BUSY:
            raise Refused.by(answers.OVERLOADED)
        expires_ms = self._token_expires_ms(viewer, generation)
        if not flags & PRESENT or expires_ms <= now_ms:
            raise _bad_token()
        if flags & SUSPENDED:
            raise Refused.by(answers.SUSPENDED)
        if flags & TERMINATED:
            raise Refused.by(answers.TERMINATED)
        if flags & ERASED:
            raise Refused("the recordings of this device were erased", code="erased")
        if not today_ok:
            raise Refused.by(answers.PLAN_LAPSED)
        self._used.note(viewer.device, day)
        return Grant(viewer.device, epoch, day, class_days, expires_ms)

    def check(self, viewer: Viewer, row: ChunkRow) -> None:
        """May this viewer have this chunk, now?

        Raises:
            Refused: as `ask`; `not_found`, it is another device's or of before an erasure; `expired`.
        """
        grant = self.ask(viewer)
        if row.device != grant.device or row.epoch != grant.epoch:
            raise not_found()
        if not grant.covers(row):
            raise expired()

    def _token_expires_ms(self, viewer: Viewer, generation: int) -> int:
        try:
            claims = read_viewer_token(self._secret, viewer.token)
        except CallerError:
            raise _bad_token() from None
        now = (viewer.device, generation, self._bitmap.viewer_generation(viewer.device))
        if (claims.device, claims.generation, claims.viewer_generation) != now:
            raise _bad_token()
        return claims.expires_s * 1000

    def key_is_live(self) -> Callable[[KeyId], bool]:
        """For `Keyring.purge`: whether a key may still be needed, as of now. Of a host that does not hear home none is:
        what was destroyed meanwhile it does not know."""
        if self.freshness.is_stale():
            return lambda key_id: False
        day = today(self._clock, self._bitmap.least_day)
        month = month_of_day(day)

        def is_live(key_id: KeyId) -> bool:
            flags, _, _, epoch, _, _, _ = self._bitmap.probe(key_id.device, day, day)
            if flags & BUSY:
                return True  # asked again at the next purge
            alive = flags & PRESENT and not flags & ERASED
            return bool(alive) and epoch == key_id.epoch and key_id.month >= month

        return is_live


def _bad_token() -> Refused:
    detail = "send a viewer token of this device that has not ended: as Bearer, or as ?token="
    return Refused(detail, code=answers.BAD_TOKEN.code)
