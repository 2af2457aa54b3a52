"""Errors for the user, and what a command's exit code says."""

DONE = 0
NOTHING_DONE = 1  # because of the user's input or setting
PARTLY_DONE = 2  # what was skipped is listed
RUN_AGAIN = 75  # stopped early; the same command goes on


class UserError(Exception):
    """A mistake the user can mend: its message says what was expected, what came and what to do.

    Commands print the message without a traceback and exit with `NOTHING_DONE`.
    """


class Stalled(UserError):
    """A UserError while a thread waits for ever, so that the process must end, with `exit_code`, without joining it."""

    def __init__(self, message, exit_code: int = NOTHING_DONE):
        super().__init__(message)
        self.exit_code = exit_code
