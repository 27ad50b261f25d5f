"""Give roles their level of access, as exact GRANTs."""

from __future__ import annotations

from psycopg import errors as pg
from psycopg import sql as pg_sql

from graphile_worker.catalogue import LEVELS, read
from graphile_worker.change import Outcome
from graphile_worker.errors import InstallError, RightsError
from graphile_worker.scripts import SCHEMA, Scripts, quote_ident
from graphile_worker.state import Connection, detect, fetch


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

    The levels are enqueue, work, admin and observe; the answer's SQL is the exact GRANTs, REVOKEs.
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
    quoted = pg_sql.Identifier(role).as_string(conn)
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
