"""500 new clients a second beside running uploads, which cost no more than alone and are acknowledged at the same rate.

    make soak ARGS="-s tests/soak/test_handshakes.py"

It prints what a handshake costs alone (ECDSA P-256), and uploads over TLS alone and beside them. Uploads come at a
fixed rate: two cores have to do for the service, both load generators and the store.
"""

from __future__ import annotations

import statistics
from dataclasses import replace

import pytest

from bench.children import pinned
from bench.clipkeep_server import ClipkeepServer
from bench.load import DRAIN_S
from bench.machine import share_out, usable_cpus
from bench.stage import CHILD_TIMEOUT_S, LoadSettings, stage

pytestmark = pytest.mark.soak

RATE_PER_S = 500.0
UPLOADS_PER_S = 100.0
ROUNDS = 3
SECONDS, WARMUP_S = 4.0, 1.0
MORE = 0.25
"""What figures of a shared machine differ by."""
SHARE = 0.4
"""Of the handshakes a second alone: where the machine cannot do both, all else has half of each turn."""
UPLOADS = LoadSettings(
    size_bytes=256 * 1024, connections=64, seconds=SECONDS, warmup=WARMUP_S, rate_per_s=UPLOADS_PER_S
)
SHAKES = LoadSettings(
    size_bytes=188, connections=1, seconds=SECONDS, warmup=WARMUP_S, handshakes_per_s=RATE_PER_S
)


def test_handshakes_slow_uploads_by_their_own_cpu() -> None:
    cores = share_out(usable_cpus(), 1)
    costs: list[float] = []
    """CPU of uploads beside handshakes, less what these cost alone, over that of uploads alone."""
    with (
        pinned(cores.load),
        stage(cores, tls=True) as on,
        on.serving(ClipkeepServer(), devices=200) as running,
    ):
        for _ in range(ROUNDS):
            alone, alone_used = on.observe(running, UPLOADS)
            shaken, shaken_used = on.observe(running, SHAKES)
            longer = replace(UPLOADS, seconds=3 * SECONDS)
            with on.loading(running, longer, "uploads") as child:
                child.event(CHILD_TIMEOUT_S, "warm")
                made, made_used = on.observe(running, SHAKES, also=[child])
                beside = child.event(CHILD_TIMEOUT_S + longer.seconds + DRAIN_S, "result")
            each_s = shaken_used.server_cpu_s / shaken["chunks"]
            rate, rate_alone = (one["chunks"] / one["window_s"] for one in (made, shaken))
            uploads_s = made_used.server_cpu_s - made["chunks"] * each_s
            costs.append(uploads_s / made["window_s"] / (alone_used.server_cpu_s / alone["window_s"]))
            print(
                f"\n{rate_alone:.0f} handshakes a second alone: {each_s * 1e6:.0f} us of the server's CPU each,"
                f" p99 {shaken['ack_ms']['p99']:.0f} ms"
                f"\n{alone['chunks'] / alone['window_s']:.0f} uploads a second alone: p50"
                f" {alone['ack_ms']['p50']:.0f} ms, p99 {alone['ack_ms']['p99']:.0f} ms"
                f"\nboth: {rate:.0f} handshakes, p99 {made['ack_ms']['p99']:.0f} ms;"
                f" {beside['chunks'] / beside['window_s']:.0f} uploads, p50 {beside['ack_ms']['p50']:.0f} ms, p99"
                f" {beside['ack_ms']['p99']:.0f} ms, for {costs[-1]:.2f} times their CPU alone"
                f"\n(other work: {alone_used.others_cpu_s:.1f}, {shaken_used.others_cpu_s:.1f},"
                f" {made_used.others_cpu_s:.1f} CPU-s of {2 * SECONDS:.0f})"
            )
            for result in (alone, shaken, made, beside):
                assert result["errors"] == {}
            assert rate >= rate_alone * SHARE, "new clients come in"
            assert beside["chunks"] / beside["window_s"] >= alone["chunks"] / alone["window_s"] * (1 - MORE)
    assert statistics.median(costs) <= 1 + MORE
