"""Many jobs with keys that are new: one statement, in the order given, whoever else adds them."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from support.pg import Database, wait_for

pytestmark = pytest.mark.majors(13, 18)

KEYED = (
    "select id, key, payload::text from graphile_worker.add_jobs(array(select row('t', to_json(n), null, null,"
    " null, prefix || n, null, null)::graphile_worker.job_spec from generate_series({n}, 1, -1) as n, (select %s"
    " as prefix) as given order by n desc))"
)
READ = "select seq_tup_read from pg_stat_xact_user_tables where relname = '_private_jobs'"


def test_new_keys_are_added_in_the_order_given(db: Database) -> None:
    rows = db.rows(KEYED.format(n=30), "k")
    assert [(key, payload) for _, key, payload in rows] == [
        (f"k{n}", str(n)) for n in range(30, 0, -1)
    ]
    ids = [id_ for id_, _, _ in rows]
    assert ids == sorted(ids)
    assert db.column("select id from graphile_worker.jobs order by id") == ids
    again = db.rows(KEYED.format(n=30), "k")
    assert [id_ for id_, _, _ in again] == ids


def test_keys_that_another_transaction_adds_meanwhile_are_added_once(db: Database) -> None:
    first, second = db.connect(), db.connect()
    first.execute("begin")
    theirs = first.execute(KEYED.format(n=20).encode(), ["k"]).fetchall()
    ours = list[Any]()
    waiting = threading.Thread(
        target=lambda: ours.extend(second.execute(KEYED.format(n=25).encode(), ["k"]).fetchall())
    )
    waiting.start()
    wait_for(
        lambda: db.value(
            "select count(*) from pg_locks where not granted and locktype = 'transactionid'"
        )
    )
    first.execute("commit")
    waiting.join()
    assert db.value("select count(*) from graphile_worker.jobs") == 25
    assert [id_ for id_, _, _ in ours[5:]] == [id_ for id_, _, _ in theirs]
    assert [key for _, key, _ in ours] == [f"k{n}" for n in range(25, 0, -1)]


def test_a_session_that_knew_the_table_empty_does_not_read_all_of_it_for_keys(db: Database) -> None:
    conn = db.connect()
    for n in range(8):
        conn.execute(KEYED.format(n=3).encode(), [f"a{n} "])
        conn.execute("delete from graphile_worker._private_jobs")
    db.rows(
        "insert into graphile_worker._private_jobs (task_id, key) select 1, 'x' || n from generate_series(1, 20000) as n"
    )
    conn.execute("begin")
    before = conn.execute(READ).fetchone()
    conn.execute(KEYED.format(n=3).encode(), ["b "])
    assert conn.execute(READ).fetchone() == before
    conn.execute("rollback")
