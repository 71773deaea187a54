"""What a browser sent as a form: names and texts, each once. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from urllib.parse import parse_qsl

from fastapi.exceptions import RequestValidationError

from service.agreement.errors import Unprocessable

MAX_FIELDS = 200
"""A browser sends a field for each input of a form; ours have a dozen."""
MAX_FIELD_CHARS = 1000
"""Of one field, unless more is said: reasons, names and addresses are shorter."""
MAX_NEXT_CHARS = 500
_WHOLE = re.compile(r"[0-9]{1,18}")
_OWN_PATH = re.compile(r"/(?![/\\])[A-Za-z0-9/_.,=&%?+:-]*")


def _malformed(what: str) -> RequestValidationError:
    """A form that no page of ours sends."""
    return RequestValidationError([{"loc": ("body",), "msg": what, "type": "value"}])


class Form(Mapping[str, str]):
    """The fields. One that was not sent is ""."""

    def __init__(self, fields: Mapping[str, str]) -> None:
        self._fields = fields

    @classmethod
    def of(cls, body: bytes) -> Form:
        """Raises RequestValidationError: two fields of one name, too many."""
        try:
            pairs = parse_qsl(
                body.decode("ascii"), keep_blank_values=True, max_num_fields=MAX_FIELDS, errors="strict"
            )
        except ValueError:
            raise _malformed("a form is percent-encoded UTF-8") from None
        fields = dict(pairs)
        if len(fields) != len(pairs):
            raise _malformed("two fields have one name")
        return cls(fields)

    def __getitem__(self, name: str) -> str:
        return self._fields.get(name, "")

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def text(self, name: str, most: int = MAX_FIELD_CHARS) -> str:
        """Without white space around it. Raises Unprocessable `bad_text`: longer than `most` characters."""
        text = self[name].strip()
        if len(text) > most:
            raise Unprocessable(f"{name} has {len(text)} characters; {most} are allowed", code="bad_text")
        return text

    def whole(self, name: str) -> int:
        """Raises Unprocessable `bad_number`."""
        text = self[name].strip()
        if not _WHOLE.fullmatch(text):
            raise Unprocessable(f"{name} is a whole number, in digits", code="bad_number")
        return int(text)

    def ticked(self, name: str) -> bool:
        return self[name] != ""


def own_path(text: str) -> str:
    """A path of this site to go to after a log-in; "" for anything else: a link must not send people elsewhere."""
    return text if len(text) <= MAX_NEXT_CHARS and _OWN_PATH.fullmatch(text) else ""
