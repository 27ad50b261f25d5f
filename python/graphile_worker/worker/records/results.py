"""Turn what a task returned into what is recorded of it, with secrets left out."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Literal

from graphile_worker.errors import InvalidPayload
from graphile_worker.log import logger, shown
from graphile_worker.payload import to_json
from graphile_worker.worker.context import ClaimedJob
from graphile_worker.worker.database.statements import Record
from graphile_worker.worker.executors.execute import Outcome, error_text

#: Bytes of a result that are sent at most: keep_history does not take more.
LARGEST_RESULT = 100_000_000

#: A redaction is called with what is about to be stored, "result" or "error"; the result, or the
#: error's text; and the job. What it returns is stored instead.
Redact = Callable[[Literal["result", "error"], Any, ClaimedJob], Any]


def record(
    job: ClaimedJob, outcome: Outcome, seconds: float, redact: Redact | None, *, ascii_only: bool
) -> Record:
    """Return the record of a completed job; never raise, whatever the task returned.

    ``ascii_only`` is for databases that cannot hold every character.
    """
    try:
        result = outcome.result
        if redact is not None and result is not None:
            result = redact("result", result, job)
        text = to_json(result)
    except InvalidPayload as error:
        return Record(None, seconds, str(error).replace("payload", "result", 1))
    except BaseException as error:  # of the hook, or of the result's own methods
        logger.error("job %s: its result is not recorded: %s", job.id, shown(error))
        return Record(None, seconds, f"The result could not be recorded: {type(error).__name__}")
    if text is not None and ascii_only:
        text = json.dumps(json.loads(text))
    if text is not None and len(text) > LARGEST_RESULT:
        return Record(None, seconds, f"The result has more than {LARGEST_RESULT} bytes")
    return Record(text, seconds, None)


def stored_error(job: ClaimedJob, error: BaseException | None, redact: Redact | None) -> str:
    """Return the text of an error as it is stored; never raise."""
    text = "Failed" if error is None else error_text(error)
    if redact is None:
        return text
    try:
        return str(redact("error", text, job))
    except BaseException as broken:
        logger.error("job %s: its error is not stored: redaction failed: %s", job.id, shown(broken))
        return f"{type(error).__name__} (redaction failed)"
