"""Every Python and SQL block of the documentation runs, and prints what it says."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest
from support.pg import Database, run

pytestmark = pytest.mark.majors(18)

ROOT = Path(__file__).parents[2]
#: django.md, languages.md and testing.md have tests of their own: test_django.py,
#: test_languages.py, test_plugin.py.
PAGES = [
    path
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
    if path.name not in ("django.md", "languages.md", "testing.md")
    and re.search(r"(?m)^```(python|sql)$", path.read_text())
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_blocks_of_a_page_print_what_they_say(db: Database, page: Path) -> None:
    info = db.connect().info
    env = {
        **os.environ, "PGHOST": info.host, "PGPORT": str(info.port), "PGUSER": "postgres",
        "PGDATABASE": db.name,
    }  # fmt: skip
    run([sys.executable, "-W", "error", Path(__file__).with_name("run_page.py"), page], env=env)


def test_every_page_is_linked_from_the_readme_and_in_the_navigation() -> None:
    readme, navigation = (ROOT / "README.md").read_text(), (ROOT / "mkdocs.yml").read_text()
    pages = {page.name for page in (ROOT / "docs").glob("*.md")}
    assert [page for page in pages if f": {page}" not in navigation] == []
    assert [page for page in pages - {"index.md"} if f"docs/{page}" not in readme] == []


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 130
