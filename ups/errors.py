"""The errors a user can meet, each with its exit code.

Every message says where (file and field), what is wrong, and how to fix it. The exit code is the
contract with shells, schedulers and Prefect: only input/output errors, interruptions and killed
processes are worth a retry; a wrong configuration is wrong the second time too.
"""

EXIT_OK = 0


class UpsError(Exception):
    """Base of all errors that are reported to the user without a traceback."""

    exit_code = 1
    retryable: bool = False  # whether the same command may succeed the next time

    def __init__(self, message: str, *, where: str | None = None, fix: str | None = None) -> None:
        text = message if where is None else f"{where}: {message}"
        super().__init__(text if fix is None else f"{text}\n  fix: {fix}")


class StageError(UpsError):
    """A stage ran and failed."""

    exit_code = 1


class NotFiniteError(StageError):
    """A loss or gradient stopped being finite. Repeating the same step gives the same result."""


class OutOfMemoryError(StageError):
    """A process ran out of host or device memory. Repeating it unchanged does so again."""


class ConfigurationError(UpsError):
    """A configuration file, an override or an argument is wrong."""

    exit_code = 2


class PreflightError(UpsError):
    """The machine cannot do what is asked: disk, device or library is missing."""

    exit_code = 3


class DataError(UpsError):
    """Input data are missing or malformed."""

    exit_code = 3


class StorageError(UpsError):
    """Reading or writing failed during work; may succeed on a retry."""

    exit_code = 4
    retryable = True


class DiskFullError(StorageError):
    """The disk is full, and stays so until somebody frees space."""

    retryable = False


class IntegrityError(UpsError):
    """Stored bytes are not what was sealed."""

    exit_code = 5


class GateError(UpsError):
    """A run does not show what its gates ask for. What it made is published, and as usable as any other."""

    exit_code = 7


class ComparisonError(UpsError):
    """An optimised configuration does not show what its gates ask for."""

    exit_code = 8


class RegressionError(UpsError):
    """A night's benchmark is worse than the nights before it."""

    exit_code = 8


class Interrupted(UpsError):
    """Work was stopped by a signal after a checkpoint; the same command resumes it."""

    exit_code = 75
    retryable = True


class ProcessKilled(UpsError):
    """A process was killed from outside; the same command resumes from the last checkpoint."""

    exit_code = 1
    retryable = True


def is_interruption(error: BaseException) -> bool:
    """Whether work ended without a fault of its own: by our own word for it, Ctrl-C, Prefect's cancellation or a closed output."""
    return isinstance(error, Interrupted | BrokenPipeError) or not isinstance(error, Exception)
