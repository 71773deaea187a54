"""A real S3 server as the store: the main job on it, and what happens while it is away, is killed, or refuses."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.e2e.load import Acknowledged, Load, Uploader, assert_all_kept, chunk_body
from tests.e2e.service import COMMAND_S, Device, Reply, Service, until
from tests.servers.seaweed import SeaweedServer

pytestmark = pytest.mark.e2e


BUCKET = "clips"


@pytest.fixture
def s3(seaweed: SeaweedServer) -> Iterator[SeaweedServer]:
    """The server with an empty bucket; running again for the next test."""
    seaweed.make_bucket(BUCKET)
    try:
        yield seaweed
    finally:
        if not seaweed.running:
            seaweed.start()
        seaweed.resume()
        seaweed.remove_bucket(BUCKET)


@pytest.fixture
def on_s3(tmp_path: Path, s3: SeaweedServer) -> Iterator[Service]:
    with Service(tmp_path, environ=s3.environ) as service:
        yield service


DAY_MS = 86_400_000


def segments_on(s3: SeaweedServer) -> list[str]:
    """The keys of the objects that hold chunks; the numbers that were reserved have one of their own."""
    return [key for key in s3.object_keys(BUCKET) if "/v1/" in key]


def test_store_setup(on_s3: Service, s3: SeaweedServer) -> None:
    """The command itself: shown, written, the same at a second run; another's rule stays."""
    on_s3.init("--store", f"s3://{BUCKET}/some/prefix")
    client = s3.client()
    theirs = {"ID": "theirs", "Status": "Enabled", "Filter": {"Prefix": "logs/"}, "Expiration": {"Days": 9}}
    client.put_bucket_lifecycle_configuration(Bucket=BUCKET, LifecycleConfiguration={"Rules": [theirs]})

    def rules() -> dict[str, int]:
        found = client.get_bucket_lifecycle_configuration(Bucket=BUCKET)["Rules"]
        return {
            rule["Filter"]["Prefix"]: rule["Expiration"]["Days"] for rule in found if "Expiration" in rule
        }

    assert on_s3.command("store", "setup")["applied"] is False
    assert rules() == {"logs/": 9}
    done = on_s3.command("store", "setup", "--apply")
    assert (done["supported"], done["applied"], done["warnings"]) == (True, True, [])
    written = rules()
    assert written.pop("logs/") == 9
    assert len(written) >= 2, "one for each retention class"
    assert all(prefix.startswith("some/prefix/v1/") for prefix in written)
    for again in (on_s3.command("store", "setup"), on_s3.command("store", "setup", "--apply")):
        assert (again["add"], again["change"], again["remove"], again["warnings"]) == ([], [], [], [])
        assert rules() == {"logs/": 9, **written}
    client.close()


