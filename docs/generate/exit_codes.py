"""The page of exit codes, from the errors a user can meet."""

from collections.abc import Iterator

from generate.table import table
from ups.errors import EXIT_OK, UpsError


def page() -> str:
    """Every code with the errors that end with it."""
    errors = sorted(_errors(UpsError), key=lambda error: (error.exit_code, error.__name__))
    rows = [(f"`{EXIT_OK}`", "", "Done.", "")]
    rows += [
        (
            f"`{error.exit_code}`",
            f"`{error.__name__}`",
            " ".join((error.__doc__ or "").split()),
            "yes" if error.retryable else "no",
        )
        for error in errors
    ]
    return "\n".join(
        [
            "# Exit codes",
            "",
            "`ups` and `python -m flows` end with the code of the error that they report. The message names the file and",
            "the field, says what is wrong, and how to mend it. Where the last column says yes, the same command may",
            "succeed the next time, and a flow tries it again by itself.",
            "",
            table(("code", "error", "meaning", "tried again"), rows),
        ]
    )


def _errors(error: type[UpsError]) -> Iterator[type[UpsError]]:
    for kind in error.__subclasses__():
        yield kind
        yield from _errors(kind)
