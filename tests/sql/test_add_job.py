"""What add_job, add_jobs and their rules do, on every version."""

from __future__ import annotations

import threading
from typing import Any

import psycopg
import pytest
from support.pg import Database

SPEC = "row({}, {}, null, null, null, {}, null, null)::graphile_worker.job_spec"


def take(db: Database, worker: str = "w", n: int = 100) -> list[int]:
    return db.column("select id from graphile_worker.get_jobs(%s, %s)", worker, n)


def make_state(db: Database, state: str, payload: str) -> int:
    """Bring the job with the key k into the state and return its id."""
    job: int = db.value("select id from graphile_worker.add_job('t', %s, job_key := 'k')", payload)
    if state in ("failed", "dead", "locked"):
        assert take(db) == [job]
    if state in ("failed", "dead"):
        final = "true" if state == "dead" else "false"
        failures = f'[{{"id": {job}, "error": "oops", "final": {final}}}]'
        db.rows("select graphile_worker.fail_jobs('w', %s)", failures)
    return job


def test_add_job_answers_the_row_with_the_defaults(db: Database) -> None:
    job = db.row(
        "select max_attempts, priority, payload::text, key, flags, is_available, attempts, revision,"
        " run_at = created_at from graphile_worker.add_job('t')"
    )
    assert job == (25, 0, "{}", None, None, True, 0, 0, True)


def test_every_argument_reaches_its_column(db: Database) -> None:
    db.rows(
        "select graphile_worker.add_job('t', '{\"b\": 1, \"a\": 2, \"b\": 3}', 'q',"
        " '2099-01-01', 7, 'k', -5, '{x,y,x}', 'preserve_run_at')"
    )
    assert db.row(
        "select payload::text, run_at = '2099-01-01', max_attempts, key, priority, flags,"
        " (select queue_name from graphile_worker.jobs) from graphile_worker._private_jobs"
    ) == ('{"b": 1, "a": 2, "b": 3}', True, 7, "k", -5, {"x": True, "y": True}, "q")


BAD = [
    ("null", "GWBID"),
    ("''", "GWBID"),
    ("repeat('x', 129)", "GWBID"),
    ("'t', queue_name := repeat('x', 129)", "GWBQN"),
    ("'t', job_key := ''", "GWBJK"),
    ("'t', job_key := repeat('x', 513)", "GWBJK"),
    ("'t', max_attempts := 0", "GWBMA"),
    ("'t', max_attempts := 32768", "GWBMA"),
    ("'t', priority := 32768", "GWBPR"),
    ("'t', priority := -32769", "GWBPR"),
    ("'t', flags := '{a,null}'", "GWBFL"),
    ("'t', job_key := 'k', job_key_mode := 'x'", "GWBKM"),
    ("'t', job_key_mode := 'x'", "GWBKM"),
]


@pytest.mark.parametrize(("arguments", "code"), BAD)
def test_a_bad_argument_is_refused_with_its_code_and_a_hint(
    db: Database, arguments: str, code: str
) -> None:
    with pytest.raises(psycopg.Error) as caught:
        db.rows(f"select graphile_worker.add_job({arguments})")
    assert caught.value.sqlstate == code
    assert caught.value.diag.message_hint
    assert db.value("select count(*) from graphile_worker._private_jobs") == 0
    assert db.value("select count(*) from graphile_worker._private_tasks") == 0


def test_the_longest_names_are_accepted(db: Database) -> None:
    db.rows(
        "select graphile_worker.add_job(repeat('é', 128), queue_name := repeat('é', 128),"
        " job_key := repeat('é', 512), max_attempts := 32767, priority := -32768)"
    )
    assert len(take(db)) == 1


#: mode, state of the job with the key -> same row? run_at moved? what becomes of the old row
TRUTH = [
    ("replace", "waiting", True, True),
    ("replace", "failed", True, True),
    ("replace", "dead", False, True),
    ("replace", "locked", False, True),
    ("preserve_run_at", "waiting", True, False),
    ("preserve_run_at", "failed", True, True),
    ("preserve_run_at", "dead", False, True),
    ("preserve_run_at", "locked", False, True),
    ("unsafe_dedupe", "waiting", True, False),
    ("unsafe_dedupe", "failed", True, False),
    ("unsafe_dedupe", "dead", True, False),
    ("unsafe_dedupe", "locked", True, False),
    (None, "waiting", True, True),
]


