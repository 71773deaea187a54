"""The store's own expiry rules: later than the sweep, nobody else's touched, the same when run again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from moto import mock_aws

from storage.errors import CallerError, StoreDenied
from storage.lifecycle import (
    MAX_RULES,
    difference,
    expires_old_versions,
    merged,
    wanted_rules,
)
from storage.s3 import S3Store

THEIRS = {
    "ID": "logs",
    "Filter": {"Prefix": "logs/"},
    "Status": "Enabled",
    "Expiration": {"Days": 5},
}
TAGGED = {
    "ID": "old things",
    "Filter": {"And": {"Prefix": "x/", "Tags": [{"Key": "a", "Value": "b"}]}},
    "Status": "Enabled",
    "NoncurrentVersionExpiration": {"NoncurrentDays": 3},
}


def days(rules: list[dict[str, Any]]) -> dict[str, int]:
    return {
        r["Filter"]["Prefix"]: r["Expiration"]["Days"] for r in rules if "Days" in r.get("Expiration", {})
    }


class TestRules:
    @pytest.mark.parametrize("prefix", ["", "deep/prefix/"])
    def test_later_than_the_sweep(self, prefix: str) -> None:
        """Invariant 3: a chunk lives at most class + 1 days after its PUT; S3 rounds up to midnight."""
        rules = wanted_rules(prefix, [30, 7, 7, 255], slack_days=3)
        assert days(rules) == {f"{prefix}v1/7/": 11, f"{prefix}v1/30/": 34, f"{prefix}v1/255/": 259}
        assert len({rule["ID"] for rule in rules}) == len(rules) == 4
        assert all(rule["Status"] == "Enabled" for rule in rules)

    def test_two_stores_in_one_bucket(self) -> None:
        for mine, other in (("", "a/"), ("a/", ""), ("a/", "a/b/"), ("a/b/", "a/")):
            found = wanted_rules(other, [7, 9], slack_days=3)
            change = difference(found, wanted_rules(mine, [7], slack_days=3), mine)
            assert (change.remove, change.change, change.others) == ((), (), len(found))

    def test_too_many(self) -> None:
        theirs = [{**THEIRS, "ID": str(number)} for number in range(MAX_RULES - 1)]
        assert len(merged(theirs, wanted_rules("", [], slack_days=3), "")) == MAX_RULES
        with pytest.raises(CallerError, match="1001 rules"):
            merged(theirs, wanted_rules("", [7], slack_days=3), "")

    def test_who_expires_old_versions(self) -> None:
        whole = {"ID": "w", "Filter": {}, "Status": "Enabled", "NoncurrentVersionExpiration": {}}
        assert expires_old_versions([whole], "p/")
        assert expires_old_versions(wanted_rules("p/", [], slack_days=1, noncurrent=True), "p/")
        for useless in (
            TAGGED,
            {**whole, "Status": "Disabled"},
            {**whole, "Filter": {"Prefix": "p/v1/7/"}},
            {**whole, "Filter": {"Prefix": "q/"}},
        ):
            assert not expires_old_versions([useless], "p/")


class TestOnS3:
    @pytest.fixture
    def client(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "test")
        with mock_aws():
            client = boto3.client("s3", region_name="us-east-1")
            client.create_bucket(Bucket="clips")
            yield client

    @pytest.fixture
    def store(self, client: Any) -> S3Store:
        return S3Store("clips", "deep", client=client)

    def test_a_bucket_without_rules(self, store: S3Store) -> None:
        assert store.lifecycle_rules() == []
        assert not store.keeps_old_versions()

    def test_what_is_put_comes_back_the_same(self, store: S3Store) -> None:
        """So that a second run finds nothing to do."""
        wanted = wanted_rules(store.key_prefix, [7, 30], slack_days=3, noncurrent=True)
        store.put_lifecycle_rules(merged([THEIRS, TAGGED], wanted, store.key_prefix))
        found = store.lifecycle_rules()
        assert [rule for rule in found if rule["ID"] in ("logs", "old things")] == [THEIRS, TAGGED]
        change = difference(found, wanted, store.key_prefix)
        assert change.empty
        assert (change.keep, change.others) == (4, 2)

    def test_a_change_and_a_removal(self, store: S3Store) -> None:
        prefix = store.key_prefix
        store.put_lifecycle_rules(merged([THEIRS], wanted_rules(prefix, [7, 9], slack_days=3), prefix))
        wanted = wanted_rules(prefix, [7, 30], slack_days=5)
        change = difference(store.lifecycle_rules(), wanted, prefix)
        assert [r["Filter"]["Prefix"] for r in change.add] == ["deep/v1/30/"]
        assert [(old["Expiration"], new["Expiration"]) for old, new in change.change] == [
            ({"Days": 11}, {"Days": 13})
        ]
        assert [r["Filter"]["Prefix"] for r in change.remove] == ["deep/v1/9/"]
        assert change.others == 1

    def test_no_rules_at_all(self, store: S3Store) -> None:
        store.put_lifecycle_rules([THEIRS])
        store.put_lifecycle_rules([])
        assert store.lifecycle_rules() == []

    def test_a_versioned_bucket(self, store: S3Store, client: Any) -> None:
        client.put_bucket_versioning(Bucket="clips", VersioningConfiguration={"Status": "Suspended"})
        assert store.keeps_old_versions()

    def test_a_missing_bucket_is_no_bucket_without_rules(self, client: Any) -> None:
        with pytest.raises(StoreDenied, match="NoSuchBucket"):
            S3Store("nowhere", "", client=client).lifecycle_rules()
