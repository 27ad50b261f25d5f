"""Read every object of a schema from PostgreSQL's catalogues, in a form that can be compared.

What a version should be is not written down anywhere twice: its install script is run in this
session's temporary schema, read by the same queries, and rolled back.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import psycopg

from graphile_worker.errors import RightsError
from graphile_worker.install.packaging.scripts import EXTENSION_ONLY, Scripts, fill_in
from graphile_worker.install.session import (
    Connection,
    acting_role,
    bare,
    fetch,
    run_script,
    transaction,
)
from graphile_worker.naming import quote_ident

LEVELS = ("enqueue", "work", "admin", "observe")

# Each row: kind, name, attributes. {ns} is the oid of the schema.
_QUERIES = {
    "table": """
        select relname::text, jsonb_build_object(
          'row security', relrowsecurity, 'forced row security', relforcerowsecurity,
          'persistence', case when relpersistence = 't' then 'p' else relpersistence end,
          'options', coalesce(reloptions::text, ''), 'owner', pg_get_userbyid(relowner),
          'partitions', pg_get_partkeydef(oid), 'comment', obj_description(oid, 'pg_class'))
        from pg_class where relnamespace = {ns} and relkind in ('r', 'p')""",
    "column": """
        select c.relname || '.' || a.attname, jsonb_build_object(
          'type', format_type(a.atttypid, a.atttypmod), 'not null', a.attnotnull,
          'place', (select count(*) from pg_attribute b where b.attrelid = c.oid and b.attnum > 0
            and b.attnum <= a.attnum and not b.attisdropped),
          'identity', a.attidentity, 'generated', a.attgenerated,
          'default', pg_get_expr(d.adbin, d.adrelid), 'collation', a.attcollation::regcollation::text,
          'comment', col_description(c.oid, a.attnum))
        from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
        left join pg_attrdef d on d.adrelid = c.oid and d.adnum = a.attnum
        where c.relnamespace = {ns} and c.relkind in ('r', 'p', 'v', 'c')""",
    "constraint": """
        select conrelid::regclass::text || ' ' || conname, jsonb_build_object(
          'definition', pg_get_constraintdef(oid), 'validated', convalidated,
          'comment', obj_description(oid, 'pg_constraint'))
        from pg_constraint where connamespace = {ns} and contype not in ('n', 't')""",
    "index": """
        select i.relname::text, jsonb_build_object(
          'definition', pg_get_indexdef(i.oid), 'valid', x.indisvalid and x.indisready,
          'comment', obj_description(i.oid, 'pg_class'))
        from pg_class t join pg_index x on x.indrelid = t.oid join pg_class i on i.oid = x.indexrelid
        where t.relnamespace = {ns}""",
    "sequence": """
        select c.relname::text, jsonb_build_object(
          'type', format_type(s.seqtypid, null), 'start', s.seqstart, 'increment', s.seqincrement,
          'minimum', s.seqmin, 'maximum', s.seqmax, 'cycles', s.seqcycle, 'cache', s.seqcache,
          'owner', pg_get_userbyid(c.relowner), 'column', (
            select d.refobjid::regclass::text || '.' || a.attname from pg_depend d
            join pg_attribute a on a.attrelid = d.refobjid and a.attnum = d.refobjsubid
            where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype = 'i'
            and d.refclassid = 'pg_class'::regclass),
          'comment', obj_description(c.oid, 'pg_class'))
        from pg_class c join pg_sequence s on s.seqrelid = c.oid where c.relnamespace = {ns}""",
    "view": """
        select relname::text, jsonb_build_object(
          'definition', pg_get_viewdef(oid), 'options', coalesce(reloptions::text, ''),
          'owner', pg_get_userbyid(relowner), 'comment', obj_description(oid, 'pg_class'))
        from pg_class where relnamespace = {ns} and relkind = 'v'""",
    "type": """
        select t.typname::text, jsonb_build_object(
          'owner', pg_get_userbyid(t.typowner), 'comment', obj_description(t.oid, 'pg_type'))
        from pg_type t join pg_class c on c.oid = t.typrelid and c.relkind = 'c'
        where t.typnamespace = {ns}""",
    "function": """
        select proname || '(' || pg_get_function_identity_arguments(p.oid) || ')', jsonb_build_object(
          'arguments', pg_get_function_arguments(p.oid), 'result', pg_get_function_result(p.oid),
          'language', l.lanname, 'volatility', provolatile, 'strict', proisstrict,
          'security definer', prosecdef, 'leakproof', proleakproof, 'parallel', proparallel,
          'cost', procost, 'rows', prorows, 'settings', proconfig::text, 'body', prosrc,
          'owner', pg_get_userbyid(proowner), 'comment', obj_description(p.oid, 'pg_proc'))
        from pg_proc p join pg_language l on l.oid = p.prolang where pronamespace = {ns}""",
    "trigger": """
        select tgname || ' on ' || relname, jsonb_build_object(
          'definition', pg_get_triggerdef(t.oid, true), 'enabled', tgenabled,
          'comment', obj_description(t.oid, 'pg_trigger'))
        from pg_trigger t join pg_class c on c.oid = t.tgrelid
        where c.relnamespace = {ns} and not tgisinternal""",
    "rule": """
        select rulename || ' on ' || relname, jsonb_build_object('definition', pg_get_ruledef(r.oid))
        from pg_rewrite r join pg_class c on c.oid = r.ev_class
        where c.relnamespace = {ns} and rulename <> '_RETURN'""",
    "policy": """
        select polname || ' on ' || relname, jsonb_build_object('command', polcmd)
        from pg_policy p join pg_class c on c.oid = p.polrelid where c.relnamespace = {ns}""",
    "revision": """
        select id::text, jsonb_build_object('breaking', breaking) from {schema}.migrations""",
}

# Who has which right on what: OWNER, public or a role's name.
_RIGHTS = """
    select case when r.grantee = o.owner then '' when r.grantee = 0 then 'public'
        else pg_get_userbyid(r.grantee) end, kind, name,
      privilege_type || case when is_grantable and r.grantee <> o.owner then ' WITH GRANT OPTION' else '' end
    from (
      select case relkind when 'S' then 'sequence' when 'v' then 'view' else 'table' end,
        relname::text, relowner,
        coalesce(relacl, acldefault(case relkind when 'S' then 's' else 'r' end::"char", relowner))
      from pg_class where relnamespace = {ns} and relkind in ('r', 'p', 'v', 'S')
      union all
      select 'function', proname || '(' || pg_get_function_identity_arguments(oid) || ')', proowner,
        coalesce(proacl, acldefault('f', proowner)) from pg_proc where pronamespace = {ns}
      union all
      select 'type', typname, typowner, coalesce(typacl, acldefault('T', typowner))
      from pg_type t join pg_class c on c.oid = t.typrelid and c.relkind = 'c' where typnamespace = {ns}
      union all
      select 'column', relname || '.' || attname, relowner, attacl
      from pg_attribute a join pg_class c on c.oid = a.attrelid
      where relnamespace = {ns} and attacl is not null
    ) as o (kind, name, owner, acl)
    cross join lateral aclexplode(o.acl) as r
