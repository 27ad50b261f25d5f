"""Compare an installed schema with what its version should be, name each drift, and repair it."""

from __future__ import annotations

import psycopg

from graphile_worker.install.comparison import Comparison, Drift, compare_members
from graphile_worker.install.inspect import detect
from graphile_worker.install.packaging.scripts import Scripts
from graphile_worker.install.session import (
    Connection,
    message,
    run_script,
    transaction,
)
from graphile_worker.install.transaction import CONTENDED, LockRetries, Outcome, change
from graphile_worker.naming import SCHEMA


def verify(
    conn: Connection, *, schema: str = SCHEMA, scripts: Scripts | None = None
) -> list[Drift]:
    """Compare the schema with what its version should be; return each drift, none when healthy.

    Everything is compared: columns, constraints, indexes, functions, views, comments, owners,
    grants, row security, Node's revisions, and for an extension its members and what a dump saves.
    Nothing is changed. Raise NotInstalledError, VersionError or RightsError where there is nothing
    to compare, or not for this role.
    """
    scripts = scripts or Scripts()
    with message(conn), transaction(conn, force_rollback=True):
        state = detect(conn, schema, scripts)
        version = state.ours(scripts)
        comparison = Comparison(conn, state, version, scripts)
        drifts = comparison.compare()
        if state.mode == "extension":
            drifts += compare_members(conn, comparison.found, version, scripts)
    return drifts


def repair(
    conn: Connection,
    drifts: list[Drift],
    *,
    schema: str = SCHEMA,
    scripts: Scripts | None = None,
    lock_retries: LockRetries | None = None,
) -> list[Drift]:
    """Repair what can be repaired without touching rows; return the drifts that are left.

    All repairs are one transaction; one that the server refuses is left out of it, and is among the
    answer. Raise BusyError where locks stood in the way for too long; nothing is changed then.
    """
    left = drifts

    def decide() -> Outcome:
        nonlocal left
        left = drifts
        for _ in range(3):  # what is made again may lack members and rights, which is seen then
            for fix in dict.fromkeys(drift.fix for drift in left if drift.fix):
                try:
                    with conn.transaction():
                        run_script(conn, fix)
                except psycopg.Error as error:
                    if conn.broken or isinstance(error, CONTENDED):
                        raise
            before, left = left, verify(conn, schema=schema, scripts=scripts)
            if left == before or not any(drift.fix for drift in left):
                break
        return Outcome("Repaired.")

    change(conn, schema, decide, lock_retries=lock_retries)
    return left
