"""A database that is a node of a Citus cluster: where it may be changed, and what reaches the rest.

Each node has a whole queue of its own: Citus makes, upgrades and drops the extension on all of them
when the coordinator does. Rights on functions do not go to the others by themselves.
"""

from __future__ import annotations

from graphile_worker.errors import InstallError
from graphile_worker.install.session import Connection, fetch

#: The table whose shards are the routes, where there are any.
ROUTES = "citus_routes"
IS_THERE = "select from pg_catalog.pg_extension where extname = 'citus'"
_NODE = "select groupid from pg_catalog.pg_dist_local_group"
_COORDINATOR = """
    select nodename || ':' || nodeport from pg_catalog.pg_dist_node where groupid = 0
"""
# A schema that does not exist yet would be distributed when it is made.
_IS_DISTRIBUTED = """
    select coalesce(
      (
        select exists (
          select from pg_catalog.pg_dist_schema as distributed
          where distributed.schemaid = schemas.oid
        )
        from pg_catalog.pg_namespace as schemas where schemas.nspname = %s
      ),
      pg_catalog.current_setting('citus.enable_schema_based_sharding')::boolean
    )
"""
_ON_OTHERS = """
    select nodes.nodename || ':' || nodes.nodeport, done.result
    from pg_catalog.run_command_on_all_nodes(%s) as done
    join pg_catalog.pg_dist_node as nodes on nodes.nodeid = done.nodeid
    where not done.success
    order by 1
"""


def check_node(conn: Connection, schema: str) -> None:
    """Raise InstallError where Citus would not change the queue on all nodes alike."""
    if not fetch(conn, IS_THERE):
        return
    if fetch(conn, _NODE) != [(0,)]:
        coordinators = [place for (place,) in fetch(conn, _COORDINATOR)]
        raise InstallError(
            "this is a worker node of a Citus cluster: run it on the coordinator"
            f"{f', {coordinators[0]},' if coordinators else ''} which changes all nodes; nothing"
            " was changed"
        )
    if fetch(conn, _IS_DISTRIBUTED, [schema]) == [(True,)]:
        raise InstallError(
            f"the schema {schema} is distributed by Citus, which keeps all of it on one node and"
            " refuses what a queue does there: take another one (`set"
            " citus.enable_schema_based_sharding = off` before it is made), and each node has a"
            " queue of its own; nothing was changed"
        )


def on_all_nodes(conn: Connection, statement: str) -> None:
    """Run a statement on each node of a cluster, and on none where there is no cluster.

    Raise InstallError that names the nodes on which it failed; on the others it was done.
    """
    if fetch(conn, IS_THERE) and (failed := fetch(conn, _ON_OTHERS, [statement])):
        told = "; ".join(f"{place}: {' '.join(str(result).split())}" for place, result in failed)
        raise InstallError(f"it was not done on all nodes of the cluster: {told}; run it again")
