"""The commands about the end of recordings: keys, erasures, the store's own rules, the list of sweeps."""

from __future__ import annotations

import json
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws

from service.folder import open_folder
from service.metrics import render
from storage.catalog.reports import MAX_SWEEP_REPORTS
from storage.errors import StoreDenied, StoreLacks
from storage.s3 import S3Store
from storage.vault import KeyId
from tests.retention.world import NOON, World
from tests.servers.postgres import any_binaries, postgres_server
from tests.service.test_cli import Run, data, made, run

__all__ = ["data", "made", "run"]


class TestKeys:
    def test_rotate_and_show_without_secrets(self, run: Run, made: Path) -> None:
        with open_folder(made) as opened:
            secret = opened.vault.token_secret
        before = run("keys", "show", "--data", made, "--json").document
        rotated = run("keys", "rotate", "--data", made, "--json").document
        after = run("keys", "show", "--data", made, "--json").document
        [old], [new] = before["wrapping_keys"], after["wrapping_keys"]
        assert rotated["destroyed_wrapping_keys"] == [old["id"]]
        assert (rotated["wrapping_key"], new["current"]) == (new["id"], True)
        assert (after["keys"], after["rotation_unfinished"], rotated["resumed"]) == (0, False, False)
        assert after["rotated_days_ago"] < 1
        assert secret.hex() not in json.dumps([before, rotated, after])
        assert "last rotated" in run("keys", "show", "--data", made).out

    def test_backup_says_when_it_must_go(self, run: Run, made: Path, tmp_path: Path) -> None:
        done = run("keys", "backup", "--to", tmp_path / "copy", "--data", made)
        assert done.code == 0
        assert "delete it by" in done.out
        assert stat.S_IMODE((tmp_path / "copy").stat().st_mode) == 0o700
        assert run("keys", "backup", "--to", tmp_path / "copy", "--data", made, "--json").error == (
            "key_store_exists"
        )


class TestErasure:
    @pytest.fixture
    def erased(self, run: Run, made: Path) -> int:
        assert (
            run("device", "terminate", "--device", 1, "--reason", "Mr X left", "--erase", "--data", made).code
            == 0
        )
        assert run("sweep", "--data", made).code == 0
        return 1

    def test_list_and_show(self, run: Run, made: Path, erased: int) -> None:
        [row] = run("erasure", "list", "--data", made, "--json").document["erasures"]
        [same] = run("erasure", "show", "--device", erased, "--data", made, "--json").document["erasures"]
        assert row == same
        assert (row["device"], row["why"], row["who"], row["state"]) == (
            1,
            "terminated",
            "operator",
            "unindexed",
        )
        assert "Mr X" not in json.dumps(row)
        assert "terminated" in run("erasure", "list", "--data", made).out
        assert "why: terminated" in run("erasure", "show", "--device", erased, "--data", made).out

    def test_cleared_by_a_later_sweep(self, run: Run, made: Path, erased: int) -> None:
        """Invariant 10: `[retention] key_backup_days` after the keys."""
        for days, state in (("6d", "unindexed"), ("1d", "cleared")):
            run("clock", "--advance", days, "--data", made)
            assert run("sweep", "--data", made).code == 0
            [row] = run("erasure", "list", "--data", made, "--json").document["erasures"]
            assert row["state"] == state

    def test_verify_is_written_down(self, run: Run, made: Path, erased: int) -> None:
        done = run("erasure", "verify", "--device", erased, "--data", made, "--json")
        assert (done.code, done.document["holds"]) == (0, True)
        [row] = run("erasure", "show", "--device", erased, "--data", made, "--json").document["erasures"]
        assert row["verified"] is not None
        assert row["verified_how"].startswith("0 chunks in 0 objects")

    def test_verify_fails_when_something_decrypts(self, run: Run, data: Path) -> None:
        data.mkdir()
        with World(data, local=True) as world:
            device = world.add()
            world.keep([(device, NOON)])
            world.vault.backup(data / "copy")
            world.terminate(device, erase=True)
            world.vault.destroy_device(device, below_epoch=1)
        (data / "config.toml").write_text("")
        verify = ("erasure", "verify", "--device", device, "--data", data)
        assert run(*verify).code == 0
        done = run(*verify, "--backup", data / "copy")
        assert done.code == 1
        assert f"DECRYPTS  device {device} at {NOON}" in done.out
        assert "1 keys of device 1 are left" in done.out

    def test_nothing_was_erased(self, run: Run, made: Path) -> None:
        for words in ("show", "verify"):
            assert run("erasure", words, "--device", 1, "--data", made, "--json").error == "not_found"


