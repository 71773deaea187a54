"""Workers for the server tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio
from structlog.testing import capture_logs

from ingest import server
from tests.ingest.served import Client, Worker, copy_template, make_template

Begin = Callable[..., Awaitable[Worker]]


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("template")
    make_template(folder)
    return folder


@pytest.fixture
async def begin(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Begin]:
    """Starts workers, of the fields that a test wants. Afterwards no connection has ended in an exception, and the
    budget was never exceeded and is all there again (invariant 15)."""
    monkeypatch.setattr(server, "REAP_EVERY_S", 0.02)
    workers: list[Worker] = []

    async def start(**fields: Any) -> Worker:
        folder = copy_template(template, tmp_path / f"data{len(workers)}")
        worker = Worker(folder, nursery, **fields)
        workers.append(worker)
        return await worker.start()

    with capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            yield start
            for worker in workers:
                for client in worker.clients:
                    await client.close()
                worker.server.stop()
            with trio.move_on_after(5):
                for worker in workers:
                    await worker.served.wait()
                    await worker.uploads.drain()
            nursery.cancel_scope.cancel()
    for worker in workers:
        worker.stack.close()
        assert worker.budget.peak_bytes <= worker.budget.total_bytes
        assert worker.budget.in_use_bytes == 0
    assert [log for log in logs if log["event"] == "connection_failed"] == []


@pytest.fixture
async def worker(begin: Begin) -> Worker:
    return await begin()


@pytest.fixture
async def client(worker: Worker) -> Client:
    return await worker.connect()
