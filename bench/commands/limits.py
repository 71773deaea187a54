"""`bench limits`: what no upload can cost less than."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from bench.console import (
    JsonOption,
    OutputOption,
    collected,
    document_of,
    errors_told,
    exit_as,
    hand_out,
    parse_sizes,
    run_facts,
)
from bench.limits import measure_limits
from bench.machine import share_out, usable_cpus
from bench.tables import limits_table, size_text


def limits(
    sizes: Annotated[str, typer.Option(help="Chunk sizes, comma-separated.")] = "1MiB,256KiB,64KiB",
    seconds: Annotated[float, typer.Option(help="For each part of each size.")] = 1.0,
    output: OutputOption = None,
    as_json: JsonOption = False,
) -> None:
    """What the copies, the cipher and the system calls of an upload cost alone.

    What: CPU-seconds per GB of receiving chunks, checksumming, encrypting them
    into a segment, and sending segments to a store, each in a bare loop.

    How: on the server's core, with the libraries that Clipkeep uses; sender and
    null store on the other. The sum is the limit that the measured CPU-s/GB of
    `bench compare` is held against; a plain copy is given for comparison.

    Good: this is the machine, not Clipkeep. Compare machines with it.
    """
    with errors_told():
        wanted = parse_sizes(sizes)
        cores = share_out(usable_cpus(), 1)
        facts = run_facts(cores)
        steps = [size_text(size) for size in wanted]
        found, ended = collected(measure_limits(wanted, seconds, cores), cores, steps)
        settings = {"sizes": wanted, "seconds": seconds}
        document = document_of("limits", ended, facts, settings, [one.as_json() for one in found])
        hand_out(document, output, as_json)
    if not as_json:
        Console().print(limits_table(found))
    exit_as(ended)
