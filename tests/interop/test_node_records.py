"""What Node's workers leave in the history, what they do not, and whom they cannot pass by."""

from __future__ import annotations

import pytest
from graphile_worker import WorkerUtils
from graphile_worker.errors import JobFailed, ResultUnavailable
from support.node import VERSIONS, NodeWorker, node_script
from support.pg import Database, wait_for

pytestmark = pytest.mark.majors(13, 18)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_job_that_node_completes_leaves_no_record(db: Database, version: str) -> None:
    with WorkerUtils(db.dsn) as utils:
        utils.keep_history()
        job = utils.add_job("note", {})
        with NodeWorker(db, version, pause=0.5):
            wait_for(lambda: db.value("select count(*) from graphile_worker.jobs") == 0)
        assert utils.find_job(job.id) is None
        assert utils.job_history() == []


@pytest.mark.parametrize("version", VERSIONS)
def test_a_job_that_fails_for_good_in_node_is_recorded_and_told_of(
    db: Database, version: str
) -> None:
    with WorkerUtils(db.dsn) as utils:
        utils.keep_history()
        utils.on_dead_letter("letters")
        job = utils.add_job("fail", {}, max_attempts=1)
        with NodeWorker(db, version):
            wait_for(lambda: db.value("select count(*) from graphile_worker.failed_jobs") == 1)
        with pytest.raises(JobFailed):
            utils.handle(job).result(timeout=60)
        (record,) = utils.job_history(states=["failed"])
        assert record.id == job.id
        assert [a.outcome for a in record.attempt_log] == ["failed"]
        (letter,) = utils.list_jobs(tasks=["letters"])
        assert letter.payload["job_id"] == job.id


@pytest.mark.parametrize("version", VERSIONS)
def test_a_result_that_node_took_is_not_waited_for_in_vain(db: Database, version: str) -> None:
    with WorkerUtils(db.dsn) as utils:
        utils.keep_history()
        job = utils.add_job("note", {})
        with (
            NodeWorker(db, version, pause=2),
            pytest.raises(ResultUnavailable, match="a Node worker completed it"),
        ):
            utils.handle(job).result(timeout=120)


@pytest.mark.parametrize("version", VERSIONS)
def test_node_cannot_add_what_does_not_fit(db: Database, version: str) -> None:
    db.rows("select graphile_worker.set_payload_schema('mail', '{\"required\": [\"to\"]}')")
    said = node_script(
        db, version,
        """
        await utils.addJob('mail', {to: 'ann@example.org'});
        try { await utils.addJob('mail', {}); } catch (error) { return [error.code, error.message]; }
        """,
    )  # fmt: skip
    assert said == [
        "GWBPS",
        'Payload of task "mail" does not fit its schema: lacks the property "to"',
    ]
