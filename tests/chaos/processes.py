"""The processes of a bad night's workers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from chaos.night import Night

HERE = Path(__file__).parent
#: Seconds that running tasks are given when a worker is told to stop.
GRACE = 3.0
#: What a stop may take beyond that, and after a second signal; and what a slow machine adds.
BOUND, FORCED_BOUND, SLOW = 10.0, 3.0, 20.0


class Gw:
    """A `gw run` process."""

    def __init__(self, night: Night, *options: str) -> None:
        self.log = night.folder / f"{len(night.started)}.log"
        clock = night.rng.choice([0, 0, 7200, -7200])
        env = {
            **os.environ, "GW_DSN": night.worker_dsn, "CHAOS_RUNS": str(night.runs_file),
            "CHAOS_CLOCK": str(clock),
        }  # fmt: skip
        command = [
            sys.executable, "-m", "graphile_worker.gw.cli", "run", "tasks", "-c", "4",
            "--poll-interval", "1", "--grace", str(GRACE), *options,
        ]  # fmt: skip
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, cwd=HERE, env=env, stderr=log, stdout=log)
        self.is_once = "--once" in options
        #: Whether it was killed, so that what it did may be done again.
        self.killed = False
        night.started.append(self)

    @property
    def lives(self) -> bool:
        return self.process.poll() is None

    def signal(self, number: int) -> None:
        if self.lives:
            self.process.send_signal(number)

    def kill(self) -> None:
        self.killed = True
        self.signal(signal.SIGKILL)
        self.process.wait(60)

    def ended_within(self, seconds: float) -> int:
        """Wait for its end; fail where it takes longer than it may."""
        try:
            return self.process.wait(seconds + SLOW)
        except subprocess.TimeoutExpired as error:
            text = f"it does not stop within {seconds:g} s: {self.log.read_text()[-3000:]}"
            raise AssertionError(text) from error
