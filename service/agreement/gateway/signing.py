"""Signatures of requests, answers and reports: HMAC-SHA256 with a key that both sides have.

    Clipkeep-Timestamp: 1767225600                      Unix s
    Clipkeep-Signature: v1=<64 hex digits>[, v1=…]      one for each key of the sender, the newest first

    signed: "v1" LF kind LF timestamp LF subject LF body

`kind` is "request", "answer" or "report", so that none passes for another. `subject` is the method and the path below
the endpoint's address, such as "POST /charges", of an answer those of its request; of a report it is "report". An
answer has the timestamp of its request.

**Changing the key.** Each side may have two keys. It signs with both, and takes a signature by either. So: add the new
key here, in the first place; give it to the other side; take the old one away here.
"""

from __future__ import annotations

import hmac
import os
import re
import stat
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Final, Literal

from storage.errors import CallerError, WorldError

TIMESTAMP = "Clipkeep-Timestamp"
SIGNATURE = "Clipkeep-Signature"
MAX_KEYS = 2
MIN_KEY_CHARS = 32
"""As many hex digits are 128 bits; `openssl rand -hex 32` gives 256."""
MAX_SIGNATURES = 4
"""Looked at in one header: a sender has two keys."""
_KEY = re.compile(r"[\x21-\x7e]+")
_SIGNATURE = re.compile(r"v1=([0-9a-f]{64})")
_TIMESTAMP = re.compile(r"[1-9][0-9]{0,11}")

Kind = Literal["request", "answer", "report"]
REPORT: Final = "report"
"""The subject of a report."""


class Keys:
    """The keys of this side.

    Args:
        text: keys with white space between them; "" when they are in `file`.
        file: read again when it has changed, so a key is changed without a restart; None when they are in `text`.

    Raises:
        CallerError: `bad_config`; `key_open`: others on this machine may read the file.
        WorldError: `no_payment_key`: the file can't be read.
    """

    def __init__(self, text: str = "", file: Path | None = None) -> None:
        self._file = file
        self._seen: tuple[int, int, int] | None = None
        self._keys = () if file else parse_keys(text, "[payments] keys")
        self.now()

    def now(self) -> tuple[bytes, ...]:
        """The newest first."""
        if self._file is None:
            return self._keys
        try:
            found = self._file.stat()
            seen = (found.st_ino, found.st_mtime_ns, found.st_size)
            if seen != self._seen:
                if found.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
                    raise CallerError(
                        f"others on this machine may read it; run: chmod 600 {self._file}",
                        subject=str(self._file),
                        code="key_open",
                    )
                text = self._file.read_text("ascii", "replace")
                self._keys, self._seen = parse_keys(text, str(self._file)), seen
        except OSError as error:
            raise WorldError(
                f"the key of the payment gateway can't be read: {error.strerror or error}",
                subject=str(self._file),
                code="no_payment_key",
            ) from error
        return self._keys


def parse_keys(text: str, subject: str) -> tuple[bytes, ...]:
    """Raises CallerError `bad_config`. The keys themselves are in no error."""
    keys = text.split()
    if not 1 <= len(keys) <= MAX_KEYS or any(
        len(key) < MIN_KEY_CHARS or not _KEY.fullmatch(key) for key in keys
    ):
        raise CallerError(
            f"one key of the payment gateway, or two while it is changed, with a space or a new line between them; each"
            f" has at least {MIN_KEY_CHARS} visible ASCII characters: `openssl rand -hex 32` makes one",
            subject=subject,
            code="bad_config",
        )
    return tuple(key.encode() for key in keys)


def signature(key: bytes, kind: Kind, timestamp: str, subject: str, body: bytes) -> str:
    """64 hex digits."""
    head = f"v1\n{kind}\n{timestamp}\n{subject}\n".encode()
    return hmac.new(key, head + body, sha256).hexdigest()


def signed_headers(
    keys: Sequence[bytes], kind: Kind, timestamp: str, subject: str, body: bytes
) -> dict[str, str]:
    made = ", ".join(f"v1={signature(key, kind, timestamp, subject, body)}" for key in keys)
    return {TIMESTAMP: timestamp, SIGNATURE: made}


def is_signed(
    keys: Sequence[bytes], kind: Kind, timestamp: str, subject: str, body: bytes, header: str
) -> bool:
    """Whether one of the header's signatures is by one of these keys. As long for a wrong one as for a right one."""
    given = header_signatures(header)
    right = 0
    for key in keys:
        wanted = signature(key, kind, timestamp, subject, body)
        for each in given:
            right |= hmac.compare_digest(wanted, each)
    return bool(right)


def header_signatures(header: str) -> list[str]:
    """The hex digits of the signatures of a header, the first few; empty when it is none."""
    parts = header.split(",", MAX_SIGNATURES)[:MAX_SIGNATURES]
    found = (_SIGNATURE.fullmatch(part.strip()) for part in parts)
    return [match[1] for match in found if match]


def timestamp_s(header: str) -> int | None:
    """Unix s; None when it is none."""
    return int(header) if _TIMESTAMP.fullmatch(header) else None


def keys_of(text: str, file: str, folder: Path) -> Keys:
    """As the configuration names them: a file is relative to the data folder."""
    return Keys(text) if text or not file else Keys(file=Path(os.path.join(folder, file)))
