"""What the API process and a child say to each other: a head of sized JSON, then sized bytes. Pure.

    u32 length of the JSON · u32 length of the bytes · JSON · bytes        (big-endian)

A request is `{"job": name, …, "parts": [lengths]}`, an answer `{"error": code or "", …, "parts": [lengths]}`; the
bytes are the parts, one after the other.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from typing import Any

HEAD = struct.Struct(">II")
MAX_JSON_BYTES = 64 * 1024
"""Of one message; a strip's answer, the longest, names a picture in 40 bytes."""

Message = dict[str, Any]


def head_of(message: Message, parts: Sequence[bytes | memoryview]) -> bytes:
    """All of a message but its parts.

    Raises:
        ValueError: the JSON is longer than MAX_JSON_BYTES.
    """
    text = json.dumps(message | {"parts": [len(part) for part in parts]}, separators=(",", ":")).encode()
    if len(text) > MAX_JSON_BYTES:
        raise ValueError(f"a head of {len(text)} bytes")
    return HEAD.pack(len(text), sum(len(part) for part in parts)) + text


def read_message(text: bytes, body_bytes: int) -> Message:
    """The JSON of a message, whose parts make up its body.

    Raises:
        ValueError: it is not one.
    """
    message = json.loads(text)
    if not isinstance(message, dict):
        raise ValueError("not an object")
    parts = message.get("parts")
    if not isinstance(parts, list) or not all(isinstance(part, int) and part >= 0 for part in parts):
        raise ValueError("without lengths")
    if sum(parts) != body_bytes:
        raise ValueError("its parts are not its body")
    return message


def split(message: Message, body: bytearray | memoryview) -> list[memoryview]:
    """The parts of a message, as views of its body."""
    view, found, begin = memoryview(body), [], 0
    for length in message["parts"]:
        found.append(view[begin : begin + length])
        begin += length
    return found
