"""What can go wrong, as one tree.

GraphileWorkerError
    InvalidArgument             a value cannot be used; nothing was added or changed
        InvalidIdentifier       task identifier (SQLSTATE GWBID)
        InvalidQueueName        queue name (GWBQN)
        InvalidJobKey           job key (GWBJK)
        InvalidJobKeyMode       job key mode (GWBKM)
        InvalidRoute            route (GWBRT)
        InvalidMaxAttempts      number of attempts (GWBMA)
        InvalidPriority         priority (GWBPR)
        InvalidFlags            flags (GWBFL)
        InvalidRunAt            time to run at
        InvalidPayload          payload that JSON or PostgreSQL cannot hold, or that does not fit
                                the schema of its task (GWBPS)
        InvalidConnection       what was passed as a connection
        InvalidFilter           filter or limit of list_jobs and cleanup (GWBST, GWBMJ)
        InvalidCrontab          schedule or option of a recurring job (GWBCR)
        InvalidControl          scope, name, time or number of a pause or limit (GWBCO, GWBLI)
        InvalidHistory          what is to be kept of jobs, or how far one is said to be (GWBHI)
        InvalidSchema           JSON Schema that payloads cannot be checked by (GWBSC)
    SchemaError                 the database does not have the functions that were called
        SchemaMissing           there is no graphile_worker
        SchemaTooOld            it is older than this package needs, or Node's
        SchemaTooNew            it is of a later major version
    AccessDenied                the role lacks a level of access
    UntrustedOwner              a superuser would run what another role may have put into the schema
    Busy                        others were in the way for too long; retry later
    TasksError                  there are no tasks to run, or one of them cannot be loaded
    JobCancelled                the job was cancelled; by whom, and why
    JobFailed                   the job whose result was awaited failed for good
    ResultUnavailable           the job ended, but its result was not kept
    ResultTimeout               the job did not end in time
    TaskCrashed                 the process or program of a task ended before the task did
    StopIncomplete              a worker had to leave before the database had heard of everything
    InstallError                the schema could not be installed, changed or examined
        FilesError              the extension's files could not be put in the server's folder
        NotInstalledError       there is no queue in the schema
        ForeignSchemaError      the schema holds something else under our names
        VersionError            the server, the schema or Node's revision is too old or too new
        BusyError               locks or running jobs stood in the way for too long
        InUseError              jobs or other people's objects would be lost
        RightsError             the role may not do this

Whatever else a database says (a lost connection, a deadlock, a serialization failure) is passed on
as the driver raised it. ``sqlstate`` is the code of an error that the database raised, else None.
"""

from __future__ import annotations


class GraphileWorkerError(Exception):
    """Something of graphile_worker failed.

    >>> try:
    ...     add_job("send_email", job_key="", conn=conn)
    ... except GraphileWorkerError as error:
    ...     print(error, error.sqlstate)
    Job key is empty. Pass null for a job without a key. GWBJK
    """

    sqlstate: str | None = None


class InvalidArgument(GraphileWorkerError, ValueError):
    """A value cannot be used; nothing was added or changed."""


class InvalidIdentifier(InvalidArgument):
    """The task identifier is empty, too long or no text."""


class InvalidQueueName(InvalidArgument):
    """The queue name is too long or no text."""


class InvalidJobKey(InvalidArgument):
    """The job key is empty, too long or no text."""


class InvalidJobKeyMode(InvalidArgument):
    """The job key mode is unknown."""


class InvalidMaxAttempts(InvalidArgument):
    """The number of attempts is out of range or no whole number."""


class InvalidPriority(InvalidArgument):
    """The priority is out of range or no whole number."""


class InvalidFlags(InvalidArgument):
    """The flags are not a collection of texts."""


class InvalidRunAt(InvalidArgument):
    """The time to run at has no time zone, or is no time."""


class InvalidRoute(InvalidArgument):
    """Route is missing, or its node was not reached."""


class InvalidPayload(InvalidArgument):
    """The payload holds what JSON or PostgreSQL cannot, or does not fit its task's schema."""


class InvalidConnection(InvalidArgument):
    """The object passed as a connection cannot be used."""


class InvalidFilter(InvalidArgument):
    """A filter or limit is unknown or out of range."""


class InvalidCrontab(InvalidArgument):
    """The schedule or an option of a recurring job cannot be used."""


class InvalidControl(InvalidArgument):
    """The scope, name, time or a number of a pause or limit cannot be used."""


class InvalidHistory(InvalidArgument):
    """What is to be kept of jobs, or the progress of a job, cannot be used."""


class InvalidSchema(InvalidArgument):
    """Payloads cannot be checked by this JSON Schema."""


class SchemaError(GraphileWorkerError):
    """The database does not have the functions that were called."""


class SchemaMissing(SchemaError):
    """There is no graphile_worker in the schema."""


class SchemaTooOld(SchemaError):
    """The graphile_worker in the schema is older than this package needs, or Node's."""


class SchemaTooNew(SchemaError):
    """The graphile_worker in the schema is of a later major version than this package."""


class AccessDenied(GraphileWorkerError):
    """The role lacks a level of access."""


class UntrustedOwner(GraphileWorkerError):
    """A superuser would run what another role may have put into the schema."""


class Busy(GraphileWorkerError):
    """Other transactions held locks for too long; retry later."""


class TasksError(GraphileWorkerError):
    """There are no tasks to run, or one of them cannot be loaded."""


class JobCancelled(GraphileWorkerError):
    """The job was cancelled; ``cancelled_by`` and ``reason`` tell by whom and why."""

    def __init__(self, cancelled_by: str | None = None, reason: str | None = None) -> None:
        self.cancelled_by, self.reason = cancelled_by, reason
        by = f"Cancelled by {cancelled_by}" if cancelled_by else "Cancelled"
        super().__init__(f"{by}: {reason}" if reason else by)


class JobFailed(GraphileWorkerError):
    """The job whose result was awaited failed for good.

    The message holds the error of its last attempt, with the traceback that the worker saw.
    """

    def __init__(self, job_id: int, error: str | None) -> None:
        self.job_id, self.error = job_id, error
        told = error or "its error is not kept; an administrator calls keep_history for its task"
        super().__init__(f"job {job_id} failed: {told}")


class ResultUnavailable(GraphileWorkerError):
    """The job ended, or will end, without its result being kept."""


class ResultTimeout(GraphileWorkerError, TimeoutError):
    """The job did not end in time."""


class TaskCrashed(GraphileWorkerError):
    """The process or program of a task ended before the task did."""


class StopIncomplete(GraphileWorkerError):
    """A worker had to stop before it could write every outcome."""


class InstallError(GraphileWorkerError):
    """The schema could not be installed, changed or examined; nothing was changed."""


class FilesError(InstallError):
    """The extension's files could not be put where the server looks for them."""


class NotInstalledError(InstallError):
    """There is no queue in the schema."""


class ForeignSchemaError(InstallError):
    """The schema holds something else under our names."""


class VersionError(InstallError):
    """The server, the schema or Node's revision is too old or too new."""


class BusyError(InstallError):
    """Locks or running jobs stood in the way for too long; retry later."""


class InUseError(InstallError):
    """Jobs or other people's objects would be lost."""


class RightsError(InstallError):
    """The role may not do this."""
