"""A queue lives in any database, under any name and any encoding."""

from __future__ import annotations

import psycopg
import pytest
from graphile_worker.install import (
    catalogue,
)
from psycopg.rows import dict_row
from psycopg.types.string import TextLoader
from support.pg import Database, Server

from install.life import life

pytestmark = pytest.mark.majors(13, 18)


NAMES = [
    "public", "jobs", "migrations", "@extschema@", "%s", "%", "'", '"', "$$", "UPPER", "select", "a.b",
    "a\nb; drop table x; --", "é" * 31, "x" * 63,
]  # fmt: skip


# Functions and tables that a careless query of ours would take for PostgreSQL's.
IMPOSTORS = """
    create function public.now() returns timestamptz language plpgsql as
      $$ begin raise 'not the clock'; end $$;
    create table public.pg_class (); create table public.pg_depend (); create table public.pg_proc ();
"""


@pytest.fixture(autouse=True)
def nothing_is_known() -> None:
    """What a version should be is found out by the connection of each test."""
    catalogue._references.clear()


@pytest.mark.parametrize("schema", NAMES)
def test_a_schema_of_any_legal_name_is_lived_in(empty_db: Database, schema: str) -> None:
    life(empty_db.connect(), schema)


@pytest.mark.majors(13, 18)
def test_a_connection_may_be_set_up_in_any_way(empty_db: Database) -> None:
    for options in (
        "-c quote_all_identifiers=on",
        "-c standard_conforming_strings=off -c escape_string_warning=off",
        "-c client_encoding=latin1",
        "-c default_transaction_isolation=serializable",
        "-c search_path=public,pg_catalog",
    ):
        with psycopg.connect(empty_db.dsn, autocommit=True, options=options) as conn:
            if "search_path" in options:
                conn.execute(IMPOSTORS.encode())
            before = conn.execute("show search_path").fetchone()
            life(conn, mode="extension")
            assert conn.execute("show search_path").fetchone() == before
    empty_db.rows("drop table public.pg_class, public.pg_depend, public.pg_proc")
    for factories in (
        {"row_factory": dict_row}, {"cursor_factory": psycopg.RawCursor},
        {"cursor_factory": psycopg.ClientCursor}, {"prepare_threshold": None},
    ):  # fmt: skip
        with psycopg.connect(empty_db.dsn, autocommit=True, **factories) as conn:
            life(conn, mode="extension")
    with psycopg.connect(empty_db.dsn, autocommit=True) as conn:  # as Django sets it up
        conn.adapters.register_loader("jsonb", TextLoader)
        life(conn, mode="extension")


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_a_database_of_another_encoding_holds_a_queue(server: Server, encoding: str) -> None:
    name = f"gw_{encoding.lower()}"
    with server.admin() as admin:
        admin.execute(
            f"create database {name} template template0 encoding '{encoding}'"
            " lc_collate 'C' lc_ctype 'C'"
        )
    try:
        for mode in ("extension", "plain"):
            with psycopg.connect(f"{server.dsn} dbname={name}", autocommit=True) as conn:
                before = conn.info.encoding
                life(conn, mode=mode)
                life(conn, "é")
                assert conn.info.encoding == before
    finally:
        with server.admin() as admin:
            admin.execute(f"drop database {name} with (force)")
