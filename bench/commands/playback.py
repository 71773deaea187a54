"""`bench playback`: what reading costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.console import Console

from bench.console import (
    JsonOption,
    OutputOption,
    ShortOption,
    collected,
    document_of,
    errors_told,
    exit_as,
    given,
    hand_out,
    parse_sizes,
    print_notes,
    run_facts,
)
from bench.machine import share_out, usable_cpus
from bench.playback import STEPS, PlaybackMeasurement, PlaybackSettings, measure_playback
from bench.tables import playback_table

SHORT: Mapping[str, Any] = {"hour_chunks": 225, "reads": 200, "exports": 2}
PROMISES = (
    "token and entitlement asked at every read: a forged token 401",
    "every chunk decrypted as itself and checked against its CRC-32 before its first byte is sent",
)


def playback(
    day_chunks: Annotated[
        int | None, typer.Option(help="Chunks of the day's playlist, 4 s each.  [default: 21600]")
    ] = None,
    hour_chunks: Annotated[
        int | None, typer.Option(help="Chunks of the exported hour.  [default: 900; short: 225]")
    ] = None,
    size: Annotated[str, typer.Option(help="Size of the hour's chunks.")] = "1MiB",
    reads: Annotated[int | None, typer.Option(help="Single chunks read.  [default: 500]")] = None,
    playlists: Annotated[int | None, typer.Option(help="Playlists asked for.  [default: 10]")] = None,
    exports: Annotated[int | None, typer.Option(help="Exports.  [default: 3]")] = None,
    short: ShortOption = False,
    output: OutputOption = None,
    as_json: JsonOption = False,
) -> None:
    """What reading costs: a chunk's first byte, a day's playlist, an hour's export.

    What: milliseconds to the first byte of a random chunk; to the whole
    playlist of a day, 21,600 chunks of 4 s; throughput, CPU and memory of the
    export of an hour of 1 MiB chunks.

    How: two cameras' recordings are uploaded into a fresh service whose store
    is local files (about 1 GB of temporary disk), then read over one keep-alive
    connection. What reading the same bytes from the files takes is beside it.

    Good: first byte under 10 ms beyond the store's; a day's playlist under
    200 ms; exports over 300 MB/s with memory that stays.

    Ctrl-C ends it and shows what was measured so far.
    """
    with errors_told():
        chosen = given(
            SHORT,
            short,
            day_chunks=day_chunks,
            hour_chunks=hour_chunks,
            reads=reads,
            playlists=playlists,
            exports=exports,
        )
        (size_bytes,) = parse_sizes(size)[:1]
        settings = PlaybackSettings(hour_chunk_bytes=size_bytes, **chosen).checked()
        cores = share_out(usable_cpus(), 1)
        facts = run_facts(cores)
        measurements, ended = collected(measure_playback(settings, cores), cores, STEPS, _text)
        promises = {"clipkeep": PROMISES}
        measured = [one.as_json() for one in measurements]
        document = document_of("playback", ended, facts, asdict(settings), measured, promises=promises)
        hand_out(document, output, as_json)
    if not as_json:
        Console().print(playback_table(measurements))
        print_notes([], promises)
    exit_as(ended)


def _text(one: PlaybackMeasurement) -> str:
    return f"{one.kind}: p50 {one.ms['p50']:.1f} ms, p99 {one.ms['p99']:.1f} ms"
