"""The queue on a Citus cluster of three real nodes."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
from graphile_worker import JobSpec, WorkerUtils, aio
from graphile_worker.errors import InvalidRoute
from graphile_worker.gw import cli as gw_cli
from graphile_worker.install import cli as install_cli
from graphile_worker.worker.cluster.members import place_of
from support.citus import NEEDS_CITUS, Node, add_node, cluster, remove_node
from support.command_line import run_main
from support.pg import wait_for

pytestmark = [pytest.mark.majors(18), NEEDS_CITUS]

JOBS = "select count(*) from graphile_worker.jobs where task_identifier = '{}'"


def install(node: Node, *args: str, code: int = 0) -> str:
    out, err = run_main(install_cli.main, [*args, "--dsn", node.dsn], code=code, env={})
    return out + err


def counts(nodes: list[Node], task: str) -> list[int]:
    return [node.value(JOBS.format(task)) for node in nodes[:3]]


@pytest.fixture(scope="module")
def made() -> Iterator[list[Node]]:
    with cluster(spare=1) as nodes:
        coordinator = nodes[0]
        coordinator.rows("create extension graphile_worker version '1.0.0'")
        coordinator.rows("create table customers (id bigint primary key, name text)")
        coordinator.rows("select create_distributed_table('customers', 'id')")
        yield nodes


@pytest.fixture
def nodes(made: list[Node]) -> Iterator[list[Node]]:
    """Three nodes and a spare one, with no job and no customer."""
    if made[0].value("select graphile_worker.version()") == "1.0.0":
        install(made[0], "upgrade")
    for node in made:
        node.value("select 1")  # its own connection is the first
    yield made
    made[0].rows("truncate customers")
    for node in made:
        if node.value("select to_regclass('graphile_worker._private_jobs')"):
            node.rows("truncate graphile_worker._private_jobs")
        node.close()


def test_the_coordinator_upgrades_all_nodes_and_no_other_one_may(made: list[Node]) -> None:
    coordinator, node, _ = made[:3]
    node.rows("select graphile_worker.add_job('before')")
    assert "worker node" in install(node, "upgrade", code=1)
    assert f":{coordinator.port}" in install(node, "uninstall", code=1)
    assert "to 1.1.0" in install(coordinator, "upgrade")
    for each in made[:3]:
        assert install(each, "verify") == "No drift.\n"
    assert counts(made, "before") == [0, 1, 0]


def test_a_role_gets_its_level_on_all_nodes(nodes: list[Node]) -> None:
    levels = """select has_schema_privilege('helper', 'graphile_worker', 'usage'),
      has_function_privilege('helper', 'graphile_worker.get_jobs(text, integer, text[], text[])',
        'execute'), has_table_privilege('helper', 'graphile_worker.jobs', 'select')"""
    nodes[0].rows("create role helper login")
    try:
        assert "worker node" in install(nodes[1], "grant", "helper", "work", code=1)
        for level, rights in (("work", (True, True, False)), ("observe", (True, False, True))):
            install(nodes[0], "grant", "helper", level)
            assert [node.row(levels) for node in nodes[:3]] == [rights] * 3
        install(nodes[0], "grant", "helper", "none")
        assert [node.row(levels) for node in nodes[:3]] == [(False, False, False)] * 3
    finally:
        for node in nodes[:3]:
            node.rows("select graphile_worker.revoke_access('helper')")
        nodes[0].rows("drop role helper")


def test_a_distributed_schema_is_refused(nodes: list[Node]) -> None:
    with nodes[0].connect() as conn:
        conn.execute("set citus.enable_schema_based_sharding = on; create schema whole")
    assert "is distributed" in install(nodes[0], "install", "--schema", "whole", code=1)
    nodes[0].rows("drop schema whole")


def test_rows_of_any_node_and_the_job_commit_or_roll_back_together(nodes: list[Node]) -> None:
    for number, node in enumerate(nodes[:3]):
        with node.connect(autocommit=False) as conn:
            for customer in range(10):
                conn.execute("insert into customers values (%s)", [100 * number + customer])
            conn.execute("select graphile_worker.add_job('welcome')")
            conn.commit()
            conn.execute("insert into customers values (1000)")
            conn.execute("select graphile_worker.add_job('welcome')")
            conn.rollback()
    assert counts(nodes, "welcome") == [1, 1, 1]
    assert nodes[0].value("select count(*) from customers") == 30


def test_a_trigger_of_a_distributed_table_adds_jobs_where_its_row_is(nodes: list[Node]) -> None:
    for setting in (
        "alter system set citus.enable_unsafe_triggers = on",
        "select pg_reload_conf()",
    ):
        nodes[0].rows("select run_command_on_all_nodes(%s)", setting)
    nodes[0].rows("""create function greet() returns trigger language plpgsql as $$ begin
      perform graphile_worker.add_job('greet', json_build_object('id', new.id)); return new; end $$""")
    for node in nodes[:3]:
        node.close()
        # A new name is inserted once: by several sessions of one statement it would be a deadlock.
        node.rows("select graphile_worker.add_job('greet')")
        node.rows("truncate graphile_worker._private_jobs")
    nodes[0].rows(
        "create trigger greet after insert on customers for each row execute function greet()"
    )
    try:
        for number, node in enumerate(nodes[:3]):
            node.rows(
                f"insert into customers select i from generate_series({100 * number + 1}, {100 * number + 30}) as i"
            )
            with node.connect(autocommit=False) as conn:
                conn.execute("insert into customers select i from generate_series(1001, 1030) as i")
                conn.rollback()
        there = counts(nodes, "greet")
        assert sum(there) == 90
        assert there[0] == 0
        assert min(there[1:]) > 0
        local = "select count(*) from run_command_on_shards('customers', 'select count(*) from %s')"
        assert nodes[0].value(local)
    finally:
        nodes[0].rows("drop trigger greet on customers")
        nodes[0].rows("drop function greet()")


@pytest.fixture
def routed(nodes: list[Node]) -> list[Node]:
    """Three nodes with routes."""
    install(nodes[0], "citus")
    assert "worker node" in install(nodes[1], "citus", code=1)
    return nodes


ROUTE = "select graphile_worker.add_job_to_route(%s, 'bill', %s)"


def test_jobs_of_a_route_are_added_on_its_node_from_any_node(routed: list[Node]) -> None:
    install(routed[0], "citus")  # again
    for node in routed[:3]:
        for number in range(12):
            node.rows(ROUTE, f"customer:{number}", f'{{"customer": {number}}}')
    there = counts(routed, "bill")
    assert (sum(there), there[0]) == (36, 0)
    assert min(there) == 0 < sorted(there)[1], "they are spread"
    at = [
        set(node.column("select payload ->> 'customer' from graphile_worker._private_jobs"))
        for node in routed[:3]
    ]
    assert not at[1] & at[2], "a route has one node"
    for node in routed[:3]:
        assert install(node, "verify") == "No drift.\n"


def test_a_job_of_a_route_commits_or_rolls_back_with_the_rest(routed: list[Node]) -> None:
    for number, node in enumerate(routed[:3]):
        with node.connect(autocommit=False) as conn:
            for end in (conn.rollback, conn.commit):
                for customer in range(6):
                    conn.execute("insert into customers values (%s)", [100 * number + customer])
                    conn.execute(ROUTE, [f"customer:{customer}", "{}"])
                end()
    assert sum(counts(routed, "bill")) == 18
    assert routed[0].value("select count(*) from customers") == 18


def test_a_key_holds_within_its_route(routed: list[Node]) -> None:
    keyed = "select graphile_worker.add_job_to_route(%s, 'bill', job_key := 'monthly')"
    for node in (*routed[:3], *routed[:3]):
        node.rows(keyed, "customer:1")
    assert sum(counts(routed, "bill")) == 1


@pytest.mark.parametrize(
    "call",
    [
        "select graphile_worker.add_job_to_route('customer:' || n, 'bill') from generate_series(1, 20) as n",
        "select 1 where (select graphile_worker.add_job_to_route('customer:1', 'bill')) > 0",
        "do $$ begin perform graphile_worker.add_job_to_route('customer:1', 'bill'); end $$",
    ],
)
def test_a_call_that_is_not_carried_to_its_node_is_refused(routed: list[Node], call: str) -> None:
    with pytest.raises(psycopg.errors.DatabaseError, match="not carried to the node") as refused:
        routed[0].rows(call)
    assert refused.value.sqlstate == "GWBRT"
    assert sum(counts(routed, "bill")) == 0


def test_a_call_that_arrives_after_its_route_has_moved_may_be_retried(routed: list[Node]) -> None:
    refused = 0
    for node in routed[:3]:
        with node.connect() as conn:
            conn.execute("set application_name to 'citus_internal gpid=1'")
            try:
                conn.execute(
                    "do $$ begin perform graphile_worker.add_job_to_route('k', 'bill'); end $$"
                )
            except psycopg.errors.SerializationFailure:
                refused += 1
    assert refused == 2
    assert sum(counts(routed, "bill")) == 1


def test_the_client_adds_to_a_route(routed: list[Node]) -> None:
    async def there() -> int:
        async with aio.WorkerUtils(routed[1].dsn) as utils:
            return await utils.add_job_to_route("customer:7", "bill", {"month": 11}, job_key="k")

    with WorkerUtils(routed[2].dsn) as utils:
        job = utils.add_job_to_route("customer:7", "bill", {"month": 12}, job_key="k")
        with pytest.raises(InvalidRoute):
            utils.add_job_to_route("", "bill")
        specs = [JobSpec("bill", {"n": n}, job_key=f"k {n}") for n in range(3)]
        ids = utils.add_jobs_to_route("customer:7", [*specs, JobSpec("bill", run_at=timedelta(1))])
        assert utils.add_jobs_to_route("customer:7", specs) == ids[:3]
        with pytest.raises(InvalidRoute):
            utils.add_jobs_to_route("", specs)
        assert utils.add_jobs_to_route("customer:7", []) == []
    assert sorted(counts(routed, "bill")) == [0, 0, 5]
    routed[0].rows("select graphile_worker.add_jobs_to_route('customer:7', '[]')")
    for node in routed[:3]:
        node.rows("delete from graphile_worker._private_jobs where id = any (%s)", ids)
    assert asyncio.run(there()) == job
    assert sum(counts(routed, "bill")) == 1


def test_jobs_are_neither_lost_nor_doubled_while_routes_move(
    routed: list[Node], tmp_path: Path
) -> None:
    coordinator, _, _, joining = routed
    stop, added = threading.Event(), [0]

    def add() -> None:
        with psycopg.connect(coordinator.dsn, autocommit=True) as conn:
            while not stop.is_set():
                with suppress(psycopg.errors.SerializationFailure):
                    conn.execute(ROUTE, [f"customer:{added[0] % 100}", "{}"])
                    added[0] += 1

    producer = threading.Thread(target=add)
    producer.start()
    try:
        add_node(coordinator, joining)
        shards = "select count(*) from pg_dist_placement where groupid = (select groupid from pg_dist_node where nodeport = %s)"
        coordinator.rows("select rebalance_table_shards(shard_transfer_mode := 'block_writes')")
        assert coordinator.value(shards, joining.port) > 0
        wait_for(lambda: joining.value(JOBS.format("bill")) > 0, "routes have moved")
    finally:
        stop.set()
        producer.join()
    there = sum(node.value(JOBS.format("bill")) for node in routed)
    assert there == added[0]
    coordinator.rows(
        "select citus_drain_node(%s, %s, shard_transfer_mode := 'block_writes')",
        joining.host,
        joining.port,
    )
    joining.rows("truncate graphile_worker._private_jobs")
    remove_node(coordinator, joining)


TASKS = """
import psycopg, os
async def note(payload):
    pass
