"""Checks of rules 5 to 9, and 17 and 18: what the worker claims, and when."""

from __future__ import annotations

from graphile_worker.gw.conformance.rules import checks
from graphile_worker.gw.conformance.stage import Stage, expect


@checks(5)
def jobs_of_other_tasks_are_left_alone(stage: Stage) -> None:
    others = [stage.add("not_its_task") for _ in range(3)]
    own = [stage.add() for _ in range(3)]
    stage.start()
    stage.wait_until_completed(*own)
    claimed = [job for job in others if stage.history("claim", job)]
    expect(not claimed, f"{len(claimed)} jobs of a task that it does not run were claimed")


@checks(6)
def a_claim_that_fails_when_it_commits_starts_no_job(stage: Stage) -> None:
    stage.rows("update conformance.failing set claims = 3")
    job = stage.add()
    stage.start(poll=0.5)
    stage.wait_until_completed(job)
    failed = stage.value("select last_value from conformance.failing_claims")
    expect(failed >= 3, "the claims were not tried again")
    expect(stage.starts(job) == 1, f"the job was started {stage.starts(job)} times")


@checks(7)
def it_fetches_again_when_a_limited_job_has_ended(stage: Stage) -> None:
    stage.rows("select graphile_worker.set_limit('task', 'run', max_running := 1)")
    jobs = [stage.add() for _ in range(12)]
    stage.start(poll=90)
    stage.wait_until_completed(*jobs)


@checks(7)
def it_fetches_again_when_the_rate_of_a_limit_allows_it(stage: Stage) -> None:
    stage.rows(
        "select graphile_worker.set_limit('task', 'run', rate := 4, per := '1 second', burst := 1)"
    )
    jobs = [stage.add() for _ in range(12)]
    stage.start(poll=90)
    stage.wait_until_completed(*jobs)


@checks(7)
def many_jobs_run_without_waiting_for_the_next_poll(stage: Stage) -> None:
    jobs = [stage.add() for _ in range(60)]
    stage.start(poll=90)
    stage.start(poll=90)
    stage.wait_until_completed(*jobs)
    starts = [job for event, job in stage.reported() if event == "start"]
    expect(len(starts) == len(set(starts)) == 60, f"60 jobs were started {len(starts)} times")


@checks(8)
def what_it_cannot_start_is_left_to_others(stage: Stage) -> None:
    gates = [stage.gate(), stage.gate()]
    long = [stage.add(payload={"gate": str(gate)}, priority=-1) for gate in gates]
    waiting = [stage.add() for _ in range(6)]
    stage.start(concurrency=2)
    for job in long:
        stage.wait_until_started(job)
    stage.wait_for(
        lambda: all(stage.is_free(job) for job in waiting), "it returns jobs that it cannot start"
    )
    claim = "select count(*) from graphile_worker.get_jobs('another', 6, array['run'])"
    stage.wait_for(lambda: stage.value(claim), "another worker gets one of them")
    for gate in gates:
        gate.touch()
    stage.wait_until_completed(*long)


@checks(9)
def a_new_job_starts_at_once_whatever_notifications_come(stage: Stage) -> None:
    stage.start(poll=60)
    for number in range(8):
        stage.wait_until_completed(stage.add())
        for channel in ("jobs:insert", "jobs:control", "worker:migrate"):
            for text in ("", "x", "null", "[]", '{"a": {}}', f"[{number}", "1" * 5000):
                stage.rows("select pg_notify(%s, %s)", channel, text)


@checks(9)
def a_new_job_starts_without_a_notification(stage: Stage) -> None:
    stage.start(poll=1)
    stage.wait_until_completed(stage.add())
    stage.rows("set graphile_worker.notify = off")
    for _ in range(3):
        stage.wait_until_completed(stage.add())


@checks(17)
def jobs_of_a_queue_run_one_at_a_time_and_in_order(stage: Stage) -> None:
    jobs = [stage.add(queue_name="one at a time", max_attempts=1) for _ in range(30)]
    stage.start()
    stage.start()
    stage.wait_until_completed(*jobs)
    expected = [(event, job) for job in jobs for event in ("start", "end")]
    expect(stage.reported() == expected, f"they ran as {stage.reported()}")


@checks(18)
def no_more_jobs_are_claimed_than_a_limit_allows(stage: Stage) -> None:
    stage.rows("select graphile_worker.set_limit('task', 'run', max_running := 2)")
    jobs = [stage.add() for _ in range(30)]
    stage.start()
    stage.start()
    stage.wait_until_completed(*jobs)
    running, most = 0, 0
    history = "select event from conformance.history where job_id is not null order by id"
    for (event,) in stage.rows(history):
        running += 1 if event == "claim" else -1
        most = max(most, running)
    expect(most <= 2, f"{most} jobs were claimed at once under a limit of 2")