"""
# A schema may be shared: of its own rights only those to look into it are ours.
_USAGE = """
    union all
    select case when grantee = 0 then 'public' else pg_get_userbyid(grantee) end, 'schema', '', privilege_type
    from pg_namespace cross join lateral aclexplode(nspacl)
    where oid = {ns} and privilege_type = 'USAGE' and grantee <> nspowner
"""
USAGE = ("schema", "", "USAGE")
_QUOTE = "select pg_catalog.quote_ident(%s)"

_MEMBERS = """
    select i.type, case when i.type = 'function' then 'function' else i.name end, i.identity,
      case when d.classid = 'pg_class'::regclass
        then e.extcondition[array_position(e.extconfig, d.objid)] end
    from pg_extension e
    join pg_depend d on d.refclassid = 'pg_extension'::regclass and d.refobjid = e.oid and d.deptype = 'e'
    cross join lateral pg_identify_object(d.classid, d.objid, 0) i
    where e.extname = 'graphile_worker'
"""

#: The grantee who owns an object: no role can have this name, nor that of public.
OWNER = ""
Key = tuple[str, str]
Right = tuple[str, str, str]


@dataclass
class Catalogue:
    """Every object of a schema by kind and name, and the rights on them by grantee."""

    objects: dict[Key, dict[str, Any]] = field(default_factory=dict)
    rights: dict[str, set[Right]] = field(default_factory=dict)
    levels: dict[str, set[Right]] = field(default_factory=dict)


def read(conn: Connection, schema: str) -> Catalogue:
    """Read a schema, in a transaction of the caller's; the search_path is put back."""
    (path,) = fetch(conn, "select pg_catalog.current_setting('search_path')")[0]
    temporary = schema.startswith("pg_temp_")
    ident = schema if temporary else quote_ident(schema)
    # With the schema in the path PostgreSQL leaves its name out, but for the table of an index.
    fetch(
        conn,
        "select pg_catalog.set_config('search_path', %s, true)",
        ["pg_catalog, pg_temp" if temporary else f"pg_catalog, {ident}, pg_temp"],
    )
    table_of = ["pg_temp", schema] if temporary else [fetch(conn, _QUOTE, [schema])[0][0]]

    def neutral(attribute: str, value: Any, kind: str) -> Any:
        if kind == "index" and attribute == "definition":
            for name in table_of:
                value = value.replace(f" ON {name}.", " ON ", 1)
        elif kind == "trigger" and attribute == "definition" and temporary:
            return value.replace(f"{schema}.", "").replace("pg_temp.", "")
        elif attribute == "body" and temporary:
            return value.replace(schema, "@extschema@")  # what was filled in is compared as it is
        return value

    found = Catalogue()
    filled = {"ns": f"(select oid from pg_namespace where nspname = {_literal(schema)})"}
    for kind, query in _QUERIES.items():
        text = query.format(**filled, schema=ident)
        for name, attributes in fetch(conn, text):
            found.objects[kind, name] = {a: neutral(a, v, kind) for a, v in attributes.items()}
    rights = _RIGHTS.format(**filled) + ("" if temporary else _USAGE.format(**filled))
    for grantee, *right in fetch(conn, rights):
        kind, name, privilege = right
        found.rights.setdefault(grantee, set()).add((kind, name, privilege))
    fetch(conn, "select pg_catalog.set_config('search_path', %s, true)", [path])
    return found


