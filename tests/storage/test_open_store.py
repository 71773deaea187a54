"""Store URLs: what opens, and what is refused with a reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from storage.contracts.store import put
from storage.errors import CallerError, StoreUnavailable
from storage.local import LocalStore
from storage.open_store import open_store
from storage.s3 import S3Store


def test_a_file_url_is_a_local_store(tmp_path: Path) -> None:
    url = f"file://{tmp_path}/with%20space"
    with pytest.raises(StoreUnavailable):
        open_store(url, environ={}).server_time_s()
    put(open_store(url, environ={}, create=True), "a", b"x")
    assert (tmp_path / "with space" / "a").read_bytes() == b"x"
    assert isinstance(open_store(url, environ={}), LocalStore)


@pytest.mark.parametrize(
    ("environ", "endpoint"),
    [
        (
            {"CLIPKEEP_S3_ENDPOINT": "http://127.0.0.1:9", "AWS_ENDPOINT_URL": "http://x"},
            "http://127.0.0.1:9",
        ),
        ({"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:8"}, "http://127.0.0.1:8"),
        (
            {"CLIPKEEP_S3_ENDPOINT": "", "AWS_REGION": "eu-central-1"},
            "https://s3.eu-central-1.amazonaws.com",
        ),
    ],
)
def test_an_s3_url_is_an_s3_store(
    environ: dict[str, str], endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    store = open_store("s3://bucket/some/prefix/", environ=environ)
    assert isinstance(store, S3Store)
    assert store._client.meta.endpoint_url == endpoint
    assert (store._bucket, store._prefix) == ("bucket", "some/prefix/")
    store.close()


@pytest.mark.parametrize(
    "url",
    [
        "",
        "objects",
        "/objects",
        "file:objects",
        "file://host/objects",
        "file://",
        "file:///a?b",
        "file:///a%00b",
        "s3://",
        "s3:///prefix",
        "s3://key:secret@bucket/prefix",
        "s3://bucket/../x",
        "s3://bucket/a b",
        "s3://bucket/" + "p" * 512,
        "gs://bucket/prefix",
        "http://[",
    ],
)
def test_anything_else_is_the_callers_fault(url: str, tmp_path: Path) -> None:
    with pytest.raises(CallerError):
        open_store(url, environ={"AWS_REGION": "us-east-1"}, create=True)


@pytest.mark.parametrize(("environ", "unpaced"), [({}, True), ({"CLIPKEEP_S3_PACING": "system"}, False)])
def test_the_pacing_is_read_from_the_environment(environ: dict[str, str], unpaced: bool) -> None:
    store = open_store("s3://bucket/p", environ={"AWS_REGION": "us-east-1", **environ})
    assert isinstance(store, S3Store)
    pools = store._client._endpoint.http_session._pool_classes_by_scheme
    assert {pool.ConnectionCls.unpaced_when_near for pool in pools.values()} == {unpaced}
    store.close()
    with pytest.raises(CallerError, match="auto, system"):
        open_store("s3://bucket/p", environ={"AWS_REGION": "us-east-1", "CLIPKEEP_S3_PACING": "fast"})


def test_an_unusable_endpoint_is_the_callers_fault() -> None:
    with pytest.raises(CallerError):
        open_store("s3://bucket/p", environ={"CLIPKEEP_S3_ENDPOINT": "no url", "AWS_REGION": "us-east-1"})