def test_upload_playback_sweep_and_check(on_s3: Service, s3: SeaweedServer) -> None:
    service = on_s3
    service.init("--test-clock", "--store", f"s3://{BUCKET}/some/prefix")
    service.configure(retention_expiry_slack_s=0, retention_delete_delay_s=1)
    now_ms = not_around_midnight_ms()
    three_days_ago_ms = now_ms - 3 * DAY_MS
    began = datetime.fromtimestamp(now_ms / 1000 - 10 * 86_400, UTC).date().isoformat()
    devices = service.add_devices(3, "monthly", "--retention-days", "3", "--starts-on", began)
    kept = Acknowledged()
    service.start(workers=2)
    assert service.problems() == {}
    with Load([Uploader(service, device, kept, first_ms=three_days_ago_ms) for device in devices]):
        until(lambda: len(kept.chunks) > 100, "chunks are acknowledged")
    assert_all_kept(service, kept)
    checked = service.command("check", "--deep")
    assert checked["broken"] == []
    assert checked["objects"] == len(segments_on(s3)) > 0
    assert all(key.startswith("some/prefix/") for key in s3.object_keys(BUCKET))

    tomorrow_ms = (now_ms // DAY_MS + 1) * DAY_MS
    service.command("clock", "--offset", f"{tomorrow_ms + 1000 - int(time.time() * 1000)}ms")
    expired = next(iter(kept.chunks))
    (token,) = service.viewer_tokens([expired[0]]).values()
    assert service.get(f"/v1/devices/{expired[0]}/chunks/{expired[1]}", token=token).status == 410
    # The store's own clock disagrees with the one that was moved, and a sweep must not trust either.
    refused = service.run("sweep")
    assert refused.returncode == 1
    assert "clock" in refused.stderr
    assert len(segments_on(s3)) == checked["objects"]
    service.configure(retention_max_clock_skew_s=86_400)
    assert service.command("sweep")["unindexed_chunks"] == checked["chunks"]

    def swept() -> bool:
        service.command("sweep")
        return s3.object_keys(BUCKET) == [
            f"some/prefix/sweep/{name}" for name in ("high-water", "home", "numbers")
        ]

    until(swept, "the objects are deleted")
    assert service.command("check", "--deep")["broken"] == []
    assert service.stop() == 0


def test_an_erasure_is_proved_on_s3(on_s3: Service, s3: SeaweedServer, tmp_path: Path) -> None:
    """Invariant 10: nothing that is left decrypts, the neighbour in the same objects does, a backup that was kept too
    long is found, and a restored one is erased anew."""
    service = on_s3
    service.init("--store", f"s3://{BUCKET}/some/prefix")
    service.configure(segments_linger_ms=500)
    gone, stays = service.add_devices(2, "monthly")
    service.start(workers=1)
    began_ms = int(time.time() * 1000)

    def upload(device: Device) -> list[int]:
        captures = [began_ms - 60_000 + 2000 * number for number in range(8)]
        return [service.put(device, ms, chunk_body(device.number, ms, 20)).status for ms in captures]

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(upload, (gone, stays))) == [[201] * 8] * 2
    backup = tmp_path / "backup"
    service.command("keys", "backup", "--to", str(backup))
    erased = service.command("device", "terminate", "--device", str(gone.number), "--reason", "x", "--erase")
    assert erased["destroyed_keys"] >= 1  # in the last week of a month, the next one's is there too
    service.command("sweep")
    verify = ("erasure", "verify", "--device", str(gone.number))
    proof = service.command(*verify)
    assert proof["holds"] is True
    assert (proof["chunks"], proof["own_keys"], proof["decrypted"]) == (8, 0, [])
    assert proof["neighbours"] > 0

    attacked = service.run(*verify, "--backup", str(backup), "--json")
    assert attacked.returncode == 1
    assert len(json.loads(attacked.stdout)["decrypted"]) == 8

    assert service.stop() == 0
    shutil.rmtree(service.data / "keys")
    backup.rename(service.data / "keys")
    assert service.run(*verify).returncode == 1
    assert service.command("sweep")["destroyed_keys"] == erased["destroyed_keys"]
    assert service.command(*verify)["holds"] is True
    [record] = service.command("erasure", "show", "--device", str(gone.number))["erasures"]
    assert (record["why"], record["who"], record["state"]) == ("terminated", "operator", "unindexed")


def not_around_midnight_ms() -> int:
    """The time; past midnight UTC if that is less than a minute away."""
    left_ms = -int(time.time() * 1000) % DAY_MS
    if left_ms < 60_000:
        time.sleep(left_ms / 1000 + 0.1)
    return int(time.time() * 1000)


def _put(service: Service, device: Device) -> Reply:
    now_ms = int(time.time() * 1000)
    return service.put(device, now_ms, chunk_body(device.number, now_ms, 50))


def _assert_refused(service: Service, device: Device) -> None:
    """Whoever uploads is told at once, and when to come again."""
    refused = _put(service, device)
    assert refused.status == 503
    assert refused.code in ("store_unavailable", "not_stored")
    assert int(refused.headers["Retry-After"]) > 0


def test_down_at_the_start(on_s3: Service, s3: SeaweedServer) -> None:
    service = on_s3
    service.init("--store", f"s3://{BUCKET}/p")
    (device,) = service.add_devices(1)
    s3.kill()
    service.start()
    ready = service.get("/readyz")
    assert ready.status == 503
    assert "store_unavailable" in service.problems()
    assert service.get("/healthz").status == 200
    _assert_refused(service, device)
    s3.start()
    until(lambda: not service.problems(), "it has healed by itself", COMMAND_S)
    until(lambda: _put(service, device).status == 201, "it takes chunks", COMMAND_S)
    assert service.stop() == 0


