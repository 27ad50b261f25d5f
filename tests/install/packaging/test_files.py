"""The extension's files are put in place whole, and found again."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import psycopg
import pytest
from graphile_worker.errors import FilesError
from graphile_worker.install import install, verify
from graphile_worker.install.packaging.files import control_path, put_files, remove_files
from graphile_worker.install.packaging.scripts import Scripts
from graphile_worker.testing.embedded import Server as EmbeddedServer
from graphile_worker.testing.embedded import install_files, share_extension_dir, wheel_bin_dir
from support.pg import Server, bin_dir

from install.program import gw

pytestmark = pytest.mark.majors(18)


def test_files_are_put_whole_and_removed_again(tmp_path: Path) -> None:
    share = tmp_path / "share"
    folder = share / "extension"
    assert "cannot change the extension folder" in gw("files", "put", "--sharedir", share, code=1)
    folder.mkdir(parents=True)
    (folder / "graphile_worker--unpackaged--0.9.0.sql").write_text("old")
    (folder / "other.control").write_text("other")
    gw("files", "put", "--sharedir", share)
    names = {file.name for file in Scripts().files()}
    assert {file.name for file in folder.iterdir()} == names | {"other.control"}
    assert json.loads(gw("files", "put", "--sharedir", share, "--dry-run", "--json"))
    gw("files", "put", "--sharedir", "/usr/share/x", "--destdir", tmp_path / "package")
    assert (tmp_path / "package/usr/share/x/extension/graphile_worker.control").exists()
    gw("files", "remove", "--sharedir", share)
    assert [file.name for file in folder.iterdir()] == ["other.control"]
    assert gw("files", "remove", "--sharedir", share) == "nothing to remove\n"
    assert "one of" in gw("files", "put", code=1)
    assert "does not say" in gw("files", "put", "--pg-config", tmp_path / "none", code=1)


def test_a_write_that_fails_leaves_no_half_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_files(tmp_path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}

    def full(self: Path, data: bytes) -> int:
        with self.open("wb") as file:
            file.write(data[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(FilesError, match="No space left"):
        put_files(tmp_path)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_files_are_found_through_the_running_server_and_pg_config(server: Server) -> None:
    said = gw("files", "put", "--dsn", f"{server.dsn} dbname=postgres")
    assert str(share_extension_dir(bin_dir(server.major)).resolve()) in said.replace("/./", "/")
    said = gw("files", "put", "--pg-config", wheel_bin_dir() / "pg_config", "--dry-run")
    assert "graphile_worker.control" in said


@pytest.mark.usefixtures("wheel_files")
def test_postgresql_18_needs_no_copy() -> None:
    with tempfile.TemporaryDirectory(prefix="gw-", dir="/tmp") as name:
        home = Path(name)
        home.chmod(0o755)
        with pytest.raises(FilesError, match="--directory"):
            control_path(home)
        gw("files", "put", "--directory", home)
        line = gw("files", "control-path", "--directory", home).strip()
        setting, _, value = line.partition(" = ")
        remove_files(share_extension_dir(wheel_bin_dir()))
        try:
            server = EmbeddedServer(settings={setting: value})
            with server, psycopg.connect(server.dsn(), autocommit=True) as conn:
                remove_files(share_extension_dir(wheel_bin_dir()))
                assert "an extension" in install(conn).message
                assert verify(conn) == []
        finally:
            install_files(wheel_bin_dir())
        home.chmod(0o700)
        assert "cannot read below" in gw("files", "control-path", "--directory", home, code=1)
