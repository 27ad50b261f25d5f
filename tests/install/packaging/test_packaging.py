"""What is shipped: the wheel, the sdist and the PGXN description."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tarfile
import zipfile
from pathlib import Path

import jsonschema
import psycopg
import pytest
from graphile_worker import __version__
from graphile_worker.install import verify
from graphile_worker.testing.embedded import Server, install_files, wheel_bin_dir
from support.pg import Database, run

ROOT = Path(__file__).parents[3]
CARRIED = {
    "graphile_worker.control",
    f"sql/graphile_worker--{__version__}.sql",
    "templates/order.txt",
}

#: What the PGXN Meta Spec 1.0.0 says of every key that we use; others are refused.
META = {
    "type": "object",
    "required": ["name", "version", "abstract", "maintainer", "license", "provides", "meta-spec"],
    "additionalProperties": False,
    "properties": {
        "name": {"type": "string", "pattern": r"^[^\s/\\\x00-\x1f]{2,}$"},
        "version": {"$ref": "#/$defs/semver"},
        "abstract": {"type": "string", "minLength": 1},
        "description": {"type": "string", "minLength": 1},
        "maintainer": {"type": "string", "minLength": 1},
        "license": {"const": "mit"},
        "provides": {
            "type": "object",
            "minProperties": 1,
            "additionalProperties": {
                "type": "object",
                "required": ["file", "version"],
                "additionalProperties": False,
                "properties": {
                    "file": {"type": "string"},
                    "version": {"$ref": "#/$defs/semver"},
                    "abstract": {"type": "string"},
                    "docfile": {"type": "string"},
                },
            },
        },
        "prereqs": {
            "type": "object",
            "minProperties": 1,
            "propertyNames": {"enum": ["configure", "build", "test", "runtime", "develop"]},
            "additionalProperties": {
                "type": "object",
                "minProperties": 1,
                "propertyNames": {"enum": ["requires", "recommends", "suggests", "conflicts"]},
                "additionalProperties": {
                    "type": "object",
                    "minProperties": 1,
                    "additionalProperties": {"$ref": "#/$defs/semver"},
                },
            },
        },
        "tags": {
            "type": "array",
            "minItems": 1,
            "uniqueItems": True,
            "items": {"type": "string", "maxLength": 255, "pattern": r"^[^/\\\x00-\x1f]{2,}$"},
        },
        "release_status": {"enum": ["stable", "testing", "unstable"]},
        "generated_by": {"type": "string"},
        "meta-spec": {"properties": {"version": {"const": "1.0.0"}}, "required": ["version"]},
    },
    "$defs": {
        "semver": {"type": "string", "pattern": r"^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)$"}
    },
}


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    run([sys.executable, "-m", "build", "--no-isolation", "--outdir", out, ROOT])
    return out


def test_the_wheel_carries_the_extension_and_its_templates(dist: Path) -> None:
    (wheel,) = dist.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    script = f"extension/graphile_worker--{__version__}.sql"
    carried = ("templates/order.txt", "extension/graphile_worker.control", script)
    assert {f"graphile_worker/_extension/{name}" for name in carried} <= names
    assert "graphile_worker/py.typed" in names


def test_the_sdist_carries_the_extension_and_its_templates(dist: Path) -> None:
    (sdist,) = dist.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert names >= CARRIED | {"Makefile", "META.json", "LICENSE"}


def test_the_wheel_alone_renders_the_script(dist: Path, tmp_path: Path) -> None:
    (wheel,) = dist.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path)
    code = "from graphile_worker.install.packaging.render import render; print(render(), end='')"
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    rendered = run([sys.executable, "-c", code], env=env, cwd=tmp_path)
    assert rendered == (ROOT / "sql" / f"graphile_worker--{__version__}.sql").read_text()


@pytest.mark.majors(13, 18)
def test_the_wheel_alone_installs_verifies_and_adds(
    dist: Path, tmp_path: Path, empty_db: Database
) -> None:
    (wheel,) = dist.glob("*.whl")
    run(
        [
            sys.executable,
            "-m",
            "pip",
            "install",
            "-q",
            "--no-deps",
            "--no-index",
            "--target",
            tmp_path,
            wheel,
        ]
    )
    env = {**os.environ, "PYTHONPATH": str(tmp_path), "GW_DSN": empty_db.dsn}
    program = tmp_path / "bin" / "gw-install"

    def gw(*args: str) -> str:
        return run([program, *args], env=env, cwd=tmp_path)

    code = "import graphile_worker; print(graphile_worker.__file__)"
    assert run([sys.executable, "-c", code], env=env, cwd=tmp_path).startswith(str(tmp_path))
    assert "Installed version" in gw("install", "--mode", "plain", "--schema", "mine")
    assert gw("verify", "--schema", "mine") == "No drift.\n"
    assert "Nothing to do" in gw("upgrade", "--schema", "mine")
    (tmp_path / "share" / "extension").mkdir(parents=True)
    assert "graphile_worker.control" in gw("files", "put", "--sharedir", str(tmp_path / "share"))
    add = (
        "from graphile_worker import add_job_adhoc as add; print(add({!r}, 't', schema='mine').id)"
    )
    assert run([sys.executable, "-c", add.format(empty_db.dsn)], env=env, cwd=tmp_path) == "1\n"
    assert "1 ready" in gw("status", "--schema", "mine")


def test_meta_json_follows_the_spec() -> None:
    meta = json.loads((ROOT / "META.json").read_text())
    jsonschema.validate(meta, META)
    for part in ("file", "docfile"):
        assert (ROOT / meta["provides"]["graphile_worker"][part]).is_file()


def test_the_version_is_the_same_everywhere() -> None:
    meta = json.loads((ROOT / "META.json").read_text())
    control = (ROOT / "graphile_worker.control").read_text()
    assert meta["version"] == meta["provides"]["graphile_worker"]["version"] == __version__
    assert f"default_version = '{__version__}'" in control


DEBIAN = Path("/usr/lib/postgresql/15/bin")


@pytest.mark.usefixtures("wheel_files")
@pytest.mark.parametrize(
    "bin_dir",
    [wheel_bin_dir(), *([DEBIAN] if os.geteuid() == 0 else [])],
    ids=lambda path: path.parts[1],
)
def test_make_install_and_installcheck_work_with_pgxs(bin_dir: Path, tmp_path: Path) -> None:
    """On the wheel's PostgreSQL, and for root, who may write there, on Debian's."""
    checkout = tmp_path / "checkout"
    shutil.copytree(ROOT, checkout, ignore=shutil.ignore_patterns(".*", "node_modules", "results"))
    make = ["make", "-C", str(checkout), f"PG_CONFIG={bin_dir / 'pg_config'}"]
    run([*make, "install"])
    with Server(bin_dir) as server:
        env = {
            **os.environ,
            "PGHOST": "127.0.0.1",
            "PGPORT": str(server.port),
            "PGUSER": "postgres",
        }
        run([*make, "installcheck"], env=env)


@pytest.mark.usefixtures("wheel_files")
def test_the_release_zip_is_installed_loaded_and_unloaded_by_pgxn(tmp_path: Path) -> None:
    python = Path(sys.executable)
    run(["make", "-C", ROOT, f"DIST={tmp_path}", f"VENV={python.parents[1]}", "dist-zip"])
    archive = tmp_path / f"graphile_worker-{__version__}.zip"
    pgxn: list[str | Path] = [python.parent / "pgxn"]
    bin_dir = DEBIAN if os.geteuid() == 0 else wheel_bin_dir()  # only root may write to Debian's
    where = ["--pg_config", str(bin_dir / "pg_config")]
    run([*pgxn, "install", *where, archive])
    with Server(bin_dir) as server:
        database = ["-h", "127.0.0.1", "-p", str(server.port), "-U", "postgres", "-d", "postgres"]
        with psycopg.connect(server.dsn(), autocommit=True) as conn:
            run([*pgxn, "load", "--yes", *where, *database, archive])
            conn.execute("select graphile_worker.add_job('x')")
            assert verify(conn) == []
            run([*pgxn, "unload", "--yes", *where, *database, archive])
            assert (
                conn.execute("select from pg_extension where extname ~ 'graphile'").fetchall() == []
            )
    run([*pgxn, "uninstall", *where, archive])
    install_files(bin_dir)


@pytest.mark.usefixtures("wheel_files")
def test_the_quickstart_says_what_the_readme_says() -> None:
    printed = run([sys.executable, ROOT / "examples" / "quickstart.py"])
    readme = (ROOT / "README.md").read_text()
    promised = readme.split("```text\n")[1].split("```")[0]
    assert promised in printed


@pytest.mark.usefixtures("wheel_files")
def test_the_example_of_results_shows_a_bar_and_prints_them() -> None:
    printed = run([sys.executable, "-W", "error", ROOT / "examples" / "results.py"])
    assert "100%" in printed
    *_, last = printed.splitlines()
    assert last.split() == [str(n * n) for n in range(100)]
