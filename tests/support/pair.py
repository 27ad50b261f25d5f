"""A primary and its standby on the loopback address, by streaming replication."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from graphile_worker.testing import embedded
from graphile_worker.testing.embedded import free_port, unprivileged
from psycopg.conninfo import conninfo_to_dict

from support.pg import CLIENTS, Database, Server, bin_dir, run

SETTINGS = {
    "max_connections": "60", "wal_level": "replica", "max_wal_senders": "5", "wal_keep_size": "'1GB'",
}  # fmt: skip

#: What was ever added: jobs that are done are gone, and ids that were lost are given again.
ADDED = """
    create table public.added (id bigint);
    create function public.note_added() returns trigger language plpgsql as $$ begin
      insert into public.added values (new.id); return null; end $$;
    create trigger added after insert on graphile_worker._private_jobs
      for each row execute function public.note_added();
"""


class Pair:
    """The first server and the second one; at first the second follows the first."""

    def __init__(self, first: embedded.Server, bins: Path, folder: Path, synchronous: bool) -> None:
        self._first, self._data, self._log = first, folder / "standby", folder / "log"
        at = conninfo_to_dict(first.dsn())
        self.ports = (int(str(at["port"])), free_port())
        self._pg_ctl = unprivileged(bins / "pg_ctl", folder / "bin")
        self._basebackup = unprivileged(CLIENTS[18] / "pg_basebackup", folder / "bin")
        self._synchronous = synchronous

    def database(self, number: int) -> Database:
        """Return the database on one of the servers."""
        return Database(f"host=127.0.0.1 port={self.ports[number]} user=postgres", "postgres", 18)

    @property
    def dsn(self) -> str:
        """The connection string that leads to whichever is the primary."""
        return (
            f"host=127.0.0.1,127.0.0.1 port={self.ports[0]},{self.ports[1]} user=postgres"
            " dbname=postgres target_session_attrs=read-write connect_timeout=5"
        )

    def follow(self) -> None:
        """Make the second server a standby; from then on commits wait for it, if they are to."""
        source = self._first.dsn()
        run([self._basebackup, "-d", source, "-D", self._data, "-R", "-X", "stream", "-c", "fast"])
        options = (
            f"-p {self.ports[1]} -c unix_socket_directories= -c listen_addresses=127.0.0.1"
            " -c synchronous_standby_names="
        )
        run([self._pg_ctl, "-D", self._data, "-w", "-o", options, "-l", self._log, "start"])
        if self._synchronous:
            first = self.database(0)
            first.rows("alter system set synchronous_standby_names = '*'")
            first.rows("select pg_reload_conf()")
            first.close()

    def delay(self) -> None:
        """Send nothing more to the standby: stop the process that does."""
        first = self.database(0)
        os.kill(first.value("select pid from pg_stat_replication"), signal.SIGSTOP)
        first.close()

    def crash(self) -> None:
        """End the primary without the care of a shutdown."""
        self._first.crash()

    def shut_down(self) -> None:
        """End the primary; what it has committed is sent before."""
        self._first.stop()

    def promote(self) -> None:
        """Make the second server the primary."""
        run([self._pg_ctl, "-D", self._data, "-w", "promote"])

    def rejoin(self) -> None:
        """Let the first server, which was shut down, follow the second one."""
        assert self._first._folder is not None
        data = self._first._folder / "data"
        (data / "standby.signal").touch()
        with (data / "postgresql.auto.conf").open("a") as conf:
            conf.write(f"primary_conninfo = 'host=127.0.0.1 port={self.ports[1]} user=postgres'\n")
            conf.write("synchronous_standby_names = ''\n")
        self._first.start()

    def stop(self) -> None:
        """End the second server."""
        run([self._pg_ctl, "-D", self._data, "-m", "immediate", "stop"], check=False)


@contextmanager
def pair(server: Server, folder: Path, *, synchronous: bool = False) -> Iterator[Pair]:
    """A pair with the extension, whose standby has caught up."""
    folder.chmod(0o777)
    bins = bin_dir(server.major)
    with embedded.Server(bins, settings=SETTINGS) as first:
        made = Pair(first, bins, folder, synchronous)
        db = made.database(0)
        db.rows("create extension graphile_worker")
        db.rows("select graphile_worker.set_recovery(interval '2 seconds')")
        db.rows(ADDED)
        db.close()
        made.follow()
        try:
            yield made
        finally:
            made.stop()
            assert first._folder is not None
            if not (first._folder / "data" / "postmaster.pid").exists():
                first.start()
