"""The house stays as docs/design.md §2 draws it: who may import whom, and one file for each foreign library."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("storage", "retention", "ingest", "service", "bench")
MAY_IMPORT = {
    "storage": set(),
    "retention": {"storage"},
    "ingest": {"retention", "storage"},
    "service": {"ingest", "retention", "storage"},
    "bench": {"service", "ingest", "retention", "storage"},
}
MOUNTS_BENCH = "service/cli.py"
"""The command line mounts the bench, and is the only file of service that knows of it."""
ONE_FILE = {
    "boto3": {"storage/s3_client.py"},
    "botocore": {"storage/s3.py", "storage/s3_client.py", "storage/s3_errors.py"},
    "httptools": {"ingest/any_head.py", "service/http/llhttp.py", "bench/nullstore.py"},
    "sqlalchemy": {"storage/sqlite/migrations/run.py"},
    "alembic": {
        "storage/sqlite/migrations/env.py",
        "storage/sqlite/migrations/run.py",
        *(
            str(path.relative_to(ROOT))
            for path in (ROOT / "storage/sqlite/migrations/versions").glob("revision_*.py")
        ),
    },
}


def modules() -> list[Path]:
    return sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Top-level names that a module imports, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path: Path) -> None:
    name = str(path.relative_to(ROOT))
    room = name.split("/")[0]
    allowed = MAY_IMPORT[room] | {room} | ({"bench"} if name == MOUNTS_BENCH else set())
    assert imported(path) & set(ROOMS) <= allowed


@pytest.mark.parametrize("library", ONE_FILE)
def test_a_foreign_library_lives_in_one_file(library: str) -> None:
    found = {
        str(path.relative_to(ROOT))
        for path in modules()
        if library in imported(path) and not str(path.relative_to(ROOT)).startswith("bench/peers/")
    }
    assert found <= ONE_FILE[library]


CIRCLES = ({"service.http.connection", "service.http.exchange", "service.http.server"},)
"""Parts of one connection, which name one another's types. `bench.servers` imports its peers inside a function."""


def dotted(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports() -> dict[str, set[str]]:
    """Of each module the modules that it imports, for types alone too, and the packages that Python runs for that."""
    known = {dotted(path) for path in modules()}
    found: dict[str, set[str]] = {}
    for path in modules():
        name, tree = dotted(path), ast.parse(path.read_text())
        found[name] = set()
        late = {node for f in ast.walk(tree) if isinstance(f, ast.FunctionDef) for node in ast.walk(f)}
        for node in (node for node in ast.walk(tree) if node not in late):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module:
                each = [f"{node.module}.{alias.name}" for alias in node.names]
                names = [full if full in known else node.module for full in each]
            for parts in (each.split(".") for each in names):
                run = {".".join(parts[:length]) for length in range(1, len(parts) + 1)} & known
                found[name] |= {each for each in run if each != name and not name.startswith(f"{each}.")}
    return found


def test_modules_import_in_no_circle() -> None:
    graph = imports()

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        todo = [start]
        while todo:
            todo += (new := graph[todo.pop()] - seen)
            seen |= new
        return seen

    reach = {name: reached(name) for name in graph}
    circles = {name: {other for other in reach[name] if name in reach[other]} for name in graph}
    assert {name for name, circle in circles.items() if circle} <= set().union(*CIRCLES)
    assert all(circle in CIRCLES for circle in circles.values() if circle)


OPENS_CATALOGS = {"service/folder.py"}
"""And the bench, which makes catalogs to measure them."""


def test_callers_name_no_more_of_the_catalog_than_they_call() -> None:
    """`Catalog` is all of it: who is given one says in its type which part (`storage.catalog`)."""
    whole = {
        str(path.relative_to(ROOT))
        for path in modules()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module == "storage.catalog"
        if "Catalog" in {alias.name for alias in node.names}
    }
    assert {name for name in whole if not name.startswith(("storage/", "bench/"))} == OPENS_CATALOGS


def parts_of_the_catalog() -> dict[str, set[str]]:
    """Of each module of interfaces the methods that it demands."""
    return {
        path.stem: {
            node.name
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.FunctionDef)
            if "abstractmethod" in {ast.unparse(each) for each in node.decorator_list}
        }
        for path in (ROOT / "storage/catalog").glob("*.py")
        if path.stem != "__init__"
    }


