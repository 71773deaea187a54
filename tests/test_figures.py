"""Figures that stand in more than one place are the same in all of them, and those of defaults are the defaults."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml
from argon2 import PasswordHasher
from argon2.profiles import RFC_9106_LOW_MEMORY

from ingest.packing import FEW_CHUNKS, FEW_CHUNKS_STRETCH, buffer_bytes
from service.config import Config
from storage.catalog.reports import MAX_SWEEP_REPORTS
from storage.days import MS_PER_DAY
from storage.s3 import S3Store
from storage.sqlite.schema import REVISION, SCHEMA_VERSION

ROOT = Path(__file__).parents[1]
MIB = 1 << 20
CONFIG = Config()


def text(name: str) -> str:
    return (ROOT / name).read_text()


def one(pattern: str, name: str) -> tuple[str, ...]:
    """What the pattern finds in a file: there is one place, and it says this."""
    found = re.findall(pattern, text(name))
    assert len(found) == 1, f"{name}: {pattern}: {found}"
    return found[0] if isinstance(found[0], tuple) else (found[0],)


def cells(row: str) -> list[str]:
    return [cell.strip() for cell in row.strip().strip("|").split("|")]


def test_readme_has_the_benchmarks_figures() -> None:
    rows = [cells(line) for line in text("docs/benchmarks.md").splitlines() if "| **clipkeep** |" in line]
    measured = {size: (rate.split()[0], cpu, calls) for size, _, rate, cpu, calls, *_ in rows}
    claimed = [cells(line) for line in text("README.md").splitlines() if "MB/s |" in line]
    assert [row[0] for row in claimed] == ["1 MiB", "256 KiB", "64 KiB"]
    for size, rate, cpu, *_, calls in claimed:
        assert (rate.removesuffix(" MB/s"), cpu, calls) == measured[size]


def test_readme_has_the_figure_of_idle_connections() -> None:
    (claimed,) = one(r"2,000 idle\nkeep-alive connections cost (\d+) MB", "README.md")
    (measured,) = one(r"\| 2,000 idle connections \| \+([\d.]+) MB", "docs/benchmarks.md")
    assert abs(float(claimed) - float(measured)) <= 0.5


def test_formats_names_the_schema_of_this_release() -> None:
    (version,) = one(r"`user_version` (\d+); `alembic", "docs/formats.md")
    (revision,) = one(r"the same schema's revision, (\d+)\.", "docs/formats.md")
    assert (int(version), revision) == (SCHEMA_VERSION, REVISION)


def test_formats_names_every_table_of_the_catalog() -> None:
    made = {
        name
        for path in (
            "sqlite/schema.py",
            "sqlite/books_schema.py",
            "postgres/schema.py",
            "postgres/copying.py",
        )
        for name in re.findall(r"CREATE TABLE (\w+) \(", text(f"storage/{path}"))
    }
    assert len(made) > 30
    said = text("docs/formats.md").partition("## Catalog (")[2].partition("## High-water mark")[0]
    assert {name for name in made if f"`{name}`" not in said} == set()


# --- memory -------------------------------------------------------------------------------------------------------


def needed_bytes() -> tuple[int, int, int, int]:
    """(MiB of a segment, MB besides, KB of a connection, KB more of one that reads nothing), as operations.md says."""
    rest, segment, connection, unread = one(
        r"at most: (\d+) MB \+ `budget_bytes` \+ `segments\.max_segments` × (\d+) MiB \+ (\d+) KB for each connection,"
        r" and (\d+) KB more",
        "docs/operations.md",
    )
    return int(segment), int(rest), int(connection), int(unread)


def test_a_workers_memory_is_the_same_everywhere() -> None:
    segment, rest, connection, _ = needed_bytes()
    pattern = r"at most: (\d+) MB \+ (\d+) KB × connections \+ `budget_bytes` \+ `max_segments` × (\d+) MiB"
    assert one(pattern, "docs/benchmarks.md") == (str(rest), str(connection), str(segment))
    buffer = buffer_bytes(round(CONFIG.segments.target_bytes * FEW_CHUNKS_STRETCH))
    assert buffer <= segment * MIB < buffer + MIB


def test_the_kubernetes_limit_is_what_workers_need() -> None:
    segment, rest, connection, unread = needed_bytes()
    documents = yaml.safe_load_all(text("deploy/kubernetes/clipkeep.yaml"))
    [deployment] = [found for found in documents if found["kind"] == "Deployment"]
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    words: list[Any] = container["args"]
    workers = int(words[words.index("--workers") + 1])
    a_worker = CONFIG.ingest.budget_bytes + CONFIG.segments.max_segments * segment * MIB + rest * 10**6
    a_worker += CONFIG.ingest.max_connections * (connection + unread) * 10**3
    (others,) = one(r"and (\d+) MB for API and supervisor", "docs/benchmarks.md")
    others_bytes = int(others) * 10**6 + CONFIG.api.max_bytes_held
    limit = container["resources"]["limits"]["memory"]
    assert limit.endswith("Gi")
    assert int(limit.removesuffix("Gi")) << 30 >= workers * a_worker + others_bytes
    assert int(container["resources"]["requests"]["cpu"]) >= workers


# --- segments and chunks --------------------------------------------------------------------------------------------


def test_the_size_of_objects() -> None:
    target = CONFIG.segments.target_bytes // MIB
    stretched = round(target * FEW_CHUNKS_STRETCH)
    said = rf"\({target} MiB; {stretched} MiB of fewer than {FEW_CHUNKS} chunks\)"
    one(said, "docs/design.md")
    one(rf"The buffer holds {stretched} MiB and 1 MiB;", "docs/design.md")
    one(rf"`linger`\n   \({CONFIG.segments.linger_ms} ms\)", "docs/design.md")
    one(rf"──{target}–{stretched} MiB objects▶", "README.md")
    metadata = type(CONFIG.segments).__dataclass_fields__["target_bytes"].metadata
    assert f"fewer than {FEW_CHUNKS} chunks" in metadata["doc"]


def test_the_size_of_a_chunk() -> None:
    one(rf"1 byte to {CONFIG.ingest.max_chunk_bytes // MIB} MiB \|", "docs/design.md")


def test_the_way_of_a_chunk() -> None:
    """README names the files in the order of design.md's drawing."""
    drawn = re.findall(r"(\w+\.py)", text("docs/design.md").partition("## 3. The way of a chunk")[2][:900])
    (way,) = one(r"(?s)A chunk's way is (.*?storage/`)", "README.md")
    named = re.findall(r"(\w+)\.py", way)
    assert named
    assert [name[:-3] for name in dict.fromkeys(drawn) if name[:-3] in named] == named
    assert all((ROOT / "ingest" / f"{name}.py").exists() for name in named)


