"""From the URL that a person writes to the store it names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from storage.errors import CallerError
from storage.local import LocalStore
from storage.objects import ObjectStore
from storage.urls import without_user


def open_store(url: str, *, environ: Mapping[str, str], create: bool = False) -> ObjectStore:
    """Open the store that `url` names.

    Args:
        url: `file:///absolute/folder` (percent-encoded where need be) or `s3://bucket/prefix` (the prefix may
            be empty).
        environ: read for `CLIPKEEP_S3_ENDPOINT`, else `AWS_ENDPOINT_URL_S3` or `AWS_ENDPOINT_URL`, and for
            `AWS_REGION` or `AWS_DEFAULT_REGION`, `CLIPKEEP_S3_PACING` and `CLIPKEEP_S3_CHECKSUMS` (`S3Store`).
            Credentials and profiles boto3 finds by itself, in the process's environment, its files, or the
            machine's role.
        create: make the folder of a `file:` store. Only for a new installation: anything else must notice
            that its disk is not mounted. A bucket is never created.

    Raises:
        CallerError: a URL that is neither (`bad_store_url`), or a setting that can't be used.
        StoreUnavailable, StoreDenied: a `file:` store that could not be made. No store is called otherwise.
    """
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise _refused(url, str(error)) from error
    if parts.query or parts.fragment:
        raise _refused(url, "no ? or # has a meaning in it; write them as %3F and %23")
    if parts.scheme == "file":
        return _local(url, parts, create)
    if parts.scheme == "s3":
        return _s3(url, parts, environ)
    raise _refused(url, "it is neither file:///folder nor s3://bucket/prefix")


def _local(url: str, parts: SplitResult, create: bool) -> ObjectStore:
    path = unquote(parts.path)
    if parts.netloc not in ("", "localhost") or not path.startswith("/") or "\0" in path:
        raise _refused(url, "a file URL has three slashes and an absolute path: file:///folder")
    return LocalStore(Path(path), create=create)


def _s3(url: str, parts: SplitResult, environ: Mapping[str, str]) -> ObjectStore:
    # Imported here: boto3 takes a fifth of a second, which a command on a local store need not wait for.
    from storage.s3 import S3Store

    if not parts.netloc or "@" in parts.netloc or ":" in parts.netloc:
        raise _refused(url, "an S3 URL names a bucket and nothing else before the prefix: s3://bucket/prefix")
    endpoint_url = _first(environ, "CLIPKEEP_S3_ENDPOINT", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
    if endpoint_url is not None and without_user(endpoint_url) != endpoint_url:
        # boto3 would not log in with them, and has the address in every error.
        raise CallerError(
            "the endpoint has credentials in it; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and leave them out",
            subject=without_user(endpoint_url),
            code="bad_endpoint",
        )
    return S3Store(
        parts.netloc,
        parts.path.strip("/"),
        endpoint_url=endpoint_url,
        region=_first(environ, "AWS_REGION", "AWS_DEFAULT_REGION"),
        pacing=_first(environ, "CLIPKEEP_S3_PACING") or "auto",
        checksums=_first(environ, "CLIPKEEP_S3_CHECKSUMS") or "auto",
    )


def _first(environ: Mapping[str, str], *names: str) -> str | None:
    """The first of these variables that is set to something."""
    return next((environ[name] for name in names if environ.get(name)), None)


def _refused(url: str, why: str) -> CallerError:
    return CallerError(f"not the URL of a store: {why}", subject=without_user(url), code="bad_store_url")
