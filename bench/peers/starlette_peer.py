"""What people write first: Starlette on uvicorn, the whole body in memory, one boto3 `put_object` per chunk.

Honest and idiomatic: uvloop and httptools, no access log, one client shared by all threads with a pool as
large as the thread pool. It checks no token, keeps no catalog and encrypts nothing: all of that favours it.

    python -m bench.peers.starlette_peer --threads 8 --workers 1      prints {"port": N}
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING

from bench.children import Child
from bench.servers import BUCKET, START_TIMEOUT_S, Running, Setup, numbered_devices, wait_until_ready
from bench.wire import Target
from service.spawning import python_module

if TYPE_CHECKING:
    from starlette.applications import Starlette

MODULES = ("starlette", "uvicorn", "uvloop", "httptools")
PACKAGES = ("starlette>=0.40", "uvicorn>=0.32", "uvloop>=0.21")
"""Those of the extra `clipkeep[bench]`."""
THREADS = 8
"""Per process, with a store that answers at once. Measured on one core with 32, 128 and 256 connections: the
same throughput as with 16, 24 and 32 threads, within 10 %, and the best p99."""
PUTS_PER_S = 1000
"""What one core does at best: a slow store needs this many times its latency in threads (Little's law)."""
MAX_THREADS = 128
BACKLOG = 2048


def make_app(threads: int) -> Starlette:
    """Build the app; where the store is comes from the environment."""
    import anyio.to_thread
    import boto3
    from botocore.config import Config
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

    client = boto3.client(
        "s3",
        endpoint_url=os.environ["CLIPKEEP_BENCH_S3_ENDPOINT"],
        config=Config(max_pool_connections=threads),
    )

    def put(key: str, body: bytes) -> None:
        client.put_object(Bucket=BUCKET, Key=key, Body=body)

    async def upload(request: Request) -> Response:
        key = f"{request.path_params['device']}/{request.path_params['capture_ms']}"
        await anyio.to_thread.run_sync(put, key, await request.body())
        return Response(status_code=201)

    async def ready(_: Request) -> Response:
        return Response(status_code=200)

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        anyio.to_thread.current_default_thread_limiter().total_tokens = threads
        yield

    path = "/v1/devices/{device:int}/chunks/{capture_ms:int}"
    routes = [Route(path, upload, methods=["PUT", "POST"]), Route("/readyz", ready)]
    return Starlette(routes=routes, lifespan=lifespan)


def pool_threads(latency_s: float) -> int:
    """Return the threads (and store connections) that suit a store with this latency."""
    return min(MAX_THREADS, THREADS + int(latency_s * PUTS_PER_S))


class StarlettePeer:
    """Starts this module in a process of its own."""

    name = "starlette"
    promises = (
        "201: all bytes in the store as an object of their own, with the checksum of boto3's defaults",
        "no token, no encryption, no catalog",
    )

    def available(self) -> str | None:
        missing = [name for name in MODULES if importlib.util.find_spec(name) is None]
        return f"{', '.join(missing)} not installed" if missing else None

    def install_commands(self) -> list[list[str]]:
        return [python_module("pip", "install", *PACKAGES)]

    @contextlib.contextmanager
    def start(self, setup: Setup) -> Iterator[Running]:
        threads = str(pool_threads(setup.latency_s))
        argv = python_module(__name__, "--workers", str(setup.workers), "--threads", threads)
        with Child(
            self.name, argv, cpus=setup.cpus, folder=setup.folder, environment=setup.environment()
        ) as child:
            port = int(child.event(START_TIMEOUT_S)["port"])
            wait_until_ready(child, f"127.0.0.1:{port}/readyz")
            yield Running(child.session, Target("127.0.0.1", port, numbered_devices(setup.devices)))


def main() -> None:
    import uvicorn

    parser = argparse.ArgumentParser(prog="bench.peers.starlette_peer", description="the plain upload server")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--threads", type=int, default=THREADS)
    parser.add_argument("--fd", type=int, help="listening socket of the first worker")
    options = parser.parse_args()
    if options.fd is None:
        listener = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)
        _start_more(options.workers - 1, options.threads, listener.fileno())
        print(json.dumps({"port": listener.getsockname()[1]}), flush=True)
    else:
        listener = socket.socket(fileno=options.fd)
    config = uvicorn.Config(
        make_app(options.threads), loop="uvloop", http="httptools", access_log=False, log_level="warning"
    )
    # Not `uvicorn.run(fd=…)`, which takes the socket for a Unix one and leaves TCP_NODELAY off.
    uvicorn.Server(config).run(sockets=[listener])


def _start_more(workers: int, threads: int, fd: int) -> None:
    """Start workers that accept from the same socket. The end of the process group is theirs too."""
    for _ in range(workers):
        argv = python_module("bench.peers.starlette_peer", "--threads", str(threads), "--fd", str(fd))
        subprocess.Popen(argv, pass_fds=[fd])


if __name__ == "__main__":
    main()
