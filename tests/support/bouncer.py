"""A pgbouncer before a test's database."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from graphile_worker.testing.embedded import free_port, unprivileged

from support.pg import Database, run, wait_for

PGBOUNCER = Path("/usr/sbin/pgbouncer")
# Only root can have been given it by `make test`; anybody else may have it.
NEEDS_PGBOUNCER = pytest.mark.skipif(
    os.geteuid() != 0 and not PGBOUNCER.exists(), reason="pgbouncer is Debian's"
)


def version() -> tuple[int, ...]:
    """Return the version of pgbouncer: from 1.21 on it knows prepared statements."""
    return tuple(map(int, run([PGBOUNCER, "--version"]).split()[1].split(".")))


@contextmanager
def pgbouncer(
    db: Database, folder: Path, mode: str = "transaction", user: str = "postgres"
) -> Iterator[str]:
    """Give the connection string of a pgbouncer with two connections to the server."""
    info = db.connect().info
    with bouncer_before(info.port, db.name, folder, mode=mode, user=user, most=2) as dsn:
        yield dsn


@contextmanager
def bouncer_before(
    server: int, name: str, folder: Path, *, mode: str, user: str = "postgres", most: int
) -> Iterator[str]:
    """Give the connection string of a pgbouncer before a database of the server at a port."""
    port = free_port()
    config = folder / "pgbouncer.ini"
    config.write_text(f"""
[databases]
{name} = host=127.0.0.1 port={server} user={user}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = {mode}
default_pool_size = {most}
server_login_retry = 1
""")
    program = unprivileged(PGBOUNCER, folder / "bin")
    dsn = f"host=127.0.0.1 port={port} user={user} dbname={name}"
    log = folder / "log"
    with log.open("w") as output:
        process = subprocess.Popen([str(program), str(config)], stdout=output, stderr=output)
    try:

        def answers() -> bool:
            assert process.poll() is None, log.read_text()
            try:
                psycopg.connect(dsn).close()
            except psycopg.OperationalError:
                return False
            return True

        wait_for(answers)
        yield dsn
    finally:
        process.terminate()
        process.wait(30)
