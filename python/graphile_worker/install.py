"""Make, change and remove the queue of a database: the functions under ``gw-install``.

Each takes the caller's own psycopg connection and is one transaction; within a transaction of the
caller's it is a savepoint and commits nothing. Each is safe to run again and by many at once.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import psycopg
from psycopg import errors as pg

from graphile_worker.catalogue import LEVELS, read
from graphile_worker.dependants import dependants, lock_holders
from graphile_worker.errors import (
    BusyError,
    ForeignSchemaError,
    InstallError,
    InUseError,
    NotInstalledError,
    RightsError,
    VersionError,
)
from graphile_worker.scripts import SCHEMA, Scripts, quote_ident, version_key
from graphile_worker.state import (
    OLDEST_REVISION,
    Connection,
    State,
    counts,
    detect,
    fetch,
    offered,
    require_adoptable,
    require_free,
    run_script,
)
from graphile_worker.verify import verify

Mode = Literal["auto", "extension", "plain"]


@dataclass(frozen=True)
class Outcome:
    """What was done, or with ``dry_run`` what would be: no SQL means that nothing had to be."""

    message: str
    sql: tuple[str, ...] = ()

    @property
    def changed(self) -> bool:
        """Whether there was anything to do."""
        return bool(self.sql)


@dataclass(frozen=True)
class Patience:
    """How long to stand in others' way, and how long to try.

    A lock that is not had within ``lock_timeout_seconds`` is given up, since everybody else queues
    up behind the request, and tried again later until ``seconds`` have passed.
    """

    seconds: float = 60.0
    lock_timeout_seconds: float = 1.0


def _change(
    conn: Connection,
    schema: str,
    decide: Callable[[], Outcome],
    *,
    dry_run: bool = False,
    patience: Patience | None = None,
) -> Outcome:
    patience = patience or Patience()
    deadline = time.monotonic() + patience.seconds
    pause = 0.1
    while True:
        try:
            with conn.transaction():
                if dry_run:
                    return decide()
                # Whoever else installs or upgrades this schema waits here, and in nobody's way.
                before = _lock_timeout(conn, f"{max(1, int(patience.seconds * 1000))}ms")
                fetch(
                    conn,
                    "select pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended(%s, 0))",
                    [f"graphile_worker {schema}"],
                )
                _lock_timeout(conn, f"{max(1, int(patience.lock_timeout_seconds * 1000))}ms")
                outcome = decide()
                for text in outcome.sql:
                    run_script(conn, text)
                _lock_timeout(conn, before)
                return outcome
        except (
            pg.LockNotAvailable,
            pg.DeadlockDetected,
            pg.SerializationFailure,
            _Running,
        ) as error:
            if time.monotonic() + pause > deadline:
                raise BusyError(
                    f"the schema {schema} was busy for {patience.seconds:g} seconds"
                    f" ({str(error).splitlines()[0]}){lock_holders(conn, schema)}:"
                    " try again, or give it longer with --timeout; nothing was changed"
                ) from error
            time.sleep(pause * random.uniform(0.5, 1.5))
            pause = min(pause * 2, 2.0)
        except pg.InsufficientPrivilege as error:
            raise RightsError(
                f"role {conn.info.user} may not do this ({error.diag.message_primary}): connect as"
                f" the schema's owner, or grant create on database {conn.info.dbname} to"
                f" {conn.info.user}; nothing was changed"
            ) from error
        except (pg.UndefinedFile, pg.FeatureNotSupported, pg.InvalidParameterValue) as error:
            raise InstallError(
                f"the server refuses ({error.diag.message_primary}): put the extension's files in"
                " place with `gw-install files put`, or use --mode plain; nothing was changed"
            ) from error


def _lock_timeout(conn: Connection, value: str) -> str:
    row = fetch(conn, "select pg_catalog.current_setting('lock_timeout')")[0]
    fetch(conn, "select pg_catalog.set_config('lock_timeout', %s, true)", [value])
    return str(row[0])


class _Running(Exception):
    """Jobs run; somebody asked to wait until none does."""


def install(
    conn: Connection,
    *,
    schema: str = SCHEMA,
    mode: Mode = "auto",
    scripts: Scripts | None = None,
    dry_run: bool = False,
    patience: Patience | None = None,
) -> Outcome:
    """Make the queue in a schema, or say that it is there.

    The mode auto makes an extension where the server offers one, and the schema is
    ``graphile_worker``, and plain objects otherwise. A schema that Node has just made, and that
    holds no job, is adopted, so that it does not matter who came first. Raise ForeignSchemaError
    where the schema holds something else under our names, VersionError for a server, schema or
    revision that is too old or new, RightsError or BusyError.
    """
    scripts = scripts or Scripts()
    if mode == "extension" and schema != SCHEMA:
        raise InstallError(
            f"the extension lives in the schema {SCHEMA}: use --mode plain for {schema}"
        )

    def decide() -> Outcome:
        state = detect(conn, schema, scripts)
        if state.road == "node":
            return _adopt_empty(conn, state, mode, scripts)
        if state.road in ("extension", "plain"):
            return _installed(state, mode, scripts)
        require_free(state)
        return _create(conn, state, mode, scripts)

    return _change(conn, schema, decide, dry_run=dry_run, patience=patience)


def _installed(state: State, mode: Mode, scripts: Scripts) -> Outcome:
    version = state.ours(scripts)
    if mode not in ("auto", state.road):
        raise InstallError(
            f"the schema {state.schema} has version {version} as {_kind(state.road)} already:"
            f" `gw-install switch {mode}` changes the road, with every row as it is"
        )
    note = "" if version == scripts.latest else f"; `gw-install upgrade` brings {scripts.latest}"
    return Outcome(
        f"Version {version} is installed in the schema {state.schema} as {_kind(state.road)}{note}."
    )


def _adopt_empty(conn: Connection, state: State, mode: Mode, scripts: Scripts) -> Outcome:
    if state.revision is None or state.revision < OLDEST_REVISION:
        if "_private_jobs" not in state.names and "jobs" not in state.names:
            raise _Running("Node's graphile-worker is making its tables")
        if state.revision is not None and not _rows(conn, state):
            raise _Running(f"Node's graphile-worker is at revision {state.revision} of its tables")
    require_adoptable(state)
    if _rows(conn, state):
        raise ForeignSchemaError(
            f"the schema {state.schema} was made by Node's graphile-worker and has jobs: `gw-install"
            " adopt` makes it ours, with every row as it is"
        )
    return _adopt(conn, state, mode, scripts)


def _rows(conn: Connection, state: State) -> bool:
    table = "_private_jobs" if "_private_jobs" in state.names else "jobs"
    query = f"select exists (select from {quote_ident(state.schema)}.{table})"
    return bool(fetch(conn, query)[0][0])


def _create(conn: Connection, state: State, mode: Mode, scripts: Scripts) -> Outcome:
    ident = quote_ident(state.schema)
    make = () if state.exists else (f"create schema {ident};",)
    if mode == "plain" or (mode == "auto" and state.schema != SCHEMA):
        road, version = "plain", scripts.latest
    else:
        known = scripts.versions()
        there = [version for version in offered(conn) if version in known]
        if offered(conn) and not there:
            raise VersionError(
                f"the server offers version {offered(conn)[-1]} of the extension, newer than"
                f" {scripts.latest}, the newest that this gw-install knows:"
                " run `pip install -U graphile-worker`"
            )
        if not there and mode == "extension":
            raise InstallError(
                "the server does not offer the extension: put its files in place with `gw-install"
                " files put`, or use --mode plain; nothing was changed"
            )
        road, version = ("extension", there[-1]) if there else ("plain", scripts.latest)
    if road == "extension":
        sql = f"create extension {SCHEMA} schema {SCHEMA} version '{version}';"
    else:
        sql = scripts.plain(scripts.read(version), state.schema)
    return Outcome(
        f"Installed version {version} in the schema {state.schema} as {_kind(road)}.",
        (*make, sql),
    )


def adopt(
    conn: Connection,
    *,
    schema: str = SCHEMA,
    mode: Mode = "auto",
    scripts: Scripts | None = None,
    dry_run: bool = False,
    patience: Patience | None = None,
) -> Outcome:
    """Make a schema of Node's graphile-worker, revision 18 to 20, ours, with every row as it is.

    Functions, view and indexes are replaced; Node's workers of 0.17 and 0.18 run on. Revision 18 is
    brought to 20, which ends running workers of 0.16. A schema that was released before becomes an
    extension again. Raise VersionError for an older or newer revision and InstallError where the
    tables are not what Node makes; nothing is changed then.
    """
    scripts = scripts or Scripts()
    if mode == "extension" and schema != SCHEMA:
        raise InstallError(f"the extension lives in the schema {SCHEMA}: use --mode plain")

    def decide() -> Outcome:
        state = detect(conn, schema, scripts)
        if (
            state.road == "plain"
            and state.ours(scripts)
            and _as_extension(conn, state, mode, scripts)
        ):
            return _attach(conn, state, scripts)
        if state.road in ("plain", "extension"):
            return Outcome(f"Nothing to adopt: the schema {schema} is ours, {_kind(state.road)}.")
        if state.road != "node":
            require_free(state)
            raise NotInstalledError(
                f"there is nothing to adopt in the schema {schema}: run `gw-install install`,"
                " or name Node's schema with --schema"
            )
        require_adoptable(state)
        return _adopt(conn, state, mode, scripts)

    outcome = _change(conn, schema, decide, dry_run=True)
    if dry_run or not outcome.changed:
        return outcome
    with conn.transaction():
        outcome = _change(conn, schema, decide, patience=patience)
        lasting = [d for d in verify(conn, schema=schema, scripts=scripts)
                   if d.fix is None and d.what.startswith(("column", "table", "constraint", "sequence"))]  # fmt: skip
        if lasting:
            told = "; ".join(f"{drift.what} {drift.problem}" for drift in lasting[:5])
            raise InstallError(
                f"the tables of the schema {schema} are not as Node makes them: {told}."
                " Put them back to that; nothing was changed"
            )
    return outcome


def _as_extension(conn: Connection, state: State, mode: Mode, scripts: Scripts) -> bool:
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


def _adopt(conn: Connection, state: State, mode: Mode, scripts: Scripts) -> Outcome:
    sql = [scripts.plain(scripts.read("adopt.sql"), state.schema)]
    extension = _as_extension(conn, state, mode, scripts)
    if extension:
        sql.append(_attach_sql(scripts))
    road = _kind("extension" if extension else "plain")
    note = " Workers of Node 0.16 stop: run 0.17 or 0.18." if state.revision == 18 else ""
    return Outcome(
        f"Adopted the schema {state.schema} (Node's revision {state.revision}) as version"
        f" {scripts.latest}, {road}; every row is as it was.{note}",
        tuple(sql),
    )


def _attach_sql(scripts: Scripts) -> str:
    return (
        f"create extension {SCHEMA} schema {SCHEMA} version 'unpackaged';\n"
        f"alter extension {SCHEMA} update to '{scripts.latest}';"
    )


def _attach(conn: Connection, state: State, scripts: Scripts) -> Outcome:
    if state.version != scripts.latest:
        raise VersionError(
            f"the schema {state.schema} has version {state.version}; only {scripts.latest} can become"
            " an extension: run `gw-install upgrade` first"
        )
    return Outcome(
        f"The objects of the schema {state.schema} are members of the extension now;"
        " every row is as it was.",
        (_attach_sql(scripts),),
    )


def switch(
    conn: Connection,
    road: Literal["extension", "plain"],
    *,
    schema: str = SCHEMA,
    scripts: Scripts | None = None,
    dry_run: bool = False,
    patience: Patience | None = None,
) -> Outcome:
    """Make plain objects an extension, or the extension plain objects, with every row as it is.

    Raise NotInstalledError, VersionError, RightsError or BusyError; nothing is changed then.
    """
    scripts = scripts or Scripts()

    def decide() -> Outcome:
        state = detect(conn, schema, scripts)
        state.ours(scripts)
        if state.road == road:
            return Outcome(f"Nothing to do: the schema {schema} is {_kind(road)} already.")
        if road == "plain":
            return Outcome(
                f"Released the schema {schema} from the extension: its objects are plain now;"
                " every row is as it was.",
                (scripts.read("detach.sql"),),
            )
        if schema != SCHEMA:
            raise InstallError(f"only the schema {SCHEMA} can become an extension, not {schema}")
        _as_extension(conn, state, "extension", scripts)
        return _attach(conn, state, scripts)

    return _change(conn, schema, decide, dry_run=dry_run, patience=patience)


def release(
    conn: Connection,
    *,
    scripts: Scripts | None = None,
    dry_run: bool = False,
    patience: Patience | None = None,
) -> Outcome:
    """Drop the extension and leave every table, row and function, so that Node carries on.

    The same as ``switch`` to plain; ``adopt`` takes it back.
    """
    return switch(conn, "plain", scripts=scripts, dry_run=dry_run, patience=patience)


def upgrade(
    conn: Connection,
    *,
    to: str | None = None,
    schema: str = SCHEMA,
    drain: bool = False,
    scripts: Scripts | None = None,
    dry_run: bool = False,
    patience: Patience | None = None,
) -> Outcome:
    """Bring the queue to the newest version, or to one in between, by the road that it came.

    With ``drain`` wait until no job is running. Workers and producers carry on. Raise VersionError
    for a way back or a version that is not known, BusyError where locks or, with drain, running jobs
    stood in the way for too long; nothing is changed then.
    """
    scripts = scripts or Scripts()
    target = to or scripts.latest
    if target not in scripts.versions():
        known = ", ".join(scripts.versions())
        raise VersionError(f"version {target} is not known to this gw-install: it has {known}")

    def decide() -> Outcome:
        state = detect(conn, schema, scripts)
        version = state.ours(scripts)
        if version_key(version) > version_key(target):
            raise VersionError(
                f"the schema {schema} has version {version}; there is no way back to {target}"
            )
        if version == target:
            return Outcome(f"Nothing to do: the schema {schema} has version {version} already.")
        if drain and counts(conn, state).running:
            raise _Running("jobs are running")
        steps = scripts.steps(version, target)
        if state.road == "extension":
            if target not in offered(conn):
                raise InstallError(
                    f"the server does not offer version {target} of the extension: put its files in"
                    " place with `gw-install files put`, then upgrade; nothing was changed"
                )
            sql: tuple[str, ...] = (f"alter extension {SCHEMA} update to '{target}';",)
        else:
            sql = tuple(scripts.plain(scripts.read(step), schema) for step in steps)
        return Outcome(f"Upgraded the schema {schema} from version {version} to {target}.", sql)

    return _change(conn, schema, decide, dry_run=dry_run, patience=patience)


def uninstall(
    conn: Connection,
    *,
    schema: str = SCHEMA,
    with_jobs: bool = False,
    cascade: bool = False,
    scripts: Scripts | None = None,
    dry_run: bool = False,
    patience: Patience | None = None,
) -> Outcome:
    """Drop the queue, and its schema where nothing else is in it.

    Raise InUseError where jobs are in the queue, unless ``with_jobs``, or where other people's
    objects depend on it, unless ``cascade`` drops those too.
    """
    scripts = scripts or Scripts()

    def decide() -> Outcome:
        state = detect(conn, schema, scripts)
        if state.road in ("none", "foreign"):
            return Outcome(f"Nothing to do: there is no graphile_worker in the schema {schema}.")
        version = state.ours(scripts)
        jobs = counts(conn, state).total
        if jobs and not with_jobs:
            raise InUseError(
                f"{jobs} jobs are in the schema {schema}: run them, or say --with-jobs to lose them"
            )
        users = dependants(conn, schema)
        if users and not cascade:
            raise InUseError(
                f"other objects depend on the schema {schema}: {'; '.join(users)}. Drop them first,"
                " or say --cascade to drop them too"
            )
        end = " cascade;" if cascade else ";"
        if state.road == "extension":
            sql = [f"drop extension {SCHEMA}{end}"]
        else:
            sql = drop_sql(scripts, version, schema, end)
        if set(state.names) <= scripts.names(version) and schema != "public":
            ident = quote_ident(schema).replace("'", "''")
            owns = fetch(
                conn,
                "select pg_catalog.pg_has_role(nspowner, 'USAGE') from pg_catalog.pg_namespace"
                " where nspname = %s",
                [schema],
            )[0][0]
            sql += [f"drop schema {ident.replace(chr(39) * 2, chr(39))};"] if owns else []
        return Outcome(
            f"Removed graphile_worker and {jobs} jobs from the schema {schema}.", tuple(sql)
        )

    return _change(conn, schema, decide, dry_run=dry_run, patience=patience)


def drop_sql(scripts: Scripts, version: str, schema: str, end: str = ";") -> list[str]:
    """Return what drops the plain objects of a version, one statement an object."""
    import re

    ident = quote_ident(schema)
    text = scripts.read(version)
    signatures = re.findall(r"(?m)^comment on function @extschema@\.(.+?) is ", text)
    drops = [f"view {ident}.{n}" for n in re.findall(r"(?m)^create view @extschema@\.(\w+)", text)]
    drops += [f"function {ident}.{s.replace('@extschema@', ident)}" for s in signatures]
    drops += [f"type {ident}.{n}" for n in re.findall(r"(?m)^create type @extschema@\.(\w+)", text)]
    drops += [
        f"table {ident}.{n}" for n in re.findall(r"(?m)^create table @extschema@\.(\w+)", text)
    ]
    return [f"drop {drop}{end}" for drop in drops]


def grant(
    conn: Connection,
    role: str,
    level: str | None,
    *,
    schema: str = SCHEMA,
    scripts: Scripts | None = None,
    dry_run: bool = False,
) -> Outcome:
    """Give a role one level of access, or with None take every right away.

    The levels are enqueue, work, admin and observe; the answer's SQL is the exact GRANTs and REVOKEs.
    Raise InstallError for an unknown level or role.
    """
    scripts = scripts or Scripts()
    if level is not None and level not in LEVELS:
        raise InstallError(f"level {level!r} is unknown: use {', '.join(LEVELS)}")
    if not fetch(conn, "select from pg_catalog.pg_roles where rolname = %s", [role]):
        raise InstallError(f"role {role!r} does not exist: create it first, or mend the spelling")
    ident = quote_ident(schema)
    detect(conn, schema, scripts).ours(scripts)
    sql: list[str] = []
    try:
        with conn.transaction(force_rollback=dry_run):
            before = read(conn, schema).rights.get(role, set())
            call, values = (
                ("revoke_access(%s)", [role])
                if level is None
                else ("grant_access(%s, %s)", [role, level])
            )
            fetch(conn, f"select {ident.replace('%', '%%')}.{call}", values)
            after = read(conn, schema).rights.get(role, set())
    except pg.InsufficientPrivilege as error:
        raise RightsError(
            f"role {conn.info.user} may not grant this: connect as the owner of the schema {schema}"
        ) from error
    quoted = psycopg.sql.Identifier(role).as_string(conn)
    for verb, way, rights in (("revoke", "from", before - after), ("grant", "to", after - before)):
        for kind, name, privilege in sorted(rights):
            word = "table" if kind == "view" else kind
            name = _types_only(conn, schema, name) if kind == "function" else name
            sql.append(f"{verb} {privilege.lower()} on {word} {ident}.{name} {way} {quoted};")
    if level is not None and not before:
        sql.insert(0, f"grant usage on schema {ident} to {quoted};")
    what = f"has the level {level}" if level else "has no right"
    return Outcome(f"Role {role} {what} in the schema {schema}.", tuple(sql))


def _types_only(conn: Connection, schema: str, name: str) -> str:
    bare = name.partition("(")[0]
    rows = fetch(
        conn,
        "select pg_catalog.oidvectortypes(proargtypes) from pg_catalog.pg_proc where proname = %s"
        " and pronamespace = (select oid from pg_catalog.pg_namespace where nspname = %s)",
        [bare, schema],
    )
    return f"{bare}({rows[0][0]})"


def _kind(road: str) -> str:
    return "an extension" if road == "extension" else "plain objects"