def test_down_later(on_s3: Service, s3: SeaweedServer) -> None:
    service = on_s3
    service.init("--store", f"s3://{BUCKET}/p")
    (device,) = service.add_devices(1)
    kept = Acknowledged()
    service.start()
    with Load([Uploader(service, device, kept)]):
        until(lambda: len(kept.chunks) > 20, "chunks are acknowledged")
        s3.kill()
        until(lambda: kept.answers[503], "uploads are refused", COMMAND_S)
        until(lambda: "store_unavailable" in service.problems(), "readyz says so", COMMAND_S)
        _assert_refused(service, device)
        (token,) = service.viewer_tokens([device.number]).values()
        listing = service.get(f"/v1/devices/{device.number}/recordings", token=token)
        assert listing.status == 200, "what needs no store is still answered"
        before = len(kept.chunks)
        s3.start()
        until(lambda: len(kept.chunks) > before + 20, "it has healed by itself", COMMAND_S)
        until(lambda: not service.problems(), "readyz says so", COMMAND_S)
    assert_all_kept(service, kept)
    s3.kill()
    began_s = time.monotonic()
    assert service.stop() == 0
    assert time.monotonic() - began_s < 20, "a store that is away holds up no stop"


def test_a_bucket_that_is_not_there(on_s3: Service, s3: SeaweedServer, tmp_path: Path) -> None:
    """Said by init, by readiness and in the log; and when somebody makes the bucket, all goes on."""
    service = on_s3
    refused = service.run("init", "--check-store", "--store", f"s3://{BUCKET}-lost/p")
    assert (refused.returncode, service.data.exists()) == (1, False)
    assert "NoSuchBucket" in refused.stderr
    warned = service.run("init", "--store", f"s3://{BUCKET}/p")
    assert (warned.returncode, warned.stderr) == (0, "")
    (device,) = service.add_devices(1)
    s3.remove_bucket(BUCKET)
    service.start()
    assert "store_denied" in service.problems()
    assert _put(service, device).status == 503
    until(lambda: _told(service, "not_ready", "NoSuchBucket"), "the log says so")
    swept = service.run("sweep")
    assert swept.returncode in (0, 1)
    checked = service.run("check")
    assert checked.returncode == 1
    assert "bucket" in checked.stderr
    s3.make_bucket(BUCKET)
    until(lambda: not service.problems(), "it has healed by itself", COMMAND_S)
    assert _put(service, device).status == 201
    until(lambda: _told(service, "ready_again"), "the log says so")
    assert service.stop() == 0


def test_wrong_credentials(on_s3: Service, s3: SeaweedServer) -> None:
    """A server that looks at signatures: what init, readiness and the log say, and the way back."""
    service = on_s3
    wrong = service.environ | {"AWS_SECRET_ACCESS_KEY": "not-the-secret"}
    right, service.environ = service.environ, wrong
    refused = service.run("init", "--check-store", "--store", f"s3://{BUCKET}/p")
    assert (refused.returncode, service.data.exists()) == (1, False)
    assert "correct AWS_SECRET_ACCESS_KEY" in refused.stderr
    warned = service.run("init", "--store", f"s3://{BUCKET}/p")
    assert warned.returncode == 0
    assert "every upload is refused" in warned.stderr
    assert "not-the-secret" not in warned.stderr
    service.environ = right
    (device,) = service.add_devices(1)
    service.environ = wrong
    service.start()
    assert "store_denied" in service.problems()
    assert _put(service, device).status == 503
    until(lambda: _told(service, "not_ready", "SignatureDoesNotMatch"), "the log says so")
    assert service.stop() == 0
    service.environ = right
    service.start()
    until(lambda: not service.problems(), "it is ready with the right secret", COMMAND_S)
    assert _put(service, device).status == 201
    assert service.stop() == 0


def _told(service: Service, *words: str) -> bool:
    return any(all(word in line for word in words) for line in service.lines)


def test_a_store_that_hangs(on_s3: Service, s3: SeaweedServer) -> None:
    """Neither readiness nor a stop waits for it much longer than their own bounds."""
    service = on_s3
    service.init("--store", f"s3://{BUCKET}/p")
    service.configure(ingest_stop_deadline_s=2)
    (device,) = service.add_devices(1)
    kept = Acknowledged()
    service.start()
    with Load([Uploader(service, device, kept)]):
        until(lambda: len(kept.chunks) > 20, "chunks are acknowledged")
        s3.pause()
        until(lambda: service.by_worker("clipkeep_ingest_budget_bytes").get("w0"), "chunks wait for it")
        began_s = time.monotonic()
        assert service.get("/healthz").status == 200
        assert service.get("/readyz").status == 503
        assert service.stop() == 0
        assert time.monotonic() - began_s < 20, (
            "a store call may take a minute to fail; nobody waits for that"
        )
    s3.resume()
    service.start()
    assert_all_kept(service, kept)
    assert service.stop() == 0
