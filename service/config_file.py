"""One value of a config.toml is changed, and the rest of the text stays as its owner wrote it."""

from __future__ import annotations

import json
import os
import re
import tomllib
from pathlib import Path

from storage.errors import CallerError, WorldError


def with_value(text: str, table: str, key: str, value: str) -> str:
    """The text of a TOML file in which `[table] key` is `value`.

    Raises:
        CallerError: `bad_config`: it is written in a way that this does not know; the detail says what to write.
    """
    line = f"{key} = {json.dumps(value, ensure_ascii=False)}"
    head = re.search(rf"^\[{table}\][^\n]*\n?", text, re.MULTILINE)
    if head is None:
        changed = f"{text.rstrip()}\n\n[{table}]\n{line}\n".lstrip()
    else:
        after = text[head.end() :]
        end = re.search(r"^\[", after, re.MULTILINE)
        inside, rest = (after[: end.start()], after[end.start() :]) if end else (after, "")
        found = re.search(rf"^{key}\s*=[^\n]*$", inside, re.MULTILINE)
        if found is None:
            start = text[: head.end()]
            changed = f"{start}{'' if start.endswith(chr(10)) else chr(10)}{line}\n{inside}{rest}"
        else:
            changed = text[: head.end()] + inside[: found.start()] + line + inside[found.end() :] + rest
    try:
        wanted = tomllib.loads(text)
        wanted.setdefault(table, {})[key] = value
        if tomllib.loads(changed) == wanted:
            return changed
    except tomllib.TOMLDecodeError:
        pass
    raise CallerError(f"write this by hand, in [{table}]: {line}", code="bad_config")


def set_value(path: Path, table: str, key: str, value: str) -> None:
    """Change one value of a file, which is replaced in one step.

    Raises:
        CallerError: see `with_value`.
        WorldError: `folder_unavailable`: it can't be written.
    """
    try:
        changed = with_value(path.read_text("utf-8"), table, key, value)
        new = path.with_name(f".{path.name}.new")
        new.unlink(missing_ok=True)
        mode = path.stat().st_mode & 0o7777
        with open(new, "x", encoding="utf-8", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.write(changed)
            file.flush()
            os.fsync(file.fileno())
        new.chmod(mode)
        new.replace(path)
    except OSError as error:
        raise WorldError(
            f"it can't be written ({error.strerror or error}); nothing was changed in it",
            subject=str(path),
            code="folder_unavailable",
        ) from error
