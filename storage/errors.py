"""The one error tree, split by whose fault it is.

Every error carries a stable `code` (for programs), a `detail` that says what happened and what
to do (for people), and the `subject` it is about (a key, a device, a file), where there is one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class ClipkeepError(Exception):
    """Base of all errors raised on purpose.

    Args:
        detail: one or two sentences: what happened and what to do about it.
        subject: the key, device or file that it is about.
        code: overrides the class's stable code.
    """

    code = "internal"

    def __init__(self, detail: str, *, subject: str = "", code: str | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.subject = subject
        if code is not None:
            self.code = code

    def __str__(self) -> str:
        return f"{self.subject}: {self.detail}" if self.subject else self.detail


class CallerError(ClipkeepError):
    """Yours: a wrong argument, an unknown device, a configuration that cannot be used."""

    code = "bad_request"


class NotFound(CallerError):
    """Yours: what was asked for does not exist."""

    code = "not_found"


class Conflict(CallerError):
    """Yours, and nothing is wrong with it: the state of things stands in its way, e.g. an address that is taken, or a
    trial that was used. A rule that refuses because of what is there raises it."""

    code = "conflict"


class Unprocessable(CallerError):
    """Yours: understood, and against a rule of the agreement or of the form of what was sent.

    Args:
        reasons: all of them at once, where there may be several (`cancellation_blocked`).
    """

    code = "unprocessable"

    def __init__(
        self, detail: str, *, subject: str = "", code: str | None = None, reasons: Sequence[Any] = ()
    ) -> None:
        super().__init__(detail, subject=subject, code=code)
        self.reasons = tuple(reasons)


class WorldError(ClipkeepError):
    """The world's: a store that is down, a disk that is full. The same call may succeed later."""

    code = "unavailable"


class StoreUnavailable(WorldError):
    """The object store did not answer, or answered with a transient failure, after bounded retries."""

    code = "store_unavailable"


class StoreFull(StoreUnavailable):
    """The object store has no space left."""

    code = "store_full"


class StoreUnconfirmed(StoreUnavailable):
    """The object store said yes, and nothing shows that it has kept what it got."""

    code = "not_confirmed"


class StoreDenied(WorldError):
    """The object store refused the credentials, the bucket or the permission. A person must act."""

    code = "store_denied"


class StoreLacks(StoreDenied):
    """The object store does not have what it was asked for, with any credentials."""

    code = "store_lacks"


class CatalogUnavailable(WorldError):
    """The catalog could not be read or written (busy past its bound, disk full, I/O error)."""

    code = "catalog_unavailable"


class ObjectMissing(ClipkeepError):
    """No object under this key."""

    code = "object_missing"


class CorruptError(ClipkeepError):
    """Data at rest that is not what was written: cut, flipped or of another version."""

    code = "corrupt"


class SegmentCorrupt(CorruptError):
    """A segment object that is cut, flipped, or not a segment."""

    code = "segment_corrupt"


class BitmapCorrupt(CorruptError):
    """An entitlement bitmap file that is cut, flipped, or of another layout."""

    code = "bitmap_corrupt"


class KeyDestroyed(ClipkeepError):
    """The data key is gone: what it encrypted cannot be read by anyone."""

    code = "key_destroyed"


class CatalogCorrupt(CorruptError):
    """A catalog file that is not a database, is damaged, or has another schema."""

    code = "catalog_corrupt"


class LeaseLost(ClipkeepError):
    """Another holder has the lease now; whatever was asked for was not done (invariant 8)."""

    code = "lease_lost"
