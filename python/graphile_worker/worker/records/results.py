"""Turn what a task returned into what is recorded of it, with secrets left out."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Literal

from graphile_worker.errors import InvalidPayload
from graphile_worker.log import logger, shown
from graphile_worker.payload import to_json
from graphile_worker.worker.context import ClaimedJob
from graphile_worker.worker.executors.execute import error_text

#: Bytes of a result that are sent at most: keep_history does not take more.
LARGEST_RESULT = 100_000_000

#: A redaction is called with what is about to be stored, "result" or "error"; the result, or the
#: error's text; and the job. What it returns is stored instead.
Redact = Callable[[Literal["result", "error"], Any, ClaimedJob], Any]


def stored_result(
    job: ClaimedJob, result: Any, redact: Redact | None, *, ascii_only: bool
) -> tuple[str | None, str | None]:
    """Return a result as JSON text, or why it cannot be stored; never raise.

    ``ascii_only`` is for databases that cannot hold every character.
    """
    try:
        text = to_json(result if redact is None else redact("result", result, job))
    except InvalidPayload as error:
        return None, str(error).replace("payload", "result", 1)
    except BaseException as error:  # of the hook, or of the result's own methods
        logger.error("job %s: its result is not recorded: %s", job.id, shown(error))
        return None, f"The result could not be recorded: {type(error).__name__}"
    if text is not None and ascii_only:
        text = json.dumps(json.loads(text))
    if text is not None and len(text) > LARGEST_RESULT:
        return None, f"The result has more than {LARGEST_RESULT} bytes"
    return text, None


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
