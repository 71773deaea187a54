"""The page for those who program cameras says what the ingest port answers, and within which limits."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ingest.answers import unplayable
from service.config import Config

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "api.md").read_text().partition("\n# The ingest port\n")[2]
KIB, MIB = 1 << 10, 1 << 20
UNITS = {"": 1.0, "s": 1.0, "h": 1.0, "bytes/s": 1.0, "KiB": float(KIB), "MiB": float(MIB)}


def answered() -> set[tuple[str, str]]:
    """(status, code) of every refusal that stands in the sources of the ingest port."""
    sources = "\n".join(path.read_text() for path in (ROOT / "ingest").rglob("*.py"))
    found = set(re.findall(r'\bAnswer\(\s*(\d{3}),\s*"(\w+)"', sources))
    words = ("header", "frames", "init", "clear", "codec")
    found |= {(str(said.status), said.code) for said in (unplayable(word, "") for word in words)}
    assert {("413", "too_large"), ("401", "bad_token"), ("503", "not_stored")} <= found
    return found


def section(title: str) -> str:
    text = PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    assert text, title
    return text


def test_every_code_is_explained_and_no_other() -> None:
    tables = section("Answers") + section("Uploads that go on where they broke")
    rows = [line.split("|")[1] for line in tables.splitlines() if line.startswith("| `")]
    assert set(re.findall(r"`(\d{3}) (\w+)`", " ".join(rows))) == answered()


def test_the_contract_has_every_code() -> None:
    contract = (ROOT / "docs" / "design.md").read_text()
    port = contract.partition("**Ingest port.**")[2].partition("**API port.**")[0]
    assert not {code for _, code in answered() if not re.search(rf"\b{code}`", port)}


@pytest.mark.parametrize("row", [line for line in section("Limits").splitlines() if line.endswith("` |")])
def test_every_limit_is_the_default(row: str) -> None:
    *_, said, keys, _ = row.split("|")
    section_name, _, key = keys.strip().strip("`").partition(".")
    value = getattr(getattr(Config(), section_name), key)
    if said.strip() == "no limit":
        assert value == 0
        return
    number, _, unit = said.strip().partition(" ")
    assert float(number) * UNITS[unit] == value
    for name, more in re.findall(r"`ingest\.(\w+)` \((\d+) s\)", row):
        assert getattr(Config().ingest, name) == float(more)


def test_the_camera_line_is_explained_option_by_option() -> None:
    line = (ROOT / "README.md").read_text().partition("\nffmpeg -re ")[2].partition(".m3u8")[0]
    explained = section("ffmpeg as a camera")
    for option in re.findall(r" (-[a-z_]+)", line):
        if option not in ("-i", "-map", "-c", "-f"):
            assert option in explained, option
    for option in re.findall(r"[\":]([a-z_]+)=", line):
        assert f"{option}=" in explained, option
