"""Whose fault an error is that botocore raises, or that a store answers: one of ours for each. For `storage.s3`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
    TokenRetrievalError,
    UnauthorizedSSOTokenError,
)
from botocore.parsers import ResponseParserError
from urllib3.exceptions import HTTPError

from storage.errors import (
    CallerError,
    ClipkeepError,
    CorruptError,
    ObjectMissing,
    StoreDenied,
    StoreFull,
    StoreLacks,
    StoreUnavailable,
)

_THROTTLED = frozenset(
    {
        "SlowDown",
        "SlowDownRead",
        "SlowDownWrite",
        "Throttling",
        "ThrottlingException",
        "RequestLimitExceeded",
        "TooManyRequests",
        "TooManyRequestsException",
        "BandwidthLimitExceeded",
    }
)
# S3 itself never fills up; these are MinIO's, Ceph's (a 403) and RustFS's words for it.
_FULL = frozenset(
    {"QuotaExceeded", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded", "XRustfsQuotaExceeded"}
)
_LACKING = frozenset({"NotImplemented", "MethodNotAllowed"})
_TRANSIENT = frozenset({"RequestTimeout", "RequestTimeoutException", "IncompleteBody", "OperationAborted"})
_NO_CREDENTIALS = (
    NoCredentialsError,
    PartialCredentialsError,
    CredentialRetrievalError,
    TokenRetrievalError,
    UnauthorizedSSOTokenError,
)
_DIGEST = frozenset(
    {"BadDigest", "InvalidDigest", "XAmzContentChecksumMismatch", "XAmzContentSHA256Mismatch"}
)
"""What stores say when the body is not what its checksum says."""
_WHAT_TO_DO = {
    "InvalidArgument": "the store does not take this; it may lack what was asked for",
    "InvalidRequest": "the store does not take this; it may lack what was asked for",
    "MalformedXML": "the store does not take this; it may lack what was asked for",
    "NoSuchBucket": "create the bucket or correct its name",
    "InvalidAccessKeyId": "the access key is unknown to this store: correct AWS_ACCESS_KEY_ID",
    "SignatureDoesNotMatch": "the secret does not belong to the access key: correct AWS_SECRET_ACCESS_KEY",
    "ExpiredToken": "the session's credentials have expired: renew them",
    "RequestTimeTooSkewed": "this machine's clock differs from the store's: synchronise it",
    "PermanentRedirect": "the bucket is in another region: set AWS_DEFAULT_REGION to it",
    "AuthorizationHeaderMalformed": "the region is wrong: set AWS_DEFAULT_REGION to the bucket's",
}


@contextmanager
def translated(subject: str, *, of_object: bool = False) -> Iterator[None]:
    """Run calls of botocore's client; what they raise leaves as one of ours.

    Args:
        subject: what they are about: a key, a prefix, the bucket.
        of_object: a 404 is a missing object.
    """
    try:
        yield
    except ClientError as error:
        raise _from_answer(error, subject, of_object) from error
    except _NO_CREDENTIALS as error:
        raise StoreDenied(
            f"no usable credentials ({error}): set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile or a role",
            subject=subject,
        ) from error
    except ParamValidationError as error:
        raise CallerError(f"S3 can't be asked this: {error}", subject=subject) from error
    except (BotoCoreError, ResponseParserError, HTTPError, OSError) as error:  # the last two: reading a body
        raise StoreUnavailable(f"the store did not answer: {error}", subject=subject) from error


def _from_answer(error: ClientError, subject: str, of_object: bool) -> ClipkeepError:
    """Whose fault an error answer is. Some servers know few codes, so the status decides what a code does not."""
    answer = error.response
    code = str(answer.get("Error", {}).get("Code", ""))
    status = int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    said = f"{code or status}: {answer.get('Error', {}).get('Message') or 'no message'}"
    if code in _FULL or status == 507:
        return StoreFull(f"no space left ({said}): free some or raise the quota", subject=subject)
    if code in _THROTTLED or status == 429:
        return StoreUnavailable(
            f"the store asks for fewer requests ({said})", subject=subject, code="slow_down"
        )
    if code in _LACKING or status in (405, 501):
        return StoreLacks(f"the store does not have what it was asked for ({said})", subject=subject)
    if code in _TRANSIENT or status >= 500 or status in (0, 408, 409):
        return StoreUnavailable(f"the store failed ({said})", subject=subject)
    if code in _DIGEST:
        return CorruptError(f"the store received other bytes ({said})", subject=subject, code="bad_digest")
    if code == "InvalidRange" or status == 416:
        return CorruptError(
            f"the object ends before the range ({said})", subject=subject, code="short_object"
        )
    if of_object and (code == "NoSuchKey" or (status == 404 and code != "NoSuchBucket")):
        return ObjectMissing("no such object", subject=subject)
    what_to_do = _WHAT_TO_DO.get(code, "check the credentials, the bucket and its policy")
    return StoreDenied(f"the store refused ({said}): {what_to_do}", subject=subject)


def refuses_checksum(answer: Mapping[str, Any]) -> bool:
    """Whether an error answer to a put may mean that the store knows no `x-amz-checksum-*`. Backblaze B2 says
    `InvalidArgument`, others that it is not implemented. One that found another checksum knows them."""
    error = answer.get("Error", {})
    if error.get("Code") in _DIGEST:
        return False
    status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return status in (400, 501) and (
        error.get("Code") in ("InvalidArgument", "InvalidRequest", "NotImplemented")
        or "checksum" in str(error.get("Message", "")).lower()
    )
