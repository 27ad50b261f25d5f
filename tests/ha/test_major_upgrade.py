"""A major upgrade by logical replication, with producers and workers at work all the time."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from graphile_worker.testing import embedded
from psycopg.conninfo import conninfo_to_dict
from support.fleet import Feeder, Process
from support.pg import Database, Server, bin_dir, wait_for
from support.ran import left_behind

GUIDE = Path(__file__).parents[2] / "docs" / "high-availability.md"


def recipe(name: str) -> list[str]:
    """Return the statements of a block of the guide, which says in its first line what it is."""
    text = GUIDE.read_text()
    (block,) = (part for part in text.split("```sql\n")[1:] if part.startswith(f"-- {name}"))
    statements, lines = list[str](), list[str]()
    for line in block.partition("```")[0].splitlines():
        lines += [] if line.startswith("--") else [line]
        whole = "\n".join(lines)
        if line.endswith(";") and whole.count("$$") % 2 == 0:
            statements.append(whole)
            lines = []
    return statements


def node(server: embedded.Server, major: int) -> Database:
    at = conninfo_to_dict(server.dsn())
    return Database(f"host=127.0.0.1 port={at['port']} user=postgres", "postgres", major)


@pytest.mark.majors(15)
def test_the_queue_moves_from_15_to_18_while_it_runs(
    server: Server, tmp_path: Path, record_property: Any
) -> None:
    settings = {"max_connections": "60", "wal_level": "logical"}
    with (
        embedded.Server(bin_dir(15), settings=settings) as old_server,
        embedded.Server(bin_dir(18), settings=settings) as new_server,
    ):
        old, new = node(old_server, 15), node(new_server, 18)
        ports = [conninfo_to_dict(each.dsn())["port"] for each in (old_server, new_server)]
        both = (
            f"host=127.0.0.1,127.0.0.1 port={ports[0]},{ports[1]} user=app dbname=postgres"
            " target_session_attrs=read-write connect_timeout=5"
        )
        old.rows("create extension graphile_worker")
        old.rows("select graphile_worker.set_recovery(interval '2 seconds')")
        old.rows("select graphile_worker.add_job('later', run_at := now() + interval '1 day')")
        old.rows("select graphile_worker.add_job('kept', job_key := 'k', run_at := 'infinity')")
        new.rows("create extension graphile_worker")
        for each in (old, new):
            each.rows("create role app superuser login")
        new.rows("alter role app set default_transaction_read_only = on")
        workers = [Process(both, tmp_path) for _ in range(2)]
        try:
            with Feeder(both, "say") as feeder:
                wait_for(lambda: len(feeder.added) > 100)
                # Who cannot connect when it starts, ends.
                wait_for(lambda: all(worker.output.read_text() for worker in workers))
                for statement in recipe("On the old server: publish"):
                    old.rows(statement)
                for statement in recipe("On the new server, as the owner: follow"):
                    new.rows(
                        statement.replace(
                            "OLD", f"host=127.0.0.1 port={ports[0]} user=postgres dbname=postgres"
                        )
                    )
                added = len(feeder.added)
                wait_for(lambda: len(feeder.added) > added + 50, "the old one is still used")
                wait_for(
                    lambda: new.value("select bool_and(srsubstate = 'r') from pg_subscription_rel"),
                    "every table has been copied",
                )
                for statement in recipe("On the old server: stop"):
                    old.rows(statement)
                (at,) = old.column("select pg_current_wal_lsn()::text")
                counters = old.rows(recipe("On the old server: read the counters")[0])
                wait_for(
                    lambda: old.value(
                        "select confirmed_flush_lsn >= %s::pg_lsn from pg_replication_slots"
                        " where slot_name = 'queue'",
                        at,
                    ),
                    "the new one has everything",
                )
                for statement in recipe("On the new server: take over"):
                    new.rows(statement)
                for name, value in counters:
                    new.rows(f"select setval('graphile_worker.{name}', {value})")
                new.rows("alter role app reset default_transaction_read_only")
                added = len(feeder.added)
                wait_for(lambda: len(feeder.added) > added + 50, "the new one is used")
            wait_for(lambda: left_behind(new) == (2, 0, 0), "all jobs are done")
            ran = Counter(
                json.loads(line)[0]
                for worker in workers
                for line in worker.output.read_text().splitlines()
            )
            assert set(ran) >= set(feeder.added)
            assert len(set(feeder.added)) == len(feeder.added), "no id is given twice"
            for worker in workers:
                worker.stop()
            kept = new.rows("select task_identifier, key from graphile_worker.jobs order by id")
            assert kept == [("later", None), ("kept", "k")]
            twice = sum(count > 1 for count in ran.values())
            record_property("upgrade", f"{len(feeder.added)} jobs, 0 lost, {twice} ran twice")
        finally:
            for worker in workers:
                worker.kill()
            old.close()
            new.close()
