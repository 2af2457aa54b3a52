"""Errors for the user, and the exit codes of commands."""

import contextlib
import errno
import os
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

DONE = 0
NOTHING_DONE = 1  # because of the user's input or setting
PARTLY_DONE = 2  # what was skipped is listed
RUN_AGAIN = 75  # stopped early; the same command goes on

# Libraries report a full disk, a spent quota or a limit on file sizes as errors of many types, but in these words.
_FULL = {errno.ENOSPC: "No space left on device", errno.EDQUOT: "Disk quota exceeded", errno.EFBIG: "File too large"}
# Words in errors of JAX, of the C++ library and of the system about memory.
_NO_MEMORY = ("RESOURCE_EXHAUSTED", "Out of memory", "bad_alloc", "Cannot allocate memory")

# What setup.cfg names, as Python imports it. A command that lacks one of the first two kinds needs most of both. On a
# small install, see deploy/README.md, one of the others is enough.
_JAX = ("jax", "flax", "optax", "orbax", "flatbuffers", "grain", "tensorflow_datasets", "importlib_resources")
_TRAINING = ("ml_collections", "psutil", "tensorboardX", "tensorboard", "crc32c", "sklearn", "threadpoolctl")
_PREDICTION = ("numpy", "absl", "cv2", "av", "PIL", "simplejpeg", "tifffile", "filelock", "tqdm")
_ALONE = (*_PREDICTION, "scipy", "matplotlib", "yaml", "pycocotools")
# Names of packages for pip where Python has others.
_PIP = {
    "absl": "absl-py",
    "cv2": "opencv-python-headless",
    "PIL": "pillow",
    "yaml": "pyyaml",
    "paho": "paho-mqtt",
    "sky": "skypilot",
}


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
    """Turns a failed import into a UserError: `what`, a noun phrase, needs an extra of the package.

    The package itself comes first: the extra brings in all of fume_jax too, and is found in a checkout alone.
    """
    try:
        yield
    except ImportError as error:
        remedy = f'{_pip_install(error.name)}, or in a checkout, with all of fume_jax, pip install -e ".[{extra}]"'
        raise UserError(f"{what} needs {error.name}, which is not installed: {remedy}") from error


@contextlib.contextmanager
def needs_package(what: str) -> Iterator[None]:
    """Turns a failed import into a UserError: `what`, a noun phrase, needs a package that a small install lacks."""
    try:
        yield
    except ImportError as error:
        raise UserError(f"{what} needs {error.name}, which is not installed: {_pip_install(error.name)}") from error


def _pip_install(name):
    package = str(name).partition(".")[0]
    return f"pip install {_PIP.get(package, package)}"


@contextlib.contextmanager
def python_file(path: str | Path) -> Iterator[None]:
    """Turns an error that a Python file of the user raises, a config or a sweep, into a UserError with its line.

    Errors in which the file has no part pass.
    """
    try:
        yield
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        frames = traceback.walk_tb(error.__traceback__)
        lines = [line for frame, line in frames if _is_file(frame.f_code.co_filename, path)]
        if isinstance(error, SyntaxError) and error.filename and _is_file(error.filename, path):
            lines.append(error.lineno)
        if not lines:
            raise
        # A ValueError may be one that the file raises itself, in words for the user.
        kind = "" if type(error) is ValueError else f"{type(error).__name__}: "
        raise UserError(f"{path}, line {lines[-1]}: {kind}{message(error)}") from error


def _is_file(filename, path):
    return os.path.abspath(filename) == os.path.abspath(path)


def message(error: BaseException) -> str:
    """Returns the message of an error for the user."""
    while error.args and isinstance(error.args[0], Exception):
        error = error.args[0]  # a locked config wraps the error that has the suggestion
    # A single argument is the whole message; some kinds of error would put it in quotes.
    return str(error.args[0] if len(error.args) == 1 else error)


def disk_full(error: BaseException) -> str | None:
    """Returns the system's words if an error of any type is about a full disk, None if it is not."""
    reason = _FULL.get(getattr(error, "errno", None))
    return reason or next((words for words in _FULL.values() if words in str(error)), None)


def out_of_memory(error: BaseException) -> str | None:
    """Returns the first line of an error if it is about memory, None if it is not."""
    if not isinstance(error, MemoryError) and not any(words in str(error) for words in _NO_MEMORY):
        return None
    return str(error).partition("\n")[0].removeprefix("RESOURCE_EXHAUSTED: ").rstrip(".") or "MemoryError"


def missing_platform() -> str | None:
    """Returns in words that JAX has no device, None if it has one or was not imported.

    JAX raises errors of several types, some without a message, wherever a device is used first.
    """
    if "jax" not in sys.modules:
        return None
    import jax

    try:
        jax.default_backend()
        return None
    except (AssertionError, RuntimeError) as error:
        wanted = jax.config.jax_platforms
        reason = f" ({str(error).partition(chr(10))[0]})" if str(error) else ""
        found = f"JAX_PLATFORMS={wanted}, but JAX finds no such device" if wanted else "JAX finds no device"
        return (
            f"{found}{reason}. Unset JAX_PLATFORMS to use the best device there is, set it to cpu, or install the jax "
            "of this machine, such as pip install -e '.[cuda12]'."
        )


def missing_package(error: BaseException) -> str | None:
    """Returns in words that a package of setup.cfg is not installed, None for any other error.

    A module that fume_jax or an installed package should have is a fault of theirs, whose traceback is needed.
    """
    name = error.name if isinstance(error, ModuleNotFoundError) else None
    if name in _ALONE:
        return f"This command needs {name}, which is not installed: {_pip_install(name)}"
    if name in (*_JAX, *_TRAINING):
        return (
            f"This command needs {name}, which is not installed, and more of what fume_jax brings along unless pip has "
            "--no-deps: pip install -e . in a checkout, or pip install its wheel."
        )
    return None


def explain(error: BaseException) -> str | None:
    """Returns an error about which a user can do something in plain words; None for a fault of the program."""
    if isinstance(error, UserError):
        return message(error)
    if reason := disk_full(error):
        what = getattr(error, "filename", None) or "a file"
        return f"The disk is full ({reason}): {what} could not be written. Free some space and run the command again."
    if reason := missing_package(error):
        return reason
    if reason := out_of_memory(error):
        return f"Memory ran out ({reason}). Close other programs, or lower the batch or the size of the frames."
    if isinstance(error, OSError):
        return f"{error.strerror}: {error.filename}" if error.filename and error.strerror else message(error)
    return missing_platform() if isinstance(error, AssertionError | RuntimeError) else None
