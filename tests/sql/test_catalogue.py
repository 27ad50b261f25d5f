"""What is installed: every object commented, the same by every road, and gone when dropped."""

from __future__ import annotations

import re

import pytest
from graphile_worker import __version__
from graphile_worker.install.packaging.render import render
from graphile_worker.naming import quote_ident
from support.pg import Database

COMMENTED = """
    select 'relation ' || relname as object, obj_description(oid, 'pg_class') as comment
    from pg_class where relnamespace = {schema}::regnamespace and relkind in ('r', 'v', 'S', 'i')
    union all
    select 'column ' || relname || '.' || attname, col_description(attrelid, attnum)
    from pg_attribute join pg_class c on c.oid = attrelid
    where relnamespace = {schema}::regnamespace and relkind in ('r', 'v', 'c')
    and attnum > 0 and not attisdropped
    union all
    select 'function ' || oid::regprocedure, obj_description(oid, 'pg_proc')
    from pg_proc where pronamespace = {schema}::regnamespace
    union all
    select 'type ' || typname, obj_description(t.oid, 'pg_type')
    from pg_type t join pg_class c on c.oid = t.typrelid and c.relkind = 'c'
    where typnamespace = {schema}::regnamespace
    union all
    select 'constraint ' || conname, obj_description(oid, 'pg_constraint')
    from pg_constraint where connamespace = {schema}::regnamespace and contype = 'c'
    order by 1
"""

OBJECTS = """
    select 'column', c.relname::text, a.attname::text, format_type(a.atttypid, a.atttypmod), a.attnotnull::text,
      a.attidentity::text, a.attgenerated::text, coalesce(pg_get_expr(d.adbin, d.adrelid), '')
    from pg_attribute a join pg_class c on c.oid = a.attrelid
    left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
    where c.relnamespace = {schema}::regnamespace and a.attnum > 0
    union all
    select 'index', relname, pg_get_indexdef(oid), '', '', '', '', '' from pg_class
    where relnamespace = {schema}::regnamespace and relkind = 'i'
    union all
    select 'view', relname, pg_get_viewdef(oid), '', '', '', '', '' from pg_class
    where relnamespace = {schema}::regnamespace and relkind = 'v'
    union all
    select 'constraint', conname, pg_get_constraintdef(oid), '', '', '', '', '' from pg_constraint
    where connamespace = {schema}::regnamespace and contype <> 'n'
    union all
    select 'function', proname, pg_get_functiondef(oid), coalesce(proacl::text, ''), '', '', '', ''
    from pg_proc where pronamespace = {schema}::regnamespace
    order by 1, 2, 3
"""


def catalogue(db: Database, schema: str) -> list[tuple[str, ...]]:
    quoted = quote_ident(schema)
    literal = "'" + quoted.replace("'", "''") + "'"
    query = OBJECTS.replace("{schema}", literal)
    doubled = quoted.replace("'", "''")
    spellings = [doubled.replace("%", "%%"), doubled, quoted]
    if schema == "graphile_worker":
        spellings.append(schema)
    rows = []
    for row in db.rows(query):
        texts = [
            re.sub(r"graphile_worker\.(notify|cursors|more)\b", "the setting", str(part))
            for part in row
        ]
        for spelling in spellings:
            texts = [text.replace(spelling, "SCHEMA") for text in texts]
        rows.append(tuple(texts))
    return sorted(rows)


def test_every_object_has_a_comment(db: Database) -> None:
    rows = db.rows(COMMENTED.format(schema="'graphile_worker'"))
    assert len(rows) > 100
    assert [name for name, comment in rows if not comment] == []


ODD = 'Odd "Na\'me" $$ %s \\'


@pytest.mark.parametrize("schema", ["graphile_worker", ODD, "é" * 31 + "x"])
def test_plain_sql_makes_the_same_objects_in_any_schema(
    db: Database, empty_db: Database, schema: str
) -> None:
    connection = empty_db.connect(autocommit=False)
    connection.execute(f"create schema {quote_ident(schema)}".encode())
    connection.execute(render(schema).encode())
    connection.commit()
    connection.autocommit = True
    plain = catalogue(empty_db, schema)
    assert len(plain) > 100
    assert plain == catalogue(db, "graphile_worker")
    q = quote_ident(schema)
    add = f"select id from {q}.add_job('t', queue_name := 'q', job_key := 'k')"
    assert connection.execute(add.encode()).fetchone() == (1,)
    assert len(connection.execute(f"select * from {q}.get_jobs('w')".encode()).fetchall()) == 1
    connection.execute(f"select {q}.grant_access('postgres', 'admin')".encode())


def test_a_name_that_no_schema_can_have_is_refused() -> None:
    for name in ("", "x" * 64, "é" * 32, "a\0b"):
        with pytest.raises(ValueError, match="use 1 to 63"):
            render(name)


def test_rendering_is_the_same_each_time() -> None:
    assert render() == render()
    assert render("x") == render("x")


def test_version_and_migrations(db: Database) -> None:
    assert db.value("select graphile_worker.version()") == __version__
    assert (
        db.value("select extversion from pg_extension where extname = 'graphile_worker'")
        == __version__
    )
    assert db.rows("select id, breaking from graphile_worker.migrations order by id") == [
        (i, i in (1, 3, 11, 13, 14, 16, 19)) for i in range(1, 21)
    ]


def test_dropping_the_extension_leaves_an_empty_schema(db: Database) -> None:
    db.rows("drop extension graphile_worker")
    assert (
        db.rows("select relname from pg_class where relnamespace = 'graphile_worker'::regnamespace")
        == []
    )
    db.rows("create extension graphile_worker")
