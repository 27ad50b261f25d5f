"""How the functions of tasks run: in the loop, in threads and in processes, and how they are stopped."""

from __future__ import annotations

import asyncio
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from graphile_worker import Tasks
from graphile_worker.errors import GraphileWorkerError, InvalidPayload, TaskCrashed, TasksError
from graphile_worker.retry import Snooze
from graphile_worker.worker.context import Context, context
from graphile_worker.worker.executors.call import Executors, RunnableTask, runnable
from graphile_worker.worker.executors.execute import Outcome, execute
from support.pg import wait_for

from worker.contexts import a_context, alive
from worker.executors import task_functions as functions


@asynccontextmanager
async def executors(processes: int | None = 2) -> AsyncIterator[Executors]:
    made = Executors(processes=processes)
    try:
        yield made
    finally:
        await made.close()


def call(function: Any, payload: Any = None, ctx: Context | None = None, processes: int = 2) -> Any:
    async def main() -> Any:
        async with executors(processes) as made:
            return await runnable("t", function, made).call(payload, ctx or a_context())

    return asyncio.run(main())


def executed(function: Any, payload: Any) -> Outcome:
    """Return what becomes of a job whose task is the function."""

    async def main() -> Outcome:
        async with executors() as made:
            return await execute(runnable("t", function, made), a_context(payload), ())

    return asyncio.run(main())


def test_coroutines_run_in_the_loop_and_others_in_threads_in_their_context() -> None:
    here = threading.get_ident()

    async def slow(payload: Any) -> Any:
        await asyncio.sleep(0)
        return threading.get_ident() == here, context().job.id, payload

    def quick(payload: Any, given: Context) -> Any:
        return threading.get_ident() == here, context() is given, payload

    def returns_a_coroutine(payload: Any) -> Awaitable[Any]:
        return slow(payload)

    class Callable:
        async def __call__(self, payload: Any) -> Any:
            return await slow(payload)

    for function in (slow, partial(slow), Callable(), returns_a_coroutine):
        assert call(function, 1) == (True, 7, 1)
    assert call(quick, 1) == (False, True, 1)
    with pytest.raises(GraphileWorkerError, match="no job is running"):
        context()


def test_what_a_function_raises_is_raised_and_never_ends_the_worker() -> None:
    def fails(how: str) -> None:
        raise {"value": ValueError, "stop": StopIteration, "exit": SystemExit}[how]("x")

    async def awaited(how: str) -> None:
        fails(how)

    for function in (fails, awaited):
        with pytest.raises(ValueError, match=r"^x$"):
            call(function, "value")
        with pytest.raises(InvalidPayload):
            call(function, 1)
        outcome = executed(function, "exit")
        assert isinstance(outcome.error, TaskCrashed)
        assert str(outcome.error) == "the task raised SystemExit('x')"
    with pytest.raises(TaskCrashed, match="StopIteration"):
        call(fails, "stop")


def test_threads_are_used_again_and_none_is_in_the_way_of_another() -> None:
    async def main() -> None:
        async with executors() as made:
            who = runnable("who", lambda: threading.get_ident(), made)
            first = await who.call(None, a_context())
            assert await who.call(None, a_context()) == first
            together, barrier = 40, threading.Barrier(40, timeout=30)
            meet = runnable("meet", lambda payload: barrier.wait(), made)
            numbers = await asyncio.gather(*(meet.call(None, a_context()) for _ in range(together)))
            assert sorted(numbers) == list(range(together))

    asyncio.run(main())


def test_a_cancelled_thread_is_told_and_left_alone() -> None:
    go, told = threading.Event(), threading.Event()

    def stubborn(payload: Any, given: Context) -> None:
        if given.abort.wait(30):
            told.set()
        go.wait(30)

    async def main() -> None:
        async with executors() as made:
            task, ctx = runnable("t", stubborn, made), a_context()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await task.call(None, ctx)
            assert (ctx.abort.is_set(), made.abandoned_threads) == (True, 1)
            assert await runnable("n", lambda: "runs", made).call(None, a_context()) == "runs"
            await asyncio.to_thread(told.wait, 30)
            go.set()
            async with asyncio.timeout(30):
                while made.abandoned_threads:
                    await asyncio.sleep(0.01)

    asyncio.run(main())


def test_an_abandoned_thread_does_not_hold_up_the_end_of_the_process() -> None:
    code = """
import asyncio, time
from graphile_worker.worker.executors.call import Executors, runnable
from worker.contexts import a_context

async def main():
    executors = Executors()
    try:
        async with asyncio.timeout(0.05):
            await runnable("t", lambda: time.sleep(600), executors).call(None, a_context())
    except TimeoutError:
        print("left")
    await executors.close()

asyncio.run(main())
"""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60
    )
    assert (done.stdout, done.stderr) == ("left\n", "")


def in_processes(
    main: Callable[[Executors], Coroutine[Any, Any, None]], processes: int = 1
) -> None:
    async def body() -> None:
        async with executors(processes) as made:
            await main(made)

    asyncio.run(body())


