"""What becomes of a key that is added again: the same by SQL, by both clients, and by Node on its own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import product

import graphile_worker as gw
import pytest
from graphile_worker import aio
from graphile_worker.job import JobKeyMode
from support.node import node_script
from support.pg import Database

MODES: tuple[JobKeyMode, ...] = ("replace", "preserve_run_at", "unsafe_dedupe")
#: How the job that has the key is brought into its state.
STATES = {
    "absent": None,
    "waiting": "priority = priority",
    "failed": "attempts = 1, last_error = 'oops'",
    "permanently failed": "attempts = max_attempts, last_error = 'oops'",
    "locked": "attempts = 1, locked_at = now(), locked_by = 'w'",
}
#: Old payload, new payload, and what both make where the new one is applied.
PAYLOADS = [
    ({"v": 1}, {"v": 2}, {"v": 2}),
    ([1], [2], [1, 2]),
    ([1], {"v": 2}, {"v": 2}),
    ({"v": 1}, [2], [2]),
]
#: mode and state: whether the job is the old one, whether run_at is the new one, whether the rest is,
#: its attempts and revision, and what becomes of the old job where it is another.
TRUTH: dict[tuple[JobKeyMode, str], tuple[bool, bool, bool, int, int, str | None]] = {
    ("replace", "absent"): (False, True, True, 0, 0, None),
    ("replace", "waiting"): (True, True, True, 0, 1, None),
    ("replace", "failed"): (True, True, True, 0, 1, None),
    ("replace", "permanently failed"): (False, True, True, 0, 0, "spent"),
    ("replace", "locked"): (False, True, True, 0, 0, "spent"),
    ("preserve_run_at", "absent"): (False, True, True, 0, 0, None),
    ("preserve_run_at", "waiting"): (True, False, True, 0, 1, None),
    ("preserve_run_at", "failed"): (True, True, True, 0, 1, None),
    ("preserve_run_at", "permanently failed"): (False, True, True, 0, 0, "spent"),
    ("preserve_run_at", "locked"): (False, True, True, 0, 0, "spent"),
    ("unsafe_dedupe", "absent"): (False, True, True, 0, 0, None),
    ("unsafe_dedupe", "waiting"): (True, False, False, 0, 1, None),
    ("unsafe_dedupe", "failed"): (True, False, False, 1, 1, None),
    ("unsafe_dedupe", "permanently failed"): (True, False, False, 3, 1, None),
    ("unsafe_dedupe", "locked"): (True, False, False, 1, 1, None),
}
CASES = list(product(MODES, STATES, range(len(PAYLOADS))))


def new_jobs() -> list[gw.JobSpec]:
    """Return what each case adds."""
    return [
        gw.JobSpec(
            "new", PAYLOADS[pair][1], job_key=f"k{n}", job_key_mode=mode, queue_name="new", priority=5,
            max_attempts=9, flags=["new"], run_at=datetime(2060, 1, 1, tzinfo=UTC),
        )
        for n, (mode, _, pair) in enumerate(CASES)
    ]  # fmt: skip


#: Adds the new job of each case, and returns the ids that it was told.
Way = Callable[[Database], list[int]]


def by_sql(db: Database) -> list[int]:
    call = (
        "select id from graphile_worker.add_job('new', %s, 'new', '2060-01-01 00:00+00', 9, %s, 5,"
        " '{new}', %s)"
    )
    return [
        db.value(call, json.dumps(PAYLOADS[pair][1]), f"k{n}", mode)
        for n, (mode, _, pair) in enumerate(CASES)
    ]


def by_client(db: Database) -> list[int]:
    conn = db.connect()
    return [gw.add_job("new", new.payload, new, conn=conn).id for new in new_jobs()]


def by_client_in_bulk(db: Database) -> list[int]:
    return [job.id for job in gw.add_jobs(new_jobs(), conn=db.connect())]


def by_awaited_client(db: Database) -> list[int]:
    async def main() -> list[int]:
        async with aio.WorkerUtils(db.dsn) as utils:
            return [(await utils.add_job("new", new.payload, new)).id for new in new_jobs()]

    return asyncio.run(main())


def by_node(db: Database) -> list[int]:
    cases = [[mode, PAYLOADS[pair][1]] for mode, _, pair in CASES]
    ids: list[str] = node_script(
        db,
        "018",
        f"""
        const ids = [];
        for (const [n, [jobKeyMode, payload]] of {json.dumps(cases)}.entries()) {{
            const job = await utils.addJob('new', payload, {{
                jobKey: `k${{n}}`, jobKeyMode, queueName: 'new', priority: 5, maxAttempts: 9,
                flags: ['new'], runAt: new Date('2060-01-01T00:00:00Z'),
            }});
            ids.push(job.id);
        }}
        return ids;
        """,
    )
    return [int(one) for one in ids]


WAYS: dict[str, Way] = {
    "SQL": by_sql,
    "client": by_client,
    "client, in bulk": by_client_in_bulk,
    "awaited client": by_awaited_client,
    "Node on its own schema": by_node,
}


@pytest.mark.parametrize("way", WAYS)
def test_a_key_that_is_added_again(empty_db: Database, way: str, subtests: pytest.Subtests) -> None:
    if way.startswith("Node"):
        node_script(empty_db, "018", "await utils.migrate();")
        assert empty_db.value("select to_regproc('graphile_worker.get_jobs')") is None
    else:
        empty_db.rows("create extension graphile_worker")
    old: list[int | None] = [
        None if STATES[state] is None else empty_db.value(
            "select id from graphile_worker.add_job('old', %s, 'old', '2050-01-01', 3, %s, 1, '{old}')",
            json.dumps(PAYLOADS[pair][0]), f"k{n}",
        )
        for n, (_, state, pair) in enumerate(CASES)
    ]  # fmt: skip
    for job, (_, state, _) in zip(old, CASES, strict=True):
        if job is not None:
            change = f"update graphile_worker._private_jobs set {STATES[state]} where id = {job}"
            empty_db.rows(change.encode())

    told = WAYS[way](empty_db)

    for n, (mode, state, pair) in enumerate(CASES):
        with subtests.test(mode=mode, state=state, payloads=pair):
            same, new_run_at, applied, attempts, revision, before = TRUTH[mode, state]
            row = empty_db.row(
                "select j.id, payload, j.run_at = '2060-01-01 00:00+00', j.attempts, j.revision,"
                " v.task_identifier, v.queue_name, j.priority, j.max_attempts, j.flags,"
                " j.last_error is null"
                " from graphile_worker._private_jobs j join graphile_worker.jobs v using (id)"
                " where j.key = %s", f"k{n}",
            )  # fmt: skip
            was, given, joined = PAYLOADS[pair]
            payload = given if not same else joined if applied else was
            text = "new" if applied else "old"
            failed = state in ("failed", "permanently failed") and not applied
            assert row == (
                told[n], payload, new_run_at, attempts, revision, text, text,
                5 if applied else 1, 9 if applied else 3, {text: True}, not failed,
            )  # fmt: skip
            assert (told[n] == old[n]) is same
            if before == "spent":
                left = empty_db.row(
                    "select key, attempts = max_attempts, locked_by from graphile_worker.jobs"
                    " where id = %s", old[n],
                )  # fmt: skip
                assert left == (None, True, "w" if state == "locked" else None)
