"""Command-line entry: flag parsing, configs by name, errors, exit codes."""

import gc
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from absl import app, flags, logging

from fume_jax.runtime import telemetry
from fume_jax.runtime.errors import DONE, NOTHING_DONE, RUN_AGAIN, Stalled, UserError

# Private to this user: whoever can write there can have this user run anything.
COMPILATION_CACHE = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "fume_jax" / "programs"
# Errors raised by parsing the flags of a config.
FLAG_ERRORS = (flags.Error, AttributeError, KeyError, TypeError, ValueError, UserError, OSError, ImportError)
# Configs by name: those of an installed package, or of the checkout that holds this file.
_PACKAGE = Path(__file__).parents[1]
CONFIGS = next((path for path in (_PACKAGE / "assets" / "configs", _PACKAGE.parent / "configs") if path.is_dir()), None)


def run(main: Callable[[], int | None]) -> None:
    """Parses the flags, runs `main` and exits with the code it returns (`DONE` if None).

    Mistakes in flags, every `UserError` and errors of the system (a full disk, a folder without write permission) end
    in a few plain lines and `NOTHING_DONE`.
    """
    app.run(lambda _: sys.exit(_run(main)), flags_parser=_parse_flags)


def canonical_arguments(arguments: Sequence[str]) -> list[str]:
    """Returns arguments as absl reads them: `--data-dir` as `--data_dir`, and a config by `find_config`."""
    canonical = []
    for argument in arguments:
        if canonical[-1:] == ["--config"]:
            argument = f"{canonical.pop()}={argument}"
        name, equals, value = argument.partition("=")
        if name.startswith("--"):
            name = "--" + name[2:].replace("-", "_")
        canonical.append(name + equals + (find_config(value) if name == "--config" and equals else value))
    return canonical


def find_config(name: str) -> str:
    """Returns the path of a config: `demo` and `fume:early_fusion` are found by name, paths stay as they are.

    Raises UserError if there is no config of that name.
    """
    stem, colon, preset = name.partition(":")
    if not stem or stem.endswith(".py") or Path(stem).name != stem or Path(name).is_absolute() or CONFIGS is None:
        if CONFIGS is not None:
            sys.path.append(str(CONFIGS.parent))  # a config elsewhere may build on `configs.fume`
        return name
    path = CONFIGS / f"{stem}.py"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in CONFIGS.glob("*.py") if file.stem != "__init__"))
        raise UserError(f"There is no config {stem!r}; choose one of: {known}; or name a file, --config=DIR/NAME.py.")
    sys.path.insert(0, str(CONFIGS.parent))  # before any other package called `configs`
    return f"{path}{colon}{preset}"


def _parse_flags(argv):
    try:
        rest = flags.FLAGS([argv[0], *canonical_arguments(argv[1:])])[1:]
        if rest:
            raise UserError(f"Not understood: {' '.join(rest)}. Options look like --name=value.")
        return argv[:1]
    except SystemExit:
        sys.exit(DONE)  # --help, after which absl would report a failure
    except FLAG_ERRORS as error:
        return _fail(error)


def _run(main):
    # Commands print what the user must know; warnings of libraries are about their internals.
    logging.set_verbosity(logging.ERROR)
    enable_compilation_cache()
    telemetry.switch_off()
    # Importing and tracing make many objects that stay, and collecting garbage among them is a tenth of a start.
    gc.set_threshold(100_000)
    try:
        return main() or DONE
    except (UserError, OSError) as error:
        return _fail(error)
    except KeyboardInterrupt:
        print("stopped; run the same command again", file=sys.stderr, flush=True)
        os._exit(RUN_AGAIN)  # a normal exit joins threads, which may have been interrupted anywhere


def enable_compilation_cache() -> None:
    """Has JAX keep compiled programs in `COMPILATION_CACHE`, where the next start finds them; call it before JAX loads.

    `JAX_COMPILATION_CACHE_DIR` names another folder, and `JAX_ENABLE_COMPILATION_CACHE=false` keeps nothing. The key of
    a program is its computation, the version of JAX, XLA's flags and the kind of device with all features of a CPU, so
    machines of several kinds may share a home.
    """
    try:
        COMPILATION_CACHE.mkdir(parents=True, exist_ok=True)
    except OSError:
        return  # in a home that is not writable every start compiles
    if os.access(COMPILATION_CACHE, os.W_OK):
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(COMPILATION_CACHE))


def message(error: Exception) -> str:
    """Returns the message of an error for the user."""
    while error.args and isinstance(error.args[0], Exception):
        error = error.args[0]  # a locked config wraps the error that has the suggestion
    # A single argument is the whole message; some kinds of error would put it in quotes.
    return str(error.args[0] if len(error.args) == 1 else error)


def _fail(error):
    print(f"error: {message(error)}", file=sys.stderr, flush=True)
    if isinstance(error, Stalled):
        os._exit(error.exit_code)
    sys.exit(NOTHING_DONE)
