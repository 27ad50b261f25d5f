"""The queue against a small model of it, step by step; and many adds at once against one by one."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import Any

import graphile_worker as gw
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from support.pg import Database

pytestmark = pytest.mark.majors(13, 18)

KEYS = st.sampled_from(["k1", "k2", "k3"])
MODES = st.sampled_from(["replace", "preserve_run_at", "unsafe_dedupe", None])
PAYLOADS = st.sampled_from([None, {"a": 1}, [1], [2, 3], "text"])
TASKS = st.sampled_from(["t", "u"])
QUEUES = st.sampled_from([None, "q", "r"])
SMALL = st.integers(1, 3)


@dataclass
class Row:
    """What the model knows of a job."""

    task: str
    payload: Any
    queue: str | None
    priority: int
    max_attempts: int
    key: str | None
    attempts: int = 0
    error: str | None = None
    locked: bool = False
    revision: int = 0

    @property
    def available(self) -> bool:
        return not self.locked and self.attempts < self.max_attempts


@dataclass
class Model:
    """The queue as its documentation tells it."""

    jobs: dict[int, Row] = field(default_factory=dict)

    def add(self, new: Row, mode: str | None) -> int | None:
        """Apply an add; return the id of the job it is applied to, None for a new one."""
        found = [(i, row) for i, row in self.jobs.items() if new.key and row.key == new.key]
        if not found:
            return None
        ((job, old),) = found
        if mode == "unsafe_dedupe":
            old.revision += 1
            return job
        if not old.available:
            old.key, old.attempts = None, old.max_attempts
            return None
        both = isinstance(old.payload, list) and isinstance(new.payload, list)
        payload = old.payload + new.payload if both else new.payload
        self.jobs[job] = replace(new, payload=payload, revision=old.revision + 1)
        return job

    def busy_queues(self) -> set[str | None]:
        return {row.queue for row in self.jobs.values() if row.locked} - {None}

    def takes(self, count: int) -> list[int]:
        taken: list[int] = []
        busy = self.busy_queues()
        for job, row in sorted(self.jobs.items(), key=lambda item: (item[1].priority, item[0])):
            if len(taken) < count and row.available and row.queue not in busy:
                taken.append(job)
                busy |= {row.queue} - {None}
        return taken


class Queue(RuleBasedStateMachine):
    """All jobs are due at one moment in the past, so that order is priority, then id."""

    conn: psycopg.Connection[Any]

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.utils = gw.WorkerUtils(self.conn)
        self.conn.execute("delete from graphile_worker._private_jobs")
        self.conn.execute(
            "update graphile_worker._private_job_queues set locked_at = null, locked_by = null"
        )

    def some(self, data: st.DataObject) -> list[int]:
        return data.draw(st.lists(st.sampled_from(sorted(self.model.jobs)), unique=True, max_size=3)) if (
            self.model.jobs
        ) else []  # fmt: skip

    @rule(
        task=TASKS,
        payload=PAYLOADS,
        queue=QUEUES,
        priority=SMALL,
        most=SMALL,
        key=KEYS | st.none(),
        mode=MODES,
    )
    def add(
        self,
        task: str,
        payload: Any,
        queue: str | None,
        priority: int,
        most: int,
        key: str | None,
        mode: Any,
    ) -> None:
        new = Row(task, {} if payload is None else payload, queue, priority, most, key)
        same = self.model.add(new, mode)
        job = self.utils.add_job(
            task, payload, queue_name=queue, priority=priority, max_attempts=most, job_key=key,
            job_key_mode=mode,
        )  # fmt: skip
        if same is None:
            assert job.id not in self.model.jobs
            self.model.jobs[job.id] = new
        else:
            assert job.id == same
        self.same_row(job.id, job)

    @rule(data=st.data(), count=SMALL)
    def take_and_hold(self, data: st.DataObject, count: int) -> None:
        taken = self.model.takes(count)
        rows: list[int] = []
        more = "true"
        # A slow machine's call may leave some for the next one.
        while len(rows) < count and more == "true":
            found = self.conn.execute(
                "select id from graphile_worker.get_jobs('w', %s)", [count - len(rows)]
            ).fetchall()
            rows += [job for (job,) in found]
            ((more,),) = self.conn.execute(
                "select current_setting('graphile_worker.more', true)"
            ).fetchall()
        assert rows == taken
        for job in taken:
            self.model.jobs[job].locked = True
            self.model.jobs[job].attempts += 1

    def locked(self) -> list[int]:
        return sorted(job for job, row in self.model.jobs.items() if row.locked)

    @rule(data=st.data(), final=st.booleans())
    def fail(self, data: st.DataObject, final: bool) -> None:
        for job in self.locked()[:1]:
            failure = json.dumps(
                [{"id": job, "error": "e", "final": final, "run_at": "2000-01-01"}]
            )
            self.conn.execute("select graphile_worker.fail_jobs('w', %s)", [failure])
            row = self.model.jobs[job]
            row.locked, row.error = False, "e"
            if final:
                row.attempts = row.max_attempts

    @rule()
    def finish(self) -> None:
        for job in self.locked()[-1:]:
            self.conn.execute("select graphile_worker.finish_jobs('w', %s)", [[job]])
            del self.model.jobs[job]

    @rule(key=KEYS)
    def remove(self, key: str) -> None:
        found = [job for job, row in self.model.jobs.items() if row.key == key]
        removed = self.utils.remove_job(key)
        assert ([] if removed is None else [removed.id]) == found
        for job in found:
            row = self.model.jobs[job]
            if row.locked:
                row.key, row.attempts = None, row.max_attempts
            else:
                del self.model.jobs[job]

    @rule(data=st.data())
    def complete(self, data: st.DataObject) -> None:
        chosen = self.some(data)
        idle = sorted(job for job in chosen if not self.model.jobs[job].locked)
        assert [job.id for job in self.utils.complete_jobs(chosen)] == idle
        for job in idle:
            del self.model.jobs[job]

    @rule(data=st.data())
    def permanently_fail(self, data: st.DataObject) -> None:
        chosen = self.some(data)
        idle = sorted(job for job in chosen if not self.model.jobs[job].locked)
        assert [job.id for job in self.utils.permanently_fail_jobs(chosen, "no")] == idle
        for job in idle:
            self.model.jobs[job].error = "no"
            self.model.jobs[job].attempts = self.model.jobs[job].max_attempts

    @rule(
        data=st.data(),
        priority=SMALL | st.none(),
        attempts=st.integers(0, 2) | st.none(),
        most=SMALL | st.none(),
    )
    def reschedule(
        self, data: st.DataObject, priority: int | None, attempts: int | None, most: int | None
    ) -> None:
        chosen = self.some(data)
        idle = sorted(job for job in chosen if not self.model.jobs[job].locked)
        done = self.utils.reschedule_jobs(
            chosen, priority=priority, attempts=attempts, max_attempts=most
        )
        assert [job.id for job in done] == idle
        for job in idle:
            row = self.model.jobs[job]
            row.priority = row.priority if priority is None else priority
            row.attempts = row.attempts if attempts is None else attempts
            row.max_attempts = row.max_attempts if most is None else most

    @rule()
    def collect_names(self) -> None:
        self.utils.cleanup("queues", "tasks")

    def same_row(self, job: int, seen: gw.Job) -> None:
        row = self.model.jobs[job]
        assert (
            seen.task_identifier, seen.payload, seen.queue_name, seen.priority, seen.max_attempts,
            seen.key, seen.attempts, seen.last_error, seen.locked_at is not None, seen.revision,
            seen.is_available,
        ) == (
            row.task, row.payload, row.queue, row.priority, row.max_attempts, row.key, row.attempts,
            row.error, row.locked, row.revision, row.available,
        )  # fmt: skip

    @invariant()
    def the_queue_is_as_the_model_says(self) -> None:
        # Every job is due at the same moment, as in the model.
        self.conn.execute(
            "update graphile_worker._private_jobs set run_at = '2000-01-01' where run_at <> '2000-01-01'"
        )
        seen = {job.id: job for job in self.utils.list_jobs(limit=10000)}
        assert seen.keys() == self.model.jobs.keys()
        for job, row in seen.items():
            self.same_row(job, row)
        held = self.conn.execute(
            "select queue_name from graphile_worker._private_job_queues where not is_available"
        ).fetchall()
        assert {name for (name,) in held} == self.model.busy_queues()


def _settings(examples: int, steps: int) -> settings:
    return settings(
        max_examples=examples, stateful_step_count=steps, deadline=None, database=None,
        suppress_health_check=list(HealthCheck), derandomize=examples < 1000, print_blob=True,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("examples", "steps"),
    [
        pytest.param(100, 50, id="5000 steps"),
        pytest.param(2000, 100, id="200000 steps", marks=pytest.mark.slow),
    ],
)
def test_the_queue_does_what_the_model_does(db: Database, examples: int, steps: int) -> None:
    with psycopg.connect(db.dsn, autocommit=True) as conn:

        class OnThisDatabase(Queue):
            pass

        OnThisDatabase.conn = conn
        run_state_machine_as_test(OnThisDatabase, settings=_settings(examples, steps))


SPEC = st.builds(
    gw.JobSpec,
    identifier=TASKS,
    payload=PAYLOADS,
    queue_name=QUEUES,
    priority=st.none() | st.integers(-32768, 32767),
    max_attempts=st.none() | st.integers(1, 32767),
    job_key=KEYS | st.none(),
    job_key_mode=MODES,
    flags=st.none()
    | st.lists(st.text(st.characters(exclude_characters="\0", codec="utf-8")), max_size=2),
)


def content(job: gw.Job) -> Any:
    """Return what is the same whether jobs were added one by one or at once."""
    skipped = ("id", "run_at", "created_at", "updated_at", "task_id", "job_queue_id")
    return {name: value for name, value in job._asdict().items() if name not in skipped}


@pytest.mark.parametrize(
    "examples", [pytest.param(100, id="100"), pytest.param(5000, id="5000", marks=pytest.mark.slow)]
)
def test_many_at_once_are_as_one_by_one(db: Database, examples: int) -> None:
    with psycopg.connect(db.dsn, autocommit=True) as conn:
        utils = gw.WorkerUtils(conn)

        def prepare(held: bool) -> None:
            conn.execute("delete from graphile_worker._private_jobs")
            old = [
                gw.JobSpec("old", ["old"], job_key="k1"),
                gw.JobSpec("old", ["old"], job_key="k2"),
            ]
            jobs = utils.add_jobs(old)
            if held:
                conn.execute(
                    "update graphile_worker._private_jobs set locked_at = '2000-01-01', locked_by = 'w'"
                    " where id = %s", [jobs[0].id],
                )  # fmt: skip

        @_settings(examples, 1)
        @given(specs=st.lists(SPEC, max_size=12), held=st.booleans(), chunk=st.integers(1, 5))
        def check(specs: list[gw.JobSpec], held: bool, chunk: int) -> None:
            prepare(held)
            single = [utils.add_job(spec.identifier, spec.payload, spec) for spec in specs]
            left = utils.list_jobs(limit=1000)
            prepare(held)
            bulk = utils.add_jobs(specs, chunk_size=chunk)
            assert [content(job) for job in bulk] == [content(job) for job in single]
            assert [content(job) for job in utils.list_jobs(limit=1000)] == [
                content(job) for job in left
            ]
            same = {one.id: many.id for one, many in zip(single, bulk, strict=True)}
            assert len(same) == len({job.id for job in bulk})

        check()
