"""A pair of servers that Patroni keeps: it promotes the standby when the primary is gone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
from graphile_worker.testing.embedded import free_port, unprivileged

from support.pg import wait_for

ETCD, PATRONI = Path("/usr/bin/etcd"), Path("/usr/bin/patroni")
BIN = Path("/usr/lib/postgresql/15/bin")
# Only root can have been given them by `make test`; anybody else may have them.
NEEDS_PATRONI = pytest.mark.skipif(
    os.geteuid() != 0 and not (ETCD.exists() and PATRONI.exists() and BIN.exists()),
    reason="patroni, etcd and its PostgreSQL are Debian's",
)
CONFIG = """
scope: queue
name: {name}
restapi: {{listen: "127.0.0.1:{rest}", connect_address: "127.0.0.1:{rest}"}}
etcd3: {{host: "127.0.0.1:{etcd}"}}
bootstrap:
  dcs:
    ttl: 20
    loop_wait: 1
    retry_timeout: 3
    synchronous_mode: true
    postgresql:
      use_pg_rewind: true
      parameters: {{max_connections: 60, fsync: "off"}}
  initdb: [encoding: UTF8, locale: C.UTF-8]
  pg_hba: ["host all all 127.0.0.1/32 trust", "host replication all 127.0.0.1/32 trust"]
postgresql:
  listen: "127.0.0.1:{port}"
  connect_address: "127.0.0.1:{port}"
  data_dir: {data}
  bin_dir: {bin}
  pgpass: {data}.pgpass
  authentication:
    superuser: {{username: postgres}}
    replication: {{username: replicator}}
  parameters: {{unix_socket_directories: ""}}
"""


class Member:
    """A PostgreSQL server and the Patroni that keeps it."""

    def __init__(self, number: int, etcd: int, folder: Path) -> None:
        self.port, self.rest = free_port(), free_port()
        self._config, self._log = folder / f"m{number}.yml", folder / f"m{number}.log"
        self._program = unprivileged(PATRONI, folder / "bin")
        self._config.write_text(
            CONFIG.format(
                name=f"m{number}", rest=self.rest, etcd=etcd, port=self.port, bin=BIN,
                data=folder / f"m{number}",
            )
        )  # fmt: skip
        self._data = folder / f"m{number}"
        self.start()

    def start(self) -> None:
        with self._log.open("a") as log:
            self._process = subprocess.Popen(
                [self._program, self._config], stdout=log, stderr=log, start_new_session=True
            )

    def kill(self) -> None:
        """End both, as when the machine has lost its power."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        with suppress(FileNotFoundError, ProcessLookupError, ValueError):
            pid = int((self._data / "postmaster.pid").read_text().split()[0])
            os.killpg(pid, signal.SIGKILL)

    def is_(self, role: str) -> bool:
        """Whether Patroni says that the server has the role: primary or replica."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.rest}/{role}", timeout=5) as found:
                return bool(json.load(found)["state"] == "running")
        except (OSError, urllib.error.URLError):
            return False

    def log(self) -> str:
        return self._log.read_text()[-3000:]


@contextmanager
def patroni(folder: Path) -> Iterator[list[Member]]:
    """A primary and its synchronous standby."""
    folder.chmod(0o777)
    with ExitStack() as stack:
        client, peer = free_port(), free_port()
        (folder / "etcd").mkdir(mode=0o700)
        own = f"http://127.0.0.1:{client}"
        command = [
            str(ETCD), "--data-dir", str(folder / "etcd"), "--listen-client-urls", own,
            "--advertise-client-urls", own, "--listen-peer-urls", f"http://127.0.0.1:{peer}",
        ]  # fmt: skip
        with (folder / "etcd.log").open("w") as log:
            etcd = subprocess.Popen(command, stdout=log, stderr=log)
        stack.callback(etcd.wait)
        stack.callback(etcd.kill)
        first = Member(1, client, folder)
        stack.callback(first.kill)
        wait_for(lambda: first.is_("primary"), "the first is the primary")
        second = Member(2, client, folder)
        stack.callback(second.kill)
        wait_for(lambda: second.is_("synchronous"), "the second is its synchronous standby")
        try:
            yield [first, second]
        finally:
            print(first.log(), second.log(), sep="\n\n")
