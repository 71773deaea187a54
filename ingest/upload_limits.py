"""Bytes a day and chunks a second of devices whose package has limits, counted for all workers of all hosts.

Pure: no I/O, no clock. A worker counts what it takes, in memory and at once. Every `EXCHANGE_S` it adds what is *due*
to the catalog's sums of the day, and learns from them what the other workers have taken. Due is a device that the
worker has not asked about on this day, and one of which it took 1/`PARTS_OF_DAY` of the day's bytes, or `BURST_S`
seconds' worth of chunks, since it asked. So a camera costs the catalog a few hundred rows a day, not one per chunk.

One worker is exact to the byte. Each more that a device uses adds what that one does not know yet: at most two such
parts of the day, and what comes in `EXCHANGE_S`. A worker that is killed forgets what was not due yet.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ingest.answers import Answer
from retention.upload_limits import NO_LIMITS, UploadLimits
from storage.days import MS_PER_DAY

EXCHANGE_S = 5.0
"""Between two exchanges of sums with the catalog."""
PARTS_OF_DAY = 256
BURST_S = 20.0
"""So many seconds' worth of chunks a device may send at once after a pause: what it kept while it was offline."""
SPREAD_S = 900
"""Devices that used up their day come back within this time after midnight, each at a moment of its own."""
_NEVER = 1 << 62
MAX_DEVICES = 50_000
"""Counted at once, 15 MB at most. Past it the one that has sent nothing for longest is forgotten, and asked about
again when it comes back."""


class DayUploads:
    """What one device has uploaded on one day, as far as this worker knows."""

    __slots__ = (
        "base_s",
        "bytes_",
        "bytes_per_day",
        "chunks",
        "day",
        "device",
        "due_bytes",
        "due_chunks",
        "interval_s",
        "is_known",
        "limit_class",
        "limits",
        "new_bytes",
        "new_chunks",
        "tat_s",
    )

    def __init__(self, device: int, day: int) -> None:
        self.device = device
        self.day = day
        self.limit_class = 0
        self.limits = NO_LIMITS
        self.bytes_per_day = 0
        self.interval_s = 0.0
        """Between two chunks at exactly the package's rate; 0: no limit."""
        self.due_bytes = 0
        self.due_chunks = 0
        """Taken since the sum was asked for, from which it is due again."""
        self.bytes_ = 0
        """Of this day: the sum of all workers when it was asked for, and what was taken here since."""
        self.chunks = 0
        """Of this day, of all workers, when the sum was asked for."""
        self.new_bytes = 0
        """Taken here, and not in the catalog's sum. Below 0: counted there, and not stored after all."""
        self.new_chunks = 0
        self.is_known = False
        """The sum was asked for on this day."""
        self.tat_s = 0.0
        """When the next chunk would come at exactly the package's rate; ahead of now by what was sent too soon."""
        self.base_s = 0.0
        """The same, when the sum was asked for."""

    def begin_day(self, day: int) -> None:
        """Yesterday's sums are nobody's limit any more."""
        self.day = day
        self.bytes_ = self.chunks = self.new_bytes = self.new_chunks = 0
        self.is_known = False

    def set_limits(self, limit_class: int, limits: UploadLimits) -> None:
        """Go by these limits from now on."""
        self.limit_class = limit_class
        self.limits = limits
        self.bytes_per_day = limits.bytes_per_day
        self.interval_s = 1 / limits.chunks_per_s if limits.chunks_per_s else 0.0
        self.due_bytes = limits.bytes_per_day // PARTS_OF_DAY or _NEVER
        self.due_chunks = round(BURST_S * limits.chunks_per_s) or _NEVER

    @property
    def is_due(self) -> bool:
        return self.new_bytes >= self.due_bytes or self.new_chunks >= self.due_chunks or not self.is_known


