"""Worker processes, and a feeder that keeps them busy."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import psycopg

from support.pg import wait_for

PROGRAM = Path(__file__).with_name("process.py")

#: Ten jobs of 10 to 50 ms, about half of them in ten queues, of which no attempt may be lost; none
#: while the backlog is long.
ADD = """
    select job.id
    from (select random() as dice from generate_series(1, 10)) as drawn,
    lateral graphile_worker.add_job(
        %s,
        json_build_object('seconds', 0.01 + 0.04 * dice),
        queue_name := case when dice < 0.5 then 'q' || floor(dice * 20) end,
        max_attempts := 1
    ) as job
    where (select count(*) from graphile_worker._private_jobs) < 100
"""


class Process:
    """A worker process; its output and its log are in files of the folder."""

    def __init__(self, dsn: str, folder: Path, *, seconds: float = 0.02) -> None:
        command = [sys.executable, str(PROGRAM), dsn, str(seconds)]
        with (folder / "new.out").open("w") as out, (folder / "new.log").open("w") as log:
            self._popen = subprocess.Popen(command, stdout=out, stderr=log)
        self.pid = self._popen.pid
        self.output = (folder / "new.out").rename(folder / f"{self.pid}.out")
        self.log = (folder / "new.log").rename(folder / f"{self.pid}.log")

    @property
    def lives(self) -> bool:
        return self._popen.poll() is None

    def wait_for(self, condition: Callable[[], object], what: str) -> None:
        """Wait until the condition holds, while the process lives."""
        wait_for(lambda: self._popen.poll() is not None or condition(), what)
        assert self.lives, self.log.read_text()[-2000:]

    def kill(self) -> None:
        """End it at once, as the kernel does when memory is short."""
        self._popen.kill()
        self._popen.wait()

    def stop(self) -> None:
        """Ask it to end, and see that it does, and without an error."""
        self._popen.send_signal(signal.SIGTERM)
        assert self._popen.wait(60) == 0, self.log.read_text()[-2000:]


class Feeder:
    """Adds up to 200 jobs a second in the background until its block ends, restarts or not.

    ``added`` are those that were committed for sure.
    """

    def __init__(self, dsn: str, task: str) -> None:
        self._dsn, self._task = dsn, task
        self.added: list[int] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._error: BaseException | None = None

    def __enter__(self) -> Feeder:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            while not self._ended.is_set():
                try:
                    self._feed()
                except (psycopg.OperationalError, psycopg.errors.ReadOnlySqlTransaction):
                    self._ended.wait(0.05)
        except BaseException as failure:
            self._error = failure

    def _feed(self) -> None:
        with psycopg.connect(self._dsn, autocommit=True) as conn:
            while not self._ended.wait(0.05):
                self.added += [job for (job,) in conn.execute(ADD, (self._task,))]
