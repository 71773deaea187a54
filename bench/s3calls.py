"""What the null store answers to S3 calls. Plain values in and out: no socket, no clock.

Nothing of an object is kept, with two bounded exceptions that multipart clients cannot do without: the parts
of an upload under way (number and size, not bytes), and small objects whose key ends in `.info`, in which tus
servers keep an upload's state. The oldest are forgotten when there are too many.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit
from xml.sax.saxutils import escape

KEPT_SUFFIXES = (".info", "/sweep/home", "/sweep/numbers")
"""What tus servers read again, and what tells Clipkeep whose the store is."""
MAX_KEPT_BYTES = 16 * 1024
"""Of one kept object; tus servers write some 300 bytes."""
MAX_KEPT = 20_000
"""Kept objects, and multipart uploads under way: twice the most connections a bench opens."""
META = "x-amz-meta-"

T = TypeVar("T")
_KEY = re.compile(rb"<Key>(.*?)</Key>", re.DOTALL)
_QUIET = re.compile(rb"<Quiet>\s*true\s*</Quiet>", re.IGNORECASE)
CRC32 = "x-amz-checksum-crc32"
_XML = '<?xml version="1.0" encoding="UTF-8"?>\n'


@dataclass(frozen=True, slots=True)
class Request:
    """One parsed head.

    Attributes:
        length: bytes of the object in the body: Content-Length, or what a chunked body says it decodes to; 0
            when absent.
        meta: the `x-amz-meta-` fields.
        checksum: a CRC of the body came in the head or comes in a trailer.
        crc32: the CRC-32 that came in the head, as S3 writes it; empty when none did.
    """

    method: str
    target: str
    length: int
    wants_continue: bool = False
    chunked: bool = False
    meta: Mapping[str, str] = field(default_factory=dict)
    checksum: bool = False
    crc32: str = ""

    @property
    def is_control(self) -> bool:
        """True for the bench's own calls, which are neither counted nor delayed."""
        return self.target.startswith("/_")

    @property
    def is_kept(self) -> bool:
        """True when the body is wanted: calls with a document in it, and the small objects that are kept."""
        return self.method == "POST" or (self.method == "PUT" and self.path.endswith(KEPT_SUFFIXES))

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]


@dataclass(frozen=True, slots=True)
class Answer:
    """Status, body and extra fields of a response."""

    status: int
    body: bytes = b""
    fields: Mapping[str, str] = field(default_factory=dict)


def parse_head(head: bytes) -> Request:
    """Parse a request head without its final blank line.

    Raises:
        ValueError: it is not an HTTP/1.1 request.
    """
    lines = head.decode("latin-1").split("\r\n")
    method, target, _version = lines[0].split(" ")
    fields = {name.strip().lower(): value.strip() for name, _, value in (x.partition(":") for x in lines[1:])}
    chunked = "transfer-encoding" in fields
    length = int(fields.get("x-amz-decoded-content-length" if chunked else "content-length", "0"))
    if length < 0:
        raise ValueError("negative length")
    if chunked and "x-amz-decoded-content-length" not in fields:
        length = -1
    return Request(
        method,
        target,
        length,
        wants_continue=fields.get("expect", "").lower() == "100-continue",
        chunked=chunked,
        meta={name: value for name, value in fields.items() if name.startswith(META)},
        checksum="x-amz-trailer" in fields or any(x.startswith("x-amz-checksum-crc") for x in fields),
        crc32=fields.get(CRC32, ""),
    )


@dataclass(frozen=True, slots=True)
class _Kept:
    body: bytes
    meta: Mapping[str, str]


