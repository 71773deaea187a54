"""Whether a request may send its body: token, entitlement, times. Pure: no I/O, no lock, no await.

What its target means, and what its body has to be, is said by its protocol (`ingest.protocols`).

Refusals come in the order of the contract (docs/design.md §6), the first match wins.
"""

from __future__ import annotations

from hmac import compare_digest

from ingest import answers
from ingest.answers import Answer
from ingest.heads import Head
from ingest.protocols.base import Admission, Bounds, Rights
from ingest.protocols.table import parse_target
from ingest.requests import parse_credentials
from retention.bitmap import BUSY, PRESENT, SUSPENDED, TERMINATED, EntitlementBitmap
from retention.compile import PAST_DAYS
from retention.tokens import check_device_token
from storage.days import MS_PER_DAY, day_of_ms, expiry_day
from storage.rows.recordings import MAX_CLOCK_AHEAD_MS

ASKED_AGAIN_MS = 100
"""After which a body that is complete is asked for once more: its device may have lost its rights while it came, or
this process have been stopped."""
MAX_REMEMBERED = 20_000
"""Devices whose credentials are remembered, 10 MB at most; past it all are forgotten, and each costs a MAC again."""


class Credentials:
    """Which credentials a worker's devices have already shown to be good.

    A device sends the same ones with every chunk: comparing bytes is cheaper than a MAC each time. The token
    generation is compared too, so that a revocation holds from the next request on.
    """

    __slots__ = ("_good", "_secret", "shown")

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self.shown = 0
        """The device whose token a request came with that was looked at since this was set to 0."""
        self._good: dict[int, tuple[int, bytes]] = {}

    def good(self, authorization: bytes, device: int, generation: int) -> bool:
        """Whether the header holds this device's token of this generation."""
        known = self._good.get(device)
        # In constant time: they were shown by somebody else perhaps, and are a secret.
        if known is not None and known[0] == generation and compare_digest(known[1], authorization):
            self.shown = device
            return True
        parsed = parse_credentials(authorization)
        if parsed is None or parsed[0] not in (None, device):
            return False
        if not check_device_token(self._secret, device, generation, parsed[1]):
            return False
        if len(self._good) >= MAX_REMEMBERED:
            self._good.clear()
        self._good[device] = (generation, authorization)
        self.shown = device
        return True


def admit(
    head: Head,
    *,
    credentials: Credentials,
    bitmap: EntitlementBitmap,
    now_ms: int,
    bounds: Bounds,
    stale: bool = False,
) -> Admission | Answer:
    """Decide about one request from its head alone.

    Args:
        now_ms: the server's clock, Unix milliseconds.
        bounds: as configured.
        stale: whether home may know what the bitmap does not (`retention.freshness`): neither a yes nor a no counts.

    Returns:
        An `Admission`, or the answer: a refusal, or 204 for what needs no body.
    """
    route = parse_target(head, bounds)
    if isinstance(route, Answer):
        return route
    if stale:
        return answers.HOST_STALE
    today = max(now_ms // MS_PER_DAY, bitmap.least_day)
    capture_ms = now_ms if route.capture_ms is None else route.capture_ms
    probe = bitmap.probe(route.device, capture_ms // MS_PER_DAY, today)
    flags, class_days, generation, epoch, today_ok, capture_ok, limit_class = probe
    if flags & BUSY:
        return answers.OVERLOADED
    if not head.authorization:
        return answers.NO_TOKEN  # of any device: ffmpeg and curl with a log-in in the URL ask like this first
    if not flags & PRESENT or not credentials.good(head.authorization, route.device, generation):
        return answers.BAD_TOKEN
    if route.answer is not None:
        return route.answer
    denied = _denied(flags, today_ok)
    if denied is not None:
        return denied
    if not capture_ok:
        # Beyond the days that a row holds nobody knows whether it was entitled: only a wrong clock says so.
        if day_of_ms(capture_ms) < today - PAST_DAYS:
            return answers.clock_behind(capture_ms, now_ms)
        return answers.not_entitled(capture_ms, now_ms)
    if capture_ms > now_ms + MAX_CLOCK_AHEAD_MS:
        return answers.clock_ahead(capture_ms, now_ms)
    if expiry_day(min(capture_ms, now_ms) // MS_PER_DAY, class_days) <= today:
        return answers.expired(now_ms)
    rights = Rights(epoch, class_days, limit_class, generation, now_ms)
    return route.protocol.admit(head, route, rights, bounds)


def still_admitted(
    admission: Admission, *, bitmap: EntitlementBitmap, now_ms: int, stale: bool
) -> Answer | None:
    """Why a body that is complete is not taken, though it was admitted a while ago; None when it is. Arguments as of
    `admit`."""
    if stale:
        return answers.HOST_STALE
    today = max(now_ms // MS_PER_DAY, bitmap.least_day)
    flags, _, generation, _, today_ok, _, _ = bitmap.probe(admission.device, today, today)
    if flags & BUSY:
        return answers.OVERLOADED
    if not flags & PRESENT or generation != admission.generation:
        return answers.BAD_TOKEN
    return _denied(flags, today_ok)


def _denied(flags: int, today_ok: bool) -> Answer | None:
    """Why a device with a good token may send nothing today; None when it may."""
    if flags & SUSPENDED:
        return answers.SUSPENDED
    if flags & TERMINATED:
        return answers.TERMINATED
    return None if today_ok else answers.PLAN_LAPSED
