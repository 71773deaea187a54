"""The reference payment gateway as a process of its own, on a socket."""

from __future__ import annotations

import json
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from service.spawning import python_module

KEY = "k" * 32


@dataclass(frozen=True, slots=True)
class PaymentServer:
    url: str

    def receipts(self) -> list[dict[str, Any]]:
        """What was charged and given back."""
        return list(self.get("/rehearse/receipts")["receipts"])

    def dispute(self, reference: str, dispute: str, outcome: str, minor: int) -> int:
        """Report a dispute; the status of Clipkeep's answer."""
        query = {
            "reference": reference,
            "dispute": dispute,
            "outcome": outcome,
            "minor": minor,
            "currency": "USD",
        }
        return int(self.get(f"/rehearse/dispute?{urlencode(query)}")["status"])

    def get(self, path: str) -> dict[str, Any]:
        with urllib.request.urlopen(self.url + path, timeout=30) as answer:
            found: dict[str, Any] = json.load(answer)
            return found


@contextmanager
def payment_server(folder: Path, *options: str, keys: str = KEY) -> Iterator[PaymentServer]:
    """Args:
    folder: for the file with its keys.
    options: of `service.demo.payment_gateway`.
    """
    folder.mkdir(exist_ok=True)
    key_file = folder / "gateway-keys"
    key_file.write_text(keys)
    key_file.chmod(0o600)
    command = python_module(
        "service.demo.payment_gateway", "--port", "0", "--key-file", str(key_file), *options
    )
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        port = process.stdout.readline().rsplit(" ", 1)[-1].strip()
        yield PaymentServer(f"http://127.0.0.1:{port}")
    finally:
        process.kill()
        process.communicate()
