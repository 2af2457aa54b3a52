"""Damages files at random, by a seed, and reads them in forked processes of limited memory and time.

`python -m tests.soak.fuzz` reads a JSON list of (reader, folder, number of cases, seed), and answers each case with a
line of JSON: `reader`, `case`, and `wrong`, what went wrong or null. A reader does well to read what is there or to
raise an error for the user, which names the file.
"""

import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import traceback
import warnings
from pathlib import Path

# Imported once; children are forked before anything touches a device or starts a thread.
import tests.fork_server  # noqa: F401
from fume_jax.data.images import UnreadableFrame
from fume_jax.runtime.errors import UserError
from tests.soak.readers import READERS, digest

SECONDS = 60
# Of address space, and of memory that is really used; libraries reserve much of the former.
MAX_BYTES, MAX_RESIDENT = 24 << 30, 3 << 30

LARGE = (b"\xff\xff\xff\x7f", b"\xff" * 8, b"999999999")


def mutate(data: bytes, rng: random.Random) -> tuple[bytes, str]:
    """Returns damaged bytes, and what the damage is."""
    size = len(data)
    at, length = rng.randrange(size + 1), rng.choice([1, 4, 16, 256, 4096])
    noise = rng.randbytes(length)
    ends = {
        "flip": lambda: (
            data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :] if at < size else data[1:]
        ),
        "noise": lambda: data[:at] + noise + data[at + length :],
        "zeros": lambda: data[:at] + bytes(length) + data[at + length :],
        "large number": lambda: (
            data[:at] + rng.choice([b"\xff\xff\xff\x7f", b"\xff" * 8, b"999999999"]) + data[at + 8 :]
        ),
        "cut": lambda: data[:at],
        "lose": lambda: data[:at] + data[at + length :],
        "insert": lambda: data[:at] + noise + data[at:],
        "repeat": lambda: data[:at] + data[max(0, at - length) : at] + data[at:],
        "empty": lambda: b"",
        "other": lambda: noise * 3,
    }
    kind = rng.choices(list(ends), [8, 4, 4, 4, 3, 3, 2, 2, 1, 1])[0]
    return ends[kind](), f"{kind} of {length} at {at} of {size}"


def damage(folder: Path, target: Path, patterns, rng: random.Random) -> str:
    """Copies a folder, one of whose files is damaged; returns how."""
    shutil.copytree(folder, target, copy_function=os.link, dirs_exist_ok=True)
    files = sorted({path for pattern in patterns for path in target.glob(pattern) if path.is_file()})
    path = rng.choice(files)
    data, how = mutate(path.read_bytes(), rng)
    path.unlink()  # the link; what it linked to stays
    path.write_bytes(data)
    for other in target.rglob("*"):
        if other.is_file() and other.stat().st_nlink > 1:  # a reader may write
            content = other.read_bytes()
            other.unlink()
            other.write_bytes(content)
    return f"{path.relative_to(target)}: {how}"


def attempt(reader, folder: Path, expected: str | None, answer: Path) -> None:
    """The forked process: writes what went wrong."""
    signal.alarm(SECONDS)
    resource.setrlimit(resource.RLIMIT_AS, (MAX_BYTES, MAX_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sink = os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, 1)
    os.dup2(sink, 2)
    wrong, errors = "", (UserError, UnreadableFrame)
    try:
        found = digest(reader.read(folder))
        if expected is None:
            wrong = found
        elif reader.exact and found != expected:
            wrong = "damage was read as if it were none"
    except errors as error:
        if expected is None:
            wrong = f"refused although it is whole: {error}"
        elif not str(error).strip():
            wrong = "an error without a message"
    except BaseException:
        wrong = traceback.format_exc(limit=-3)
    answer.write_text(wrong)
    os._exit(0)


def try_in_child(reader, folder: Path, expected: str | None, answer: Path) -> str:
    """What a forked process writes, or how it ended otherwise."""
    answer.unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        attempt(reader, folder, expected, answer)
    _, status, usage = os.wait4(child, 0)
    if (code := os.waitstatus_to_exitcode(status)) or not answer.exists():
        return f"no answer in {SECONDS} s" if code == -signal.SIGALRM else f"the process ended with {code}"
    if usage.ru_maxrss * 1024 > MAX_RESIDENT:
        return f"took {usage.ru_maxrss / 1e6:.1f} GB"
    return answer.read_text()


def main() -> None:
    warnings.filterwarnings("ignore")
    for name, folder, count, seed in json.load(sys.stdin):
        reader = READERS[name]
        with tempfile.TemporaryDirectory() as work:
            whole, answer = Path(work, "whole"), Path(work, "answer")
            shutil.copytree(folder, whole)
            expected = try_in_child(reader, whole, None, answer)
            if len(expected) != 64:
                print(json.dumps({"reader": name, "case": "undamaged", "wrong": expected}), flush=True)
                continue
            for i in range(count):
                target = Path(work, str(i))
                how = damage(Path(folder), target, reader.damaged, random.Random(f"{seed} {name} {i}"))
                wrong = try_in_child(reader, target, expected, answer)
                print(json.dumps({"reader": name, "case": f"{i}: {how}", "wrong": wrong or None}), flush=True)
                shutil.rmtree(target)


if __name__ == "__main__":
    main()
