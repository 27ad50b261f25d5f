"""Set up routes on a Citus cluster: the key of a job decides on which node it is added."""

from __future__ import annotations

from graphile_worker.errors import InstallError
from graphile_worker.install.citus import IS_THERE, ROUTES
from graphile_worker.install.session import Connection, fetch
from graphile_worker.install.transaction import LockRetries, Outcome, change
from graphile_worker.naming import SCHEMA, quote_ident

_ROUTED = """
    select functions.oid::regprocedure::text,
      exists (
        select from pg_catalog.pg_dist_object as distributed
        where distributed.objid = functions.oid and distributed.force_delegation
      ),
      pg_catalog.to_regclass(pg_catalog.format('%%I.citus_routes', schemas.nspname)) is not null
    from pg_catalog.pg_proc as functions
    join pg_catalog.pg_namespace as schemas on schemas.oid = functions.pronamespace
    where schemas.nspname = %s and functions.proname in ('add_job_to_route', 'add_jobs_to_route')
    order by functions.proname
"""


def set_up_routes(
    conn: Connection,
    *,
    schema: str = SCHEMA,
    dry_run: bool = False,
    lock_retries: LockRetries | None = None,
) -> Outcome:
    """Let Citus carry calls of ``add_job_to_route`` and ``add_jobs_to_route`` to the route's node.

    The routes are the shards of an empty table, so that a rebalance moves them with the rest. Raise
    InstallError where there is no Citus, or on another node than the coordinator.
    """
    ident = quote_ident(schema)

    def decide() -> Outcome:
        if not fetch(conn, IS_THERE):
            raise InstallError("this database has no Citus: run it on the coordinator of a cluster")
        functions = fetch(conn, _ROUTED, [schema])
        if not functions:
            raise InstallError(
                f"the schema {schema} has no add_job_to_route: install or upgrade graphile_worker"
            )
        sql = []
        if not functions[0][2]:
            sql += [
                f"create table {ident}.{ROUTES} (route text primary key);",
                f"select create_distributed_table('{ident}.{ROUTES}', 'route',"
                " colocate_with := 'none');",
            ]
        sql += [
            f"select create_distributed_function('{signature}', 'route',"
            f" colocate_with := '{ident}.{ROUTES}', force_delegation := true);"
            for signature, is_distributed, _ in functions
            if not is_distributed
        ]
        return Outcome("Jobs with a route are added on the node that holds it.", tuple(sql))

    return change(conn, schema, decide, dry_run=dry_run, lock_retries=lock_retries)
