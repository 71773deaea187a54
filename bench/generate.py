"""The load generator's process: closed loop, open loop, or slow clients, told in JSON lines.

    python -m bench.generate --target target.json --size 65536 --connections 64 --seconds 5 --warmup 1
    python -m bench.generate … --rate 500           arrivals at a fixed mean rate: `bench.openload`
    python -m bench.generate … --handshakes 500     new clients a second, which send nothing: `bench.shakeload`
    python -m bench.generate … --slow 20000         every connection sends 20,000 bytes/s: `bench.slowload`

`target.json` is what `bench.wire.Target.write` wrote. On stdout: `{"event": "warm"}` as the measured window
opens, `{"event": "measured"}` as it closes, then `{"event": "result", …}`, the fields of `Tally.as_json`. SIGINT
ends it early, with its result.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from pathlib import Path

from bench.load import Load
from bench.media import transport_stream
from bench.openload import OpenLoad
from bench.patchload import PatchLoad
from bench.shakeload import ShakeLoad
from bench.slowload import SlowLoad
from bench.wire import TUS_PATCH, Target


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.generate", description="load of chunk uploads")
    parser.add_argument("--target", type=Path, required=True, help="JSON file: host, port, devices, dialect")
    parser.add_argument("--size", type=int, required=True, help="bytes of a chunk (rounded down to packets)")
    parser.add_argument("--connections", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True, help="measured window")
    parser.add_argument("--warmup", type=float, default=1.0, help="seconds before it")
    parser.add_argument("--max-chunks", type=int, help="send no more than so many")
    parser.add_argument("--rate", type=float, help="open loop: chunks per second")
    parser.add_argument("--slow", type=float, help="slow clients: bytes per second of each connection")
    parser.add_argument("--handshakes", type=float, help="TLS handshakes per second, and nothing else")
    options = parser.parse_args()
    body = transport_stream(options.size)
    load = _chosen(options, Target.read(options.target), body)
    signal.signal(signal.SIGINT, lambda *_: load.stop())
    try:
        tally = load.run(options.warmup, options.seconds)
    except OSError as error:
        sys.exit(f"cannot connect: {error}")
    print(json.dumps(tally.as_json(len(body))), flush=True)


def _chosen(options: argparse.Namespace, target: Target, body: bytearray) -> Load | ShakeLoad:
    if options.handshakes is not None:
        return ShakeLoad(target, _announce, rate_per_s=options.handshakes)
    if options.slow is not None:
        return SlowLoad(target, body, options.connections, _announce, bytes_per_s=options.slow)
    limit = options.max_chunks
    if options.rate is not None:
        return OpenLoad(
            target, body, options.connections, _announce, rate_per_s=options.rate, max_chunks=limit
        )
    kind = PatchLoad if target.dialect == TUS_PATCH else Load
    return kind(target, body, options.connections, _announce, max_chunks=limit)


def _announce(event: str) -> None:
    print(json.dumps({"event": event}), flush=True)


if __name__ == "__main__":
    main()
