"""Prefect tasks: plain data in, torchrun or a library call, plain data out."""

import logging

from prefect.exceptions import ParameterTypeError

from ups.errors import UpsError


def _in_words(record: logging.LogRecord) -> bool:
    """Our errors say where, what and how to fix it; a hundred lines of Prefect's frames would bury that. And a stage that
    somebody has cancelled is no error."""
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, (UpsError, ParameterTypeError)):
        record.exc_info = None
    if isinstance(error, ParameterTypeError):  # which Prefect tells in the frames alone
        record.msg, record.args = f"{record.getMessage()}: {error}", ()
    if record.getMessage().startswith("Finished in state Cancelled"):
        record.levelno, record.levelname = logging.INFO, "INFO"
    return True


for _name in ("prefect.flow_runs", "prefect.task_runs"):
    logging.getLogger(_name).addFilter(_in_words)
