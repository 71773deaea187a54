"""Entitlement: who may read what, as of now. Pure but for the clock and the bitmap; every question takes microseconds.

Nothing here is remembered. A `Grant` is the answer of one moment; whoever waits for anything asks again after it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from ingest import answers
from retention.bitmap import BUSY, ERASED, PRESENT, SUSPENDED, TERMINATED, EntitlementBitmap
from retention.freshness import Freshness
from retention.tokens import SHARE_PREFIX, ShareClaims, ViewerClaims, read_share_token, read_viewer_token
from service.playback.refusals import Refused, expired, not_found
from service.playback.shared import SharesInUse
from service.playback.used import Used
from storage.clock import Clock, today
from storage.days import day_of_ms, month_of_day, ms_of_day
from storage.errors import CallerError
from storage.rows.recordings import MAX_CAPTURE_MS, ChunkRow
from storage.vault import KeyId


@dataclass(frozen=True, slots=True)
class Viewer:
    """Who asks: for which device, and with which token; in a kept clip, or in all that is recorded."""

    device: int
    token: str
    clip: int | None = None


@dataclass(frozen=True, slots=True)
class Grant:
    """A yes, as of now: chunks of this erase epoch which expire after this day number; by a share link, only those
    which begin in its range."""

    device: int
    epoch: int
    today: int
    class_days: int
    token_expires_ms: int
    from_ms: int = 0
    to_ms: int = MAX_CAPTURE_MS
    share: int | None = None
    """Number of the share link that it is by."""
    clip: int | None = None
    """The kept clip that it is for. What is in one never expires: only the right of today is asked."""

    def covers(self, row: ChunkRow) -> bool:
        return row.epoch == self.epoch and row.expires_on > self.today and self.shows(row.capture_ms)

    def shows(self, capture_ms: int) -> bool:
        """Whether a chunk of this time is in what the token is for."""
        return self.from_ms <= capture_ms < self.to_ms

    def clamped(self, from_ms: int, to_ms: int) -> tuple[int, int]:
        """What of this range the token is for; it may be empty."""
        return max(from_ms, self.from_ms), min(to_ms, self.to_ms)

    def is_past(self, capture_ms: int) -> bool:
        """Whether a chunk of this time, recorded as the device records today, has expired: a sweep drops the rows
        of what has, so nothing else tells it from what never was."""
        return self.clip is None and day_of_ms(capture_ms) + self.class_days < self.today


class Gate:
    """Asks the bitmap. Synchronous: nothing happens between an answer and what is done with it."""

    def __init__(
        self,
        bitmap: EntitlementBitmap,
        clock: Clock,
        token_secret: bytes,
        used: Used,
        freshness: Freshness | None = None,
        shares: SharesInUse | None = None,
    ) -> None:
        self._bitmap = bitmap
        self._clock = clock
        self._secret = token_secret
        self._used = used
        self._shares = shares
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
        claims = self._claims(viewer, generation)
        if not flags & PRESENT or claims.expires_s * 1000 <= now_ms:
            raise _bad_token()
        if isinstance(claims, ShareClaims):
            self._require_live(claims)
        if flags & SUSPENDED:
            raise Refused.by(answers.SUSPENDED)
        if flags & TERMINATED:
            raise Refused.by(answers.TERMINATED)
        if flags & ERASED:
            raise Refused("the recordings of this device were erased", code="erased")
        if not today_ok:
            raise Refused.by(answers.PLAN_LAPSED)
        grant = Grant(viewer.device, epoch, day, class_days, claims.expires_s * 1000, clip=viewer.clip)
        if isinstance(claims, ShareClaims):  # who watches by a link may be anybody: no use by the owner
            return replace(grant, from_ms=claims.from_ms, to_ms=claims.to_ms, share=claims.share)
        self._used.note(viewer.device, day)
        return grant

    def check(self, viewer: Viewer, row: ChunkRow) -> None:
        """May this viewer have this chunk, now?

        Raises:
            Refused: as `ask`; `not_found`, it is another device's, of before an erasure, or not in what the token is
                for; `expired`.
        """
        grant = self.ask(viewer)
        if row.device != grant.device or row.epoch != grant.epoch or not grant.shows(row.capture_ms):
            raise not_found()
        if not grant.covers(row):
            raise expired()

    def share_of(self, token: str) -> ShareClaims:
        """What the token of a share link says, when this service made it: not whether it may be used.

        Raises:
            Refused: `bad_token`.
        """
        try:
            return read_share_token(self._secret, token)
        except CallerError:
            raise _bad_token() from None

    def _claims(self, viewer: Viewer, generation: int) -> ViewerClaims | ShareClaims:
        """What the token says, when it is of this device and of now."""
        try:
            read = read_share_token if viewer.token.startswith(SHARE_PREFIX) else read_viewer_token
            claims: ViewerClaims | ShareClaims = read(self._secret, viewer.token)
        except CallerError:
            raise _bad_token() from None
        now = (viewer.device, generation, self._bitmap.viewer_generation(viewer.device))
        if (claims.device, claims.generation, claims.viewer_generation) != now:
            raise _bad_token()
        return claims

    def _require_live(self, claims: ShareClaims) -> None:
        if self._shares is None:
            raise _bad_token()
        match self._shares.is_live(claims):
            case None:
                raise Refused.by(answers.OVERLOADED)
            case False:
                raise _bad_token()

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
