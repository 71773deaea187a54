"""`bench sweep`: what the end of recordings costs."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from bench.console import (
    COMPLETE,
    JsonOption,
    OutputOption,
    collected,
    document_of,
    errors_told,
    exit_as,
    hand_out,
    run_facts,
)
from bench.machine import Cores
from bench.sweep import SweepSettings, measure_sweep

MB = 1_000_000


def sweep(
    days: Annotated[int, typer.Option(help="Days in the catalog; one of them expires.")] = SweepSettings.days,
    segments: Annotated[int, typer.Option(help="Segments of a day.")] = SweepSettings.segments,
    chunks: Annotated[int, typer.Option(help="Chunks of a day.")] = SweepSettings.chunks,
    devices: Annotated[int, typer.Option(help="Devices in the bitmap scanned.")] = SweepSettings.devices,
    key_devices: Annotated[
        int, typer.Option(help="Devices in the key store, each with twelve months of keys.")
    ] = SweepSettings.key_devices,
    latency_ms: Annotated[
        float, typer.Option(help="What the store takes for each call.")
    ] = SweepSettings.latency_ms,
    output: OutputOption = None,
    as_json: JsonOption = False,
) -> None:
    """What the end of recordings costs.

    What: expiring one day, beside what people do today with the same bucket
    (list it, compare ages, delete by 1000 or one by one); finding the lapsed
    among millions of devices; destroying one device's keys.

    How: a real catalog, key store and bitmap in a temporary folder (4 GB at
    full size), filled in bulk; a bucket that is a model with the same latency
    for every call. Expiry is two passes: un-index, and delete after the delay.
    Memory is the peak of the process that does it.

    Good: a day of a million chunks in 20,000 segments, out of 30, in under 5 s
    of catalog time, 20 delete calls, no listing, under 300 MB; ten million
    devices scanned in under 200 ms; a device's keys destroyed in under 50 ms.
    """
    with errors_told():
        settings = SweepSettings(days, segments, chunks, devices, key_devices, latency_ms).checked()
        cores = Cores((), ())
        results, ended = collected(measure_sweep(settings), cores, settings.steps)
        figures = [one for one in results if one]
        document = document_of("sweep", ended, run_facts(cores), asdict(settings), figures)
        if ended == COMPLETE:
            document["ratio"] = ratio(figures)
        hand_out(document, output, as_json)
    if not as_json:
        Console().print(_table(figures))
        if ended == COMPLETE:
            found = document["ratio"]
            times = f"{found['by_1000']:.1f} times as long, one by one {found['one_by_one']:.0f} times."
            print(f"List, compare, delete takes {times}")
    exit_as(ended)


def ratio(figures: list[dict[str, Any]]) -> dict[str, float]:
    """How many times as long the other ways take as the sweep does."""
    expiry, other = figures[0], figures[1]
    return {
        "by_1000": other["seconds"] / expiry["seconds"],
        "one_by_one": other["seconds_one_by_one"] / expiry["seconds"],
    }


def _table(figures: list[dict[str, Any]]) -> Table:
    table = Table("what", "figures", title="sweep", title_justify="left")
    for one in figures:
        shown = [_shown(name, value) for name, value in one.items() if name != "what"]
        table.add_row(one["what"], "\n".join(shown))
    return table


def _shown(name: str, value: Any) -> str:
    words = name.replace("_", " ")
    if name.endswith("bytes"):
        return f"{words.removesuffix(' bytes')}: {value / MB:.0f} MB"
    return f"{words}: {value:.3g}" if isinstance(value, float) else f"{words}: {value}"
