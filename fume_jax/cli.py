"""What every command does around its own work."""

import os
import re
import sys
from collections.abc import Callable

from absl import app, flags, logging

from fume_jax.allocator import keep_freed_memory
from fume_jax.errors import DONE, NOTHING_DONE, RUN_AGAIN, Stalled, UserError

# What parsing the flags of a config raises.
MISTAKES = (flags.Error, AttributeError, KeyError, TypeError, ValueError, UserError, OSError, ImportError)


def run(main: Callable[[], int | None]) -> None:
    """Parses the flags, runs `main` and exits with the code it returns (`DONE` if None).

    Mistakes in flags, every `UserError` and what the system refuses (a full disk, a folder without write permission)
    end in a few plain lines and `NOTHING_DONE`.
    """
    keep_freed_memory()
    app.run(lambda _: sys.exit(_run(main)), flags_parser=_parse_flags)


def _parse_flags(argv):
    # Names may be written with dashes: --data-dir is --data_dir.
    argv = [re.sub(r"^--[a-z][^=]*", lambda name: "--" + name[0][2:].replace("-", "_"), word) for word in argv]
    try:
        rest = flags.FLAGS(argv)[1:]
        if rest:
            raise UserError(f"Not understood: {' '.join(rest)}. Options look like --name=value.")
        return argv[:1]
    except SystemExit:
        sys.exit(DONE)  # --help, after which absl would report a failure
    except MISTAKES as error:
        return _fail(error)


def _run(main):
    # What the user must know is printed; the libraries' own warnings are about their insides.
    logging.set_verbosity(logging.ERROR)
    try:
        return main() or DONE
    except (UserError, OSError) as error:
        return _fail(error)
    except KeyboardInterrupt:
        print("stopped; run the same command again", file=sys.stderr, flush=True)
        # Without the interpreter's own end, which joins threads that were interrupted anywhere.
        os._exit(RUN_AGAIN)


def message(error: Exception) -> str:
    """What an error says to the user."""
    while error.args and isinstance(error.args[0], Exception):
        error = error.args[0]  # a locked config wraps the error that has the suggestion
    # One string is the whole message; some kinds of error would show it in quotes.
    return str(error.args[0] if len(error.args) == 1 else error)


def _fail(error):
    print(f"error: {message(error)}", file=sys.stderr, flush=True)
    if isinstance(error, Stalled):
        os._exit(error.exit_code)
    sys.exit(NOTHING_DONE)
