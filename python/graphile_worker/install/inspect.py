"""What a schema of a database holds: nothing, our queue in one of its install modes, Node's, or other objects."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

import psycopg

from graphile_worker.client.statements import COUNTS
from graphile_worker.errors import (
    ForeignSchemaError,
    NotInstalledError,
    RightsError,
    VersionError,
)
from graphile_worker.install.packaging.scripts import Scripts
from graphile_worker.install.session import Connection, acting_role, fetch
from graphile_worker.job import Counts
from graphile_worker.naming import NODE_REVISION, SCHEMA, quote_ident, version_in, version_key

SchemaMode = Literal["none", "extension", "plain", "node", "foreign"]
Mode = Literal["auto", "extension", "plain"]
#: The oldest revision of Node's schema that can be adopted, and the Node version that makes it.
OLDEST_REVISION, OLDEST_NODE = 18, "0.16.6"


@dataclass(frozen=True)
class State:
    """What is in a schema; ``version`` is ours, ``revision`` Node's, None where it has none."""

    schema: str
    mode: SchemaMode
    version: str | None = None
    revision: int | None = None
    exists: bool = True
    names: tuple[str, ...] = ()

    def ours(self, scripts: Scripts) -> str:
        """Return the version of our queue here.

        Raise NotInstalledError where there is none, and VersionError where it is newer than the
        scripts.
        """
        if self.mode == "node":
            raise NotInstalledError(
                f"the schema {self.schema} was made by Node's graphile-worker (revision"
                f" {self.revision}): `gw-install adopt` makes it ours, with every row as it is"
            )
        if self.version is None:
            raise NotInstalledError(
                f"there is no graphile_worker in the schema {self.schema}: run `gw-install install`,"
                " or name the schema with --schema"
            )
        if self.version == "unpackaged":
            raise NotInstalledError(
                "the extension graphile_worker is there, but empty (version unpackaged): run"
                " `drop extension graphile_worker`, then `gw-install adopt` or `switch extension`"
            )
        if version_key(self.version) > version_key(scripts.latest):
            raise VersionError(
                f"the schema {self.schema} has version {self.version}, newer than {scripts.latest},"
                " the newest that this gw-install knows: run `pip install -U graphile-worker`"
            )
        return self.version


def check_server(version: int) -> None:
    """Raise VersionError for a server older than PostgreSQL 13; the version is libpq's number."""
    if version < 130000:
        major = version // 10000
        number = str(major) if major >= 10 else f"{major}.{version // 100 % 100}"
        raise VersionError(
            f"the server is PostgreSQL {number}; graphile_worker needs 13 or newer:"
            " upgrade the server, nothing was changed"
        )


_NAMES = """
    select name::text from (
      select relname, relnamespace from pg_catalog.pg_class
      where relkind in ('r', 'p', 'v', 'm', 'S', 'f') and not relispartition
      union all select proname, pronamespace from pg_catalog.pg_proc
      union all select typname, typnamespace from pg_catalog.pg_type
      where typtype in ('c', 'd', 'e')
      and typrelid not in (select oid from pg_catalog.pg_class where relispartition)
    ) as objects (name, namespace)
    where namespace = (select oid from pg_catalog.pg_namespace where nspname = %s)
    group by name
"""


def detect(conn: Connection, schema: str = SCHEMA, scripts: Scripts | None = None) -> State:
    """Say what is in the schema.

    Nothing of the schema is called: a version is read from its function's text, since the schema
    may be someone else's. Raise VersionError for a server older than PostgreSQL 13, and ValueError
    for a name that no schema can have.
    """
    scripts = scripts or Scripts()
    quote_ident(schema)
    check_server(conn.info.server_version)
    found = fetch(
        conn,
        "select nspname::text, extversion from pg_catalog.pg_namespace"
        " left join pg_catalog.pg_extension on extnamespace = pg_namespace.oid"
        " and extname = 'graphile_worker' where nspname = %s",
        [schema],
    )
    if not found:
        return State(schema, "none", exists=False)
    names = tuple(name for (name,) in fetch(conn, _NAMES, [schema]))
    if found[0][1] is not None:
        return State(schema, "extension", found[0][1], _revision(conn, schema, names), names=names)
    if "_private_jobs" in names and "version" in names:
        (body,) = fetch(
            conn,
            "select prosrc from pg_catalog.pg_proc where pronargs = 0 and proname = 'version'"
            " and pronamespace = (select oid from pg_catalog.pg_namespace where nspname = %s)",
            [schema],
        ) or [("",)]
        version = version_in(body[0])
        if version:
            return State(schema, "plain", version, _revision(conn, schema, names), names=names)
    node = {"migrations", "_private_jobs", "add_job"} <= set(names)
    node = node or {"migrations", "jobs", "job_queues"} <= set(names)  # before Node 0.16
    if node or set(names) == {"migrations"}:
        return State(schema, "node", None, _revision(conn, schema, names), names=names)
    reserved = scripts.names(scripts.latest) & set(names)
    return State(schema, "foreign" if reserved else "none", names=tuple(sorted(reserved)) or names)


