"""Take over a schema of Node's graphile-worker, and change the install mode, keeping every row."""

from __future__ import annotations

from typing import Literal

from graphile_worker.errors import InstallError, NotInstalledError, VersionError
from graphile_worker.install.inspect import (
    Mode,
    State,
    detect,
    offered,
    require_adoptable,
    require_free,
)
from graphile_worker.install.packaging.scripts import Scripts
from graphile_worker.install.session import Connection, transaction
from graphile_worker.install.transaction import LockRetries, Outcome, as_owner, change, kind
from graphile_worker.install.verification import verify
from graphile_worker.naming import SCHEMA


def adopt(
    conn: Connection,
    *,
    schema: str = SCHEMA,
    mode: Mode = "auto",
    scripts: Scripts | None = None,
    dry_run: bool = False,
    lock_retries: LockRetries | None = None,
) -> Outcome:
    """Make a schema of Node's graphile-worker, revision 18 to 20, ours, with every row as it is.

    Functions, views and indexes are replaced; Node's workers of 0.17 and 0.18 run on. Revision 18
    is brought to 20, which ends running workers of 0.16. A schema that was released before becomes
    an extension again. Raise VersionError for an older or newer revision and InstallError where the
    tables are not what Node makes; nothing is changed then.
    """
    scripts = scripts or Scripts()
    if mode == "extension" and schema != SCHEMA:
        raise InstallError(f"the extension lives in the schema {SCHEMA}: use --mode plain")

    def decide() -> Outcome:
        state = detect(conn, schema, scripts)
        if state.mode in ("plain", "extension"):
            state.ours(scripts)
            if state.mode == "plain" and as_extension(conn, state, mode, scripts):
                return _attach(conn, state, scripts)
            return Outcome(f"Nothing to adopt: the schema {schema} is ours, {kind(state.mode)}.")
        if state.mode != "node":
            require_free(state)
            raise NotInstalledError(
                f"there is nothing to adopt in the schema {schema}: run `gw-install install`,"
                " or name Node's schema with --schema"
            )
        require_adoptable(state)
        return adopted(conn, state, mode, scripts)

    outcome = change(conn, schema, decide, dry_run=True)
    if dry_run or not outcome.changed:
        return outcome
    with transaction(conn):
        outcome = change(conn, schema, decide, lock_retries=lock_retries)
        tables = ("column", "table", "constraint", "sequence")
        lasting = [
            drift
            for drift in verify(conn, schema=schema, scripts=scripts)
            if drift.fix is None and drift.what.startswith(tables)
        ]
        if lasting:
            message = "; ".join(f"{drift.what} {drift.problem}" for drift in lasting[:5])
            raise InstallError(
                f"the tables of the schema {schema} are not as Node makes them: {message}."
                " Put them back to that; nothing was changed"
            )
    return outcome


def as_extension(conn: Connection, state: State, mode: Mode, scripts: Scripts) -> bool:
    if mode == "plain" or state.schema != SCHEMA:
        return False
    if scripts.latest in offered(conn):
        return True
    if mode == "extension":
        raise InstallError(
            f"the server does not offer version {scripts.latest} of the extension: put its files in"
            " place with `gw-install files put`, or use --mode plain; nothing was changed"
        )
    return False


def adopted(conn: Connection, state: State, mode: Mode, scripts: Scripts) -> Outcome:
    text = scripts.plain(scripts.read("adopt.sql"), state.schema)
    sql = [as_owner(conn, state.schema, text)]
    extension = as_extension(conn, state, mode, scripts)
    if extension:
        sql.append(scripts.attach())
    installed_as = kind("extension" if extension else "plain")
    note = " Workers of Node 0.16 stop: run 0.17 or 0.18." if state.revision == 18 else ""
    return Outcome(
        f"Adopted the schema {state.schema} (Node's revision {state.revision}) as version"
        f" {scripts.latest}, {installed_as}; every row is as it was.{note}",
        tuple(sql),
    )


def _attach(conn: Connection, state: State, scripts: Scripts) -> Outcome:
    if state.version != scripts.latest:
        raise VersionError(
            f"the schema {state.schema} has version {state.version}; only {scripts.latest} can"
            " become an extension: run `gw-install upgrade` first"
        )
    return Outcome(
        f"The objects of the schema {state.schema} are members of the extension now;"
        " every row is as it was.",
        (scripts.attach(),),
    )


def switch(
    conn: Connection,
    mode: Literal["extension", "plain"],
    *,
    schema: str = SCHEMA,
    scripts: Scripts | None = None,
    dry_run: bool = False,
    lock_retries: LockRetries | None = None,
) -> Outcome:
    """Make plain objects an extension, or the extension plain objects, with every row as it is.

    Raise NotInstalledError, VersionError, RightsError or BusyError; nothing is changed then.
    """
    scripts = scripts or Scripts()

    def decide() -> Outcome:
        state = detect(conn, schema, scripts)
        state.ours(scripts)
        if state.mode == mode:
            return Outcome(f"Nothing to do: the schema {schema} is {kind(mode)} already.")
        if mode == "plain":
            return Outcome(
                f"Released the schema {schema} from the extension: its objects are plain now;"
                " every row is as it was.",
                (scripts.read("detach.sql"),),
            )
        if schema != SCHEMA:
            raise InstallError(f"only the schema {SCHEMA} can become an extension, not {schema}")
        as_extension(conn, state, "extension", scripts)
        return _attach(conn, state, scripts)

    return change(conn, schema, decide, dry_run=dry_run, lock_retries=lock_retries)


def release(
    conn: Connection,
    *,
    scripts: Scripts | None = None,
    dry_run: bool = False,
    lock_retries: LockRetries | None = None,
) -> Outcome:
    """Drop the extension and leave every table, row and function, so that Node carries on.

    The same as ``switch`` to plain; ``adopt`` takes it back.
    """
    return switch(conn, "plain", scripts=scripts, dry_run=dry_run, lock_retries=lock_retries)
