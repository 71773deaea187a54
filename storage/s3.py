"""Objects in a bucket of S3 or of anything that speaks it.

Permissions: `s3:PutObject`, `s3:GetObject`, `s3:DeleteObject` on `bucket/prefix/*` and `s3:ListBucket` on the
bucket. Without `s3:ListBucket`, S3 answers 403 instead of 404 for an object that does not exist, and a
missing object then reads as `StoreDenied`.

How the bytes go out. A segment is sent from the bytearray it was packed in, without a copy and without a
hash pass over it. An ordinary put does not go through botocore: `storage._s3_put` sends what botocore would send, on
botocore's connections. The first one, and whatever is not ordinary, is botocore's (`storage.s3_client`).

Considerations:
- The bucket must not be versioned (or must expire noncurrent versions at once): on a versioned bucket a
  delete only hides the bytes. They are encrypted, so erasure holds; the space is not freed.
- An endpoint of one's own is addressed by path: `bucket.host` needs DNS and certificates few have.
- A put that failed may still take effect later: a server can finish what its client gave up on.
"""

from __future__ import annotations

import base64
import builtins
import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from typing import Any

import structlog
from botocore.exceptions import ClientError

from storage._arguments import checked_batch, checked_range
from storage._s3_put import CRC32, DIRECT_S, MD5, DirectPuts, Keys
from storage.errors import (
    CallerError,
    CorruptError,
    ObjectMissing,
    StoreDenied,
    StoreLacks,
    StoreUnavailable,
    WorldError,
)
from storage.objects import MAX_KEY_CHARS, ObjectInfo, ObjectStore, checked_key
from storage.s3_answers import PutAnswer, not_confirmed
from storage.s3_client import make_client
from storage.s3_errors import refuses_checksum, translated
from storage.s3_wire import LastSent

MAX_S3_KEY_BYTES = 1024
ADDRESSES = 8
"""Most addresses one name is tried at: what S3's name servers return; each costs a connect timeout."""
BACKOFF_CAP_S = 20.0
RETRY_AFTER_S = 5.0
"""botocore's standard mode waits up to 2^n s (at most the cap) after the n-th throttled attempt, and up to
this much longer when the server asks for it."""

PACINGS = ("auto", "system")
CHECKSUMS = ("auto", "crc32", "md5", "none")
SINGLE_DELETES_PER_S = 100.0
"""To a store without DeleteObjects: what one thread with 10 ms an answer makes anyway, and a thousand take 10 s."""
_log = structlog.get_logger("store")


