"""A next version, made here only: what every later upgrade has to do, proven before there is one."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from graphile_worker import __version__
from graphile_worker.install.packaging.files import put_files, remove_files
from graphile_worker.install.packaging.render import Renderer
from graphile_worker.install.packaging.scripts import Scripts, extension_dir
from graphile_worker.testing.embedded import share_extension_dir
from support.pg import Server, bin_dir

NEXT = "9.9.9"
DELTA = """-- A new column, and data for it.
-- lock: _private_known_crontabs access exclusive
alter table {{ schema }}._private_known_crontabs add column note text not null default 'none';
comment on column {{ schema }}._private_known_crontabs.note is 'A note.';
update {{ schema }}._private_known_crontabs set note = 'known since ' || known_since;
"""
NEW_FUNCTION = """
-- Says how many jobs there are.
create function {{ schema }}.count_jobs(
  at_most bigint = null
)
returns bigint
language sql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
  select least(at_most, pg_catalog.count(*)) from {{ schema }}._private_jobs;
$$;
"""


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text, (file, old)
    file.write_text(text.replace(old, new, 1))


@pytest.fixture(scope="session")
def following(tmp_path_factory: pytest.TempPathFactory) -> Scripts:
    """Scripts of this version and of the next one, with the update between them."""
    home = tmp_path_factory.mktemp("next")
    source = extension_dir()
    for folder in ("templates", "sql"):
        shutil.copytree(source / folder, home / folder)
    templates = home / "templates"
    edit(
        templates / "schema/tables.sql.j2",
        "  last_execution timestamptz,\n",
        "  last_execution timestamptz,\n  note text not null default 'none',\n",
    )
    # The column comes last in an upgraded table, and has to in a fresh one.
    edit(
        templates / "schema/comments.sql.j2",
        "    'last_execution': 'The last time the job was added for.',\n",
        "    'last_execution': 'The last time the job was added for.',\n    'note': 'A note.',\n",
    )
    edit(
        templates / "schema/comments.sql.j2",
        "  'version': '",
        "  'count_jobs': 'Counts.',\n  'version': '",
    )
    edit(templates / "signatures.j2", "  'get_jobs(", "  'count_jobs(bigint)',\n  'get_jobs(")
    edit(
        templates / "admin/change_jobs.sql.j2", "'Manually marked as failed'", "'Marked as failed'"
    )
    with (templates / "schema/version.sql.j2").open("a") as file:
        file.write(NEW_FUNCTION)
    (templates / f"upgrade-{__version__}--{NEXT}.sql.j2").write_text(DELTA)
    (home / "sql" / f"graphile_worker--unpackaged--{__version__}.sql").unlink()
    for name, text in Renderer(templates, NEXT).scripts().items():
        (home / "sql" / name).write_text(text)
    control = (source / "graphile_worker.control").read_text()
    (home / "graphile_worker.control").write_text(control.replace(__version__, NEXT))
    return Scripts(home)


@pytest.fixture
def offering(server: Server, following: Scripts) -> Iterator[Scripts]:
    """The server offers the next version, too."""
    server.template()
    folder = share_extension_dir(bin_dir(server.major))
    put_files(folder, scripts=following)
    try:
        yield following
    finally:
        remove_files(folder)
        put_files(folder)
