"""`demo`: the main job on this machine, to be seen."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from service import terminal
from service.demo.cameras import CHUNK_S, Ffmpeg
from service.demo.show import Show
from service.demo.story import Home, run_demo
from service.terminal import Json
from storage.errors import CallerError

MIN_SECONDS = 4
MAX_SECONDS = 60


def demo(
    keep: Annotated[
        bool,
        typer.Option(
            "--keep",
            help="Leave the service running when all is good, and print playlists to watch and how to stop it.",
        ),
    ] = False,
    seconds: Annotated[
        int,
        typer.Option("--seconds", help="Of video per camera; even.", min=MIN_SECONDS, max=MAX_SECONDS),
    ] = 12,
    catalog: Annotated[
        Literal["sqlite", "postgresql"],
        typer.Option(
            "--catalog",
            help="Where the catalog is: in a file, or on a PostgreSQL server that is started for it.",
        ),
    ] = "sqlite",
    vault: Annotated[
        Literal["folder", "postgresql"],
        typer.Option("--vault", help="Where keys are kept: in the data folder, or on that server too."),
    ] = "folder",
    json: Json = False,
) -> None:
    """Show the main job with real video, in about a minute: kept, played back, lapsed, swept, killed, still there.

    A service starts on the embedded defaults in a temporary folder. Two stock ffmpegs push HLS to it and six
    simulated cameras upload; every one is played back and each decoded frame compared with what was encoded. Then
    time flies, on a test clock: recordings expire, a trial lapses, a camera is terminated, sweeps destroy keys and
    delete objects. At last the whole service is killed with SIGKILL in a burst of uploads and started again.

    What happens is told on stderr; a table of what was expected and seen goes to stdout. Exit code 0 when all of it
    was right, else 1. Ctrl-C ends everything and removes the folder. Needs a stock ffmpeg: imageio-ffmpeg, which `make
    setup` installs, or the one on the path.
    """
    if seconds % CHUNK_S:
        raise CallerError(f"--seconds is a multiple of {CHUNK_S}", code="bad_usage")
    if keep and (catalog != "sqlite" or vault != "folder"):
        raise CallerError(
            "--keep goes with a catalog and keys in files: the server ends with the demo", code="bad_usage"
        )
    show = Show()
    run_demo(
        Ffmpeg.find(),
        show,
        seconds=seconds,
        keep=keep,
        home=Home(catalog == "postgresql", vault == "postgresql"),
    )
    terminal.report(show.document(), json, show.table)
    if not show.ok:
        raise typer.Exit(1)


def register(app: typer.Typer) -> None:
    app.command()(demo)