class S3Store(ObjectStore):
    """An object store below a prefix of a bucket. Threads may share it.

    Args:
        bucket: its name; it must exist.
        prefix: what all keys begin with, without slashes at the ends; may be empty.
        endpoint_url: of a server other than AWS.
        region: of the bucket; boto3's own sources when None, and us-east-1 beside an endpoint.
        max_connections: kept open, and so the number of calls in flight worth having.
        connect_timeout_s: to reach one address; the TLS handshake gets as long again.
        read_timeout_s: for the body to leave, and then for each part of the answer to come.
        attempts: of one call, in all; of a put, those beside the direct one (`storage._s3_put`).
        pacing: `auto`: to a store on the same site, the kernel's bbr makes way for cubic, which costs less CPU
            (`storage.s3_wire.unpace_when_near`). `system`: every connection is as the system has it.
        checksums: with which a body is put. `auto`: its CRC-32; where the store refuses that, its MD5 from then on.
            `crc32`: nothing else. `md5`: `Content-MD5`, which costs a pass over the body. `none`: none.
        client: a ready client instead, for tests; the settings above are then the caller's to match.
        sleep: how the pace of single deletes waits, in s.

    Raises:
        CallerError: a prefix or an endpoint that cannot be used.
    """

    def __init__(
        self,
        bucket: str,
        prefix: str,
        *,
        endpoint_url: str | None = None,
        region: str | None = None,
        max_connections: int = 32,
        connect_timeout_s: float = 3.0,
        read_timeout_s: float = 20.0,
        attempts: int = 3,
        pacing: str = "auto",
        checksums: str = "auto",
        client: Any = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if prefix and len(checked_key(prefix)) + 1 + MAX_KEY_CHARS > MAX_S3_KEY_BYTES:
            raise CallerError("the prefix leaves too little room for keys", subject=prefix, code="bad_prefix")
        if pacing not in PACINGS:
            raise CallerError(f"the pacing is one of {', '.join(PACINGS)}", subject=pacing, code="bad_pacing")
        if checksums not in CHECKSUMS:
            which = ", ".join(CHECKSUMS)
            raise CallerError(f"the checksums are one of {which}", subject=checksums, code="bad_checksums")
        self._checksums = checksums
        self._puts_as = "crc32" if checksums == "auto" else checksums
        self._tells_checksums = False
        self._deletes_singly = False
        self._sleep = sleep
        self._bucket = bucket
        self._prefix = prefix + "/" if prefix else ""
        self._connect_timeout_s = connect_timeout_s
        self._read_timeout_s = read_timeout_s
        self._attempts = attempts
        last = self._last = LastSent()
        self._direct = DirectPuts(last, min(DIRECT_S, read_timeout_s))
        if client is None:
            client = make_client(
                endpoint_url,
                region,
                last,
                max_connections=max_connections,
                connect_timeout_s=connect_timeout_s,
                read_timeout_s=read_timeout_s,
                attempts=attempts,
                unpaced_when_near=pacing == "auto",
            )
        self._client = client

    @property
    def put_bound_s(self) -> float:
        """The longest that a `put` can take, in seconds.

        The direct attempt, and then each of botocore's: every address of the name refuses to answer until the
        last, then the handshake, the body, the answer, each to the end of its timeout. One attempt more than
        configured, for a redirect to the bucket's region, and the longest waits between them. Not in it, because
        nothing here bounds them: the resolver's own time, fetching of credentials, and a server that sends botocore
        its answer byte by byte.
        """
        attempt_s = (ADDRESSES + 1) * self._connect_timeout_s + 2 * self._read_timeout_s
        waits_s = sum(min(2.0**n, BACKOFF_CAP_S) + RETRY_AFTER_S for n in range(self._attempts - 1))
        return (self._attempts + 1) * attempt_s + waits_s + min(DIRECT_S, self._read_timeout_s)

    # The interface

    def put(self, key: str, body: bytearray, crc32: int) -> None:
        """As promised by `ObjectStore.put`; takes at most `put_bound_s`. An empty body is an object of 0
        bytes.

        Raises:
            StoreUnconfirmed: an answer that says yes and is not believed.
        """
        checksum = base64.b64encode(crc32.to_bytes(4, "big")).decode("ascii")
        with translated(checked_key(key)):
            if self._puts_as == "crc32":
                try:
                    answer = self._put(key, body, CRC32, checksum)
                except ClientError as error:
                    if self._checksums != "auto" or not refuses_checksum(error.response):
                        raise
                    answer = self._put_without(key, body, error)
            else:
                answer = self._put(key, body, MD5, self._md5(body))
        self._require_stored(key, len(body), checksum, answer)

    def _put(self, key: str, body: bytearray, name: str, checksum: str) -> PutAnswer:
        """Put once, with this checksum or with none where it is empty."""
        keys = self._keys()
        direct = self._direct.put(key, body, checksum, keys, name)
        if direct is not None:
            return direct
        sent = {CRC32: "ChecksumCRC32", MD5: "ContentMD5"}[name]
        answer = self._client.put_object(
            Bucket=self._bucket, Key=self._prefix + key, Body=body, **({sent: checksum} if checksum else {})
        )
        early, self._last.early = self._last.early, False
        stored = PutAnswer(answer.get("ETag", ""), answer.get("ChecksumCRC32"), early)
        if not stored.why_not(len(body)):
            self._direct.learn(key, keys)
        return stored

    def _put_without(self, key: str, body: bytearray, refusal: ClientError) -> PutAnswer:
        """The one try without `x-amz-checksum-*`, for a store that knows none. When it succeeds, all follow it."""
        try:
            answer = self._put(key, body, MD5, self._md5(body))
        except ClientError:
            raise refusal from None
        self._go_without(refusal)
        return answer

    def _go_without(self, refusal: ClientError) -> None:
        """From now on nothing carries `x-amz-checksum-*`: the store refused it, and took the same without."""
        self._puts_as = "md5"
        self._tells_checksums = False  # nobody need tell what was not sent
        self._direct.forget()
        said = refusal.response.get("Error", {})
        _log.warning(
            "store_takes_no_checksum", code=said.get("Code"), said=said.get("Message"), instead="md5"
        )

    def _md5(self, body: bytearray) -> str:
        if self._puts_as == "none":
            return ""
        return base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode("ascii")

    def _require_stored(self, key: str, size_bytes: int, checksum: str, answer: PutAnswer) -> None:
        """Believe the answer to a put, or not (`storage.s3_answers`)."""
        if why := answer.why_not(size_bytes):
            raise not_confirmed(key, why)
        if answer.checksum is not None:
            if answer.checksum != checksum:
                raise CorruptError(
                    f"the store computed another CRC-32 ({answer.checksum}) than was sent ({checksum})",
                    subject=key,
                    code="bad_digest",
                )
            self._tells_checksums = True
            return
        if self._tells_checksums:
            raise not_confirmed(key, "the store answered 200 without the checksum that it told until now")
        try:
            found = self._head(key)
        except ObjectMissing as error:
            raise not_confirmed(key, "the store answered 200 and does not have the object") from error
        if (found["ContentLength"], found["ETag"]) != (size_bytes, answer.etag):
            raise not_confirmed(
                key,
                f"the store answered 200 for {size_bytes} bytes with ETag {answer.etag}, and has"
                f" {found['ContentLength']} with {found['ETag']}",
            )

    def get_range(self, key: str, start: int, length: int) -> bytes:
        checked_range(key, start, length)
        if length == 0:  # HTTP has no empty range
            return self._empty_range(key, start)
        for _ in range(2):  # once more, for a proxy may have cut one answer
            data = self._get(key, start, length)
            if data is not None:
                return data
            size_bytes = self.head(key).size_bytes
            if size_bytes < start + length:
                raise CorruptError(
                    f"{length} bytes were asked for from {start}, and the object has {size_bytes}",
                    subject=key,
                    code="short_object",
                )
        raise StoreUnavailable(
            f"the store has the {length} bytes from {start} and answered with others: look for a proxy between here and"
            " the store, or a store that ignores ranges",
            subject=key,
            code="wrong_range",
        )

    def _get(self, key: str, start: int, length: int) -> bytes | None:
        """Ask for a range once. None when the answer is another one: whose fault that is, the object's size tells."""
        with self._missing_only_if_sure(), translated(key, of_object=True):
            answer = self._client.get_object(
                Bucket=self._bucket, Key=self._prefix + key, Range=f"bytes={start}-{start + length - 1}"
            )
            body = answer["Body"]
            try:
                # Looked at before the body is read: a server that ignores ranges sends the whole object.
                begins = answer.get("ContentRange", "bytes 0-").startswith(f"bytes {start}-")
                if answer.get("ContentLength") != length or not begins:
                    return None
                data: bytes = body.read()
                return data
            finally:
                body.close()

    def delete_many(self, keys: Sequence[str]) -> dict[str, str | None]:
        """As promised by `ObjectStore.delete_many`; a key's error code is S3's, or `Unconfirmed` for a key
        that the answer does not mention."""
        distinct = checked_batch(keys)
        if not distinct:
            return {}
        if not self._deletes_singly:
            try:
                return self._delete_at_once(distinct)
            except StoreLacks as error:
                self._deletes_singly = True
                _log.warning("store_lacks_delete_objects", detail=str(error), keys_per_s=SINGLE_DELETES_PER_S)
        return {key: self._delete_one(key, number) for number, key in enumerate(distinct)}

    def _delete_at_once(self, distinct: Sequence[str]) -> dict[str, str | None]:
        objects = [{"Key": self._prefix + key} for key in distinct]
        with translated(f"{len(distinct)} keys from {distinct[0]}"):
            try:
                answer = self._delete_objects(objects, bare=self._puts_as != "crc32")
            except ClientError as error:
                if (
                    self._checksums != "auto"
                    or self._puts_as != "crc32"
                    or not refuses_checksum(error.response)
                ):
                    raise
                answer = self._delete_objects(objects, bare=True)
                self._go_without(error)
        said: dict[str, str | None] = {entry["Key"]: None for entry in answer.get("Deleted", ())}
        for entry in answer.get("Errors", ()):
            code = entry.get("Code") or "Unknown"
            said[entry.get("Key", "")] = None if code == "NoSuchKey" else code
        return {key: said.get(self._prefix + key, "Unconfirmed") for key in distinct}

    def _delete_objects(self, objects: builtins.list[dict[str, str]], bare: bool) -> dict[str, Any]:
        """DeleteObjects. `bare`: its body has no checksum but its MD5."""
        self._last.bare = bare
        try:
            answer: dict[str, Any] = self._client.delete_objects(
                Bucket=self._bucket, Delete={"Objects": objects, "Quiet": False}
            )
        finally:
            self._last.bare = False
        return answer

    def _delete_one(self, key: str, number: int) -> str | None:
        """The result of one key, for a store without DeleteObjects. Paced: each is a request of its own."""
        if number:
            self._sleep(1 / SINGLE_DELETES_PER_S)
        try:
            with translated(key, of_object=True):
                answer = self._client.delete_object(Bucket=self._bucket, Key=self._prefix + key)
        except ObjectMissing:
            return None
        except WorldError as error:
            if not number:  # nothing was deleted, and the next would fare no better
                raise
            return error.code
        return None if answer["ResponseMetadata"]["HTTPStatusCode"] == 204 else "Unconfirmed"

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """As promised by `ObjectStore.list`, in pages of 1000."""
        with translated(prefix):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=self._prefix + prefix
            )
            for page in pages:
                for entry in page.get("Contents", ()):
                    if not entry["Key"].startswith(self._prefix + prefix):
                        continue  # SeaweedFS reads two slashes as one, and lists what was not asked for
                    key = entry["Key"][len(self._prefix) :]
                    yield ObjectInfo(key, entry["Size"], entry["LastModified"].timestamp())

    def head(self, key: str) -> ObjectInfo:
        checked_key(key)
        answer = self._head(key)
        return ObjectInfo(key, answer["ContentLength"], answer["LastModified"].timestamp())

    def _head(self, key: str) -> dict[str, Any]:
        with self._missing_only_if_sure(), translated(key, of_object=True):
            answer: dict[str, Any] = self._client.head_object(Bucket=self._bucket, Key=self._prefix + key)
        if missing := {"ContentLength", "ETag", "LastModified"} - answer.keys():
            raise not_confirmed(key, f"the store told of an object without its {', '.join(sorted(missing))}")
        return answer

    def server_time_s(self) -> float | None:
        """The `Date` of HeadBucket's answer (whole seconds), or of a listing of one key where a policy
        refuses HeadBucket."""
        try:
            with translated(self._bucket):
                answer = self._client.head_bucket(Bucket=self._bucket)
        except StoreDenied:  # also where the bucket is missing: unlike a HEAD, this answer says so
            with translated(self._bucket):
                answer = self._client.list_objects_v2(Bucket=self._bucket, Prefix=self._prefix, MaxKeys=1)
        return _date_s(answer["ResponseMetadata"]["HTTPHeaders"].get("date", ""))

    def verifies(self, key: str) -> bool:
        """Whether the store refuses a body that is not what its checksum says. Puts one, below `key`, and deletes it.

        Raises:
            WorldError: it could not be asked.
        """
        wrong = {"crc32": {"ChecksumCRC32": "AAAAAA=="}, "md5": {"ContentMD5": "1B2M2Y8AsgTpgAmY7PhCfg=="}}
        try:
            with translated(checked_key(key)):
                self._client.put_object(
                    Bucket=self._bucket,
                    Key=self._prefix + key,
                    Body=b"not what was promised",
                    **wrong.get(self._puts_as, {}),
                )
        except CorruptError:
            return True
        self.delete_many([key])
        return False

    # The bucket's own settings: for `clipkeep store setup`, with `s3:GetLifecycleConfiguration`,
    # `s3:PutLifecycleConfiguration` and `s3:GetBucketVersioning`.

    @property
    def key_prefix(self) -> str:
        """What all keys in the bucket begin with: empty, or with a slash at its end."""
        return self._prefix

    def lifecycle_rules(self) -> builtins.list[dict[str, Any]]:
        """The rules of the bucket, whoever made them, as S3 tells them."""
        found: builtins.list[dict[str, Any]] = self._lifecycle().get("Rules", [])
        return found

    def put_lifecycle_rules(self, rules: builtins.list[dict[str, Any]]) -> None:
        """Put these rules in place of all that the bucket has. S3 knows no condition for this: between reading and
        putting, nobody else should change them."""
        named = {"Bucket": self._bucket}
        if not rules:
            with translated(self._bucket):
                self._client.delete_bucket_lifecycle(**named)
            return
        setting = "TransitionDefaultMinimumObjectSize"  # beside the rules, and not ours
        named |= {name: value for name, value in self._lifecycle().items() if name == setting}
        with translated(self._bucket):
            self._client.put_bucket_lifecycle_configuration(**named, LifecycleConfiguration={"Rules": rules})

    def keeps_old_versions(self) -> bool:
        """Whether the bucket is, or was, versioned: then a delete only hides the bytes."""
        with translated(self._bucket):
            return bool(self._client.get_bucket_versioning(Bucket=self._bucket).get("Status"))

    def _lifecycle(self) -> dict[str, Any]:
        with translated(self._bucket):
            try:
                answer: dict[str, Any] = self._client.get_bucket_lifecycle_configuration(Bucket=self._bucket)
            except ClientError as error:
                if error.response.get("Error", {}).get("Code") != "NoSuchLifecycleConfiguration":
                    raise
                return {}
            return answer

    def close(self) -> None:
        self._direct.close()
        self._client.close()

    def _keys(self) -> Keys | None:
        """The client's credentials as they are now, refreshed if need be. What that raises, its calls raise too."""
        credentials = self._client._request_signer._credentials
        return None if credentials is None else credentials.get_frozen_credentials()

    @contextmanager
    def _missing_only_if_sure(self) -> Iterator[None]:
        """A bare 404 says little: a HEAD has no error body, and a proxy's 404 is not the bucket's. So ask
        whether the bucket is there before an object is called missing; that should be rare enough."""
        try:
            yield
        except ObjectMissing:
            self.server_time_s()
            raise

    def _empty_range(self, key: str, start: int) -> bytes:
        size_bytes = self.head(key).size_bytes
        if start > size_bytes:
            raise CorruptError(
                f"has {size_bytes} bytes, none can be read from {start}", subject=key, code="short_object"
            )
        return b""


def _date_s(date: str) -> float | None:
    try:
        return parsedate_to_datetime(date).timestamp()
    except ValueError:
        return None
