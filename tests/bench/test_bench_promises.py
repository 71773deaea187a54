"""A bench refuses to measure a service that breaks a promise, and says which settings were changed."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from bench import promises
from bench.errors import BenchError
from bench.promises import check_promises
from bench.stage import null_store
from storage.sqlite import SqliteCatalog
from tests.bench.test_bench_load import read_request, serving

GOOD = {b"forged": 401, b"digest": 422, b"old": 403}


def service(answers: dict[bytes, int]) -> Callable[[socket.socket], None]:
    """A stand-in for the ingest port, which tells the checks of admission apart."""

    def handle(sock: socket.socket) -> None:
        while (request := read_request(sock)) is not None:
            head, _ = request
            kind = b"good"
            if b"Bearer SEVEN" not in head:
                kind = b"forged"
            elif b"Content-Digest" in head:
                kind = b"digest"
            elif not seen:
                kind = b"old"
                seen.append(True)
            status = answers.get(kind, 201)
            sock.sendall(f"HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n".encode())

    seen: list[bool] = []
    return handle


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ({}, "a forged token was answered 201"),
        ({**GOOD, b"old": 201}, "a day without a plan was answered 201"),
        ({**GOOD, b"digest": 201}, "a wrong digest was answered 201"),
        ({**GOOD, b"good": 503}, "a good chunk was answered 503"),
    ],
)
def test_a_service_that_does_not_refuse_is_not_measured(
    answers: dict[bytes, int], words: str, tmp_path: Path
) -> None:
    with (
        null_store(tmp_path, (), 0.0) as store,
        serving(service(answers)) as target,
        pytest.raises(BenchError, match=words),
    ):
        check_promises(target, store.port, tmp_path, {})


def test_an_ack_without_a_row_is_not_measured(tmp_path: Path) -> None:
    SqliteCatalog.create(tmp_path / "catalog.db").close()
    with (
        null_store(tmp_path, (), 0.0) as store,
        serving(service(GOOD)) as target,
        pytest.raises(BenchError, match="not in the catalog"),
    ):
        check_promises(target, store.port, tmp_path, {})


def test_an_ack_without_an_object_is_not_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    SqliteCatalog.create(tmp_path / "catalog.db").close()
    monkeypatch.setattr(SqliteCatalog, "chunk", lambda *_: "a row")
    monkeypatch.setattr(promises, "SAMPLE_WAIT_S", 0.1)
    with (
        null_store(tmp_path, (), 0.0) as store,
        serving(service(GOOD)) as target,
        pytest.raises(BenchError, match="no object reached the store"),
    ):
        check_promises(target, store.port, tmp_path, {})


def test_the_catalog_must_be_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    SqliteCatalog.create(tmp_path / "catalog.db").close()
    promises._check_catalog(tmp_path)
    monkeypatch.setattr(promises, "SYNCHRONOUS_FULL", 3)
    with pytest.raises(BenchError, match="synchronous=2"):
        promises._check_catalog(tmp_path)


def test_changed_settings_are_told(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('[store]\nurl = "s3://bench/x"\n')
    assert promises._settings_line(tmp_path, {}) == "settings: the defaults of `serve`"
    changed = promises._settings_line(tmp_path, {"CLIPKEEP_SEGMENTS_LINGER_MS": "7"})
    assert changed == "settings changed: segments.linger_ms=7"
