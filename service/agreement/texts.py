"""Texts that people write: names, reasons, announcements. What is kept is what is shown, so no control characters."""

from __future__ import annotations

import unicodedata
from datetime import UTC, datetime

from service.agreement.errors import Unprocessable

MAX_NAME_CHARS = 200
MAX_REASON_CHARS = 500
MAX_SUBJECT_CHARS = 200
MAX_BODY_CHARS = 20_000
"""Of an announcement: a few pages. A notice is a row per account, and a mail server takes no books."""
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""What a spreadsheet may take for the beginning of a formula; wide forms are made narrow by some."""
_BREAKS_LINES = "\u2028\u2029"
_NEVER = frozenset(("Cc", "Cf", "Co", "Cs"))
"""Unicode's categories of what can't be seen: controls, formats (which turn the direction of what stands beside them,
or have no width), private use, halves of characters. Two names that look alike must be alike."""
_JOINERS = "\u200c\u200d"
"""Formats that Persian, Indic scripts and emoji are written with: between two characters that are no ASCII."""
_BLANKS = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")
"""Of other categories, and as invisible."""


def one_line(text: str, what: str, most: int = MAX_REASON_CHARS, *, least: int = 1) -> str:
    """The text as it is kept: NFC, without white space around it.

    Args:
        what: names the text in the refusal, e.g. "the reason".

    Raises:
        Unprocessable: `bad_text`: shorter than `least` or longer than `most` characters, a line break, or a
            character that can't be seen.
    """
    return _checked(text, what, most, least=least, also="")


def paragraphs(text: str, what: str, most: int = MAX_BODY_CHARS) -> str:
    """As `one_line`, with line breaks and tabs."""
    return _checked(text.replace("\r\n", "\n"), what, most, least=1, also="\n\t" + _BREAKS_LINES)


def cell(text: str) -> str:
    """A text as a spreadsheet may open it: one that could be a formula gets an apostrophe, which spreadsheets leave
    out."""
    return "'" + text if text.lstrip(" ").startswith(_FORMULA) else text


def moment(ms: int) -> str:
    """A moment (Unix ms) as people read it."""
    return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d %H:%M} UTC"


def _checked(text: str, what: str, most: int, *, least: int, also: str) -> str:
    kept = unicodedata.normalize("NFC", text).strip()
    if not least <= len(kept) <= most:
        raise Unprocessable(
            f"{what} has {len(kept)} characters; {least} to {most} are allowed", code="bad_text"
        )
    for at, char in enumerate(kept):
        if char not in also and not _can_be_seen(kept, at):
            raise Unprocessable(
                f"{what} has the character U+{ord(char):04X}, which can't be shown; leave it out",
                code="bad_text",
            )
    return kept


def _can_be_seen(text: str, at: int) -> bool:
    char = text[at]
    if char in _JOINERS:
        return (
            0 < at < len(text) - 1
            and text[at - 1] > "\x7f"
            and text[at + 1] > "\x7f"
            and (text[at - 1] not in _JOINERS)
        )
    return unicodedata.category(char) not in _NEVER and char not in _BREAKS_LINES and char not in _BLANKS
