"""Files that are complete whenever they are read, and folders that one process at a time writes to."""

import contextlib
import errno
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from fume_jax.runtime.errors import UserError, disk_full

# Ending of a file that is being written. What is left of it belongs to a process that died.
PART = ".part"


@contextlib.contextmanager
def replacing(path: str | Path, *, synced: bool = True) -> Iterator[Path]:
    """Yields the path to write a file to, `PATH.part`, which replaces `path` at the end of the context.

    However the process ends, `path` holds the old content, all of the new one, or nothing if it was new. `synced` makes
    that true of a power failure too, for some milliseconds a file. An error in the context removes the part.
    """
    path = Path(path)
    part = path.with_name(f"{path.name}{PART}")
    try:
        yield part
        if synced:
            with part.open("rb") as file:
                os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def replace_text(path: str | Path, text: str) -> None:
    """Writes a text file in UTF-8 as `replacing` does; what is no valid Unicode is escaped."""
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8", errors="backslashreplace")


def read_json(path: str | Path, kind: type = dict):
    """Reads a JSON file whose value is a `kind`; UserError that names the file if it is damaged or of another kind.

    Raises OSError if the file cannot be read.
    """
    try:
        value = json.loads(Path(path).read_bytes())
    except (ValueError, RecursionError) as error:  # bytes that are not UTF-8 are a ValueError too
        raise UserError(f"{path} is damaged: {error}.") from error
    if not isinstance(value, kind):
        raise UserError(f"{path} is damaged: expected a JSON {kind.__name__}, got a {type(value).__name__}.")
    return value


@contextlib.contextmanager
def readable(path: str | Path, kind: str) -> Iterator[None]:
    """Turns whatever a library raises about the content of a file into a UserError that names the file.

    `kind` is a noun phrase, such as "the weights of this model". Errors of the system pass, and those about memory.
    """
    try:
        yield
    except (UserError, OSError, MemoryError):
        raise
    except Exception as error:  # the type depends on the library and the damage
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise UserError(f"{path} is damaged, or not {kind}: {reason}") from error


@contextlib.contextmanager
def full_disk(folder: str | Path, what: str) -> Iterator[None]:
    """Turns any error about a full disk, while `what` is written under `folder`, into a UserError; others pass."""
    try:
        yield
    except (OSError, RuntimeError, ValueError) as error:
        if reason := disk_full(error):
            raise UserError(
                f"The disk is full ({reason}): {what} could not be written to {folder}. Free some space and run the "
                "same command again, or choose a folder on another disk."
            ) from error
        raise


def check_folder(folder: str | Path, remedy: str = "Choose another folder.") -> None:
    """Raises UserError unless files can be written to a folder, which may have to be created; `remedy` is a sentence.

    Errors that come only while files are written, such as that of a full disk, are left to then.
    """
    folder = Path(folder)
    existing = folder.absolute()
    while not existing.exists():
        if existing.is_symlink():
            raise UserError(f"{existing} is a link to {os.readlink(existing)}, which does not exist. {remedy}")
        existing = existing.parent
    if not existing.is_dir():
        raise UserError(f"{existing} is a file; expected a folder. {remedy}")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise UserError(f"{folder} cannot be written: no permission to write to {existing}. {remedy}")


@contextlib.contextmanager
def lock(folder: str | Path, *, name: str = ".lock", doing: str = "writing to", flag: str = "folder") -> Iterator[None]:
    """Holds a lock on a folder, which is created if needed, against other processes that do the same in it.

    The system frees it however the process ends; its file stays, but for an error before anything else was written to
    a new folder, which is removed. Since nobody else writes there meanwhile, the parts that dead processes left
    directly in the folder are removed. `doing` and `flag` complete the message.

    Raises UserError if another process holds the lock or the folder cannot be written.
    """
    import filelock  # here, since `benchmarks.gpu` runs where it is not installed

    folder = Path(folder)
    check_folder(folder)
    created = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(filelock.FileLock(folder / name, timeout=0))
        except filelock.Timeout as error:
            advice = f"wait for it, stop it, or use another {flag}"
            raise UserError(f"Another process is {doing} {folder}; {advice}.") from error
        remove_parts(folder)
        try:
            yield
        except BaseException:
            if created and os.listdir(folder) == [name]:
                (folder / name).unlink()
                with contextlib.suppress(OSError):  # another process has begun to write there
                    for path in created:
                        path.rmdir()
            raise


def remove_parts(folder: Path) -> None:
    """Removes the parts of files directly in a folder, if there is one; nobody may be writing there."""
    for part in folder.iterdir() if folder.is_dir() else ():
        if part.name.endswith(PART) and part.is_file():
            part.unlink()


@contextlib.contextmanager
def scratch(parent: Path, prefix: str) -> Iterator[Path]:
    """Yields a new folder in `parent`, which is created if needed, for files on the way to their names.

    The folder is removed at the end, and those that processes killed meanwhile have left are removed at the start.
    """
    import filelock

    parent.mkdir(parents=True, exist_ok=True)
    for left in parent.glob(f"{prefix}*"):
        # A living owner holds its lock. Without one the owner may be just about to take it.
        with contextlib.suppress(OSError, filelock.Timeout):
            if (left / ".lock").exists():
                with filelock.FileLock(left / ".lock", timeout=0):
                    shutil.rmtree(left)
    with tempfile.TemporaryDirectory(dir=parent, prefix=prefix) as folder, filelock.FileLock(f"{folder}/.lock"):
        yield Path(folder)


def check_zip(path: str | Path, limit: int) -> None:
    """Raises UserError if the members of a zip file claim more than `limit` bytes, or one has another checksum.

    Readers take no more of a member than it claims, and not all of them look at its checksum. Raises
    `zipfile.BadZipFile` or another error of `zipfile` if the file is none.
    """
    with zipfile.ZipFile(path) as file:
        size = sum(member.file_size for member in file.infolist())
        if size > limit:
            raise UserError(f"{path} would take {size / 1e9:.1f} GB unpacked; expected at most {limit / 1e9:.1f} GB.")
        try:
            damaged = file.testzip()
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            # Lost bytes move the members before the beginning of the file.
            raise zipfile.BadZipFile("its members are not where its directory says") from error
        if damaged is not None:
            raise UserError(f"{path} is damaged: {damaged} in it does not have its checksum.")