def task(name: str, made: Executors) -> RunnableTask:
    return runnable(name, functions.tasks[name], made)


def test_a_process_gets_the_decoded_payload_and_is_used_again() -> None:
    async def main(made: Executors) -> None:
        first, email = await task("process_id", made).call({"email": {"to": "a"}}, a_context())
        assert (first == os.getpid(), email) == (False, functions.Email("a"))
        assert (await task("process_id", made).call({}, a_context()))[0] == first
        os.kill(first, 9)  # while it is idle
        wait_for(lambda: not alive(first))
        assert (await task("process_id", made).call({}, a_context()))[0] != first

    in_processes(main)


def test_what_is_raised_in_a_process_arrives_as_it_is() -> None:
    async def main(made: Executors) -> None:
        async def raised(how: str) -> Any:
            with pytest.raises(Exception) as caught:  # noqa: PT011 - each kind
                await task("raises", made).call({"how": how}, a_context())
            return caught.value

        snooze, odd = await raised("snooze"), await raised("odd")
        assert (type(snooze), str(snooze), snooze.when.seconds) == (Snooze, "later", 5)
        assert (type(odd), str(odd), odd.a) == (functions.Odd, "1 and 2", 1)
        assert "task_functions.py" in odd.__notes__[0]
        assert repr(await raised("local")) == "RuntimeError('Local: hidden')"
        assert "SystemExit: 3" in str(await raised("exit"))
        batch = await task("raises", made).call({"how": "batch"}, a_context())
        assert (batch[::2], str(batch[1])) == ([1, "x"], "1 and 2")
        assert await task("raises", made).call({"how": "thread"}, a_context()) is None

    in_processes(main)


def test_a_process_that_dies_fails_its_own_job_only() -> None:
    async def main(made: Executors) -> None:
        for how, message in (("killed", "was ended by SIGKILL"), ("0", "ended with exit code 0")):
            with pytest.raises(TaskCrashed, match=f"^the process of task raises {message}$"):
                await task("raises", made).call({"how": how}, a_context())
        assert await task("process_id", made).call({}, a_context())

    in_processes(main)


def test_a_cancelled_process_is_dead_when_the_call_is_and_so_is_what_it_started(
    tmp_path: Path,
) -> None:
    file = tmp_path / "pids"

    async def main(made: Executors) -> None:
        stuck = asyncio.create_task(task("stuck", made).call({"file": str(file)}, a_context()))
        waiting = asyncio.create_task(task("process_id", made).call({}, a_context()))
        await asyncio.to_thread(wait_for, file.exists)
        pid, child = map(int, file.read_text().split())
        assert (alive(pid), alive(child), waiting.done()) == (True, True, False)
        stuck.cancel()
        with pytest.raises(asyncio.CancelledError):
            await stuck
        assert not alive(pid)
        await asyncio.to_thread(wait_for, lambda: not alive(child))
        assert (await waiting)[0] != pid

    in_processes(main)


def test_closing_kills_processes_and_so_does_the_end_of_a_killed_worker(tmp_path: Path) -> None:
    code = """
import asyncio, sys
from graphile_worker.worker.executors.call import Executors, runnable
from worker.executors import task_functions as functions
from worker.contexts import a_context

async def main():
    executors = Executors(processes=1)
    task = runnable("process_id", functions.tasks["process_id"], executors)
    print((await task.call({}, a_context()))[0], flush=True)
    if sys.argv[1] == "wait":
        sys.stdin.read()

if __name__ == "__main__":
    asyncio.run(main())
"""
    program = tmp_path / "program.py"
    program.write_text(code)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    for how in ("leave", "wait"):
        with subprocess.Popen(
            [sys.executable, program, how],
            env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        ) as worker:  # fmt: skip
            assert worker.stdout is not None
            assert worker.stderr is not None
            pid = int(worker.stdout.readline())
            if how == "wait":
                worker.kill()
            assert worker.wait(30) == (-9 if how == "wait" else 0), worker.stderr.read()
        wait_for(lambda pid=pid: not alive(pid))  # type: ignore[misc]


def test_what_cannot_run_is_told_when_it_is_loaded() -> None:
    tasks = Tasks()

    def generator() -> Any:
        yield

    async def coroutine() -> None: ...
    def local() -> None: ...
    def asks(context: Context) -> None: ...

    in_a_process = partial(tasks.task, executor="process")
    for function, message in (
        (generator, "generator function"),
        (3, "task t is 3: pass a function"),
        (in_a_process("a")(coroutine), "write `def` instead of `async def`"),
        (in_a_process("b")(local), "cannot import .*at the top of a module"),
        (in_a_process("c")(asks), "a context cannot be sent to a process"),
    ):
        with pytest.raises(TasksError, match=message):
            runnable("t", function, Executors())


def test_references_are_pickled_by_name() -> None:
    made = runnable("process_id", functions.tasks["process_id"], Executors())
    reference = pickle.loads(pickle.dumps(made._reference))  # type: ignore[attr-defined]
    assert reference.find() is functions.tasks["process_id"].function
