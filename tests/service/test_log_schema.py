"""docs/log.schema.json: it has every event of the code with its fields, and no other."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections import defaultdict
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

ROOT = Path(__file__).parents[2]
SCHEMA: dict[str, Any] = json.loads((ROOT / "docs/log.schema.json").read_text())
EVENTS: dict[str, Any] = SCHEMA["$defs"]["events"]
LEVELS = {"info": "info", "warning": "warning", "error": "error", "exception": "error"}
LOGS = {"_log", "failures", "_unfit"}
"""What a logger, or one that samples, is called."""
BY_NAME = {"service/http/server.py": "_log.warning(event, **facts)"}
"""The one place that writes events of others: `_say` has their names."""
_VALIDATOR = Draft202012Validator(SCHEMA)


def faults_of(line: dict[str, Any]) -> list[str]:
    """Why a line is not as the schema says."""
    return [
        error.message
        for part in (_VALIDATOR, Draft202012Validator({**EVENTS[line["event"]], "$defs": SCHEMA["$defs"]}))
        for error in part.iter_errors(line)
    ]


@cache
def said() -> dict[str, list[tuple[str, set[str], str]]]:
    """By event: its level, fields and place, for each call of a logger in the code."""
    found: dict[str, list[tuple[str, set[str], str]]] = defaultdict(list)
    paths = [
        path for room in ("service", "ingest", "retention", "storage") for path in (ROOT / room).rglob("*.py")
    ]
    for path in sorted(paths):
        name = str(path.relative_to(ROOT))
        for call in [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]:
            if not isinstance(call.func, ast.Attribute):
                continue
            verb, whose = call.func.attr, ast.unparse(call.func.value).split(".")[-1]
            says = verb == "_say" and name in BY_NAME
            if not says and not (verb in LEVELS and whose in LOGS):
                continue
            if BY_NAME.get(name) == ast.unparse(call):
                continue
            event = call.args[0]
            assert isinstance(event, ast.Constant), (
                f"{name}:{call.lineno}: an event has a name that stands there"
            )
            fields = {each.arg for each in call.keywords if each.arg}
            fields |= {"code"} if len(call.args) > 1 else set()
            fields |= {"exception"} if "exc_info" in fields or verb == "exception" else set()
            level = "warning" if says else LEVELS[verb]
            found[event.value].append((level, fields - {"exc_info"}, f"{name}:{call.lineno}"))
    return found


def test_every_event_of_the_code_is_in_the_schema_and_no_other() -> None:
    assert said().keys() - EVENTS.keys() == set(), (
        "docs/log.schema.json says what it means and which fields it has"
    )
    assert EVENTS.keys() - said().keys() == set(), "nothing writes it any more"
    assert [each["$ref"].rpartition("/")[2] for each in SCHEMA["oneOf"]] == list(EVENTS)


@pytest.mark.parametrize("event", sorted(EVENTS))
def test_an_event_has_the_fields_that_the_schema_says(event: str) -> None:
    known = EVENTS[event]
    assert known["description"]
    fields, levels = known["properties"].keys() - {"event", "level"}, known["properties"]["level"]
    spread = {"serving", "chore_done", "recording_corrupt"}  # with fields that stand elsewhere
    for level, given, place in said()[event]:
        assert given <= fields, place
        assert level in levels.get("enum", [levels.get("const")]), place
        if event not in spread:
            assert {*known["required"]} - {"event", "level"} <= given, place


def test_the_schema_is_one() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    used = {name for event in EVENTS.values() for name in event["properties"].keys() - {"event", "level"}}
    assert used == SCHEMA["$defs"]["fields"].keys()
    assert faults_of(line := {**LINE}) == []
    for change in ({"device": "1"}, {"level": "info"}, {"process": None}, {"status": "401"}):
        assert faults_of({**line, **change})
    assert faults_of({key: value for key, value in line.items() if key != "code"})


LINE = {
    **{"event": "refused", "level": "warning", "timestamp": "2027-01-31T02:00:00.000000Z", "process": "w0"},
    **{"status": 401, "code": "bad_token", "device": 1, "detail": "…", "more": 0},
}


def test_a_fault_that_ends_a_process_is_a_line() -> None:
    program = "from service.logs import configure_logs; configure_logs('w0'); 1 / 0"
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 1
    [line] = [json.loads(each) for each in ended.stderr.splitlines()]
    assert faults_of(line) == []
    assert (line["event"], line["detail"]) == ("bug", "ZeroDivisionError")
    assert "Traceback" in line["exception"]