@pytest.mark.parametrize("part", parts_of_the_catalog())
def test_each_part_of_the_catalog_has_a_suite_that_calls_all_of_it(part: str) -> None:
    suite = ROOT / "storage/contracts" / part
    files = suite.glob("*.py") if suite.is_dir() else [suite.with_suffix(".py")]
    if part == "people":  # a part of the books' interface
        files = [ROOT / f"storage/contracts/books/{name}.py" for name in ("people", "shares", "clips")]
    called = {
        node.attr
        for path in files
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
    }
    assert parts_of_the_catalog()[part] - called == set()


def test_design_names_every_interface_of_the_catalog() -> None:
    tree = ast.parse((ROOT / "storage/catalog/__init__.py").read_text())
    [whole] = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    parts = {ast.unparse(base) for base in whole.bases} - {"Protocol"}
    rows = re.findall(r"^\| (`\w+Catalog`.*?) \|", (ROOT / "docs/design.md").read_text(), re.MULTILINE)
    assert parts - set(re.findall(r"\w+Catalog", " ".join(rows))) == set()


ENGINES = re.compile(r"storage\.((sqlite|postgres|sql|keys)\b|_key_)")
DRIVERS = {"alembic", "psycopg", "psycopg_pool", "sqlalchemy", "sqlite3"}
KNOWS_ENGINES = {"storage/open_catalog.py", "storage/open_vault.py", "storage/copy_catalog.py"}
MEASURES_ENGINES = {
    *("bench/catalog.py", "bench/catalog_engines.py"),
    *("bench/expiry.py", "bench/promises.py", "bench/sweep.py"),
}
"""What the bench asks of files and servers themselves: log, pages, plans of queries, CPU, and keys by the million."""


def test_nothing_above_storage_knows_an_engine() -> None:
    """Modules of storage/ go from an address to what it names: nobody else need say which engine it is."""
    found = set()
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
            if any(ENGINES.match(name) or name.split(".")[0] in DRIVERS for name in names):
                found.add(str(path.relative_to(ROOT)))
    above = {name for name in found if not name.startswith("storage/")}
    assert above <= MEASURES_ENGINES
    inside = {
        name for name in found if re.fullmatch(r"storage/[^/]+\.py", name) and "sqlite_check" not in name
    }
    assert {name for name in inside if not re.match(r"storage/(_key_|keys)", name)} <= KNOWS_ENGINES


NAMES_OF_ENGINES = re.compile("sqlite|postgres|psycopg|pgbouncer", re.IGNORECASE)
SPEAKS_OF_ENGINES = {
    "service/config.py",
    *(f"service/commands/{name}.py" for name in ("backups", "copying", "demo", "erasure", "folder")),
    *(f"service/commands/{name}.py" for name in ("granting", "migrating", "sweeping")),
    *(f"service/demo/{name}.py" for name in ("postgres", "stage", "story", "watchdog")),
}
"""Settings and commands whose words and addresses the contract has (docs/design.md, 6), and the demo's own server."""


def test_only_what_speaks_to_an_operator_names_an_engine() -> None:
    rooms = [*(ROOT / room for room in ("ingest", "retention", "service")), ROOT / "storage/contracts"]
    named = {
        str(path.relative_to(ROOT))
        for room in rooms
        for path in room.rglob("*.py")
        if NAMES_OF_ENGINES.search(path.read_text())
    }
    assert named == SPEAKS_OF_ENGINES


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_module_says_what_it_is_for(path: Path) -> None:
    text = path.read_text()
    assert not text.strip() or ast.get_docstring(ast.parse(text)), "a module docstring is missing"


EXPIRY = re.compile(r"(class_days|retention_days|classes\)?|classes\.pop\(\)|\bonly)\)? *[-+] *1\b")


def test_when_a_recording_expires_is_said_in_one_place() -> None:
    """The day of recording counts as a whole: `storage.days.expiry_day` says so, and nobody adds a day by himself."""
    found = [str(path.relative_to(ROOT)) for path in modules() if EXPIRY.search(path.read_text())]
    assert found == ["storage/days.py"]


def test_what_a_trial_is_stands_in_one_place() -> None:
    """Agreement 7.1: the package that a catalog begins with has it, everybody else asks for that."""
    named = re.compile(r"^TRIAL_\w*DAYS\b.* = ", re.MULTILINE)
    assert [p.relative_to(ROOT) for p in modules() if named.search(p.read_text())] == [
        Path("service/agreement/packages.py")
    ]
