"""HAProxy before a pair of servers: it asks each which one is the primary, as it asks Patroni."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psycopg
import pytest
from graphile_worker.testing.embedded import free_port

from support.pair import Pair
from support.pg import wait_for

HAPROXY = Path("/usr/sbin/haproxy")
# Only root can have been given it by `make test`; anybody else may have it.
NEEDS_HAPROXY = pytest.mark.skipif(
    os.geteuid() != 0 and not HAPROXY.exists(), reason="haproxy is Debian's"
)
CONFIG = """
defaults
  mode tcp
  timeout connect 2s
  timeout client 1h
  timeout server 1h
listen primary
  bind 127.0.0.1:{port}
  option httpchk GET /primary
  default-server inter 200ms fall 2 rise 1 on-marked-down shutdown-sessions
"""


@contextmanager
def _role_of(port: int) -> Iterator[int]:
    """Serve 200 at /primary while the server at the port is one, else 503; give the port."""

    class Role(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            dsn = f"host=127.0.0.1 port={port} user=postgres dbname=postgres connect_timeout=2"
            try:
                with psycopg.connect(dsn) as conn:
                    row = conn.execute("select pg_is_in_recovery()").fetchone()
            except psycopg.OperationalError:
                row = None
            self.send_response(200 if row == (False,) else 503)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    responder = ThreadingHTTPServer(("127.0.0.1", 0), Role)
    thread = threading.Thread(target=responder.serve_forever, daemon=True)
    thread.start()
    try:
        yield responder.server_port
    finally:
        responder.shutdown()
        thread.join()
        responder.server_close()


@contextmanager
def haproxy(pair: Pair, folder: Path) -> Iterator[int]:
    """Run HAProxy before the pair; give the port that leads to the primary."""
    with ExitStack() as stack:
        checks = [(port, stack.enter_context(_role_of(port))) for port in pair.ports]
        yield stack.enter_context(balancer(checks, folder))


@contextmanager
def balancer(checks: list[tuple[int, int]], folder: Path) -> Iterator[int]:
    """Run HAProxy before servers, by their ports and the ports at which they say their role."""
    with ExitStack() as stack:
        port, config = free_port(), folder / "haproxy.cfg"
        servers = [
            f"  server s{number} 127.0.0.1:{at} check port {role}\n"
            for number, (at, role) in enumerate(checks)
        ]
        config.write_text(CONFIG.format(port=port) + "".join(servers))
        log = (folder / "haproxy.log").open("w")
        stack.callback(log.close)
        process = subprocess.Popen([HAPROXY, "-db", "-f", config], stdout=log, stderr=log)
        try:
            wait_for(lambda: process.poll() is not None or _leads_to_the_primary(port))
            assert process.poll() is None, (folder / "haproxy.log").read_text()
            yield port
        finally:
            process.kill()
            process.wait()


def _leads_to_the_primary(port: int) -> bool:
    """Whether it does each time: before the first checks any server is taken for one."""
    dsn = f"host=127.0.0.1 port={port} user=postgres dbname=postgres"
    try:
        for _ in range(10):
            with psycopg.connect(dsn) as conn:
                if conn.execute("select pg_is_in_recovery()").fetchone() != (False,):
                    return False
    except psycopg.OperationalError:
        return False
    return True