tasks = {"note": note}
"""


@contextmanager
def gw_run(nodes: list[Node], folder: Path, *args: str) -> Iterator[subprocess.Popen[str]]:
    (folder / "tasks.py").write_text(TASKS)
    command = [sys.executable, "-m", "graphile_worker.gw.cli", "run", "--citus", *args]
    process = subprocess.Popen(
        [*command, "--dsn", nodes[0].dsn], cwd=folder, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
        process.terminate()
        _, log = process.communicate(timeout=90)
        assert process.returncode == 0, log
    finally:
        process.kill()
        print(process.communicate()[1])


def test_a_worker_runs_the_jobs_of_all_nodes_also_of_one_that_joins_or_crashes(
    nodes: list[Node], tmp_path: Path
) -> None:
    coordinator, crashing, other, joining = nodes
    add = "select count(graphile_worker.add_job('note')) from generate_series(1, 20)"
    left = "select count(*) from graphile_worker._private_jobs"
    with gw_run(nodes, tmp_path):
        for node in nodes[:3]:
            node.rows(add)
        for node in nodes[:3]:
            wait_for(lambda: node.value(left) == 0, "its jobs run")  # noqa: B023
        crashing.rows(add)
        crashing.stop()
        for _ in range(3):
            for node in (coordinator, other):
                node.rows(add)
                wait_for(lambda: node.value(left) == 0, "the others' jobs run")  # noqa: B023
        crashing.start()
        crashing.rows(add)
        wait_for(lambda: crashing.value(left) == 0, "it is used again")
        add_node(coordinator, joining)
        assert joining.value("select graphile_worker.version()")
        assert install(joining, "verify") == "No drift.\n"
        joining.rows(add)
        wait_for(lambda: joining.value(left) == 0, "the new node's jobs run")
        remove_node(coordinator, joining)
    for node in nodes[:3]:
        assert node.value("select count(*) from graphile_worker.workers") == 0


def test_a_node_that_leaves_leaves_its_jobs_to_another(nodes: list[Node]) -> None:
    coordinator, _, _, leaving = nodes
    add_node(coordinator, leaving)
    add = "select graphile_worker.add_job('left', run_at := now() + n * interval '1 day') from generate_series(0, 9) as n"
    leaving.rows(add)
    coordinator.rows("select citus_drain_node(%s, %s)", leaving.host, leaving.port)
    args = ["drain-node", "--dsn", leaving.dsn, "--to", coordinator.dsn]
    assert run_main(gw_cli.main, args, env={})[0] == "Moved 10 jobs. No job is left.\n"
    remove_node(coordinator, leaving)
    assert coordinator.value(JOBS.format("left")) == 10
    coordinator.rows("delete from graphile_worker._private_jobs")


def test_gw_tells_of_all_nodes(nodes: list[Node]) -> None:
    for count, node in enumerate(nodes[:3]):
        node.rows(f"select graphile_worker.add_job('seen') from generate_series(1, {count})")
    out, _ = run_main(gw_cli.main, ["jobs", "--citus", "--json", "--dsn", nodes[0].dsn], env={})
    found = {each["node"]: len(each["answer"]) for each in json.loads(out)}
    assert found == {place_of(node.dsn): n for n, node in enumerate(nodes[:3])}


def test_only_citus_has_nodes(db: Node) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "graphile_worker.gw.cli", "run", "--citus", "--dsn", db.dsn, "tests"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