def _revision(conn: Connection, schema: str, names: tuple[str, ...]) -> int | None:
    if "migrations" not in names:
        return None
    require_tables(conn, schema, "migrations")
    try:
        with conn.transaction():
            query = f"select pg_catalog.max(id) from {quote_ident(schema)}.migrations"
            revision: int | None = fetch(conn, query)[0][0]
            return revision
    except (psycopg.errors.InsufficientPrivilege, psycopg.errors.UndefinedColumn):
        return None  # another role's, or no migrations of Node's


def require_adoptable(state: State) -> None:
    """Raise where a schema of Node's cannot become ours: too old, too new, or unreadable."""
    if state.revision is None:
        raise RightsError(
            f"the migrations of the schema {state.schema} cannot be read:"
            " connect as the role that owns it"
        )
    if state.revision < OLDEST_REVISION:
        raise VersionError(
            f"the schema {state.schema} has Node's revision {state.revision}; adoption starts from"
            f" {OLDEST_REVISION}: run graphile-worker {OLDEST_NODE} (or 0.17, 0.18) on it once"
            " (`npx graphile-worker --schema-only`), then adopt it"
        )
    if state.revision > NODE_REVISION:
        raise VersionError(
            f"the schema {state.schema} has Node's revision {state.revision}, newer than"
            f" {NODE_REVISION}, the newest that this gw-install knows:"
            " run `pip install -U graphile-worker`"
        )


def require_free(state: State) -> None:
    """Raise ForeignSchemaError where something else has our names."""
    if state.mode == "foreign":
        raise ForeignSchemaError(
            f"the schema {state.schema} has objects that are not ours under our names"
            f" ({', '.join(state.names[:5])}): choose another schema with --schema, or rename them"
        )


def offered(conn: Connection) -> list[str]:
    """Return the versions that the server can create as an extension, oldest first."""
    rows = fetch(
        conn,
        "select version from pg_catalog.pg_available_extension_versions where name = %s",
        [SCHEMA],
    )
    if fetch(conn, "select pg_catalog.to_regproc('pgtle.available_extension_versions')")[0][0]:
        rows += fetch(
            conn,
            "select version from pgtle.available_extension_versions() where name = %s",
            [SCHEMA],
        )
    versions = {row[0] for row in rows if re.fullmatch(r"\d+\.\d+\.\d+", row[0])}
    return sorted(versions, key=version_key)


def counts(conn: Connection, state: State) -> Counts:
    """Count the jobs; reads the whole table. Raise RightsError where the role may not."""
    # Not the view, for a superuser: its owner could have put anything into it.
    ident = quote_ident(state.schema)
    superuser = fetch(conn, "select pg_catalog.current_setting('is_superuser') = 'on'")[0][0]
    named = f"{ident}._private_jobs" if superuser else f"{ident}.jobs"
    if superuser:
        require_tables(conn, state.schema, "_private_jobs")
    try:
        with conn.transaction():
            return Counts(*fetch(conn, COUNTS.replace("{s}.jobs", named))[0])
    except psycopg.errors.InsufficientPrivilege as error:
        user = acting_role(conn)
        raise RightsError(
            f"role {user} may not read the jobs: give it the level observe, with"
            f" `gw-install grant {user} observe` as the owner"
        ) from error


def require_tables(conn: Connection, schema: str, *names: str) -> None:
    """Raise ForeignSchemaError where one of these names is not that of a plain table.

    Reading a view runs what its owner has put into it, with the reader's rights.
    """
    found = fetch(
        conn,
        "select relname::text from pg_catalog.pg_class where relnamespace ="
        " (select oid from pg_catalog.pg_namespace where nspname = %s)"
        " and relname = any (%s) and relkind <> 'r'",
        [schema, list(names)],
    )
    if found:
        raise ForeignSchemaError(
            f"{found[0][0]} in the schema {schema} is not a table: someone replaced it, and reading it"
            " could run any code; nothing in the schema was called"
        )