@pytest.mark.parametrize(("mode", "state", "same", "moved"), TRUTH)
@pytest.mark.parametrize("bulk", [False, True])
def test_a_key_that_exists(
    db: Database, mode: str | None, state: str, same: bool, moved: bool, bulk: bool
) -> None:
    old = make_state(db, state, '{"v": 1}')
    if bulk:
        new, run_at, payload, attempts, revision = db.row(
            "select id, run_at = '2099-01-01', payload::text, attempts, revision"
            " from graphile_worker.add_jobs_with_modes(array[row('u', '{\"v\": 2}', null,"
            " '2099-01-01', null, 'k', null, null)::graphile_worker.job_spec], array[%s::text])",
            mode,
        )
    else:
        new, run_at, payload, attempts, revision = db.row(
            "select id, run_at = '2099-01-01', payload::text, attempts, revision from"
            " graphile_worker.add_job('u', '{\"v\": 2}', run_at := '2099-01-01', job_key := 'k',"
            " job_key_mode := %s)",
            mode,
        )
    deduped = mode == "unsafe_dedupe"
    assert (new == old, run_at) == (same, moved)
    assert payload == ('{"v": 1}' if deduped else '{"v": 2}')
    assert revision == (1 if same else 0)
    assert attempts == ({"failed": 1, "dead": 25, "locked": 1}.get(state, 0) if deduped else 0)
    if not same:
        key, left = db.row(
            "select key, max_attempts - attempts from graphile_worker._private_jobs where id = %s",
            old,
        )
        assert (key, left) == (None, 0), "the old job gave up its key and never runs again"


@pytest.mark.parametrize(
    ("old", "new", "merged"),
    [
        ("[1]", "[2]", "[1,2]"),
        ("[1]", "[]", "[1]"),
        ("[]", "[2]", "[2]"),
        ("[]", " [ ] ", " [ ] "),
        ("[1]", '{"a": 1}', '{"a": 1}'),
        ('{"a": 1}', "[1]", "[1]"),
        (' [ {"b":1,"a":2,"b":3} ]\n', '\t[ {"z":"]","a":[] } ]', ' [ {"b":1,"a":2,"b":3} , {"z":"]","a":[] } ]'),
        ("[[1]]", "[[2]]", "[[1],[2]]"),
    ],
)  # fmt: skip
def test_array_payloads_are_joined_as_they_were_written(
    db: Database, old: str, new: str, merged: str
) -> None:
    make_state(db, "waiting", old)
    job = "select payload::text from graphile_worker.add_job('t', %s, job_key := 'k')"
    assert db.value(job, new) == merged


def test_add_jobs_answers_a_row_for_each_spec_in_order(db: Database) -> None:
    specs = ",".join(
        SPEC.format(f"'t{i % 7}'", f"'{{\"i\": {i}}}'", f"'k{99 - i}'" if i % 3 else "null")
        for i in range(100)
    )
    rows = db.rows(
        f"select id, (payload ->> 'i')::int, key from graphile_worker.add_jobs(array[{specs}])"
    )
    assert [i for _, i, _ in rows] == list(range(100))
    assert [key for _, i, key in rows] == [f"k{99 - i}" if i % 3 else None for i in range(100)]
    assert [job for job, _, _ in rows] == sorted(job for job, _, _ in rows), (
        "run in the order given"
    )


def test_a_key_may_occur_twice_in_add_jobs(db: Database) -> None:
    specs = ",".join(SPEC.format("'t'", f"'[{i}]'", "'k'") for i in range(3))
    rows = db.rows(f"select payload::text, revision from graphile_worker.add_jobs(array[{specs}])")
    assert rows == [("[0]", 0), ("[0,1]", 1), ("[0,1,2]", 2)]
    assert db.value("select count(*) from graphile_worker._private_jobs") == 1


def test_add_jobs_refuses_a_bad_spec_and_adds_nothing(db: Database) -> None:
    good, bad = SPEC.format("'t'", "'{}'", "null"), SPEC.format("''", "'{}'", "null")
    for specs in (f"{good},{bad}", f"{good},null"):
        with pytest.raises(psycopg.Error) as caught:
            db.rows(f"select graphile_worker.add_jobs(array[{specs}])")
        assert caught.value.sqlstate == "GWBID"
    assert db.value("select count(*) from graphile_worker._private_jobs") == 0


def test_add_jobs_of_nothing_is_nothing(db: Database) -> None:
    assert db.rows("select graphile_worker.add_jobs('{}')") == []
    assert db.rows("select graphile_worker.add_jobs(null)") == []
    assert db.rows("select graphile_worker.add_jobs_with_modes('{}', '{}')") == []


def test_modes_must_match_the_specs(db: Database) -> None:
    specs = ",".join([SPEC.format("'t'", "'{}'", "null")] * 3)
    for modes in ("array['replace','replace']", "array['x']", "'{}'::text[]"):
        with pytest.raises(psycopg.Error) as caught:
            db.rows(f"select graphile_worker.add_jobs_with_modes(array[{specs}], {modes})")
        assert caught.value.sqlstate == "GWBKM"


