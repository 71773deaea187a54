"""The PostgreSQL server that tests use is the demo's."""

from __future__ import annotations

from service.demo.postgres import PostgresServer, postgres_server, system_binaries, wheel_binaries

__all__ = ["PostgresServer", "postgres_server", "system_binaries", "wheel_binaries"]
