"""When an answer of S3 is believed: what it has to hold before a body counts as stored, a key as deleted, a listing as
all there is. For `storage.s3`.

A proxy, a captive portal or a broken gateway can answer 200 to anything. So a 200 alone says nothing:
- an XML answer has to be the document that was asked for, by the name of its root;
- the answer to a put has to have come after the body, with an `ETag` that is not that of an empty body, and with the
  CRC-32 of what was sent. A store that never tells the CRC-32 is asked for the object's size and `ETag` afterwards
  (HEAD); one that told it before and does not now is not believed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from storage.errors import StoreUnconfirmed

EMPTY_MD5 = "d41d8cd98f00b204e9800998ecf8427e"
_ROOTS = {
    "ListObjectsV2": (b"ListBucketResult",),
    "DeleteObjects": (b"DeleteResult",),
    "GetBucketLifecycleConfiguration": (b"LifecycleConfiguration",),
    "GetBucketVersioning": (
        b"VersioningConfiguration",
        b"GetBucketVersioningResponse",
    ),  # the second is moto's
}
_ROOT = re.compile(rb"\s*(?:<\?xml[^>]*\?>)?(?:\s|<!--.*?-->)*<(?:\w+:)?(\w+)", re.DOTALL)


def not_confirmed(subject: str, what: str) -> StoreUnconfirmed:
    """The error for an answer that says yes and is not believed."""
    return StoreUnconfirmed(
        f"{what}, so this does not count as done: look for a proxy between here and the store, or a store that answers"
        " before it has kept what it got",
        subject=subject,
    )


def require_root(operation_model: Any, response_dict: Mapping[str, Any], **_: Any) -> None:
    """A handler of botocore's `before-parse` event: an answer that says yes is the document that was asked for.

    Raises:
        StoreUnconfirmed: it is none.
    """
    wanted = _ROOTS.get(operation_model.name)
    if wanted is None or response_dict["status_code"] >= 300:
        return
    found = _ROOT.match(response_dict["body"])
    if found is None or found[1] not in wanted:
        raise not_confirmed(operation_model.name, f"the answer is no {wanted[0].decode()}")


@dataclass(frozen=True, slots=True)
class PutAnswer:
    """What a store said to a put.

    Attributes:
        etag: as it came, with quotes; empty when there is none.
        checksum: CRC-32 of what the store has, in base64; None when it does not tell.
        early: it came before the body had left.
    """

    etag: str
    checksum: str | None
    early: bool = False

    def why_not(self, size_bytes: int) -> str:
        """What makes this no answer of a store that has `size_bytes` bytes; empty when it may be one."""
        if self.early:
            return "the store answered 200 before it had the body"
        if not self.etag.strip('" '):
            return "the store answered 200 without an ETag"
        if size_bytes and self.etag.strip('"') == EMPTY_MD5:
            return "the store answered 200 with the ETag of an empty body"
        return ""
