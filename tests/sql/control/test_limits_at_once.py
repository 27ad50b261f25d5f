"""A limit holds where several transactions claim, set it, or see an older moment at once."""

from __future__ import annotations

import contextlib
import threading

import psycopg
import pytest
from support.pg import Database, wait_for

from sql.control.limits import limit
from sql.fetch.claims import add, take


def test_two_that_claim_at_once_share_the_slots(db: Database) -> None:
    limit(db, "task", "t", max_running=3)
    for _ in range(10):
        add(db)
    one = db.connect(autocommit=False)
    assert len(take(one, "one", 2)) == 2
    found: list[int] = []
    waiting = threading.Thread(target=lambda: found.extend(take(db.connect(), "two", 5)))
    waiting.start()
    wait_for(
        lambda: db.value("select count(*) from pg_stat_activity where wait_event_type = 'Lock'")
    )
    one.commit()
    waiting.join()
    assert len(found) == 1


def test_a_claim_that_is_undone_frees_its_slots(db: Database) -> None:
    limit(db, "task", "t", max_running=1, rate=1, per="1 hour")
    job = add(db)
    one = db.connect(autocommit=False)
    assert take(one, "one") == [job]
    other = add(db, "other")
    assert take(db, "two") == [other], "others do not wait for long"
    one.rollback()
    assert take(db, "two") == [job]


def test_a_limit_waits_for_those_who_claim_without_it(db: Database) -> None:
    for _ in range(4):
        add(db)
    one = db.connect(autocommit=False)
    assert len(take(one, "one", 2)) == 2
    other = db.connect()
    setting = threading.Thread(
        target=lambda: other.execute("select graphile_worker.set_limit('task', 't', 3)")
    )
    setting.start()
    wait_for(
        lambda: db.value(
            "select count(*) from pg_stat_activity where query like '%%set_limit%%'"
            " and pid <> pg_backend_pid() and state = 'active'"
        )
    )
    one.commit()
    setting.join()
    assert len(take(db)) == 1


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_an_old_snapshot_claims_nothing_beyond_a_limit(db: Database, level: str) -> None:
    for _ in range(4):
        add(db)
    old = db.connect(autocommit=False)
    old.execute(f"set transaction isolation level {level}".encode())
    old.execute("select 1 from graphile_worker.jobs")
    limit(db, "task", "t", max_running=1)
    with pytest.raises(psycopg.errors.SerializationFailure):
        take(old)
    old.rollback()
    old.execute(f"set transaction isolation level {level}".encode())
    old.execute("select 1 from graphile_worker.jobs")
    assert len(take(db)) == 1
    with contextlib.suppress(psycopg.errors.SerializationFailure):  # both keep the limit
        assert take(old, "old") == []