def test_known_names_consume_no_sequence_value(db: Database) -> None:
    spec = SPEC.format("'t'", "'{}'", "null")
    for _ in range(50):
        db.rows("select graphile_worker.add_job('t', queue_name := 'q')")
        db.rows("select graphile_worker.add_job('t', queue_name := 'q', job_key := 'k')")
        db.rows(f"select graphile_worker.add_jobs(array[{spec}, {spec}])")
    for sequence in ("tasks_id_seq", "job_queues_id_seq"):
        assert db.value(f"select last_value from graphile_worker.{sequence}") == 1


def test_job_ids_above_32_bits_work_everywhere(db: Database) -> None:
    db.rows("alter sequence graphile_worker.jobs_id_seq1 restart with 3000000000")
    for _ in range(6):
        db.rows("select graphile_worker.add_job('t')")
    first, second, third, *rest = take(db)
    assert first == 3000000000
    db.rows("select graphile_worker.finish_jobs('w', %s)", [first])
    db.rows("select graphile_worker.fail_jobs('w', %s)", f'[{{"id": {second}}}]')
    db.rows("select graphile_worker.return_jobs('w', %s)", [third, *rest])
    assert db.column("select id from graphile_worker.complete_jobs(%s)", [third]) == [third]
    assert (
        db.column("select id from graphile_worker.permanently_fail_jobs(%s)", rest[:1]) == rest[:1]
    )
    assert db.column("select id from graphile_worker.reschedule_jobs(%s, now())", rest) == rest


def in_thread(call: Any) -> tuple[threading.Thread, list[Any]]:
    answer: list[Any] = []
    thread = threading.Thread(target=lambda: answer.append(call()), daemon=True)
    thread.start()
    return thread, answer


def wait_until_blocked(db: Database, pid: int) -> None:
    """Wait until the backend waits for a lock."""
    for _ in range(2000):
        if db.value("select cardinality(pg_blocking_pids(%s)) > 0", pid):
            return
        db.rows("select pg_sleep(0.005)")
    raise AssertionError("the session was never blocked")


@pytest.mark.parametrize("mode", ["replace", "preserve_run_at", "unsafe_dedupe"])
@pytest.mark.parametrize("how", ["finish", "fail", "take", "remove", "rollback"])
@pytest.mark.parametrize("bulk", [False, True])
def test_a_keyed_add_waits_for_whoever_changes_the_job_and_is_never_lost(
    db: Database, mode: str, how: str, bulk: bool
) -> None:
    job = make_state(db, "locked" if how in ("finish", "fail") else "waiting", '{"v": 1}')
    other, adder = db.connect(autocommit=False), db.connect()
    if how == "finish":
        other.execute("select graphile_worker.finish_jobs('w', %s)", [[job]])
    elif how == "fail":
        other.execute("select graphile_worker.fail_jobs('w', %s)", [f'[{{"id": {job}}}]'])
    elif how == "take":
        assert other.execute("select id from graphile_worker.get_jobs('w', 1)").fetchall()
    else:
        other.execute("select graphile_worker.remove_job('k')")
    if bulk:
        spec = SPEC.format("'t'", """'{"v": 2}'""", "'k'")
        sql = f"""select id, payload::text
            from graphile_worker.add_jobs_with_modes(array[{spec}], array[%s])"""
    else:
        sql = """select id, payload::text from graphile_worker.add_job(
            't', '{"v": 2}', job_key := 'k', job_key_mode := %s)"""
    thread, answer = in_thread(lambda: adder.execute(sql, [mode]).fetchall())
    wait_until_blocked(db, adder.info.backend_pid)
    other.rollback() if how == "rollback" else other.commit()
    thread.join(30)
    ((added, payload),) = answer[0]
    assert added is not None
    gone = how in ("finish", "remove")
    if mode == "unsafe_dedupe" and not gone:
        assert (added, payload) == (job, '{"v": 1}')
    else:
        assert payload == '{"v": 2}'
        assert (added == job) == (how in ("fail", "rollback"))
        assert db.column(
            "select id from graphile_worker._private_jobs where key = 'k' and is_available"
        ) == [added]


def test_opposite_key_orders_in_two_sessions_do_not_deadlock(db: Database) -> None:
    orders = [list(range(40)), list(reversed(range(40)))]

    def add(order: list[int]) -> int:
        connection = db.connect()
        specs = ",".join(SPEC.format("'t'", "'{}'", f"'k{i}'") for i in order)
        for _ in range(40):
            connection.execute(f"select graphile_worker.add_jobs(array[{specs}])")
            connection.execute("select graphile_worker.finish_jobs('w', array(select id from graphile_worker.get_jobs('w', 40)))")  # fmt: skip
        return 40

    threads = [in_thread(lambda order=order: add(order)) for order in orders]
    for thread, _ in threads:
        thread.join(60)
    assert [answer for _, answer in threads] == [[40], [40]]