class UploadCounts:
    """See the module docstring. One per worker.

    Args:
        limits_word: of a limit class, as `EntitlementBitmap.limits_word`.
    """

    def __init__(self, limits_word: Callable[[int], int]) -> None:
        self._limits_word = limits_word
        self._limits: dict[int, UploadLimits] = {}
        """By word: there are 127 classes, and the word of each stays."""
        self._known: dict[int, DayUploads] = {}
        """By device, the one that has sent nothing for longest first."""
        self._due: dict[int, DayUploads] = {}

    def admit(self, device: int, limit_class: int, length: int, now_ms: int, now_s: float) -> Answer | None:
        """Count a chunk whose head has come, and say whether it is one too many.

        Args:
            length: bytes as announced; 0: not known yet.
            now_ms: the server's clock, Unix ms; `now_s` is monotonic.

        Returns:
            The refusal, 429; then nothing was counted.
        """
        uploads = self._of(device, limit_class, now_ms // MS_PER_DAY)
        most = uploads.bytes_per_day
        if most and uploads.bytes_ + (length or 1) > most:
            return day_is_full(uploads.limits, device, now_ms)
        interval_s = uploads.interval_s
        if interval_s:
            due_s = max(uploads.tat_s, now_s)
            if due_s - now_s > BURST_S - interval_s:
                return too_many_chunks(uploads.limits, due_s - now_s - BURST_S + interval_s)
            uploads.tat_s = due_s + interval_s
        uploads.new_chunks += 1
        if uploads.is_due:
            self._due[device] = uploads
        return None

    def take(self, device: int, limit_class: int, length: int, now_ms: int) -> Answer | None:
        """Count the bytes of a chunk that came whole. Returns the refusal, 429: then nothing was counted."""
        uploads = self._known.get(device)
        if (
            uploads is None or uploads.day != now_ms // MS_PER_DAY
        ):  # forgotten, or a day has begun, since its head
            uploads = self._of(device, limit_class, now_ms // MS_PER_DAY)
        most = uploads.bytes_per_day
        if most and uploads.bytes_ + length > most:
            return day_is_full(uploads.limits, device, now_ms)
        uploads.bytes_ += length
        uploads.new_bytes += length
        if uploads.is_due:
            self._due[device] = uploads
        return None

    def give_back(self, device: int, length: int, now_ms: int) -> None:
        """A chunk that was counted was not stored: it was there already, or it was lost. Of a device without limits, or
        one that was counted yesterday, this changes nothing."""
        uploads = self._known.get(device)
        if uploads is not None and uploads.day == now_ms // MS_PER_DAY:
            length = min(length, uploads.bytes_)
            uploads.bytes_ -= length
            uploads.new_bytes -= length

    def due(self, now_ms: int, limit: int) -> Mapping[int, tuple[int, int]]:
        """(bytes, chunks) to add to the catalog's sums of today, by device; at most so many. They stay due until
        `learn`."""
        day = now_ms // MS_PER_DAY
        self._due = {device: uploads for device, uploads in self._due.items() if uploads.day == day}
        found: dict[int, tuple[int, int]] = {}
        for device, uploads in self._due.items():
            if len(found) == limit:
                break
            found[device] = (uploads.new_bytes, uploads.new_chunks)
        return found

    def unreported(self, now_ms: int) -> None:
        """Make due whatever is not in the catalog's sums: before the worker ends."""
        for uploads in self._known.values():
            if uploads.new_bytes or uploads.new_chunks:
                self._due[uploads.device] = uploads

    def learn(
        self,
        day: int,
        sent: Mapping[int, tuple[int, int]],
        sums: Mapping[int, tuple[int, int]],
        now_s: float,
    ) -> None:
        """Take up the catalog's sums of a day, after what was `due` has been added to them."""
        for device, (sent_bytes, sent_chunks) in sent.items():
            uploads = self._due.get(device)
            if uploads is None or uploads.day != day:  # a new day has begun meanwhile
                continue
            del self._due[device]
            sum_bytes, sum_chunks = sums[device]
            uploads.new_bytes -= sent_bytes
            uploads.new_chunks -= sent_chunks
            uploads.bytes_ = sum_bytes + uploads.new_bytes
            if uploads.is_known and uploads.limits.chunks_per_s:
                # What all workers have sent since then came at this rate at least, wherever it came to.
                sent_by_all = sum_chunks - uploads.chunks
                uploads.tat_s = max(uploads.tat_s, uploads.base_s + sent_by_all / uploads.limits.chunks_per_s)
            uploads.base_s = max(uploads.tat_s, now_s)
            uploads.chunks = sum_chunks
            uploads.is_known = True
            # They may not have been known on this host when the device came first.
            uploads.set_limits(uploads.limit_class, self._limits_of(uploads.limit_class))
            if uploads.is_due:
                self._due[device] = uploads

    def _of(self, device: int, limit_class: int, day: int) -> DayUploads:
        uploads = self._known.pop(device, None)
        if uploads is None:
            uploads = self._due.get(device)  # forgotten a moment ago, and still to be added
        if uploads is None:
            uploads = DayUploads(device, day)
        self._known[device] = uploads
        if uploads.day != day:
            uploads.begin_day(day)
        if uploads.limit_class != limit_class:
            uploads.set_limits(limit_class, self._limits_of(limit_class))
        if len(self._known) > MAX_DEVICES:
            self._forget_oldest()
        return uploads

    def _forget_oldest(self) -> None:
        oldest = self._known.pop(next(iter(self._known)))
        if (oldest.new_bytes or oldest.new_chunks) and len(self._due) < MAX_DEVICES:
            self._due[oldest.device] = oldest

    def _limits_of(self, limit_class: int) -> UploadLimits:
        word = self._limits_word(limit_class)
        limits = self._limits.get(word)
        if limits is None:
            limits = self._limits[word] = UploadLimits.of_word(word)
        return limits


def day_is_full(limits: UploadLimits, device: int, now_ms: int) -> Answer:
    """The device used up its bytes of this day."""
    left_s = (MS_PER_DAY - now_ms % MS_PER_DAY) // 1000 + 1
    return Answer(
        429,
        "package_bytes",
        f"the package of this device takes {limits.bytes_per_day} bytes a day, by the day (UTC) on which they arrive;"
        " keep the chunk and send it tomorrow, or send smaller ones",
        retry_after_s=left_s + device * 7919 % SPREAD_S,
    )


def too_many_chunks(limits: UploadLimits, wait_s: float) -> Answer:
    """The device sends more chunks than its package takes."""
    return Answer(
        429,
        "package_chunks",
        f"the package of this device takes {limits.chunks_per_s} chunks a second; keep the chunk and send it later, or"
        " send longer ones",
        retry_after_s=int(wait_s) + 1,
    )
