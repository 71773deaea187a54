"""Texts that people write: names, reasons, announcements. What is kept is what is shown, so no control characters."""

from __future__ import annotations

import unicodedata

from service.agreement.errors import Unprocessable

MAX_NAME_CHARS = 200
MAX_REASON_CHARS = 500
MAX_SUBJECT_CHARS = 200
MAX_BODY_CHARS = 20_000
"""Of an announcement: a few pages. A notice is a row per account, and a mail server takes no books."""
_BREAKS_LINES = "\u2028\u2029"


def one_line(text: str, what: str, most: int = MAX_REASON_CHARS, *, least: int = 1) -> str:
    """The text as it is kept: NFC, without white space around it.

    Args:
        what: names the text in the refusal, e.g. "the reason".

    Raises:
        Unprocessable: `bad_text`: shorter than `least` or longer than `most` characters, a control character or a
            line break, or not to be encoded (a lone surrogate).
    """
    return _checked(text, what, most, least=least, also="")


def paragraphs(text: str, what: str, most: int = MAX_BODY_CHARS) -> str:
    """As `one_line`, with line breaks and tabs."""
    return _checked(text.replace("\r\n", "\n"), what, most, least=1, also="\n\t" + _BREAKS_LINES)


def _checked(text: str, what: str, most: int, *, least: int, also: str) -> str:
    kept = unicodedata.normalize("NFC", text).strip()
    if not least <= len(kept) <= most:
        raise Unprocessable(
            f"{what} has {len(kept)} characters; {least} to {most} are allowed", code="bad_text"
        )
    for char in kept:
        if (unicodedata.category(char) in ("Cc", "Cs") or char in _BREAKS_LINES) and char not in also:
            raise Unprocessable(
                f"{what} has the character U+{ord(char):04X}, which can't be shown; leave it out",
                code="bad_text",
            )
    return kept
