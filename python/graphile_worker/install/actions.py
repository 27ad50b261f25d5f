"""Install, upgrade and uninstall."""

from __future__ import annotations

from graphile_worker.errors import ForeignSchemaError, InstallError, InUseError, VersionError
from graphile_worker.install.adoption import adopted
from graphile_worker.install.citus import ROUTES
from graphile_worker.install.dependants import dependants
from graphile_worker.install.inspect import (
    Mode,
    State,
    counts,
    detect,
    offered,
    require_adoptable,
    require_free,
    require_tables,
)
from graphile_worker.install.packaging.offline import drop_sql
from graphile_worker.install.packaging.scripts import Scripts
from graphile_worker.install.session import Connection, fetch, run_script
from graphile_worker.install.transaction import (
    LockRetries,
    NotYetError,
    Outcome,
    as_owner,
    change,
    kind,
)
from graphile_worker.naming import SCHEMA, quote_ident, version_key


def install(
    conn: Connection,
    *,
    schema: str = SCHEMA,
    mode: Mode = "auto",
    scripts: Scripts | None = None,
    dry_run: bool = False,
    lock_retries: LockRetries | None = None,
) -> Outcome:
    """Install the queue in a schema, or report that it is there.

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
        if state.mode == "node":
            return _adopt_empty(conn, state, mode, scripts)
        if state.mode in ("extension", "plain"):
            return _installed(state, mode, scripts)
        require_free(state)
        return _create(conn, state, mode, scripts)

    return change(conn, schema, decide, dry_run=dry_run, lock_retries=lock_retries)


def _installed(state: State, mode: Mode, scripts: Scripts) -> Outcome:
    version = state.ours(scripts)
    if mode not in ("auto", state.mode):
        raise InstallError(
            f"the schema {state.schema} has version {version} as {kind(state.mode)} already:"
            f" `gw-install switch {mode}` changes the install mode and keeps every row"
        )
    note = "" if version == scripts.latest else f"; `gw-install upgrade` brings {scripts.latest}"
    return Outcome(
        f"Version {version} is installed in the schema {state.schema} as {kind(state.mode)}{note}."
    )


def _adopt_empty(conn: Connection, state: State, mode: Mode, scripts: Scripts) -> Outcome:
    # Node migrates step by step, each in a transaction of its own: what was a table may be a view
    # a moment later.
    ident = quote_ident(state.schema)
    query = f"select max(ts) > clock_timestamp() - interval '1 second' from {ident}.migrations"
    if state.revision is None or fetch(conn, query)[0][0]:
        raise NotYetError("Node's graphile-worker is making its tables")
    if has_jobs(conn, state):
        require_adoptable(state)
        raise ForeignSchemaError(
            f"the schema {state.schema} was made by Node's graphile-worker and has jobs:"
            " `gw-install adopt` makes it ours, with every row as it is"
        )
    require_adoptable(state)
    return adopted(conn, state, mode, scripts)


def has_jobs(conn: Connection, state: State) -> bool:
    rows = fetch(
        conn,
        "select relname::text from pg_catalog.pg_class where relnamespace ="
        " (select oid from pg_catalog.pg_namespace where nspname = %s) and relkind = 'r'"
        " and relname in ('_private_jobs', 'jobs') order by relname <> '_private_jobs' limit 1",
        [state.schema],
    )
    if not rows:
        require_tables(conn, state.schema, "_private_jobs", "jobs")
        return False
    (table,) = rows[0]
    query = f"select exists (select from {quote_ident(state.schema)}.{table})"
    return bool(fetch(conn, query)[0][0])


def _create(conn: Connection, state: State, mode: Mode, scripts: Scripts) -> Outcome:
    ident = quote_ident(state.schema)
    make = () if state.exists else (f"create schema {ident};",)
    if mode == "plain" or (mode == "auto" and state.schema != SCHEMA):
        chosen, version = "plain", scripts.latest
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
        chosen, version = ("extension", there[-1]) if there else ("plain", scripts.latest)
    if chosen == "extension":
        sql = f"create extension {SCHEMA} schema {SCHEMA} version '{version}';"
    else:
        sql = scripts.plain(scripts.read(version), state.schema)
    return Outcome(
        f"Installed version {version} in the schema {state.schema} as {kind(chosen)}.",
        (*make, sql),
    )


def upgrade(
    conn: Connection,
    *,
    to: str | None = None,
    schema: str = SCHEMA,
    drain: bool = False,
    scripts: Scripts | None = None,
    dry_run: bool = False,
    lock_retries: LockRetries | None = None,
) -> Outcome:
    """Upgrade the queue to the newest version, or to one in between, in its install mode.

    With ``drain`` wait until no job is running. Workers and producers carry on. Raise VersionError
    for a way back or a version that is not known, BusyError where locks or, with drain, running
    jobs stood in the way for too long; nothing is changed then.
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
                f"the schema {schema} has version {version}; you cannot downgrade to {target}"
            )
        if version == target:
            return Outcome(f"Nothing to do: the schema {schema} has version {version} already.")
        if drain:
            if not dry_run:  # a take that is not committed yet counts, too
                _lock_jobs(conn, schema, "share row exclusive")
            if counts(conn, state).running:
                raise NotYetError("jobs are running")
        steps = scripts.steps(version, target)
        if state.mode == "extension":
            if target not in offered(conn):
                raise InstallError(
                    f"the server does not offer version {target} of the extension: put its files in"
                    " place with `gw-install files put`, then upgrade; nothing was changed"
                )
            sql: tuple[str, ...] = (f"alter extension {SCHEMA} update to '{target}';",)
        else:
            texts = [scripts.plain(scripts.read(step), schema) for step in steps]
            sql = tuple(as_owner(conn, schema, text) for text in texts)
        return Outcome(f"Upgraded the schema {schema} from version {version} to {target}.", sql)

    return change(conn, schema, decide, dry_run=dry_run, lock_retries=lock_retries)


