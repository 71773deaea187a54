"""What people write: what is kept is what can be seen."""

from __future__ import annotations

import pytest

from service.agreement.errors import Unprocessable
from service.agreement.texts import one_line, paragraphs

UNSEEN = [
    *"\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c",  # which way a text runs
    *"\u200b\u2060\u2061\u2064\ufeff\u00ad\u180e\u034f\u115f\u1160\u3164\uffa0\u2800\u17b4",  # no width
    *"\ue000\U000e0041\U000f0000\ufff9",  # tags, private use, notes
    *"\0\x1b\x7f\x85\n\r\t\u2028\u2029",
]


@pytest.mark.parametrize("char", UNSEEN, ids=lambda char: f"U+{ord(char):04X}")
def test_what_cannot_be_seen_is_refused(char: str) -> None:
    for text in (f"Ada{char}Lovelace", f"ада{char}лавлейс"):
        with pytest.raises(Unprocessable) as caught:
            one_line(text, "the name")
        assert caught.value.code == "bad_text"
        assert f"U+{ord(char):04X}" in str(caught.value)


def test_joiners_are_kept_where_scripts_and_emoji_need_them() -> None:
    for text in ("می‌خواهم", "क्‍ष", "👨‍👩‍👧", "❤️", "Ada Lovelace", "Łódź", "日本語"):
        assert one_line(text, "the name") == text
    for text in ("A\u200dda", "Ada\u200d", "\u200dAda", "م\u200c\u200cم", "م\u200d", "\u200c"):
        with pytest.raises(Unprocessable):
            one_line(text, "the name")


def test_paragraphs_have_line_breaks_and_tabs_besides() -> None:
    assert paragraphs("a\r\n\tb\u2028c", "the text") == "a\n\tb\u2028c"
    with pytest.raises(Unprocessable):
        paragraphs("pay to \u202eAda", "the text")
