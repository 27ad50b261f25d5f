"""Thirty-two sessions on eight keys: no null row, no error, no deadlock, and no request lost."""

from __future__ import annotations

import json
import random
import threading
import time
from collections import defaultdict

import psycopg
import pytest
from support.pg import Database

pytestmark = pytest.mark.majors(13, 18)

KEYS = [f"k{i}" for i in range(8)]
ADDERS, WORKERS = 24, 8


@pytest.mark.parametrize(
    ("seconds", "bulk"),
    [
        pytest.param(10, False, id="10s"),
        pytest.param(60, False, id="60s", marks=pytest.mark.slow),
        pytest.param(60, True, id="60s-with-add_jobs", marks=pytest.mark.slow),
    ],
)
def test_every_request_is_run_or_replaced_by_a_later_one(
    db: Database, seconds: int, bulk: bool
) -> None:
    #: job -> revision -> what the add that made this revision asked for
    asked: dict[int, dict[int, int]] = defaultdict(dict)
    ran: dict[int, dict[int, int]] = defaultdict(dict)
    errors: list[BaseException] = []
    stop_adding, stop_working = threading.Event(), threading.Event()
    counter = iter(range(10**9))
    lock = threading.Lock()

    def guarded(body: object, name: str) -> None:
        try:
            body(name)  # type: ignore[operator]
        except BaseException as error:
            errors.append(error)

    def adder(name: str) -> None:
        connection, rng = db.connect(), random.Random(name)
        while not stop_adding.is_set():
            mode = rng.choice(["replace", "replace", "preserve_run_at"])
            if not bulk or rng.random() < 0.8:
                with lock:
                    n = next(counter)
                rows = connection.execute(
                    "select id, revision, payload from graphile_worker.add_job('t', %s,"
                    " job_key := %s, job_key_mode := %s)",
                    (json.dumps({"n": n}), rng.choice(KEYS), mode),
                ).fetchall()
            else:
                keys = rng.sample(KEYS, rng.randint(2, 8))
                with lock:
                    payloads = [json.dumps({"n": next(counter)}) for _ in keys]
                rows = connection.execute(
                    "select id, revision, payload from graphile_worker.add_jobs(array(select row('t',"
                    " p, null, null, null, k, null, null)::graphile_worker.job_spec"
                    " from unnest(%s::text[], %s::json[]) as given (k, p)), %s)",
                    (keys, payloads, mode == "preserve_run_at"),
                ).fetchall()
            with lock:
                for job, revision, payload in rows:
                    assert job is not None, "a null row"
                    asked[job][revision] = payload["n"]

    def work(name: str, stop: threading.Event | None) -> None:
        connection, rng = db.connect(), random.Random(name)
        while True:
            jobs = connection.execute(
                "select id, revision, payload from graphile_worker.get_jobs(%s, 3)", (name,)
            ).fetchall()
            with lock:
                for job, revision, payload in jobs:
                    ran[job][revision] = payload["n"]
            ids = [job for job, _, _ in jobs]
            how = rng.random() if stop else 0.0
            if how < 0.6:
                sql, arg = "finish_jobs(%s, %s)", ids
            elif how < 0.8:
                sql, arg = "return_jobs(%s, %s)", ids
            else:
                failures = [{"id": job, "error": "no", "run_at": "2020-01-01"} for job in ids]
                sql, arg = "fail_jobs(%s, %s)", json.dumps(failures)  # type: ignore[assignment]
            while True:
                try:
                    done = connection.execute(
                        f"select done from graphile_worker.{sql}", (name, arg)
                    )
                    break
                except psycopg.errors.LockNotAvailable:  # nothing was changed
                    continue
            assert all(row[0] for row in done), "a job was no longer its worker's"
            if (stop is None or stop.is_set()) and not jobs:
                return

    threads = [
        threading.Thread(target=guarded, args=(adder, f"adder {i}")) for i in range(ADDERS)
    ] + [
        threading.Thread(target=guarded, args=(lambda n: work(n, stop_working), f"worker {i}"))
        for i in range(WORKERS)
    ]  # fmt: skip
    deadlocks = "select deadlocks from pg_stat_database where datname = current_database()"
    for thread in threads:
        thread.start()
    end = time.monotonic() + seconds
    while time.monotonic() < end and not errors:
        stop_adding.wait(0.1)
    stop_adding.set()
    for thread in threads[:ADDERS]:
        thread.join(60)
    stop_working.set()
    for thread in threads[ADDERS:]:
        thread.join(60)
    assert [str(error) for error in errors] == []
    work("last", None)
    assert db.value(deadlocks) == 0
    assert len(asked) > 50
    lost = [
        job
        for job, revisions in asked.items()
        if ran.get(job, {}).get(max(revisions)) != revisions[max(revisions)]
    ]
    assert lost == []
    assert db.value("select count(*) from graphile_worker._private_jobs where is_available") == 0
