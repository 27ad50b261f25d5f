"""Run a command line: as a program, and in this process, which is faster."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from unittest.mock import patch


def run_program(
    command: Sequence[object], *, code: int = 0, env: dict[str, str], stdin: str = ""
) -> str:
    """Run a program; return its stdout, or its stderr if it is to fail."""
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, input=stdin, timeout=120,
        env={**os.environ, **env},
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout if code in (0, 3) else done.stderr


def run_main(
    main: Callable[[list[str]], int], args: Sequence[object], *, code: int = 0,
    env: dict[str, str], stdin: str = "",
) -> tuple[str, str]:  # fmt: skip
    """Run the main function of a program in this process; return its stdout and stderr."""
    out, err = io.StringIO(), io.StringIO()
    with (
        patch.dict(os.environ, env),
        patch.object(sys, "stdin", io.StringIO(stdin)),
        redirect_stdout(out), redirect_stderr(err),
    ):  # fmt: skip
        try:
            found: object = main([str(arg) for arg in args])
        except SystemExit as ended:
            found = ended.code
    assert found == code, out.getvalue() + err.getvalue()
    return out.getvalue(), err.getvalue()
