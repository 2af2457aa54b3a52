"""What every command does around its own work."""

import gc
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

from absl import app, flags, logging

from fume_jax.allocator import keep_freed_memory
from fume_jax.errors import DONE, NOTHING_DONE, RUN_AGAIN, Stalled, UserError

# Of this user alone: who can write there can have this user run anything.
PROGRAMS = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "fume_jax" / "programs"
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
    keep_programs()
    # Importing and tracing make many objects that stay, and looking through them for garbage is a tenth of a start.
    gc.set_threshold(100_000)
    try:
        return main() or DONE
    except (UserError, OSError) as error:
        return _fail(error)
    except KeyboardInterrupt:
        print("stopped; run the same command again", file=sys.stderr, flush=True)
        # Without the interpreter's own end, which joins threads that were interrupted anywhere.
        os._exit(RUN_AGAIN)


def keep_programs() -> None:
    """Has JAX keep what it compiles in `PROGRAMS`, where the next start finds it; to be called before it is imported.

    `JAX_COMPILATION_CACHE_DIR` names another folder, and `JAX_ENABLE_COMPILATION_CACHE=false` keeps nothing. A program
    is found again by what it computes, the version of JAX, XLA's flags and the kind of device with all that a CPU can
    do, so machines of several kinds may share a home.
    """
    try:
        PROGRAMS.mkdir(parents=True, exist_ok=True)
    except OSError:
        return  # a home that cannot be written: compiled at every start
    if os.access(PROGRAMS, os.W_OK):
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(PROGRAMS))


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