class S3Calls:
    """The state behind the answers, bounded by `MAX_KEPT` entries of each kind."""

    def __init__(self, max_kept: int = MAX_KEPT) -> None:
        self._max_kept = max_kept
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._uploads: OrderedDict[str, dict[int, int]] = OrderedDict()
        self._count = 0

    def answer(self, request: Request, body: bytes) -> Answer:
        """Answer one call, whose body is given when `request.is_kept`.

        As S3 would: PUT object (200), HEAD bucket (200), POST ?delete (every key deleted), ListObjectsV2
        (empty), DELETE object (204), GET and HEAD of an object that is not kept (404), and multipart uploads:
        create, part, list, complete, abort. A chunked body without a decoded length gets 411.
        """
        if request.length < 0:
            return _error(411, "MissingContentLength")
        parts = urlsplit(request.target)
        query = dict(parse_qsl(parts.query, keep_blank_values=True)) if parts.query else {}
        bucket, _, key = unquote(parts.path).lstrip("/").partition("/")
        if "uploads" in query and request.method == "POST":
            return self._create(bucket, key)
        if "uploadId" in query:
            return self._multipart(request, bucket, key, query)
        if request.method == "POST" and "delete" in query:
            return Answer(200, _deleted(body))
        if request.method == "PUT":
            if request.is_kept and len(body) <= MAX_KEPT_BYTES:
                self._put_bounded(self._kept, key, _Kept(body, request.meta))
            # S3 gives the CRC back, and a client may take an answer without it for another's.
            crc32 = {CRC32: request.crc32} if request.crc32 else {}
            return Answer(200, fields={"ETag": '"0"', **crc32})
        if request.method == "DELETE":
            self._kept.pop(key, None)
            return Answer(204)
        return self._read(bucket, key, is_head=request.method == "HEAD")

    def _read(self, bucket: str, key: str, *, is_head: bool) -> Answer:
        if key:
            kept = self._kept.get(key)
            if kept is None:
                return _error(404, "NoSuchKey", f"<Key>{escape(key)}</Key>")
            return Answer(200, kept.body, {"ETag": '"0"', **kept.meta})
        if is_head:
            return Answer(200)
        return _document(
            "ListBucketResult",
            f"<Name>{escape(bucket)}</Name><Prefix></Prefix><KeyCount>0</KeyCount>"
            "<MaxKeys>1000</MaxKeys><IsTruncated>false</IsTruncated>",
        )

    def _create(self, bucket: str, key: str) -> Answer:
        self._count += 1
        upload_id = f"u{self._count}"
        self._put_bounded(self._uploads, upload_id, {})
        return _document(
            "InitiateMultipartUploadResult", f"{_names(bucket, key)}<UploadId>{upload_id}</UploadId>"
        )

    def _multipart(self, request: Request, bucket: str, key: str, query: Mapping[str, str]) -> Answer:
        upload_id = query["uploadId"]
        parts = self._uploads.get(upload_id)
        if parts is None:
            return _error(404, "NoSuchUpload")
        if request.method == "PUT":
            parts[int(query.get("partNumber", "1"))] = request.length
            return Answer(200, fields={"ETag": '"0"'})
        if request.method == "GET":
            return _listed(bucket, key, upload_id, parts)
        del self._uploads[upload_id]
        if request.method == "DELETE":
            return Answer(204)
        return _document("CompleteMultipartUploadResult", f'{_names(bucket, key)}<ETag>"0"</ETag>')

    def _put_bounded(self, kept: OrderedDict[str, T], key: str, value: T) -> None:
        kept[key] = value
        if len(kept) > self._max_kept:
            kept.popitem(last=False)


def _names(bucket: str, key: str) -> str:
    return f"<Bucket>{escape(bucket)}</Bucket><Key>{escape(key)}</Key>"


def _listed(bucket: str, key: str, upload_id: str, parts: Mapping[int, int]) -> Answer:
    inner = "".join(
        f'<Part><PartNumber>{number}</PartNumber><ETag>"0"</ETag><Size>{size}</Size>'
        "<LastModified>2020-01-01T00:00:00.000Z</LastModified></Part>"
        for number, size in sorted(parts.items())
    )
    about = f"<UploadId>{upload_id}</UploadId><MaxParts>1000</MaxParts><IsTruncated>false</IsTruncated>"
    return _document("ListPartsResult", _names(bucket, key) + about + inner)


def _deleted(body: bytes) -> bytes:
    keys: Sequence[bytes] = [] if _QUIET.search(body) else _KEY.findall(body)  # escaped, and go back escaped
    inner = "".join(f"<Deleted><Key>{key.decode()}</Key></Deleted>" for key in keys)
    return f"{_XML}<DeleteResult>{inner}</DeleteResult>".encode()


def _document(name: str, inner: str) -> Answer:
    return Answer(200, f"{_XML}<{name}>{inner}</{name}>".encode())


def _error(status: int, code: str, more: str = "") -> Answer:
    return Answer(status, f"{_XML}<Error><Code>{code}</Code>{more}</Error>".encode())
