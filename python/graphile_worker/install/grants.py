"""Give roles their level of access, as exact GRANTs."""

from __future__ import annotations

from collections.abc import Iterable

from psycopg import errors as pg
from psycopg import sql as compose

from graphile_worker.errors import InstallError, RightsError
from graphile_worker.install.catalogue import LEVELS, Right, read
from graphile_worker.install.citus import on_all_nodes
from graphile_worker.install.inspect import detect
from graphile_worker.install.packaging.scripts import Scripts, fill_in
from graphile_worker.install.session import Connection, acting_role, fetch
from graphile_worker.install.transaction import LockRetries, Outcome, change
from graphile_worker.naming import SCHEMA, quote_ident
from graphile_worker.ownership import OWNERS, check_owners


def grant(
    conn: Connection,
    role: str,
    level: str | None,
    *,
    schema: str = SCHEMA,
    trusted: Iterable[str] = (),
    scripts: Scripts | None = None,
    dry_run: bool = False,
    lock_retries: LockRetries | None = None,
) -> Outcome:
    """Give a role one level of access; None revokes every right.

    The levels are enqueue, work, admin and observe; the answer's SQL is the exact GRANTs, REVOKEs.
    ``trusted`` are owners of the schema whose functions a superuser may run. Raise InstallError for
    an unknown level or role, UntrustedOwner for a superuser and another owner. On Citus the role
    gets its level on all nodes.
    """
    if level is not None and level not in LEVELS:
        raise InstallError(f"level {level!r} is unknown: use {', '.join(LEVELS)}")
    scripts = scripts or Scripts()
    ident = quote_ident(schema)
    call, values = (
        ("revoke_access(%s)", [role]) if level is None else ("grant_access(%s, %s)", [role, level])
    )

    def decide() -> Outcome:
        if not fetch(conn, "select from pg_catalog.pg_roles where rolname = %s", [role]):
            raise InstallError(
                f"role {role!r} does not exist: create it first, or check the spelling"
            )
        version = detect(conn, schema, scripts).ours(scripts)
        check_owners(fetch(conn, OWNERS, [schema]), schema, trusted)
        try:
            with conn.transaction(force_rollback=True):  # what the functions do, told as SQL
                before = read(conn, schema).rights.get(role, set())
                fetch(conn, f"select {ident.replace('%', '%%')}.{call}", values)
                after = read(conn, schema).rights.get(role, set())
        except pg.InsufficientPrivilege as error:
            raise RightsError(
                f"role {acting_role(conn)} may not grant this: connect as the owner of the schema"
                f" {schema}"
            ) from error
        what = f"has the level {level}" if level else "has no right"
        quoted = '"' + role.replace('"', '""') + '"'
        sql = [_statement("revoke", r, after, ident, scripts, version) + f" from {quoted};"
               for r in sorted(before - after)]  # fmt: skip
        sql += [_statement("grant", r, after, ident, scripts, version) + f" to {quoted};"
                for r in sorted(after - before)]  # fmt: skip
        return Outcome(f"Role {role} {what} in the schema {schema}.", tuple(sql))

    outcome = change(conn, schema, decide, dry_run=dry_run, lock_retries=lock_retries)
    if not dry_run:
        literals = [compose.Literal(value).as_string(conn) for value in values]
        on_all_nodes(conn, f"select {ident}.{call % tuple(literals)}")
    return outcome


def _statement(
    verb: str, right: Right, after: set[Right], ident: str, scripts: Scripts, version: str
) -> str:
    kind, name, privilege = right
    privilege, option, _ = privilege.lower().partition(" with grant option")
    if option and (kind, name, privilege.upper()) in after:
        verb = "revoke grant option for"
    if kind == "schema":
        return f"{verb} {privilege} on schema {ident}"
    if kind == "function":
        address = fill_in(scripts.address(version, name.partition("(")[0]), ident)
        return f"{verb} {privilege} on function {address}"
    if kind == "column":
        relation, _, column = name.partition(".")
        return f"{verb} {privilege} ({column}) on table {ident}.{relation}"
    return f"{verb} {privilege} on {'table' if kind == 'view' else kind} {ident}.{name}"
