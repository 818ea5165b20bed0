"""Prefect tasks: argument in, torchrun or a library call, artifact out."""

import logging

from ups.errors import UpsError


def _without_traceback(record: logging.LogRecord) -> bool:
    """Our errors say where, what and how to fix it; a hundred lines of Prefect's frames would bury that."""
    if record.exc_info and isinstance(record.exc_info[1], UpsError):
        record.exc_info = None
    return True


for _name in ("prefect.flow_runs", "prefect.task_runs"):
    logging.getLogger(_name).addFilter(_without_traceback)
