"""Checks of rules 1 to 4: the worker's id, its heartbeat, and what becomes of it in bad hours."""

from __future__ import annotations

import json
import signal

from graphile_worker.gw.conformance.rules import checks
from graphile_worker.gw.conformance.stage import Stage, expect


def _alive(stage: Stage) -> set[str]:
    found = stage.rows("select worker_id from graphile_worker.workers where worker_id <> 'other'")
    return {worker for (worker,) in found}


@checks(1, 20)
def each_process_has_an_id_of_its_own_and_ends_it(stage: Stage) -> None:
    first, second = stage.start(), stage.start()
    stage.wait_for(lambda: len(_alive(stage)) == 2, "two processes have sent heartbeats")
    ids = _alive(stage)
    stage.stop(first)
    stage.stop(second)
    stage.start()
    stage.wait_for(lambda: _alive(stage) - ids, "a third process sends a heartbeat under a new id")
    kept = ids - set(stage.history("end"))
    expect(not kept, f"{len(kept)} of 2 ids were not ended by end_worker")


@checks(2)
def heartbeats_come_before_the_first_claim_and_while_a_job_runs(stage: Stage) -> None:
    stage.set_dead_after(4)
    gate = stage.gate()
    job = stage.add(payload={"gate": str(gate)})
    with stage.other_worker():
        stage.start(concurrency=1)
        stage.wait_until_started(job)
        (worker,) = stage.history("claim", job)
        first, *_ = stage.rows(
            "select event from conformance.history where worker_id = %s order by id", worker
        )
        expect(first == ("heartbeat",), "the worker called get_jobs before its first heartbeat")
        stage.never(
            lambda: worker in stage.history("end"),
            "a job ran for longer than dead_after, and its worker was presumed dead",
            seconds=10,
        )
        gate.touch()
        stage.wait_until_completed(job)
    expect(stage.starts(job) == 1, "the job was started more than once")


@checks(3, 12)
def a_worker_that_was_frozen_goes_on_under_a_new_id(stage: Stage) -> None:
    stage.set_dead_after(4)
    gate = stage.gate()
    job = stage.add("write", {"gate": str(gate)})
    with stage.other_worker():
        process = stage.start(concurrency=1)
        stage.wait_until_started(job)
        (worker,) = stage.history("claim", job)
        process.send(signal.SIGSTOP)
        stage.wait_for(lambda: worker in stage.history("end"), "the frozen worker is presumed dead")
        stage.set_dead_after(60)
        process.send(signal.SIGCONT)
        stage.wait_for(lambda: _alive(stage) - {worker}, "it sends a heartbeat under a new id")
        stage.wait_until_started(job, 2)
        gate.touch()
        stage.wait_until_completed(job)
    (finisher,) = stage.history("complete", job)
    expect(finisher != worker, "the job was completed under the id that was presumed dead")
    expect(stage.ends(job) == 1, "the run under the old id was not stopped")
    effects = stage.value("select count(*) from conformance.effects where job_id = %s", job)
    expect(effects == 1, f"the writes of {effects} runs of one job were committed")


@checks(4)
def a_claim_whose_answer_was_lost_is_given_back(stage: Stage) -> None:
    stage.set_dead_after(15)
    stage.start()
    stage.wait_until_completed(stage.add())
    jobs: list[int] = []
    stage.answer_is_lost("claim", before=lambda: jobs.append(stage.add()))
    stage.wait_until_completed(*jobs)
    expect(stage.starts(jobs[0]) == 1, "the job was started more than once")


@checks(4, 13, own_server=True)
def jobs_run_after_a_crash_of_the_server_also_one_whose_completion_was_undone(stage: Stage) -> None:
    stage.set_dead_after(15)
    stage.start()
    job = stage.add()
    row = json.dumps(stage.job(job))
    stage.wait_until_completed(job)
    (worker,) = stage.history("claim", job)
    others = [stage.add() for _ in range(20)]
    stage.network.swallow()
    stage.crash_server()
    stage.rows(
        "insert into graphile_worker._private_jobs"
        " (id, task_id, payload, attempts, locked_at, locked_by) overriding system value"
        " select id, task_id, payload, 1, now(), %s"
        " from json_populate_record(null::graphile_worker._private_jobs, %s::text::json)",
        worker, row,
    )  # fmt: skip
    stage.network.cut()
    stage.network.heal()
    stage.wait_until_completed(job, *others)
    expect(stage.starts(job) == 2, "the job whose completion was undone did not run again")
