"""The flags of a command line, and their twins in the environment."""

from __future__ import annotations

import argparse


def without_twin(commands: dict[str, argparse.ArgumentParser]) -> set[tuple[str, str]]:
    """Return the flags, by command, that no variable stands for."""
    return {
        (name, action.dest)
        for name, parser in commands.items()
        for action in parser._actions
        if action.option_strings and "[env: GW_" not in str(action.help)
        and action.dest not in ("help", "scripts")
    }  # fmt: skip
