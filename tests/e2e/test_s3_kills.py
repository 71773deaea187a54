"""SIGKILL of the service and of its S3 server under load: what was acknowledged is there afterwards (invariant 1).

`test_postgres_kills.py` kills both of them, and the catalog's server too, in every run of the suite.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.e2e.load import Acknowledged, Load, Uploader, assert_all_kept
from tests.e2e.service import COMMAND_S, Service, until
from tests.servers.seaweed import SeaweedServer

pytestmark = pytest.mark.e2e

BUCKET = "kills"
ROUNDS = 2


@pytest.mark.soak
def test_kills_of_service_and_store_lose_nothing(tmp_path: Path, seaweed: SeaweedServer) -> None:
    kept = Acknowledged()

    def acknowledge_some() -> None:
        before = len(kept.chunks)
        until(lambda: len(kept.chunks) >= before + 20, "chunks are acknowledged", COMMAND_S, every_s=0.02)

    seaweed.make_bucket(BUCKET)
    with Service(tmp_path, environ=seaweed.environ) as service:
        service.init("--store", f"s3://{BUCKET}/p")
        service.configure(segments_linger_ms=20, segments_target_bytes=1 << 20)
        devices = service.add_devices(4)
        service.start()
        ports = service.ingest[1], service.api[1]
        with Load([Uploader(service, device, kept) for device in devices]):
            for number in range(ROUNDS):
                acknowledge_some()
                time.sleep(0.2 * number / ROUNDS)  # another moment of the pipeline's each time
                seaweed.kill()
                if number % 2:
                    service.kill()  # both at once
                seaweed.start()
                if number % 2:
                    service.start(ports=ports)
                acknowledge_some()
                service.kill()
                service.start(ports=ports)
            acknowledge_some()
        assert_all_kept(service, kept)
        checked = service.command("check", "--deep")
        assert checked["broken"] == []
        assert checked["chunks"] >= len(kept.chunks)
        assert service.stop() == 0
    seaweed.remove_bucket(BUCKET)
