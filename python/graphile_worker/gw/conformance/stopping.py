"""Checks of rules 19 to 21: how workers stop, and die."""

from __future__ import annotations

import signal

from graphile_worker.gw.conformance.rules import checks
from graphile_worker.gw.conformance.stage import Stage, expect


@checks(19)
def running_jobs_end_and_no_other_starts(stage: Stage) -> None:
    gate = stage.gate()
    first = stage.add(payload={"gate": str(gate)}, priority=-1)
    others = [stage.add() for _ in range(5)]
    process = stage.start(concurrency=1, grace=60)
    stage.wait_until_started(first)
    process.send(signal.SIGTERM)
    stage.wait_for(
        lambda: all(stage.is_free(job) for job in others), "it returns what it has not started"
    )
    stage.never(lambda: process.has_ended, "it ended while a job ran", seconds=1)
    gate.touch()
    stage.wait_for(lambda: process.has_ended, "the process ends after its last job")
    expect(stage.job(first) is None, "the job that ran was not completed")
    expect(not any(map(stage.starts, others)), "a job started after SIGTERM")
    used = [row for job in others if (row := stage.job(job)) and row["attempts"]]
    expect(not used, f"{len(used)} jobs that did not start have used an attempt")


@checks(19, 20)
def what_does_not_end_is_returned_with_its_attempt(stage: Stage) -> None:
    gate = stage.gate()
    job = stage.add(payload={"gate": str(gate)})
    process = stage.start(grace=1)
    stage.wait_until_started(job)
    (worker,) = stage.history("claim", job)
    stage.stop(process)
    expect(stage.is_free(job), "the job is still locked")
    expect(stage.job(job)["attempts"] == 0, "the job has used an attempt")
    expect(worker in stage.history("end"), "the worker did not call end_worker")


@checks(21)
def another_process_frees_and_runs_the_jobs_of_a_killed_one(stage: Stage) -> None:
    stage.set_dead_after(4)
    gate = stage.gate()
    job = stage.add(payload={"gate": str(gate)})
    process = stage.start()
    stage.wait_until_started(job)
    process.send(signal.SIGKILL)
    gate.touch()
    stage.start()
    stage.wait_until_completed(job)
    expect(stage.starts(job) == 2, f"the job was started {stage.starts(job)} times, not twice")
    expect(stage.history("return", job), "the attempt of the killed run was not given back")
