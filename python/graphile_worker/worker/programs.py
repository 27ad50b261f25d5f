"""Run executable files as tasks, as Node's worker does."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import Callable, Coroutine, Sequence
from datetime import UTC
from pathlib import Path
from typing import Any

from graphile_worker.crontab import CronItem
from graphile_worker.errors import TaskCrashed
from graphile_worker.tasks import RunOptions
from graphile_worker.worker.context import ClaimedJob, Context
from graphile_worker.worker.processes import ending

#: Seconds between SIGTERM and SIGKILL.
KILL_AFTER = 5.0
#: Bytes of what a program wrote to stderr that are part of the error.
_KEPT = 4096
_CHUNK = 65536


class ProgramTask:
    """An executable file, which gets the job in its environment and the payload on stdin."""

    crontab: Sequence[CronItem] = ()

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
        text = json.dumps({"payload": payload}, ensure_ascii=False, separators=(",", ":"))
        ended = asyncio.gather(
            _feed(process, text.encode("utf-8", "surrogatepass")),
            _log(process.stdout, context.logger.info),
            _log(process.stderr, context.logger.warning, tail),
            process.wait(),
        )
        try:
            if cancelled:
                raise cancelled
            await asyncio.shield(ended)
        except asyncio.CancelledError:
            _signal(process, signal.SIGTERM)
            await asyncio.wait({ended}, timeout=KILL_AFTER)
            raise
        finally:
            if not ended.done() or process.returncode is None:
                _signal(process, signal.SIGKILL)
                await asyncio.wait({ended}, timeout=KILL_AFTER)
                ended.cancel()
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


async def _log(
    stream: asyncio.StreamReader | None, log: Callable[..., None], tail: bytearray | None = None
) -> None:
    """Log each line; keep the end of all that came in ``tail``."""
    assert stream is not None
    rest = b""
    while chunk := await stream.read(_CHUNK):
        if tail is not None:
            tail += chunk
            del tail[:-_KEPT]
        *lines, rest = (rest + chunk).split(b"\n")
        if len(rest) >= _CHUNK:
            lines, rest = [*lines, rest], b""
        for line in lines:
            log("%s", line.decode(errors="replace").rstrip("\r"))
    if rest:
        log("%s", rest.decode(errors="replace"))


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    # The group has the number of its first process, also when that one is gone.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)
