"""The OpenAPI document against the running port, as an owner, as an operator and as nobody: what it promises is what is
answered, whatever is sent, and nothing of it is a fault of the service."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.service.api.office import Person, add_operator, add_owner
from tests.service.api.server import AT, Server
from tests.service.world import World, clips

SCHEMATHESIS = Path(sys.executable).with_name("schemathesis")
EXAMPLES = 1
"""Random requests to each operation, beside the boundaries of every parameter: tens of seconds in all."""
RUN_S = 900.0
"""Far above what a run takes, for machines that do other things too."""
ENDS_THE_SESSION = ("DELETE /v1/sessions/current", "POST /v1/accounts/{account}/closure")
"""Operations after which the token, or the owner, would be gone. They are run by themselves."""

NEGATIVE = """
[checks.positive_data_acceptance]
# A document has no words for rules: the storage of a trial, a code that was sent, a plan that runs.
expected-statuses = ["2xx", "4xx", "503"]
"""
POSITIVE = """
[parameters]
"path.account" = {account}
"path.n" = {device}
"path.subscription" = {subscription}
"path.capture_ms" = {capture_ms}
"""
LIMITS = {
    "registrations_per_h": 1_000_000,
    "login_failures_per_client": 1_000_000,
    "max_devices_per_account": 1_000_000,
}


class Checked:
    """A port with an owner who has a bit of everything, and what schemathesis says about it."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.server = server
        self.owner = add_owner(server)
        self.operator = add_operator(server)
        self.folder = folder
        device = self.owner.add_device()
        bought = self.owner.buy(device)
        server.world.keep(*clips(3), device=device)
        (folder / "negative.toml").write_text(NEGATIVE)
        (folder / "positive.toml").write_text(
            NEGATIVE
            + POSITIVE.format(
                account=self.owner.account,
                device=device,
                subscription=bought["subscription"]["subscription"],
                capture_ms=AT,
            )
        )

    def run(self, mode: str, who: Person, *filters: str) -> None:
        """`positive`: what the document allows, of things that are there; `negative`: what it does not."""
        command = [
            *(str(SCHEMATHESIS), "--config-file", f"{mode}.toml", "run", f"{self.server.base}/openapi.json"),
            *("--mode", mode, "--header", f"Authorization: Bearer {who.token}", "--checks", "all"),
            *("--phases", "coverage,fuzzing", "--max-examples", str(EXAMPLES), "--continue-on-failure"),
            *("--generation-database", "none", "--no-color", "--seed", "1", *filters),
        ]
        done = subprocess.run(
            command,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=RUN_S,
            check=False,
        )
        print(done.stdout)
        assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.long
@pytest.mark.parametrize("role", ["owner", "operator"])
def test_the_document_tells_the_truth(world: World, tmp_path: Path, role: str) -> None:
    with Server(world, settings=LIMITS) as server:
        checked = Checked(server, tmp_path)
        who = checked.owner if role == "owner" else checked.operator
        not_now = [word for name in ENDS_THE_SESSION for word in ("--exclude-name", name)]
        checked.run("positive", who, *not_now)
        if role == "operator":  # who is allowed everything, and so gets as far as what is malformed
            checked.run("negative", who, *not_now)
        still = who.ask("GET", checked.owner.home)
        assert still.status == 200, "all of it was asked by somebody who is known"
        only = [word for name in ENDS_THE_SESSION for word in ("--include-name", name)]
        checked.run("positive", who, *only)
    assert server.bugs == []