class TestSweeps:
    def test_who_why_and_what_it_saved(self, run: Run, made: Path) -> None:
        run("device", "terminate", "--device", 1, "--reason", "test", "--erase", "--data", made)
        run("sweep", "--data", made)
        [report] = run("sweeps", "--data", made, "--json").document["sweeps"]
        assert report["who"].startswith("uid ")
        assert report["saved_per_month"] == 0.0
        assert "1 devices terminated" in run("sweeps", "--data", made).out

    def test_money(self, run: Run, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        data.mkdir()
        with World(data, local=True) as world:
            world.keep([(world.add(), NOON)])
            size = next(world.store.inner.list("")).size_bytes
        (data / "config.toml").write_text("[clock]\ntest = true\n")
        monkeypatch.setenv("CLIPKEEP_RETENTION_PRICE_PER_GB_MONTH", "1000.0")
        run("sweep", "--accept-clock", "--data", data)  # a year after what the folder was made at
        run("clock", "--advance", "2h", "--data", data)
        run("sweep", "--data", data)
        newest = run("sweeps", "--limit", 1, "--data", data, "--json").document["sweeps"][0]
        assert newest["deleted_bytes"] == size
        assert newest["saved_per_month"] == pytest.approx(size / 1e6)

    def test_failed_ones_are_kept_and_counted(self, run: Run, made: Path) -> None:
        with open_folder(made) as opened, opened.bitmap.locked():
            opened.bitmap.raise_segment_high_water(10_000)
        for _ in range(2):
            assert run("sweep", "--data", made, "--json").error == "catalog_restored"
        failed = run("sweeps", "--data", made, "--json").document["failed"]
        assert [failure["code"] for failure in failed] == ["catalog_restored"] * 2
        assert "catalog_restored" in run("sweeps", "--data", made).out
        with open_folder(made) as opened:
            assert "clipkeep_sweep_failures 2.0" in metrics(opened)

    def test_reports_are_bounded(self, made: Path) -> None:
        with open_folder(made) as opened:
            for number in range(MAX_SWEEP_REPORTS + 3):
                opened.catalog.record_sweep({"number": number, "finished_ms": 0}, now_ms=number)
                opened.catalog.note_failed_sweep("x", "y" * 9999, now_ms=number)
            kept = opened.catalog.sweep_reports(limit=10_000)
            assert [r["number"] for r in kept] == list(range(MAX_SWEEP_REPORTS + 2, 2, -1))
            assert len(opened.catalog.failed_sweeps(limit=10_000)) == MAX_SWEEP_REPORTS
            assert opened.catalog.failures_since_success() == 1


def metrics(opened: Any) -> str:
    return render(opened.folder.run, opened.catalog, opened.clock, {}).decode()


def test_metrics_of_the_end(run: Run, made: Path) -> None:
    with open_folder(made) as opened:
        assert "clipkeep_sweep_lag_seconds" not in metrics(opened), "nothing is said of what never was"
    run("device", "terminate", "--device", 1, "--reason", "test", "--erase", "--data", made)
    with open_folder(made) as opened:
        assert 'clipkeep_open_erasures{state="keys destroyed"} 1.0' in metrics(opened)
    run("sweep", "--data", made)
    with open_folder(made) as opened:
        text = metrics(opened)
    assert 'clipkeep_open_erasures{state="unindexed"} 1.0' in text
    for line in (
        *("clipkeep_sweep_failures 0.0", "clipkeep_sweep_held_back_devices 0.0"),
        *("clipkeep_sweep_key_store_failed 0.0", "clipkeep_oldest_undeleted_seconds 0.0"),
        "clipkeep_failing_deletes 0.0",
    ):
        assert line in text
    [stamp] = [line for line in text.splitlines() if line.startswith("clipkeep_sweep_last_success")]
    assert float(stamp.split()[1]) > 1.7e9


class TestStoreSetup:
    @pytest.fixture
    def bucket(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "test")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        with mock_aws():
            client = boto3.client("s3")
            client.create_bucket(Bucket="clips")
            yield client

    def test_a_local_store_has_nothing_to_set_up(self, run: Run, made: Path) -> None:
        done = run("store", "setup", "--apply", "--data", made)
        assert done.code == 0
        assert "nothing to set up" in done.out

    def test_shown_then_written_then_nothing_to_do(self, run: Run, made: Path, bucket: Any) -> None:
        """Touches no rule of others."""
        theirs = {"ID": "x", "Filter": {"Prefix": "x/"}, "Status": "Enabled", "Expiration": {"Days": 1}}
        rules = {"Bucket": "clips"}
        bucket.put_bucket_lifecycle_configuration(**rules, LifecycleConfiguration={"Rules": [theirs]})
        setup = ("store", "setup", "--store", "s3://clips/home", "--data", made)
        done = run(*setup)
        assert "home/v1/7/ Days 11" in done.out
        assert "--apply" in done.out
        assert bucket.get_bucket_lifecycle_configuration(**rules)["Rules"] == [theirs]
        document = run(*setup, "--apply", "--json").document
        assert [rule["Filter"]["Prefix"] for rule in document["add"]] == [
            *("home/v1/7/", "home/v1/30/", "home/v1/")
        ]
        found = bucket.get_bucket_lifecycle_configuration(**rules)["Rules"]
        assert found[0] == theirs
        assert len(found) == 4
        again = run(*setup, "--apply", "--json").document
        assert (again["add"], again["change"], again["remove"]) == ([], [], [])
        assert (again["kept"], again["others"]) == (3, 1)

    def test_a_plan_of_another_retention_gets_its_rule(self, run: Run, made: Path, bucket: Any) -> None:
        setup = ("store", "setup", "--store", "s3://clips", "--apply", "--json", "--data", made)
        run(*setup)
        run("device", "add", "--plan", "annual", "--retention-days", 90, "--data", made)
        assert [r["Expiration"] for r in run(*setup).document["add"]] == [{"Days": 94}]

    def test_what_a_store_takes_is_written_and_the_rest_told(
        self, run: Run, made: Path, bucket: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """MinIO takes no rule that aborts uploads, and refuses the whole document for it."""
        put = S3Store.put_lifecycle_rules

        def as_minio(store: S3Store, rules: list[dict[str, Any]]) -> None:
            if any("AbortIncompleteMultipartUpload" in rule for rule in rules):
                raise StoreDenied("the store refused (InvalidArgument: no such action)", subject="clips")
            put(store, rules)

        monkeypatch.setattr(S3Store, "put_lifecycle_rules", as_minio)
        theirs = {"ID": "x", "Filter": {"Prefix": "x/"}, "Status": "Enabled", "Expiration": {"Days": 1}}
        rules = {"Bucket": "clips"}
        bucket.put_bucket_lifecycle_configuration(**rules, LifecycleConfiguration={"Rules": [theirs]})
        done = run("store", "setup", "--store", "s3://clips", "--apply", "--data", made)
        assert done.code == 0
        assert "does not take a rule that aborts incomplete uploads" in done.err
        found = bucket.get_bucket_lifecycle_configuration(**rules)["Rules"]
        assert [rule["Filter"]["Prefix"] for rule in found] == ["x/", "v1/7/", "v1/30/"]

        def denied(store: S3Store, rules: object) -> None:
            raise StoreDenied("the store refused (AccessDenied)", subject="clips")

        monkeypatch.setattr(S3Store, "put_lifecycle_rules", denied)
        done = run("store", "setup", "--store", "s3://clips", "--apply", "--data", made)
        assert (done.code, "AccessDenied" in done.err) == (1, True), "what takes no rule at all is an error"

    def test_a_store_without_expiry_rules(
        self, run: Run, made: Path, bucket: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def lacks(store: S3Store) -> None:
            raise StoreLacks("the store does not have what it was asked for (501)", subject="clips")

        monkeypatch.setattr(S3Store, "lifecycle_rules", lacks)
        done = run("store", "setup", "--store", "s3://clips", "--data", made)
        assert (done.code, "has no expiry rules" in done.out) == (0, True)

    def test_a_store_that_is_not_there_is_said_at_init(self, run: Run, tmp_path: Path, bucket: Any) -> None:
        done = run("init", "--store", "s3://nobucket/x", "--data", tmp_path / "a")
        assert done.code == 0
        assert "NoSuchBucket" in done.err
        assert "every upload is refused" in done.err
        document = run("init", "--store", "s3://nobucket/x", "--json", "--data", tmp_path / "b").document
        assert "store_denied" in document["store_problem"]
        sound = run("init", "--store", "s3://clips/x", "--json", "--data", tmp_path / "c")
        assert (sound.document["store_problem"], sound.err) == (None, "")

    def test_a_store_is_tried_before_anything_is_made(self, run: Run, tmp_path: Path, bucket: Any) -> None:
        data = tmp_path / "tried"
        done = run("init", "--check-store", "--store", "s3://nobucket/x", "--data", data)
        assert (done.code, "store_unfit" in done.err, data.exists()) == (1, True, False)
        assert "NoSuchBucket" in done.err

    def test_old_versions(self, run: Run, made: Path, bucket: Any) -> None:
        setup = ("store", "setup", "--store", "s3://clips", "--apply", "--data", made)
        # The server of these tests looks at no checksum, which is told.
        [ignores] = run(*setup).err.splitlines()
        assert "not what its checksum says" in ignores
        bucket.put_bucket_versioning(Bucket="clips", VersioningConfiguration={"Status": "Enabled"})
        assert "--expire-old-versions" in run(*setup).err
        assert run(*setup, "--expire-old-versions").err.splitlines() == [ignores]
        assert run(*setup, "--json").document["kept"] == 4, "asked for once, it stays"


class TestBaseBackups:
    def test_verify_attacks_a_base_backup_of_the_vault(self, run: Run, data: Path, tmp_path: Path) -> None:
        """A real one, of a running server: destroyed keys are in its raw files, wrapped, until a rotation is over."""
        with postgres_server(any_binaries()) as server:
            assert run("init", "--vault", server.url(), "--data", data).code == 0
            assert run("device", "add", "--count", 2, "--data", data).code == 0
            with open_folder(data) as opened:
                opened.vault.ensure([KeyId(device, 0, 202601) for device in (1, 2)])
            shutil.copy2(data / "keys" / "master.key", tmp_path / "old.key")
            gone = run(
                "device", "terminate", "--device", 1, "--erase", "--reason", "x", "--data", data, "--json"
            )
            assert gone.document["destroyed_keys"] == 1
            first, second = server.folder / "first", server.folder / "second"
            server.run("pg_basebackup", "-D", str(first), "-X", "stream", "-c", "fast")
            verify = ("erasure", "verify", "--device", 1, "--data", data)
            assert run(*verify).code == 0
            done = run(*verify, "--backup", first)
            assert (done.code, "1 keys of device 1 are left" in done.out) == (1, True)
            assert run("keys", "rotate", "--data", data).code == 0
            server.run("pg_basebackup", "-D", str(second), "-X", "stream", "-c", "fast")
            assert run(*verify, "--backup", first, "--backup", second).code == 0
            old = ("--master-key", tmp_path / "old.key")
            done = run(*verify, "--backup", first, *old, "--json")
            assert (done.code, done.document["own_keys"]) == (1, 1)
            (tmp_path / "tar").mkdir()
            (tmp_path / "tar" / "backup_manifest").write_text("{}")
            assert run(*verify, "--backup", tmp_path / "tar", "--json").error == "bad_backup"


class TestReasons:
    def test_why_a_device_was_changed_is_in_the_history_and_sealed(self, run: Run, made: Path) -> None:
        for words in ("suspend", "resume", "new-token"):
            why = f"Mrs Miller of Long Lane: {words}"
            assert run("device", words, "--device", 1, "--reason", why, "--data", made).code == 0
        events = run("account", "events", "--account", 1, "--data", made, "--json").document["events"]
        assert [(row["what"], row["why"]) for row in events][-3:] == [
            ("device_suspended", "Mrs Miller of Long Lane: suspend"),
            ("device_resumed", "Mrs Miller of Long Lane: resume"),
            ("token_renewed", "Mrs Miller of Long Lane: new-token"),
        ]
        assert not any(b"Long Lane" in path.read_bytes() for path in made.glob("catalog.db*"))