#: By script and server version: a repair asks for the same several times. No one changes one.
_references: dict[tuple[str, int], Catalogue] = {}


def reference(conn: Connection, version: str, scripts: Scripts) -> Catalogue:
    """Return what a version should be, from its install script; nothing stays of the trial.

    Raise RightsError where the role may not make temporary objects.
    """
    key = scripts.read(version), conn.info.server_version
    if key not in _references:
        _references[key] = _tried(conn, version, scripts)
    return _references[key]


def _tried(conn: Connection, version: str, scripts: Scripts) -> Catalogue:
    try:
        with transaction(conn, force_rollback=True):
            # Citus would send the trial to its other nodes, and a worker node refuses it.
            if fetch(conn, "select from pg_catalog.pg_extension where extname = 'citus'"):
                run_script(conn, "set local citus.enable_ddl_propagation = off")
            run_script(conn, "create temporary table graphile_worker_probe () on commit drop")
            query = "select nspname::text from pg_catalog.pg_namespace where oid = pg_catalog.pg_my_temp_schema()"
            (schema,) = fetch(conn, query)[0]
            run_script(conn, "drop table pg_temp.graphile_worker_probe")
            text = scripts.extension(version).partition(EXTENSION_ONLY)[0]
            run_script(conn, fill_in(text, schema))
            wanted = read(conn, schema)
            for level in LEVELS:
                with conn.transaction(force_rollback=True):
                    fetch(conn, f"select {schema}.grant_access('pg_monitor', %s)", [level])
                    given = read(conn, schema).rights.get("pg_monitor", set())
                    wanted.levels[level] = given | {USAGE}
            return wanted
    except psycopg.errors.InsufficientPrivilege as error:
        user = acting_role(conn)
        raise RightsError(
            f"role {user} may not make temporary objects, which the comparison needs:"
            f" grant temporary on database {bare(conn.info.dbname)} to {bare(user)}"
        ) from error


def members(conn: Connection) -> dict[tuple[str, str], str | None]:
    """Return the extension's members by type and identity, with the condition on which a dump saves
    their rows: an empty one for all of them, None for those that it does not save."""
    return {(kind, identity): saved for kind, _, identity, saved in fetch(conn, _MEMBERS)}


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
