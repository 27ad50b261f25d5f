"""What can go wrong, as one tree.

GraphileWorkerError
    InstallError            the schema could not be installed, changed or examined; nothing changed
        FilesError          the extension's files could not be put where the server looks for them
        NotInstalledError   there is no queue of ours in the schema
        ForeignSchemaError  the schema holds something else under our names
        VersionError        the server, the schema or Node's revision is too old or too new
        BusyError           locks or running jobs stood in the way for too long; try again later
        InUseError          jobs or other people's objects would be lost
        RightsError         the role may not do this
"""

from __future__ import annotations


class GraphileWorkerError(Exception):
    """Something of graphile_worker failed."""


class InstallError(GraphileWorkerError):
    """The schema could not be installed, changed or examined; nothing was changed."""


class FilesError(InstallError):
    """The extension's files could not be put where the server looks for them."""


class NotInstalledError(InstallError):
    """There is no queue of ours in the schema."""


class ForeignSchemaError(InstallError):
    """The schema holds something else under our names."""


class VersionError(InstallError):
    """The server, the schema or Node's revision is too old or too new."""


class BusyError(InstallError):
    """Locks or running jobs stood in the way for too long; try again later."""


class InUseError(InstallError):
    """Jobs or other people's objects would be lost."""


class RightsError(InstallError):
    """The role may not do this."""
