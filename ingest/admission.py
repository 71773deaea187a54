"""Whether a request may send its body: token, entitlement, times, size. Pure: no I/O, no lock, no await.

Refusals come in the order of the contract (docs/design.md §6), the first match wins.
"""

from __future__ import annotations

from dataclasses import dataclass
from hmac import compare_digest

from ingest import answers
from ingest.answers import Answer
from ingest.heads import Head
from ingest.requests import Route, digits_of_time, parse_credentials, parse_digest, parse_target
from retention.bitmap import BUSY, PRESENT, SUSPENDED, TERMINATED, EntitlementBitmap
from retention.compile import PAST_DAYS
from retention.tokens import check_device_token
from storage.days import MS_PER_DAY, day_of_ms, expiry_day
from storage.rows.recordings import MAX_CLOCK_AHEAD_MS

MAX_CLIP_DURATION_MS = 3_600_000
"""Longest duration a chunk may claim: an hour, far above the few seconds of one upload unit."""
_MAX_DIGITS = 20
ASKED_AGAIN_MS = 100
"""After which a body that is complete is asked for once more: its device may have lost its rights while it came, or
this process have been stopped."""
MAX_REMEMBERED = 20_000
"""Devices whose credentials are remembered, 10 MB at most; past it all are forgotten, and each costs a MAC again."""


@dataclass(slots=True, init=False)
class Admission:
    """A body that may come."""

    device: int
    capture_ms: int | None
    """None: a live chunk, whose capture time is when its body is complete."""
    epoch: int
    class_days: int
    duration_ms: int | None
    """As the device said; None when it is to be read from the media."""
    digest: tuple[bytes, bytes] | None
    head_ms: int
    """When the head was admitted, by the server's clock."""
    generation: int
    """Of the token that it came with."""
    may_move: bool
    """Its time is not the device's word to the millisecond, and gives way to another chunk that has it."""
    limit_class: int
    """Of its package's limits on uploads; 0: none."""

    def __init__(
        self,
        device: int,
        capture_ms: int | None,
        epoch: int,
        class_days: int,
        duration_ms: int | None,
        digest: tuple[bytes, bytes] | None,
        head_ms: int,
        may_move: bool,
        limit_class: int = 0,
        generation: int = 0,
    ) -> None:
        self.device = device
        self.capture_ms = capture_ms
        self.epoch = epoch
        self.class_days = class_days
        self.duration_ms = duration_ms
        self.digest = digest
        self.head_ms = head_ms
        self.may_move = may_move
        self.limit_class = limit_class
        self.generation = generation

    def expires_on(self, capture_ms: int, now_ms: int) -> int:
        """The day number of the first day on which the chunk may no longer be served, fixed at write."""
        return expiry_day(day_of_ms(min(capture_ms, now_ms)), self.class_days)


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
    max_chunk_bytes: int,
    stale: bool = False,
) -> Admission | Answer:
    """Decide about one request from its head alone.

    Args:
        now_ms: the server's clock, Unix milliseconds.
        max_chunk_bytes: bytes; the configured limit, at most `segment.MAX_CHUNK_BYTES`.
        stale: whether home may know what the bitmap does not (`retention.freshness`): neither a yes nor a no counts.

    Returns:
        An `Admission`, or the answer: a refusal, or 204 for what needs no body.
    """
    route = parse_target(head.method, head.target)
    if route is None:
        digits = digits_of_time(head.target)
        return answers.UNKNOWN_PATH if digits is None else answers.time_digits(digits)
    if route.is_dash:
        return answers.DASH
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
    if route.ignored:
        return answers.NOTHING_TO_DO
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
    return _admit_body(head, route, epoch, class_days, limit_class, generation, max_chunk_bytes, now_ms)


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


def _admit_body(
    head: Head,
    route: Route,
    epoch: int,
    class_days: int,
    limit_class: int,
    generation: int,
    max_chunk_bytes: int,
    now_ms: int,
) -> Admission | Answer:
    if head.is_partial:
        return answers.PARTIAL
    if not head.chunked and not head.content_length:
        return answers.EMPTY
    if head.content_length is not None and head.content_length > max_chunk_bytes:
        return answers.too_large(max_chunk_bytes)
    duration_ms = None
    if head.clip_duration is not None:
        digits = head.clip_duration
        # Python refuses to read a number of thousands of digits, with an exception.
        duration_ms = int(digits) if digits.isdigit() and len(digits) <= _MAX_DIGITS else 0
        if not 0 < duration_ms <= MAX_CLIP_DURATION_MS:
            return answers.malformed(f"Clip-Duration-Ms is 1 to {MAX_CLIP_DURATION_MS} milliseconds")
    digest = None
    if head.content_digest is not None:
        try:
            digest = parse_digest(head.content_digest)
        except ValueError as error:
            return answers.malformed(str(error))
    may_move = route.capture_ms is None or route.is_second
    return Admission(
        route.device,
        route.capture_ms,
        epoch,
        class_days,
        duration_ms,
        digest,
        now_ms,
        may_move,
        limit_class,
        generation,
    )
