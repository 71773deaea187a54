"""tus 1.0: uploads that go on where they broke, `/v1/devices/{n}/uploads`. What a request's head says. Pure.

    POST    …/uploads         Upload-Length, Upload-Metadata: begins an upload, perhaps with its first bytes
    HEAD    …/uploads/{id}    how much of it is stored
    PATCH   …/uploads/{id}    Upload-Offset: goes on there; the last one stores the chunk
    DELETE  …/uploads/{id}    ends it
    OPTIONS …/uploads         what is spoken

An upload's id says all that was said when it began, and is signed: nothing has to be kept of an upload that no byte
came of, and any worker of any host goes on with it. Rights are asked by `ingest.admission` at each request.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from typing import Final

from ingest import answers
from ingest.answers import Answer
from ingest.heads import Head
from ingest.packing import Outcome
from ingest.protocols import cors
from ingest.protocols.base import PIECE_BYTES, Admission, Bounds, Protocol, Rights, Route
from ingest.protocols.named_media import names_other_media
from ingest.protocols.upload_call import ID, MAC_BYTES, NUMBER_BITS, UploadCall
from ingest.protocols.whole import MAX_CLIP_DURATION_MS
from storage.days import MS_PER_DAY

VERSION: Final = b"1.0.0"
_DIGESTS: Final = {b"sha256": hashlib.sha256, b"sha1": hashlib.sha1}
"""Of Upload-Checksum. SHA-1 is what the protocol demands of a server."""
_MAX_CAPTURE_DIGITS: Final = 13

BYTES: Final = b"application/offset+octet-stream"
"""What bytes of an upload are sent as."""
_VERSION_LINE: Final = "Tus-Resumable: 1.0.0"
"""In each answer."""
NO_VERSION: Final = Answer(412, "tus_version", "say Tus-Resumable: 1.0.0", lines=("Tus-Version: 1.0.0",))
OTHER_TYPE: Final = Answer(
    415, "content_type", f"bytes of an upload come as Content-Type: {BYTES.decode()}, and as nothing else"
)
LENGTH_DEFERRED: Final = Answer(
    400, "length_deferred", "say Upload-Length when you begin: Upload-Defer-Length is not taken here"
)
NO_UPLOAD: Final = Answer(404, "no_upload", "there is no such upload")
GONE: Final = Answer(410, "upload_gone", "this upload has ended, or its time is over: begin a new one")
FINISHED: Final = Answer(409, "upload_finished", "this upload is finished, and its chunk stored")
CHECKSUM_MISMATCH: Final = Answer(
    460, "checksum_mismatch", "the body is not what Upload-Checksum promised; send it again"
)
ENDED: Final = Answer(204)
TO_BE_CUT: Final = (
    "more than one chunk's bytes are cut between pictures, so they are MPEG-TS, or fragmented MP4 with its header "
    "first. Put it into that without coding it anew (ffmpeg -i FILE -c copy -movflags "
    "+frag_keyframe+empty_moov+default_base_moof OUT.mp4, or -f mpegts OUT.ts), or send it as chunks of a few seconds"
)


def spoken(bounds: Bounds) -> Answer:
    """What OPTIONS is answered."""
    return Answer(
        204,
        lines=(
            "Tus-Version: 1.0.0",
            "Tus-Extension: creation,creation-with-upload,expiration,checksum,termination",
            f"Tus-Max-Size: {bounds.max_upload_bytes}",
            "Tus-Checksum-Algorithm: sha1,sha256",
        ),
    )


def not_cuttable(what: str) -> Answer:
    """Of an upload that is larger than a chunk. `what` it is instead."""
    return Answer(415, "not_cuttable", f"{what}: {TO_BE_CUT}")


def checked_at_once(most_bytes: int) -> Answer:
    """Of a PATCH with a checksum. Its bytes are stored when they are known to be right, so they are held until then."""
    detail = (
        f"a PATCH with Upload-Checksum has at most {most_bytes} bytes: send several, or none with a checksum"
    )
    return Answer(413, "too_large", detail)


def malformed(detail: str) -> Answer:
    return Answer(400, "malformed", detail)


def mismatch(offset: int, expires: str) -> Answer:
    """`expires`: the header that says until when it can go on."""
    detail = f"{offset} bytes of this upload are stored: ask with HEAD, and go on there"
    return Answer(409, "offset_mismatch", detail, lines=(f"Upload-Offset: {offset}", expires))


class Tus(Protocol):
    """See the module docstring. What waits for the catalog is done beside the connection: `ingest.resumable`."""

    def __init__(self) -> None:
        super().__init__(b"uploads")

    def route(self, head: Head, device: int, rest: bytes, bounds: Bounds) -> Route | Answer:
        if head.method == b"OPTIONS":
            return spoken(bounds)
        said = head.tus or {}
        if said.get(b"tus-resumable") != VERSION:
            return NO_VERSION
        method = _method(head, said)
        if method not in ((b"HEAD", b"PATCH", b"DELETE") if rest else (b"POST",)):
            return answers.UNKNOWN_PATH
        has_bytes = method == b"PATCH" or (method == b"POST" and (head.chunked or bool(head.content_length)))
        if has_bytes and said.get(b"content-type", b"").partition(b";")[0].strip().lower() != BYTES:
            return OTHER_TYPE
        call = _shown(method, rest) if rest else _begun(said, bounds)
        if call is not None and not isinstance(call, Answer) and method == b"PATCH":
            call = _going_on(call, said)
        if call is not None and not isinstance(call, Answer) and has_bytes:
            call = _promised(call, said)
        if call is None:
            return NO_UPLOAD
        if isinstance(call, Answer):
            return call
        capture_ms = None if call.capture_ms < 0 else call.capture_ms
        return Route(self, device, capture_ms, capture_ms is None, upload=call)

    def admit(self, head: Head, route: Route, rights: Rights, bounds: Bounds) -> Admission | Answer:
        call = route.upload
        assert call is not None, "each route of ours has one"
        if call.method == b"POST":
            call.created_ms, call.epoch = rights.now_ms, rights.epoch
        elif call.epoch != rights.epoch or rights.now_ms // MS_PER_DAY >= call.expires_on:
            return GONE
        most_bytes = call.length - call.offset if call.method in (b"POST", b"PATCH") else 0
        if head.content_length is not None and head.content_length > most_bytes:
            return malformed(f"the upload has {call.length} bytes, and this goes beyond")
        piece_bytes = 0
        if call.length > bounds.max_chunk_bytes:
            if call.checksum is None:
                piece_bytes = min(PIECE_BYTES, bounds.max_chunk_bytes)
            elif most_bytes > bounds.max_chunk_bytes:
                most_bytes = bounds.max_chunk_bytes  # all of it is held until its checksum has been looked at
                if (head.content_length or 0) > most_bytes:
                    return checked_at_once(most_bytes)
        return Admission(route, rights, call.duration_ms or None, None, most_bytes, piece_bytes)

    def besides(self, head: Head, origins: frozenset[bytes]) -> tuple[str, ...]:
        return (_VERSION_LINE, *cors.lines_of(head.tus or {}, head.method == b"OPTIONS", origins))

    def answer(self, outcome: Outcome) -> Answer:
        raise AssertionError("what becomes of an upload is answered by ingest.resumable")


def _method(head: Head, said: dict[bytes, bytes]) -> bytes:
    """What is asked for, by clients too that can't send every method. An answer to HEAD has no body, whatever else it
    says that it is: so that stays one."""
    return head.method if head.method == b"HEAD" else said.get(b"x-http-method-override", head.method)


def _shown(method: bytes, shown: bytes) -> UploadCall | None:
    """What an id says; None: it is none."""
    try:
        raw = base64.urlsafe_b64decode(shown + b"=" * (-len(shown) % 4))
    except (binascii.Error, ValueError):
        return None
    if len(raw) != ID.size + MAC_BYTES:
        return None
    created_ms, capture_ms, length, duration_ms, epoch, days, number = ID.unpack(raw[: ID.size])
    if capture_ms < -1 or len(str(capture_ms)) > _MAX_CAPTURE_DIGITS or created_ms >> 48:
        return None
    mac = raw[ID.size :]
    return UploadCall(method, created_ms, capture_ms, length, duration_ms, epoch, days, number, mac)


def _begun(said: dict[bytes, bytes], bounds: Bounds) -> UploadCall | Answer:
    """What a creation asks for. When it began, and for how long it is kept, is still to be said."""
    if b"upload-defer-length" in said:
        return LENGTH_DEFERRED
    length = _number(said.get(b"upload-length", b""))
    if length is None:
        return malformed("Upload-Length is needed, in bytes")
    if not length:
        return answers.EMPTY
    if length > bounds.max_upload_bytes:
        return Answer(
            413,
            "too_large",
            f"an upload has at most {bounds.max_upload_bytes} bytes",
            lines=(f"Tus-Max-Size: {bounds.max_upload_bytes}",),
        )
    try:
        metadata = _metadata(said.get(b"upload-metadata", b""))
    except ValueError as error:
        return malformed(str(error))
    if length > bounds.max_chunk_bytes and names_other_media(metadata):
        return not_cuttable("its name says that it is something else")
    capture_ms, duration_ms = -1, 0
    if b"capture_ms" in metadata:
        digits = metadata[b"capture_ms"]
        if digits.isdigit() and len(digits) > _MAX_CAPTURE_DIGITS:
            return answers.time_digits(len(digits))
        if not digits.isdigit():
            return malformed("metadata capture_ms is Unix milliseconds, digits alone")
        capture_ms = int(digits)
    if b"duration_ms" in metadata:
        asked = _number(metadata[b"duration_ms"]) or 0
        if not 0 < asked <= MAX_CLIP_DURATION_MS:
            return malformed(f"metadata duration_ms is 1 to {MAX_CLIP_DURATION_MS} milliseconds")
        duration_ms = asked
    number = int.from_bytes(os.urandom(8), "big") >> 64 - NUMBER_BITS
    return UploadCall(b"POST", 0, capture_ms, length, duration_ms, 0, 0, number)


def _going_on(call: UploadCall, said: dict[bytes, bytes]) -> UploadCall | Answer:
    offset = _number(said.get(b"upload-offset", b""))
    if offset is None or offset > call.length:
        return malformed("Upload-Offset is needed, in bytes, within the upload")
    call.offset = offset
    return call


def _promised(call: UploadCall, said: dict[bytes, bytes]) -> UploadCall | Answer:
    """What its Upload-Checksum says of its body, if there is one."""
    if (checksum := said.get(b"upload-checksum")) is not None:
        algorithm, _, digest = checksum.partition(b" ")
        try:
            call.checksum = algorithm, base64.b64decode(digest, validate=True)
        except binascii.Error:
            return malformed("Upload-Checksum is an algorithm and a digest in base64")
        if algorithm not in _DIGESTS:
            return malformed("Upload-Checksum: sha1 or sha256")
    return call


def is_as_promised(checksum: tuple[bytes, bytes], data: memoryview) -> bool:
    return _DIGESTS[checksum[0]](data).digest() == checksum[1]


def _number(digits: bytes) -> int | None:
    return int(digits) if digits.isdigit() and len(digits) <= 15 else None


def _metadata(value: bytes) -> dict[bytes, bytes]:
    """Of an Upload-Metadata header.

    Raises:
        ValueError: not of the protocol's form.
    """
    found: dict[bytes, bytes] = {}
    for pair in value.split(b",") if value.strip() else ():
        key, _, text = pair.strip().partition(b" ")
        if not key or key in found:
            raise ValueError("Upload-Metadata: pairs of a key, once each, and a value in base64")
        try:
            found[key] = base64.b64decode(text, validate=True)
        except binascii.Error as error:
            raise ValueError("Upload-Metadata: values are in base64") from error
    return found
