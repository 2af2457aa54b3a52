"""Command-line entry: flag parsing, configs by name, errors, signals, exit codes."""

import difflib
import gc
import glob
import os
import re
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

from absl import app, flags, logging

from fume_jax.runtime import telemetry
from fume_jax.runtime.errors import DONE, NOTHING_DONE, RUN_AGAIN, Stalled, UserError, explain, message, python_file
from fume_jax.runtime.preemption import StopRequest

# Private to this user: whoever can write there can have this user run anything.
COMPILATION_CACHE = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "fume_jax" / "programs"
# Errors raised by parsing the flags of a config.
FLAG_ERRORS = (flags.Error, AttributeError, KeyError, TypeError, ValueError, UserError, OSError, ImportError)
# Configs by name: those of an installed package, or of the checkout that holds this file.
_PACKAGE = Path(__file__).parents[1]
CONFIGS = next((path for path in (_PACKAGE / "assets" / "configs", _PACKAGE.parent / "configs") if path.is_dir()), None)
# An argument as it may come: --FLAG=VALUE, --FLAG=KEY=VALUE, or VALUE, a word of its own.
_ARGUMENT = re.compile(r"(?P<name>(?:--?[\w.-]+=)?(?:[\w.]+=)?)(?P<value>.*)", re.DOTALL)
# Flags that take an address, by the schemes that it may have; None for any.
_ADDRESSES: dict[str, Sequence[str] | None] = {"--bucket": None}
# Python's words about a flag that is no number.
_NUMBERS = re.compile(r"(?:invalid literal for|could not convert string to) (int|float)(?:\(\) with base 10)?:")
_KINDS = {"int": "a whole number", "float": "a number"}
# JAX's words about an entry of its cache of compiled programs.
_BROKEN_PROGRAM = re.compile(r"Error reading persistent compilation cache entry for '([^']+)'")
_UNKEPT_PROGRAM = re.compile(r"Error writing persistent compilation cache entry for '[^']+': (.*)")


def run(main: Callable[[], int | None]) -> None:
    """Parses the flags, runs `main` and exits with the code it returns (`DONE` if None).

    Mistakes in flags, every `UserError` and errors of the system (a full disk, no memory, a folder without write
    permission, a missing device) end in a few plain lines and `NOTHING_DONE`. A signal that asks the process to end
    ends it in a line and `RUN_AGAIN`, unless `main` opens a `StopRequest`.
    """
    logging.set_verbosity(logging.FATAL)
    for stream in (sys.stdout, sys.stderr):
        # Names of files need not be UTF-8, and locales may know less than that.
        stream.reconfigure(errors="backslashreplace")
    for number in StopRequest.SIGNALS:
        if number != signal.SIGINT:  # which Python turns into KeyboardInterrupt, unless a shell had it ignored
            signal.signal(number, signal.default_int_handler)
    try:
        app.run(lambda _: sys.exit(_run(main)), flags_parser=_parse_flags)
    except KeyboardInterrupt:
        print("stopped; run the same command again", file=sys.stderr, flush=True)
        os._exit(RUN_AGAIN)  # a normal exit joins threads, which may have been interrupted anywhere


def canonical_arguments(arguments: Sequence[str]) -> list[str]:
    """Returns arguments as absl reads them.

    `--data-dir` becomes `--data_dir`, a config its path by `find_config`, and `~` the home of a user, which a shell
    leaves as it is after `=`. Raises UserError if an argument is an address such as gs://NAME.
    """
    canonical = []
    for argument in arguments:
        if canonical[-1:] == ["--config"]:
            argument = f"{canonical.pop()}={argument}"
        name, equals, value = argument.partition("=")
        if name.startswith("--"):
            name = "--" + name[2:].replace("-", "_")
        flag = name if equals else (canonical or [""])[-1]
        argument = name + equals + value
        prefix, value = _ARGUMENT.fullmatch(argument).groups()
        if not _is_address(flag, value):
            argument = prefix + local_path(value, prefix.rstrip("=") or flag)
        name, _, value = argument.partition("=")
        canonical.append(f"--config={find_config(value)}" if name == "--config" and value else argument)
    return canonical


def define_address(name: str, schemes: Sequence[str], description: str) -> flags.FlagHolder:
    """Defines a flag that takes an address with one of these schemes, or what a string flag takes."""
    _ADDRESSES[f"--{name}"] = schemes
    return flags.DEFINE_string(name, None, description)


def _is_address(flag, value):
    schemes = _ADDRESSES.get(flag, ())
    return schemes is None or value.startswith(tuple(f"{scheme}://" for scheme in schemes))


def local_path(path: str, name: str) -> str:
    """Returns a path with `~` and `~NAME` at its beginning replaced by the home of that user.

    Raises UserError if it is an address, `name` being the flag or key that holds it: run folders and prepared datasets
    are files, which are locked, replaced and read at random.
    """
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", path):
        if schemes := _ADDRESSES.get(name):
            known = ", ".join(f"{scheme}://" for scheme in schemes)
            raise UserError(
                f"{name} is {path}; expected a path on this machine, or an address that begins with {known}."
            )
        raise UserError(
            f"{name} is {path}; expected a path on this machine. Copy the files here, or mount the bucket, for example "
            "with gcsfuse or rclone."
        )
    return os.path.expanduser(path)


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


