"""botocore's client for `storage.s3`: its settings, its signer, the connections that it sends over. The only file that
knows boto3.

Of what botocore does all this takes five things (read in its source, kept by tests/storage/test_s3.py), so that a body
is sent without a copy and without a hash pass over it:
- the caller's CRC-32 goes as `ChecksumCRC32`, so that botocore computes none (and S3 verifies ours);
- `payload_signing_enabled: False`, else the signer reads the whole body for SHA-256;
- a bytearray as the body: `memoryview` is refused, and a file object is read in slices and gets `Expect: 100-continue`,
  which waits up to a second for an answer before the body. A bytearray gets no `Expect`, so that there is no
  handler to remove;
- the signer in Python: where awscrt is installed botocore signs with that, which copies the body into a
  stream that nobody reads (2.8 instead of 2.1 ms of CPU for 8 MiB, and the memory);
- a send timeout of its own, see `storage.s3_wire`.

`DeleteObjects` carries `Content-MD5` beside the CRC-32 that boto3 sends since 1.36, because MinIO until 2025, CubeFS
and others insist on it. S3 takes both. The body is at most 600 KB: a millisecond.
"""

from __future__ import annotations

import base64
import hashlib
from functools import partial
from typing import Any

import boto3
from botocore.auth import AUTH_TYPE_MAPS, S3SigV4Auth
from botocore.awsrequest import (
    AWSHTTPConnection,
    AWSHTTPConnectionPool,
    AWSHTTPSConnection,
    AWSHTTPSConnectionPool,
)
from botocore.config import Config
from botocore.exceptions import BotoCoreError

from storage.errors import CallerError
from storage.s3_answers import require_root
from storage.s3_wire import LastSent, PatientConnection, RememberingPool

_PLAIN_SIGNER = "clipkeep-s3v4"


def make_client(
    endpoint_url: str | None,
    region: str | None,
    last: LastSent,
    *,
    max_connections: int,
    connect_timeout_s: float,
    read_timeout_s: float,
    attempts: int,
    unpaced_when_near: bool,
) -> Any:
    """A client, for all threads. Arguments as `storage.s3.S3Store` has them.

    Args:
        last: where its connections note what they sent, and whether a call is to go without a checksum.

    Raises:
        CallerError: an endpoint that cannot be used.
    """
    config = Config(
        connect_timeout=connect_timeout_s,
        read_timeout=read_timeout_s,
        max_pool_connections=max_connections,
        retries={"mode": "standard", "total_max_attempts": attempts},
        # Our own CRC-32 where it matters, no pass over the body elsewhere.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        tcp_keepalive=True,
        # Each of these saves a tenth of a call: our arguments are well formed, and the name is not made
        # anew from thirty components, twice a call.
        parameter_validation=False,
        user_agent="clipkeep",
        s3={
            "payload_signing_enabled": False,
            "addressing_style": "path" if endpoint_url else "auto",
        },
    )
    # A session of its own: sessions are not thread-safe, and the default one is everybody's.
    session = boto3.session.Session()
    if endpoint_url and region is None and session.region_name is None:
        region = "us-east-1"  # what servers of one's own sign with unless told otherwise
    try:
        client = session.client("s3", region_name=region, endpoint_url=endpoint_url, config=config)
    except (BotoCoreError, ValueError) as error:
        raise CallerError(f"S3 can't be used like this: {error}", subject=endpoint_url or "") from error
    # An entry of our own in botocore's table of signers, so that no other client is affected.
    AUTH_TYPE_MAPS[_PLAIN_SIGNER] = S3SigV4Auth
    events = client.meta.events
    events.register("choose-signer.s3", _sign_without_copy)
    events.register("before-call.s3.DeleteObjects", _add_content_md5)
    events.register("before-call.s3.DeleteObjects", partial(_leave_checksum_out, last))
    events.register("before-parse.s3", require_root)
    _prepare_connections(client, last, read_timeout_s, unpaced_when_near)
    return client


def _prepare_connections(client: Any, last: LastSent, send_timeout_s: float, unpaced_when_near: bool) -> None:
    # botocore's public configuration has none of this. Should these names move, this line fails at once.
    pools = client._endpoint.http_session._pool_classes_by_scheme
    settings = {"send_timeout_s": send_timeout_s, "unpaced_when_near": unpaced_when_near, "last": last}
    for scheme, pool, connection in (
        ("http", AWSHTTPConnectionPool, AWSHTTPConnection),
        ("https", AWSHTTPSConnectionPool, AWSHTTPSConnection),
    ):
        patient = type("Patient", (PatientConnection, connection), settings)
        pools[scheme] = type("PatientPool", (RememberingPool, pool), {"ConnectionCls": patient, "last": last})


def _sign_without_copy(signature_version: object, **_: Any) -> str | None:
    """Other versions (unsigned, S3 Express, multi-region) stay as they are."""
    return _PLAIN_SIGNER if signature_version in ("s3v4", "v4") else None


def _add_content_md5(params: dict[str, Any], **_: Any) -> None:
    digest = hashlib.md5(params["body"], usedforsecurity=False).digest()
    params["headers"]["Content-MD5"] = base64.b64encode(digest).decode("ascii")


def _leave_checksum_out(last: LastSent, params: dict[str, Any], **_: Any) -> None:
    """A handler of botocore's `before-call` event, where the checksum is chosen and not yet computed."""
    if last.bare:
        params["context"].pop("checksum", None)
        params["headers"].pop("x-amz-sdk-checksum-algorithm", None)
