"""What a request about a resumable upload says, and the id that an upload goes by. Pure."""

from __future__ import annotations

import base64
import hmac
import struct
from dataclasses import dataclass
from typing import Final

from storage.days import MS_PER_DAY

ID: Final = struct.Struct(">QqIIIHQ")
"""created_ms, capture_ms (-1: by arrival), length, duration_ms (0: as the media says), epoch, days, number."""
MAC_BYTES: Final = 16
NUMBER_BITS: Final = 48
"""Of the random number of an upload: two of a device and day with one number would be one upload."""


@dataclass(slots=True)
class UploadCall:
    """One request about an upload, and what the upload's id says."""

    method: bytes
    created_ms: int
    capture_ms: int
    """-1: by the upload's beginning, less what it plays."""
    length: int
    """Bytes of the whole."""
    duration_ms: int
    """0: as the media says."""
    epoch: int
    """The device's erase epoch when it began."""
    days: int
    """For so many days of its beginning what is stored of it is kept."""
    number: int
    """Random: no other upload of its device has it."""
    mac: bytes = b""
    """As it was shown."""
    offset: int = 0
    """Where its bytes go on, in the upload; moved on with what was stored of it."""
    checksum: tuple[bytes, bytes] | None = None
    besides: tuple[str, ...] = ()
    """Headers of whatever is answered."""

    @property
    def expires_on(self) -> int:
        """The day number of the first day on which nothing of it is there."""
        return self.created_ms // MS_PER_DAY + self.days

    @property
    def metadata(self) -> str:
        """As a header says it: so much of what it began with as means something here."""
        said = [("capture_ms", self.capture_ms)] if self.capture_ms >= 0 else []
        if self.duration_ms:
            said.append(("duration_ms", self.duration_ms))
        return ",".join(f"{key} {base64.b64encode(str(value).encode()).decode()}" for key, value in said)

    def id(self, device: int, secret: bytes) -> str:
        said = self._said()
        return base64.urlsafe_b64encode(said + _mac(secret, device, said)).rstrip(b"=").decode()

    def is_ours(self, device: int, secret: bytes) -> bool:
        """Whether the id that was shown is one that we gave."""
        return hmac.compare_digest(self.mac, _mac(secret, device, self._said()))

    def _said(self) -> bytes:
        return ID.pack(
            self.created_ms,
            self.capture_ms,
            self.length,
            self.duration_ms,
            self.epoch,
            self.days,
            self.number,
        )


def _mac(secret: bytes, device: int, said: bytes) -> bytes:
    text = b"clipkeep upload 2" + device.to_bytes(4, "big") + said
    return hmac.digest(secret, text, "sha256")[:MAC_BYTES]