def parse(values: flags.FlagValues, arguments: Sequence[str]) -> list[str]:
    """Sets flags by canonical arguments, of which the first is the program; returns those that are no flags.

    Raises one of `FLAG_ERRORS`; UserError with the line if the config, a Python file, is at fault.
    """
    config = next((word.removeprefix("--config=") for word in arguments if word.startswith("--config=")), "")
    config = config.partition(":")[0]
    if config and not Path(config).is_file():
        raise UserError(f"There is no config file {config}.")
    try:
        with python_file(config):
            return values(arguments)
    except AttributeError as error:
        if config and "no attribute 'get_config'" in str(error):
            raise UserError(f"{config} is no config; expected a function get_config() in it.") from error
        if error.args and isinstance(error.args[0], KeyError):
            raise UserError(f"There is no config key {message(error)}\nconfigs/fume.py lists all keys.") from error
        raise
    except flags.UnrecognizedFlagError as error:
        name = error.flagname
        near = sorted(known for known in values if known.startswith(name)) or difflib.get_close_matches(name, values)
        hint = f"did you mean --{' or --'.join(near)}?" if 0 < len(near) <= 5 else "--help lists the flags."
        if name.startswith("config.") and "config" in values:
            hint = "expected --config=NAME before it, whose key it changes."
        raise UserError(f"There is no flag --{name}; {hint}") from error
    except flags.IllegalFlagValueError as error:
        missing = re.findall(r"Flag --(\w+) must have a value other than None", str(error))
        if "config" in missing and config:
            raise UserError(f"get_config() of {config} returned None; expected a ConfigDict.") from error
        if missing:
            named = " and ".join(f"--{name}" for name in missing)
            raise UserError(f"Expected {named}; --help lists the flags.") from error
        raise


def _parse_flags(argv):
    try:
        rest = parse(flags.FLAGS, [argv[0], *canonical_arguments(argv[1:])])[1:]
        if rest:
            raise UserError(f"Not understood: {' '.join(rest)}. Options look like --name=value.")
        return argv[:1]
    except SystemExit:
        sys.exit(DONE)  # --help, after which absl would report a failure
    except FLAG_ERRORS as error:
        return _fail(_NUMBERS.sub(lambda found: f"expected {_KINDS[found[1]]}, got", message(error)))


def _run(main):
    # Commands print what the user must know. What libraries log concerns their internals, or is raised as well.
    logging.set_verbosity(logging.FATAL)
    sys.unraisablehook = _show_unraisable
    enable_compilation_cache()
    telemetry.switch_off()
    # Importing and tracing make many objects that stay, and collecting garbage among them is a tenth of a start.
    gc.set_threshold(100_000)
    try:
        code = main() or DONE
        for number in set(StopRequest.SIGNALS) - {signal.SIGINT}:
            signal.signal(number, signal.SIG_IGN)  # nothing is left to stop, and the code says what was done
        return code
    except Stalled as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        os._exit(error.exit_code)
    except BrokenPipeError:
        # Whoever read the output is gone, as with `| head`; Python would complain once more when it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return NOTHING_DONE
    except Exception as error:
        if (explanation := explain(error)) is None:
            raise
        return _fail(explanation)


def _fail(explanation):
    print(f"error: {explanation}", file=sys.stderr, flush=True)
    warnings.simplefilter("ignore")  # of libraries about what they left undone, while Python exits
    sys.exit(NOTHING_DONE)


def enable_compilation_cache() -> None:
    """Has JAX keep compiled programs in `COMPILATION_CACHE`, where the next start finds them; call it before JAX loads.

    `JAX_COMPILATION_CACHE_DIR` names another folder, and `JAX_ENABLE_COMPILATION_CACHE=false` keeps nothing. The key of
    a program is its computation, the version of JAX, XLA's flags and the kind of device with all features of a CPU, so
    machines of several kinds may share a home. A program that cannot be read is deleted, and so kept anew.
    """
    warnings.showwarning = _show_warning
    try:
        COMPILATION_CACHE.mkdir(parents=True, exist_ok=True)
        if COMPILATION_CACHE.stat().st_uid == os.geteuid():
            COMPILATION_CACHE.chmod(0o700)  # whatever the umask
            os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(COMPILATION_CACHE))
    except OSError:
        pass  # in a home that is not writable every start compiles


def _show_unraisable(unraisable, show=sys.unraisablehook):
    """Shows an error that nobody can catch, but not those of TensorStore's threads once a write of theirs has failed.

    They tell asyncio of each write that is still open, and its loop is gone; the failed write has raised by then.
    """
    if str(unraisable.exc_value) != "Event loop is closed":
        show(unraisable)


def _show_warning(text, category, filename, lineno, file=None, line=None, show=warnings.showwarning):
    """Shows a warning, but deletes programs of the cache that JAX warns about, which it would never replace.

    A program that cannot be kept, as on a full disk, is told in a line; JAX warns of each of them alone.
    """
    folder = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    if unkept := _UNKEPT_PROGRAM.match(str(text)):
        print(f"WARNING: a compiled program is not kept in {folder}: {unkept[1]}", file=sys.stderr, flush=True)
        return None
    if folder is None or not (broken := _BROKEN_PROGRAM.match(str(text))):
        return show(text, category, filename, lineno, file, line)
    print(f"WARNING: a compiled program in {folder} is damaged and is made anew", file=sys.stderr, flush=True)
    for path in Path(folder).glob(f"{glob.escape(broken[1])}-*"):
        path.unlink(missing_ok=True)
    return None
