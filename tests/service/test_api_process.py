"""The API process, before it serves."""

from __future__ import annotations

from pathlib import Path

import pytest
import structlog
import trio

from ingest.stats import Stats
from service.api_process import ApiProcess, Prober
from service.folder import create_folder, open_folder
from service.metrics import publish
from storage.errors import CallerError, StoreUnavailable
from tests.servers.catalogs import empty_address


@pytest.mark.parametrize("name", ["MAIL", "MOBILE"])
def test_senders_that_are_none_are_told_and_nothing_is_served(tmp_path: Path, name: str) -> None:
    create_folder(
        tmp_path / "data",
        store_url=None,
        test_clock=False,
        environ={},
        catalog_address=empty_address(tmp_path / "data"),
    )
    with open_folder(tmp_path / "data", environ={f"CLIPKEEP_NOTICES_{name}": "carrier pigeon"}) as opened:
        with pytest.raises(CallerError) as caught:
            trio.run(ApiProcess(opened).run, "127.0.0.1", 0)
        assert caught.value.code == "bad_config"


async def test_strangers_learn_no_keys_and_no_words_of_the_store(tmp_path: Path) -> None:
    secret = "sweep/high-water at https://minio.internal: AccessDenied for AKIA123"
    create_folder(
        tmp_path / "data",
        store_url=None,
        test_clock=False,
        environ={},
        catalog_address=empty_address(tmp_path / "data"),
    )
    with open_folder(tmp_path / "data", environ={}) as opened:
        process = ApiProcess(opened)

        async def down() -> None:
            raise StoreUnavailable(secret)

        process._prober = Prober(down, lambda _: StoreUnavailable(secret))
        now_ms = opened.clock.now_ms()
        for name, problem in (("w0", f"store_denied: {secret}"), ("w1", f"brand_new: {secret}"), ("w2", "")):
            path = opened.folder.run / f"{name}.json"
            publish(path, Stats(), store_calls={}, now_ms=now_ms, problem=problem)
        with structlog.testing.capture_logs() as logs:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(process._prober.run)
                for _ in range(3):
                    problems = await process.ready()
                nursery.cancel_scope.cancel()
        assert problems.keys() == {"store_unavailable", "w0", "w1"}
        assert not any(word in text for text in problems.values() for word in ("minio", "AKIA", "sweep/"))
        assert "credentials" in problems["w0"]
        assert [entry["event"] for entry in logs] == ["not_ready"], "once, and the log has it all"
        assert secret in logs[0]["problems"]["w0"]
        metrics = await trio.to_thread.run_sync(process.metrics)
        assert b"minio" not in metrics
        assert b"clipkeep_api_held_bytes 0.0" in metrics
