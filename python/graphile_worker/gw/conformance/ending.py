"""Checks of rules 10 to 16: how runs end."""

from __future__ import annotations

import psycopg

from graphile_worker.gw.conformance.rules import checks
from graphile_worker.gw.conformance.stage import Stage, expect

_AWKWARD = "it's \"odd\": $1 %s \\n {'a'} 日本語\nand a second line"


def _effects(stage: Stage, job: int) -> int:
    found: int = stage.value("select count(*) from conformance.effects where job_id = %s", job)
    return found


@checks(10)
def jobs_are_completed_and_each_runs_once(stage: Stage) -> None:
    jobs = [stage.add() for _ in range(60)]
    stage.start()
    stage.wait_until_completed(*jobs)
    starts = [stage.starts(job) for job in jobs]
    expect(starts == [1] * 60, f"60 jobs were started {sum(starts)} times")


@checks(10, 12)
def writes_are_committed_with_the_completion_or_not_at_all(stage: Stage) -> None:
    stage.start(concurrency=1)
    kept = stage.add("write")
    stage.wait_until_completed(kept)
    times = _effects(stage, kept)
    expect(times == 1, f"a job's writes were committed {times} times")
    gate = stage.gate()
    lost = stage.add("write", {"gate": str(gate)})
    stage.wait_until_started(lost)
    (worker,) = stage.history("claim", lost)
    stage.rows("select graphile_worker.force_unlock_workers(array[%s])", worker)
    stage.rows("select count(*) from graphile_worker.get_jobs('another', 1, array['write'])")
    gate.touch()
    stage.wait_until_completed(stage.add())
    expect(stage.job(lost) is not None, "a job was completed that another worker had claimed")
    expect(not _effects(stage, lost), "writes were committed although done was false")


@checks(11)
def a_failure_keeps_its_error_and_is_retried_later(stage: Stage) -> None:
    job = stage.add(payload={"error": _AWKWARD}, max_attempts=2, queue_name="failing")
    stage.start()
    stage.wait_for(lambda: stage.history("fail", job), "the failure is recorded")
    row = stage.job(job)
    expect(_AWKWARD in (row["last_error"] or ""), f"last_error is {row['last_error']!r}")
    expect(row["attempts"] == 1, f"attempts is {row['attempts']} after the first failure")
    delay = stage.value(
        "select extract(epoch from jobs.run_at - history.at)::float8 from graphile_worker.jobs"
        " join conformance.history on history.job_id = jobs.id where event = 'fail'"
    )
    expect(2.5 < delay < 3, f"the second attempt is due after {delay:.1f} s, not 2.7")
    stage.wait_for(lambda: len(stage.history("fail", job)) == 2, "the second attempt fails")
    after = stage.add(queue_name="failing")
    stage.wait_until_completed(after)
    expect(stage.starts(job) == 2, f"a job of two attempts was started {stage.starts(job)} times")
    expect(stage.job(job)["attempts"] == 2, "the failed job has not used all its attempts")


@checks(13)
def a_completion_whose_answer_was_lost_is_no_failure(stage: Stage) -> None:
    stage.set_dead_after(15)
    gate = stage.gate()
    stage.start()
    job = stage.add(payload={"gate": str(gate)})
    stage.wait_until_started(job)
    stage.answer_is_lost("complete", before=gate.touch)
    stage.wait_until_completed(job, stage.add())
    expect(stage.starts(job) == 1, "the job was started again")


@checks(13)
def a_completion_that_did_not_arrive_is_sent_again(stage: Stage) -> None:
    stage.set_dead_after(15)
    gate = stage.gate()
    stage.start()
    job = stage.add(payload={"gate": str(gate)})
    stage.wait_until_started(job)
    stage.network.swallow()
    gate.touch()
    stage.wait_for(lambda: stage.ends(job), "the run ends")
    stage.network.cut()
    stage.network.heal()
    stage.wait_until_completed(job, stage.add())
    expect(stage.starts(job) == 1, "the job was started again")


@checks(14)
def a_row_that_another_transaction_locks_is_tried_again(stage: Stage) -> None:
    stage.set_dead_after(15)
    gate = stage.gate()
    good = stage.add(payload={"gate": str(gate)})
    bad = stage.add(payload={"gate": str(gate), "error": "it fails"}, max_attempts=1)
    stage.start()
    for job in (good, bad):
        stage.wait_until_started(job)
    waiting = (
        "select query_start from pg_stat_activity"
        " where wait_event_type = 'Lock' and datname = current_database()"
    )
    calls: set[object] = set()

    def are_made_again() -> bool:
        calls.update(stage.rows(waiting))
        return len(calls) >= 3

    with psycopg.connect(stage.dsn) as conn:
        conn.execute(
            "select from graphile_worker._private_jobs where id = any (%s) for update",
            [[good, bad]],
        )
        gate.touch()
        stage.wait_for(
            are_made_again, "the calls that end the jobs have given up and are made again"
        )
    stage.wait_until_completed(good)
    stage.wait_for(lambda: stage.history("fail", bad), "the failure is recorded")
    expect(stage.starts(good) == stage.starts(bad) == 1, "a job was started again")


@checks(15)
def only_the_failed_elements_of_a_batch_run_again(stage: Stage) -> None:
    elements = [{"n": 1}, {"n": 2, "fail": True}, {"n": 3}, {"n": 4, "fail": True}]
    job = stage.add("batch", elements, max_attempts=1)
    whole = stage.add("batch", [{"n": 1}, {"n": 2}])
    stage.start()
    stage.wait_until_completed(whole)
    stage.wait_for(lambda: stage.history("fail", job), "the failed elements are recorded")
    row = stage.job(job)
    left = [element for element in elements if "fail" in element]
    expect(row["payload"] == left, f"the payload is {row['payload']}, not {left}")
    expect(row["last_error"], "last_error is empty")


@checks(16)
def a_cancelled_job_is_stopped_and_does_not_run_again(stage: Stage) -> None:
    gate = stage.gate()
    job = stage.add(payload={"gate": str(gate)})
    stage.start(concurrency=1, poll=1)
    stage.wait_until_started(job)
    stage.rows("select graphile_worker.cancel_jobs(array[%s]::bigint[], 'not wanted')", job)
    stage.wait_for(lambda: stage.is_free(job), "the cancelled job is failed")
    row = stage.job(job)
    expect(row["attempts"] >= row["max_attempts"], "the cancelled job is retried")
    gate.touch()
    stage.wait_until_completed(stage.add())
    expect(not stage.ends(job), "the cancelled job ran to its end")


@checks(16)
def prefetched_jobs_that_are_paused_are_returned(stage: Stage) -> None:
    gate = stage.gate()
    first = stage.add(payload={"gate": str(gate)}, priority=-1)
    others = [stage.add() for _ in range(5)]
    stage.start(concurrency=1)
    stage.wait_until_started(first)
    stage.rows("select graphile_worker.pause_task('run')")
    stage.wait_for(
        lambda: all(stage.is_free(job) for job in others), "it returns what it has not started"
    )
    gate.touch()
    stage.wait_until_completed(first)
    stage.never(lambda: any(map(stage.starts, others)), "a job of a paused task started", seconds=2)
    stage.rows("select graphile_worker.resume_task('run')")
    stage.wait_until_completed(*others)