def uninstall(
    conn: Connection,
    *,
    schema: str = SCHEMA,
    with_jobs: bool = False,
    cascade: bool = False,
    scripts: Scripts | None = None,
    dry_run: bool = False,
    lock_retries: LockRetries | None = None,
) -> Outcome:
    """Drop the queue, and its schema where nothing else is in it.

    Raise InUseError where jobs are in the queue, unless ``with_jobs``, or where other people's
    objects depend on it, unless ``cascade`` drops those too.
    """
    scripts = scripts or Scripts()

    def decide() -> Outcome:
        state = detect(conn, schema, scripts)
        if state.mode in ("none", "foreign"):
            return Outcome(f"Nothing to do: there is no graphile_worker in the schema {schema}.")
        version = state.ours(scripts)
        if not dry_run:  # a job that is not committed yet counts, too
            _lock_jobs(conn, schema, "access exclusive")
        jobs = counts(conn, state).total
        if jobs and not with_jobs:
            raise InUseError(
                f"{jobs} jobs are in the schema {schema}: run them, or say --with-jobs to lose them"
            )
        users = dependants(conn, schema, scripts.names(version))
        if users and not cascade:
            raise InUseError(
                f"other objects depend on the schema {schema}: {'; '.join(users)}. Drop them first,"
                " or say --cascade to drop them too"
            )
        end = " cascade;" if cascade else ";"
        if state.mode == "extension":
            sql = [f"drop extension {SCHEMA}{end}"]
        else:
            sql = drop_sql(scripts, version, schema, end)
        names = set(state.names)
        if ROUTES in names:
            names.remove(ROUTES)
            sql.insert(0, f"drop table {quote_ident(schema)}.{ROUTES};")
        if names <= scripts.names(version) and _owns(conn, schema):
            sql.append(f"drop schema {quote_ident(schema)};")
        return Outcome(
            f"Removed graphile_worker and {jobs} jobs from the schema {schema}.", tuple(sql)
        )

    return change(conn, schema, decide, dry_run=dry_run, lock_retries=lock_retries)


def _lock_jobs(conn: Connection, schema: str, mode: str) -> None:
    run_script(conn, f"lock table {quote_ident(schema)}._private_jobs in {mode} mode")


def _owns(conn: Connection, schema: str) -> bool:
    query = (
        "select pg_catalog.pg_has_role(nspowner, 'USAGE') and nspname <> 'public'"
        " from pg_catalog.pg_namespace where nspname = %s"
    )
    return bool(fetch(conn, query, [schema])[0][0])
