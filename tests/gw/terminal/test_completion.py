"""What a shell is given to complete commands."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from graphile_worker.gw.cli import main
from support.command_line import run_main


@pytest.mark.parametrize(
    ("typed", "offered"),
    [("hist", "history"), ("retry --all-f", "--all-failed"), ("pause qu", "queue")],
)
def test_bash_completes_commands_flags_and_choices(
    tmp_path: Path, typed: str, offered: str
) -> None:
    script, _ = run_main(main, ["completion", "bash"], env={})
    (tmp_path / "gw.bash").write_text(script)
    words = ["gw", *typed.split()]
    asks = (
        f"source {tmp_path}/gw.bash; COMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1};"
        " $(complete -p gw | sed 's/.*-F \\([^ ]*\\).*/\\1/'); echo ${COMPREPLY[@]}"
    )
    done = subprocess.run(["bash", "-c", asks], capture_output=True, text=True, timeout=60)
    assert offered in done.stdout.split(), done.stdout + done.stderr
