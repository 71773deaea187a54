"""`bench peers`: which peers are here, and installing those that are not."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from bench.console import COMPLETE, JsonOption, errors_told, exit_as, hand_out
from bench.errors import BenchError
from bench.servers import PEERS_VARIABLE, Server, choose, peers_folder
from bench.tables import peers_table

INSTALL_TIMEOUT_S = 900.0
"""tusd is built from source: about three minutes on two busy cores."""


def peers(
    names: Annotated[list[str] | None, typer.Argument(help="Only these; default all.")] = None,
    install: Annotated[bool, typer.Option("--install", help="Install those that are missing.")] = False,
    folder: Annotated[
        Path | None,
        typer.Option("--folder", envvar=PEERS_VARIABLE, help="Where they are installed.", show_envvar=True),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List what Clipkeep is compared with, and install what is missing.

    What: the Starlette server (pip), @tus/server with its S3 store (npm, needs
    Node 20 or later), tusd with its S3 store (go), nginx as a relay (Debian's
    package, unpacked, not started).

    How: --install runs the package managers' own clients into a folder of its
    own, bench-results/peers by default; only the Starlette server's packages
    go into this Python environment. The commands are printed before they run.

    Good: all available. A peer that is not here is skipped by name.
    """
    with errors_told():
        place = folder or peers_folder()
        servers = [one for one in choose(names or [], place) if names or one.name != "clipkeep"]
        failed = [one.name for one in servers if install and one.available() and not _install(one, place)]
        rows = [
            {
                "peer": one.name,
                "missing": one.available(),
                "install": [" ".join(argv) for argv in one.install_commands()],
            }
            for one in servers
        ]
        document = {"bench": "peers", "folder": str(place), "peers": rows}
        hand_out(document, None, as_json)
    if not as_json:
        Console().print(peers_table(rows))
    exit_as(COMPLETE, failed=bool(failed))


def _install(server: Server, folder: Path) -> bool:
    """Run its commands; False when one failed or is not there."""
    folder.mkdir(parents=True, exist_ok=True)
    console = Console(stderr=True)
    for argv in server.install_commands():
        console.print("$ " + " ".join(argv), highlight=False, markup=False)
        try:
            done = subprocess.run(argv, stdin=subprocess.DEVNULL, timeout=INSTALL_TIMEOUT_S, check=False)
        except FileNotFoundError:
            console.print(f"{server.name}: {argv[0]} is not on this machine: install it first")
            return False
        except subprocess.TimeoutExpired as error:
            raise BenchError(f"`{argv[0]}` did not end in time", subject=server.name) from error
        if done.returncode:
            console.print(f"{server.name}: `{argv[0]}` ended with {done.returncode}")
            return False
    return True
