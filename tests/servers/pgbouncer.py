"""Debian's PgBouncer in transaction mode, in front of a test's PostgreSQL server."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

from service.demo.ports import free_ports
from service.demo.server_process import ServerProcess
from tests.servers.postgres import PostgresServer


def pgbouncer_program() -> Path | None:
    """None where the package is not installed."""
    found = shutil.which("pgbouncer", path="/usr/sbin:/usr/bin:/usr/local/bin")
    return Path(found) if found else None


class PgBouncer:
    """A pooler on a port of its own. Few server connections, so that transactions of one client are shared out among
    them; and a client's leftovers are not cleaned away (`server_reset_query` is not run in transaction mode)."""

    def __init__(self, folder: Path, port: int) -> None:
        self._folder = folder
        self.port = port

    def url(self, url: str) -> str:
        """The address of a database, by the pooler."""
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[0]
        return parts._replace(netloc=f"{host}@127.0.0.1:{self.port}").geturl()


@contextmanager
def pgbouncer(program: Path, server: PostgresServer, users: dict[str, str]) -> Iterator[PgBouncer]:
    """A started pooler, ended at the end.

    Args:
        users: passwords by user: the pooler asks for them, and gives them to the server.
    """
    with tempfile.TemporaryDirectory(prefix="clipkeep-pgbouncer-") as made:
        folder = Path(made)
        [port] = free_ports(1)
        (folder / "users").write_text("".join(f'"{user}" "{password}"\n' for user, password in users.items()))
        (folder / "ini").write_text(
            "\n".join(
                [
                    "[databases]",
                    f"* = host=127.0.0.1 port={server.port}",
                    "[pgbouncer]",
                    *("listen_addr = 127.0.0.1", f"listen_port = {port}", "unix_socket_dir ="),
                    *("pool_mode = transaction", "default_pool_size = 6", "reserve_pool_size = 0"),
                    *("auth_type = scram-sha-256", f"auth_file = {folder}/users"),
                    *("max_client_conn = 200", "server_idle_timeout = 5", "server_login_retry = 1"),
                    "ignore_startup_parameters = extra_float_digits",
                ]
            )
        )
        for path in (folder, *folder.iterdir()):
            shutil.chown(path, "nobody")
        user = ("-u", "nobody") if _is_root() else ()
        process = ServerProcess("PgBouncer", folder, [program, *user, folder / "ini"])
        try:
            process.wait_until(lambda: _listens(port))
            yield PgBouncer(folder, port)
        finally:
            process.end(signal.SIGKILL)


def _is_root() -> bool:
    return os.geteuid() == 0


def _listens(port: int) -> bool:
    with suppress(OSError):
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    return False
