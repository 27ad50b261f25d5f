"""A bad night: workers, their server and what happens to both, drawn from a seed."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
from graphile_worker.testing import embedded
from graphile_worker.testing.network import Network
from support.pg import wait_for

from chaos import controls, records
from chaos.controls import Controls
from chaos.invariants import effects_are_there, jobs_end, locks_end
from chaos.processes import BOUND, FORCED_BOUND, GRACE, Gw

G = "graphile_worker"
DEAD_AFTER = 2.0
SETTINGS = (
    "graphile_worker.cursors = 'junk'", "graphile_worker.more = 'junk'",
    "graphile_worker.notify = 'junk'", "graphile_worker.notify = 'idle'", "datestyle = 'German'",
    "intervalstyle = 'sql_standard'", "client_encoding = 'LATIN1'", "timezone = 'Asia/Kathmandu'",
    "default_transaction_isolation = 'repeatable read'", "lock_timeout = '20ms'",
)  # fmt: skip
GARBAGE = (
    ("worker:migrate", '{"migrationNumber": 999, "breaking": true}'), ("worker:migrate", "junk"),
    ("worker:migrate", "[" * 3000), ("jobs:insert", "junk"), ("jobs:control", "\\"),
)  # fmt: skip


class Night(Controls):
    """A history of faults, and what has to hold after it."""

    def __init__(self, server: embedded.Server, folder: Path, seed: int, workers: int = 3) -> None:
        self.server, self.folder, self.rng = server, folder, random.Random(seed)
        self.runs_file = folder / "runs"
        self.runs_file.touch()
        self.network = Network(server.dsn())
        self.worker_dsn = f"{self.network.dsn} user=worker"
        self.started: list[Gw] = []
        self.history: list[str] = []
        #: Jobs without a key that were committed for sure, and those that an administrator ended.
        self.added: set[int] = set()
        self.managed: set[int] = set()
        self._ended = threading.Event()
        self._failure: BaseException | None = None
        self._prepare()
        self.workers = [Gw(self) for _ in range(workers)]
        for worker in self.workers:
            self._is_up(worker)
        self._threads = [
            threading.Thread(target=self._guarded, args=[body]) for body in (self._add, self._watch)
        ]
        for thread in self._threads:
            thread.start()

    def _prepare(self) -> None:
        with self.connect() as conn:
            conn.execute("create extension graphile_worker")
            conn.execute("create role worker login")
            conn.execute("select graphile_worker.grant_access('worker', 'work')")
            conn.execute(f"select {G}.set_recovery(make_interval(secs => %s), 1000)", [DEAD_AFTER])
            controls.prepare(conn)
            records.prepare(conn)

    def connect(self, timeout: float = 60) -> psycopg.Connection[Any]:
        """Connect as the owner, past the network, as soon as the server is there."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                return psycopg.connect(self.server.dsn(), autocommit=True)
            except psycopg.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    # --- what goes on all night

    def _guarded(self, body: Callable[[psycopg.Connection[Any]], None]) -> None:
        try:
            while not self._ended.is_set():
                try:
                    with self.connect() as conn:
                        conn.execute("set default_transaction_read_only = off")
                        while not self._ended.is_set():
                            body(conn)
                except psycopg.OperationalError:
                    continue
        except BaseException as failure:
            self._failure = failure

    def _add(self, conn: psycopg.Connection[Any]) -> None:
        if self._ended.wait(0.05):
            return
        if conn.execute(f"select count(*) > 300 from {G}._private_jobs").fetchall() == [(True,)]:
            return
        rng = random.Random()
        task = rng.choice(
            ["ok"] * 6 + ["pay"] * 2 + ["thread", "bad", "stubborn", "later"] + ["block"] * 1
        )
        most = {"block": 3.0, "stubborn": 1.0}.get(task, 0.1)
        payload: dict[str, Any] = {"seconds": round(rng.random() * most, 3)}
        if task == "block" and rng.random() < 0.8:
            payload["seconds"] = 0.05
        if task == "later":
            payload["until"] = time.monotonic() + 3
        if rng.random() < 0.05:
            payload["text"] = "x" * 1_000_000
        queue = rng.choice([None, None, "q0", "q1", "q2", "wide0", "wide1"])
        rows = conn.execute(
            f"select job.id from generate_series(1, %s), lateral {G}.add_job(%s, %s, queue_name :="
            " %s, max_attempts := case when %s = 'bad' then 1 else 25 end) as job",
            [rng.choice([1, 1, 5]), task, json.dumps(payload), queue, task],
        ).fetchall()
        self.added.update(job for (job,) in rows)
        if rng.random() < 0.3:  # keyed ones are merged and replaced
            keys = rng.sample(["k0", "k1", "k2", "k3"], 3)
            specs = (
                f"array(select row('ok', '[{{}}]', null, null, null, k, null, null)::{G}.job_spec"
            )
            conn.execute(f"select from {G}.add_jobs({specs} from unnest(%s::text[]) as k))", [keys])
        if rng.random() < 0.02:
            when = rng.choice(["infinity", "-infinity", "294276-01-01", "4713-01-01 BC"])
            conn.execute(f"select from {G}.add_job('ok', '[]', run_at := %s::timestamptz)", [when])

    def _watch(self, conn: psycopg.Connection[Any]) -> None:
        """No queue has two jobs in flight, ever, and no limit is exceeded."""
        controls.watch(conn)
        self._ended.wait(0.02)

    # --- what happens

    def live(self, seconds: float) -> None:
        """Let things happen for so long."""
        end = time.monotonic() + seconds
        faults = [
            self.freeze, self.kill, self.stop, self.stop_twice, self.cut, self.swallow, self.crash,
            self.read_only, self.revoke, self.limit, self.garbage, self.setting, self.manage,
            self.drain, self.stop_while_away, self.pause, self.cancel, self.deploy,
        ]  # fmt: skip
        while time.monotonic() < end:
            self._meet(self.rng.choice(faults))

    def live_through(self, **counts: int) -> None:
        """Let each of these faults happen so often, in some order."""
        faults = [name for name, count in counts.items() for _ in range(count)]
        self.rng.shuffle(faults)
        for name in faults:
            self._meet(getattr(self, name))

    def _meet(self, fault: Callable[[], None]) -> None:
        self.history.append(fault.__name__)
        fault()
        if self._failure is not None:
            raise self._failure
        time.sleep(self.rng.random() * 0.5)

    def _one(self) -> Gw:
        return self.rng.choice(self.workers)

    def _replace(self, worker: Gw) -> None:
        """Start another one; what is missing at its start ends it, so it is given the time."""
        new = self.workers[self.workers.index(worker)] = Gw(self)
        self._is_up(new)

    def _is_up(self, worker: Gw) -> None:
        pids = f"select (details ->> 'pid')::int from {G}.workers"
        with self.connect() as conn:
            wait_for(
                lambda: not worker.lives or (worker.process.pid,) in conn.execute(pids).fetchall(),
                "a worker starts",
            )
        assert worker.lives, worker.log.read_text()[-3000:]

    def freeze(self) -> None:
        """A machine is suspended, for longer than the worker may be silent."""
        worker = self._one()
        worker.signal(signal.SIGSTOP)
        time.sleep(DEAD_AFTER + self.rng.uniform(0.5, 3))
        worker.signal(signal.SIGCONT)

    def kill(self) -> None:
        """A process is killed."""
        worker = self._one()
        worker.kill()
        self._replace(worker)

    def stop(self) -> None:
        """A worker is stopped, as in a deployment."""
        worker = self._one()
        worker.signal(signal.SIGTERM)
        code = worker.ended_within(GRACE + BOUND)
        # Several tasks in a row may block it for all that time.
        worker.killed = "a task blocks it" in worker.log.read_text()
        assert code == 0 or worker.killed, worker.log.read_text()[-3000:]
        self._replace(worker)

    def stop_twice(self) -> None:
        """Somebody is impatient."""
        worker = self._one()
        worker.signal(signal.SIGTERM)
        time.sleep(self.rng.random() * 0.3)
        worker.signal(signal.SIGINT)
        worker.ended_within(FORCED_BOUND)
        worker.killed = True  # which is what it may have looked like to its jobs
        self._replace(worker)

    def stop_while_away(self) -> None:
        """A worker is stopped while its server is not there."""
        away = self.rng.choice([self.network.swallow, self.network.cut])
        away()
        if away == self.network.cut:
            self.network.swallow()
        worker = self._one()
        worker.signal(signal.SIGTERM)
        worker.ended_within(GRACE + BOUND)
        worker.killed = True
        self.network.heal()
        self._replace(worker)

    def cut(self) -> None:
        """Every connection of the workers is lost."""
        self.network.cut()

    def swallow(self) -> None:
        """No packet arrives for a while."""
        self.network.swallow()
        time.sleep(self.rng.uniform(0.5, 2 * DEAD_AFTER))
        self.network.heal()

    def crash(self) -> None:
        """The server crashes and recovers."""
        self.server.crash()
        time.sleep(self.rng.random())
        self.server.start()

    def read_only(self) -> None:
        """The server is read-only for a while, as a standby is."""
        self._system("default_transaction_read_only = on")
        time.sleep(self.rng.uniform(0.5, 2))
        self._system("default_transaction_read_only = off")

    def _system(self, setting: str) -> None:
        with self.connect() as conn:
            conn.execute("set default_transaction_read_only = off")
            conn.execute(f"alter system set {setting}".encode())
            conn.execute("select pg_reload_conf()")

    def revoke(self) -> None:
        """The workers' role loses its rights, and gets them back."""
        with self.connect() as conn:
            conn.execute("select graphile_worker.revoke_access('worker')")
            time.sleep(self.rng.uniform(0.5, 2))
            conn.execute("select graphile_worker.grant_access('worker', 'work')")

    def limit(self) -> None:
        """The workers' role may not connect any more."""
        with self.connect() as conn:
            conn.execute("alter role worker connection limit 0")
            self._disconnect(conn)
            time.sleep(self.rng.uniform(0.5, 2))
            conn.execute("alter role worker connection limit -1")

    @staticmethod
    def _disconnect(conn: psycopg.Connection[Any]) -> None:
        conn.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'worker'"
        )

    def garbage(self) -> None:
        """Anybody who may connect notifies of anything."""
        with self.connect() as conn:
            for _ in range(50):
                conn.execute("select pg_notify(%s, %s)", self.rng.choice(GARBAGE))

    def setting(self) -> None:
        """Somebody gives the workers' role a setting."""
        with self.connect() as conn:
            conn.execute(f"alter role worker set {self.rng.choice(SETTINGS)}".encode())
            self._disconnect(conn)
            time.sleep(self.rng.random())
            if self.rng.random() < 0.5:
                conn.execute("alter role worker reset all")
                self._disconnect(conn)

    def manage(self) -> None:
        """An administrator looks after jobs."""
        with self.connect() as conn:
            ids = [
                job
                for (job,) in conn.execute(f"select id from {G}.jobs order by random() limit 20")
            ]
            verb = self.rng.choice(
                ["complete_jobs(%s)", "reschedule_jobs(%s, now())", "permanently_fail_jobs(%s)"]
            )
            for (job,) in conn.execute(f"select id from {G}.{verb}".encode(), [ids]):
                self.managed.add(job)
            conn.execute(f"select {G}.remove_job('k0')")
            conn.execute(f"select {G}.delete_unused_queues()")

    def drain(self) -> None:
        """Cron runs what is due."""
        once = Gw(self, "--once")
        try:
            once.process.wait(3)
        except subprocess.TimeoutExpired:  # there is more to do all the time
            once.signal(signal.SIGTERM)
            once.ended_within(GRACE + BOUND)

    # --- what has to hold

    def dawn(self) -> None:
        """Heal everything, let the workers come to an end, and see that all is well."""
        with self.connect() as conn:
            conn.execute("alter role worker reset all")
            self._disconnect(conn)
        self._ended.set()
        for thread in self._threads:
            thread.join(60)
        if self._failure is not None:
            raise self._failure
        dead = [worker.log.read_text()[-3000:] for worker in self.workers if not worker.lives]
        assert dead == [], "a worker ended without being told to"
        with self.connect() as conn:
            jobs_end(self, conn)
            records.records_are_there(conn, self.added)
            records.effects_came_once(conn, self.added)
            locks_end(conn)
            effects_are_there(self)
            controls.schedules_are_kept(conn, self.runs_file, self.managed)
            for worker in self.workers:
                worker.signal(signal.SIGTERM)
            for worker in self.workers:
                assert worker.ended_within(GRACE + BOUND) == 0, worker.log.read_text()[-3000:]
            held = f"select count(*) from {G}.jobs where locked_at is not null"
            assert conn.execute(held).fetchall() == [(0,)]

    def close(self) -> None:
        """End what is left."""
        self._ended.set()
        for worker in self.started:
            if worker.lives:
                worker.signal(signal.SIGCONT)
                worker.kill()
        self.network.close()
        for thread in self._threads:
            thread.join(60)
