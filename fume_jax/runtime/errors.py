"""Errors for the user, and the exit codes of commands."""

import contextlib
from collections.abc import Iterator

DONE = 0
NOTHING_DONE = 1  # because of the user's input or setting
PARTLY_DONE = 2  # what was skipped is listed
RUN_AGAIN = 75  # stopped early; the same command goes on


class UserError(Exception):
    """A mistake the user can mend: its message says what was expected, what came and what to do.

    Commands print the message without a traceback and exit with `NOTHING_DONE`.
    """


class Stalled(UserError):
    """A UserError while a thread waits for ever: the process must end with `exit_code` and without joining threads."""

    def __init__(self, message, exit_code: int = NOTHING_DONE):
        super().__init__(message)
        self.exit_code = exit_code


@contextlib.contextmanager
def needs_extra(extra: str, what: str) -> Iterator[None]:
    """Turns a failed import into a UserError: `what`, a noun phrase, needs an extra of the package."""
    try:
        yield
    except ImportError as error:
        raise UserError(f'{what} needs {error.name}, which is not installed: pip install -e ".[{extra}]"') from error
