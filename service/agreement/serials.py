"""“One legal device” (agreement 7.1): a serial may be required when a device is added, by a list of those that
there are, or by a pattern. A serial is of one device at a time, and has one trial, whichever account it is under.
"""

from __future__ import annotations

import mmap
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


def is_required(settings: AgreementSettings) -> bool:
    return bool(settings.serial_pattern or settings.serial_list)


def checked(desk: Desk, account: int, serial: str | None) -> str | None:
    """The serial of a device that is to be added; None where there is none and need be none. The operators' own devices
    need none.

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
    return serial


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
    """Whether a line of the file is this serial. Not read into memory: lists have millions of lines."""
    line = serial.encode()
    try:
        with path.open("rb") as file:
            if path.stat().st_size == 0:
                return False
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                at = content.find(line)
                while at >= 0:
                    end = at + len(line)
                    begins = at == 0 or content[at - 1] == 0x0A
                    if begins and (end == len(content) or content[end] in b"\r\n"):
                        return True
                    at = content.find(line, at + 1)
    except (OSError, ValueError) as error:
        said = getattr(error, "strerror", None) or str(error)
        raise WorldError(
            f"the list of serials can't be read: {said}", subject=str(path), code="serials_unavailable"
        ) from error
    return False
