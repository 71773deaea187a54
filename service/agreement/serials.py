"""“One legal device” (agreement 7.1): a serial may be required when a device is added, by a list of those that
there are, or by a pattern. A serial is of one device at a time, and has one trial, whichever account it is under.

Small and capital letters are the same: pattern and list say how it is written, and the books have capitals.
"""

from __future__ import annotations

import re
from pathlib import Path

from service.agreement.desk import Desk
from service.agreement.errors import Conflict, Unprocessable
from service.config import AgreementSettings
from storage.catalog.books import Books
from storage.errors import WorldError
from storage.rows.accounts import OPERATOR_ACCOUNT
from storage.rows.devices import DeviceFacts

MAX_SERIAL_CHARS = 64
_SERIAL = re.compile(rf"[!-~]{{1,{MAX_SERIAL_CHARS}}}")
"""Printable ASCII without spaces: what stands on a label."""
_READ_BYTES = 1 << 20


def is_required(settings: AgreementSettings) -> bool:
    return bool(settings.serial_pattern or settings.serial_list)


def checked(desk: Desk, account: int, serial: str | None) -> str | None:
    """The serial of a device that is to be added, as the books have it; None where there is none and need be none. The
    operators' own devices need none. Reads the whole list: not in a transaction.

    Raises:
        Unprocessable: `serial_required`; `bad_serial`, it is not one of this service's devices.
        WorldError: `serials_unavailable`, the list can't be read.
    """
    settings = desk.settings
    if serial is None:
        if is_required(settings) and account != OPERATOR_ACCOUNT:
            raise Unprocessable(
                "give the serial that stands on the device; each device is added by itself",
                code="serial_required",
            )
        return None
    if not _SERIAL.fullmatch(serial):
        raise Unprocessable(
            f"a serial has 1 to {MAX_SERIAL_CHARS} letters, digits and signs, without spaces",
            code="bad_serial",
        )
    fits = not settings.serial_pattern or re.fullmatch(settings.serial_pattern, serial) is not None
    if not fits or (settings.serial_list and not _is_listed(Path(settings.serial_list), serial)):
        raise Unprocessable(
            "this is no serial of a device of this service; compare it with the label", code="bad_serial"
        )
    return serial.upper()


def keep_in(books: Books, facts: DeviceFacts, serial: str | None) -> None:
    """Let a new device have its serial. Raises Conflict `serial_taken`."""
    if serial is not None:
        books.add_serial(facts.device, facts.account, serial)


def use_trial(desk: Desk, books: Books, facts: DeviceFacts) -> None:
    """The device's serial has its one trial.

    Raises:
        Conflict: `serial_trial_used`, under this account or another; `no_serial`, it was added before serials were
            required.
    """
    subject = f"device {facts.device}"
    if (
        is_required(desk.settings)
        and facts.account != OPERATOR_ACCOUNT
        and books.serial_of(facts.device) is None
    ):
        raise Conflict(
            "a trial is for a device with a serial; end this one, and add it again with its serial",
            subject=subject,
            code="no_serial",
        )
    if not books.use_serial_trial(facts.device, on=desk.today()):
        raise Conflict(
            "each device has one trial, and that of this one was used; buy a plan",
            subject=subject,
            code="serial_trial_used",
        )


def _is_listed(path: Path, serial: str) -> bool:
    """Whether a line of the file is this serial. Read in parts: lists have millions of lines, and no part keeps other
    threads from their turn for long, whatever is looked for."""
    wanted = b"\n%s\n" % serial.encode()
    try:
        with path.open("rb", buffering=0) as file:
            before = b"\n"
            while data := file.read(_READ_BYTES):
                text = before + data.replace(b"\r", b"")
                if wanted in text:
                    return True
                before = text[1 - len(wanted) :]
        return wanted in before + b"\n"
    except OSError as error:
        raise WorldError(
            f"the list of serials can't be read: {error.strerror or error}",
            subject=str(path),
            code="serials_unavailable",
        ) from error
