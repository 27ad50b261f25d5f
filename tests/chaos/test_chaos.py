"""After any bad night, all jobs ran to their end and nothing is locked by nobody.

What happens is drawn from a seed, which a failure prints: `CHAOS_SEED=... make test TEST=tests/chaos`
goes through the same history again. `make soak TEST=tests/chaos` has long nights.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from graphile_worker.testing import embedded
from support.pg import Server, bin_dir

from chaos.night import Night


@pytest.fixture
def fragile(server: Server) -> Iterator[embedded.Server]:
    private = embedded.Server(bin_dir(server.major), settings={"max_connections": "100"})
    with private:
        yield private


@contextmanager
def night(server: embedded.Server, folder: Path) -> Iterator[Night]:
    """A night, after which all has to be well; a failure tells its seed and history."""
    seed = int(os.environ.get("CHAOS_SEED", "0")) or random.randrange(1, 10**9)
    made = Night(server, folder, seed)
    try:
        yield made
        made.dawn()
    except BaseException as error:
        error.add_note(f"CHAOS_SEED={seed}, the history: {' '.join(made.history)}")
        raise
    finally:
        made.close()


@pytest.mark.majors(18)
@pytest.mark.parametrize(
    "seconds", [pytest.param(15, id="15s"), pytest.param(300, id="300s", marks=pytest.mark.slow)]
)
def test_a_bad_night_leaves_nothing_lost_and_nothing_locked(
    fragile: embedded.Server, tmp_path: Path, seconds: int
) -> None:
    with night(fragile, tmp_path) as made:
        made.live(seconds)


@pytest.mark.slow
@pytest.mark.majors(18)
def test_kills_freezes_and_crashes_lose_nothing_and_lock_nothing(
    fragile: embedded.Server, tmp_path: Path
) -> None:
    with night(fragile, tmp_path) as made:
        made.live_through(kill=160, freeze=50, crash=8)
