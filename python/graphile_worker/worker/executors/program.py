"""Run executable files as tasks, as Node's worker does."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
from collections.abc import Coroutine, Sequence
from datetime import UTC
from pathlib import Path
from typing import Any

from graphile_worker.client.tasks import RunOptions
from graphile_worker.crontab import CronItem
from graphile_worker.errors import TaskCrashed
from graphile_worker.log import SafeLogger
from graphile_worker.worker.context import ClaimedJob, Context
from graphile_worker.worker.executors.process import ending

#: Seconds between SIGTERM and SIGKILL.
KILL_AFTER = 5.0
#: The same where the worker leaves within seconds.
KILL_AFTER_FORCED = 1.0
#: Bytes of what a program wrote to stderr that are part of the error.
_KEPT = 4096
#: Characters of a program's output that are logged.
LOGGED = 1 << 20
_CHUNK = 65536


#: The programs that run.
_running: set[asyncio.subprocess.Process] = set()


def kill_programs() -> None:
    """End the programs that still run, with all that they started."""
    for process in list(_running):
        _signal(process, signal.SIGKILL)


class ProgramTask:
    """An executable file, which gets the job in its environment and the payload on stdin."""

    crontab: Sequence[CronItem] = ()
    stops_at_once = True

    def __init__(self, identifier: str, path: Path) -> None:
        self.identifier = identifier
        self.options = RunOptions()
        self.origin = str(path)
        self._path = path.absolute()

    async def call(self, payload: Any, context: Context) -> None:
        """Run the program to its end; raise TaskCrashed for an exit code that is not 0.

        When cancelled, send SIGTERM to the program and all that it started, after 5 seconds
        SIGKILL, and be cancelled when that is done.
        """
        starting = asyncio.ensure_future(self._start(context.job))
        cancelled: asyncio.CancelledError | None = None
        try:
            await asyncio.shield(starting)
        except asyncio.CancelledError as error:
            # A program whose start is cancelled is lost to asyncio, which then waits for ever.
            cancelled = error
            await asyncio.wait({starting})
        except OSError as error:
            raise TaskCrashed(
                f"{self.origin} cannot be run: {error.strerror}; does its first line name the"
                " program that reads it, such as #!/bin/sh?"
            ) from error
        if cancelled and starting.exception():
            raise cancelled
        process, tail = starting.result(), bytearray()
        _running.add(process)
        log = _Log(context.logger)
        text = json.dumps({"payload": payload}, ensure_ascii=False, separators=(",", ":"))
        ended = asyncio.gather(
            _feed(process, text.encode("utf-8", "surrogatepass")),
            log.read(process.stdout, logging.INFO),
            log.read(process.stderr, logging.WARNING, tail),
            process.wait(),
        )
        try:
            if cancelled:
                raise cancelled
            await asyncio.shield(ended)
        except asyncio.CancelledError:
            _signal(process, signal.SIGTERM)
            forced = context.abort.is_forced
            await asyncio.wait({ended}, timeout=KILL_AFTER_FORCED if forced else KILL_AFTER)
            raise
        finally:
            try:
                if not ended.done() or process.returncode is None:
                    _signal(process, signal.SIGKILL)
                    await asyncio.wait({ended}, timeout=KILL_AFTER)
                    ended.cancel()
            finally:
                _running.discard(process)
        if process.returncode:
            said = tail.decode(errors="replace").strip()
            raise TaskCrashed(
                f"{self.origin} {ending(process.returncode)}{': ' if said else ''}{said}"
            )

    def _start(self, job: ClaimedJob) -> Coroutine[Any, Any, asyncio.subprocess.Process]:
        return asyncio.create_subprocess_exec(
            self._path,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=_environment(self.identifier, job),
            start_new_session=True,
        )


def _environment(identifier: str, job: ClaimedJob) -> dict[str, str]:
    run_at = job.run_at.astimezone(UTC)
    env = {
        **os.environ,
        "GRAPHILE_WORKER_PAYLOAD_FORMAT": "json",
        "GRAPHILE_WORKER_TASK_IDENTIFIER": identifier,
        "GRAPHILE_WORKER_JOB_ID": str(job.id),
        "GRAPHILE_WORKER_JOB_KEY": job.key or "",
        "GRAPHILE_WORKER_JOB_ATTEMPTS": str(job.attempts),
        "GRAPHILE_WORKER_JOB_MAX_ATTEMPTS": str(job.max_attempts),
        "GRAPHILE_WORKER_JOB_PRIORITY": str(job.priority),
        # As JavaScript writes times.
        "GRAPHILE_WORKER_JOB_RUN_AT": run_at.isoformat(timespec="milliseconds")[:-6] + "Z",
    }
    if job.key is None:
        del env["GRAPHILE_WORKER_JOB_KEY"]
    return env


async def _feed(process: asyncio.subprocess.Process, text: bytes) -> None:
    assert process.stdin is not None
    # A program need not read its payload.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        process.stdin.write(text)
        await process.stdin.drain()
    process.stdin.close()
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        await process.stdin.wait_closed()


class _Log:
    """Logs what a program writes, by lines, up to a limit for each run."""

    def __init__(self, logger: logging.LoggerAdapter[logging.Logger]) -> None:
        self._logger = SafeLogger(logger)
        self._left = LOGGED

    async def read(
        self, stream: asyncio.StreamReader | None, level: int, tail: bytearray | None = None
    ) -> None:
        """Log each line; keep the end of all that came in ``tail``."""
        assert stream is not None
        rest = b""
        while chunk := await stream.read(_CHUNK):
            if tail is not None:
                tail += chunk
                del tail[:-_KEPT]
            if self._left <= 0:
                continue  # read on: a program whose pipe is full would stand still
            *lines, rest = (rest + chunk).split(b"\n")
            if len(rest) >= _CHUNK:
                lines, rest = [*lines, rest], b""
            for line in lines:
                self._line(level, line)
        if rest:
            self._line(level, rest)

    def _line(self, level: int, line: bytes) -> None:
        if self._left <= 0:
            return
        text = line.decode(errors="replace").rstrip("\r")
        self._left -= len(text) + 1
        self._logger.log(level, "%s", text)
        if self._left <= 0:
            self._logger.warning(
                "the program's further output is not logged: more than %d bytes", LOGGED
            )


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    # The group has the number of its first process, also when that one is gone.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)