# --- times, counts and other defaults ------------------------------------------------------------------------------


def test_a_put_is_bounded_as_the_documents_say() -> None:
    pattern = r"over twice the longest a put can take: (\d+) s fits the S3 settings \(at most (\d+) s\)"
    ttl, worst = one(pattern, "docs/operations.md")
    assert float(ttl) == CONFIG.segments.prepare_ttl_s
    assert round(S3Store("bucket", "", region="us-east-1").put_bound_s) == int(worst)
    assert CONFIG.segments.prepare_ttl_s >= 2 * int(worst)


def test_when_a_day_ends() -> None:
    minutes = round(CONFIG.retention.expiry_slack_s / 60)
    one(
        rf"a day ends at 00:{minutes:02} UTC \(\[retention\] expiry_slack_s\)", "deploy/kubernetes/sweep.yaml"
    )
    one(rf"sweeps at 20 past each hour \(a day ends at 00:{minutes:02} UTC\)", "docs/operations.md")
    assert minutes < 20


def test_defaults_that_stand_in_operations() -> None:
    name = "docs/operations.md"
    assert one(r"`\[retention\] key_backup_days`\*\* \((\d+)\)", name) == (
        str(CONFIG.retention.key_backup_days),
    )
    assert one(r"the account is younger than (\d+) days", name) == (
        str(CONFIG.agreement.min_account_age_days),
    )
    assert one(r"the newest (\d+) are kept", name) == (str(MAX_SWEEP_REPORTS),)
    assert MS_PER_DAY == 24 * 3600 * 1000


def test_what_a_password_costs() -> None:
    hasher = PasswordHasher.from_parameters(RFC_9106_LOW_MEMORY)
    memory, passes = one(r"Argon2id with (\d+) MiB and (\d+) passes", "docs/operations.md")
    assert (int(memory) << 10, int(passes)) == (hasher.memory_cost, hasher.time_cost)
    doc = type(CONFIG.agreement).__dataclass_fields__["hash_threads"].metadata["doc"]
    assert f"{memory} MiB each" in doc


def test_how_long_things_take_is_said_once_or_alike() -> None:
    assert len(re.findall(r"all tests, \d+ minutes", text("Makefile"))) == 1
    for name in ("README.md", "docs/design.md", "docs/operations.md", "CHANGELOG.md"):
        assert not re.search(r"make test`?[^\n.]*\b\d+ minutes", text(name)), name
    (bench,) = set(re.findall(r"under (\d+) minutes", text("Makefile") + text("docs/benchmarks.md")[:600]))
    assert bench == "5"
    assert "half a minute" in text("Makefile")
    one(r"`make native` \(half a minute", "docs/design.md")


def test_what_objects_cost() -> None:
    """The table of operations.md fits the rule above it, and the prices its chunks."""
    table = text("docs/operations.md").partition("### What objects cost")[2].partition("\nAn answer")[0]
    (dollars,) = re.findall(r"\$([\d.]+) for 1000 puts", table)
    (chunk_s,) = re.findall(r"every (\d+) s from each", table)
    (default,) = re.findall(r"at (\d+) ms \(default\)", table)
    assert int(default) == CONFIG.segments.linger_ms
    rows = [
        [float(cell.lstrip("$")) for cell in cells(line)]
        for line in table.splitlines()
        if line[:3].strip("| ").isdigit()
    ]
    assert len(rows) == 3
    for cameras, *pairs in rows:
        for linger_s, chunks, price in ((0.1, *pairs[:2]), (1.0, *pairs[2:])):
            expected = (
                1 + cameras / int(chunk_s) * linger_s if cameras > 1 else 1
            )  # alone it waits for its answer
            assert abs(chunks - expected) <= 0.1 * expected
            puts = 30 * 86400 / int(chunk_s) / chunks
            assert abs(price - puts / 1000 * float(dollars)) < 0.006
    doc = type(CONFIG.segments).__dataclass_fields__["linger_ms"].metadata["doc"]
    assert "one camera alone makes one a chunk" in doc
    assert "a camera alone makes one object per chunk" in text("README.md")
