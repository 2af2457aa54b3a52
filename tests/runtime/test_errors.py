"""Errors of the system, of libraries and of the user's own Python files in plain words."""

import configparser
import errno
import re
from importlib.metadata import packages_distributions

import numpy as np
import pytest

from fume_jax.runtime.errors import UserError, explain, missing_package, needs_extra, python_file
from tests.commands import ROOT


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (UserError("as it is"), "as it is"),
        (PermissionError(errno.EACCES, "Permission denied", "runs/a"), "Permission denied: runs/a"),
        (OSError("no details"), "no details"),
        (
            OSError(errno.ENOSPC, "No space left on device", "a.png"),
            "The disk is full (No space left on device): a.png",
        ),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "The disk is full (Disk quota exceeded): a file could not be"),
        (RuntimeError("write() failed: No space left on device; at 7"), "The disk is full (No space left on device)"),
        (MemoryError(), "Memory ran out (MemoryError)"),
        (
            RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes.\nmore"),
            "Memory ran out (Out of memory a",
        ),
        (RuntimeError("std::bad_alloc"), "Memory ran out (std::bad_alloc)"),
    ],
)
def test_what_a_user_can_do_something_about_is_said_in_plain_words(error, words):
    assert explain(error).startswith(words)


def test_an_array_too_large_is_said_in_plain_words():
    with pytest.raises(MemoryError) as error:
        np.zeros(2**50)
    assert explain(error.value).startswith("Memory ran out (Unable to allocate 8.00 PiB")


def test_every_package_of_setup_cfg_is_told_where_it_is_missing():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    lines = [line for line in config["options"]["install_requires"].splitlines() if line]
    wanted = {_canonical(re.match(r"[\w.-]+", line)[0]) for line in lines}
    imported = {name: {_canonical(x) for x in names} for name, names in packages_distributions().items()}
    explained = {name for name in imported if missing_package(ModuleNotFoundError(name=name))}
    assert set().union(*(imported[name] for name in explained)) >= wanted


def _canonical(name):
    return name.lower().replace("_", "-")


def test_a_package_that_is_missing_is_told_by_its_name_for_pip():
    assert explain(ModuleNotFoundError(name="scipy")).endswith("needs scipy, which is not installed: pip install scipy")
    assert explain(ModuleNotFoundError(name="yaml")).endswith("needs yaml, which is not installed: pip install pyyaml")
    words = r'MQTT needs paho, which is not installed: pip install paho-mqtt, or .* "\.\[live\]"$'
    with pytest.raises(UserError, match=words), needs_extra("live", "MQTT"):
        raise ModuleNotFoundError(name="paho")


@pytest.mark.parametrize(
    "error",
    [
        ValueError("a"),
        RuntimeError("b"),
        AssertionError(),
        KeyError("c"),
        ModuleNotFoundError(name="fume_jax.nothing"),
        ModuleNotFoundError(name="jax.nothing"),
        ImportError("cannot import name", name="jax"),
    ],
)
def test_a_fault_of_the_program_is_none_of_the_user(error):
    assert explain(error) is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x = 1\ny = 1 // 0\n", "line 2: ZeroDivisionError: integer division"),
        ("def f(\n", "line 1: SyntaxError: "),
        ("import sys\nsys.exit(0)\n", "line 2: SystemExit: 0"),
        ("import nothing_of_this_name\n", "line 1: ModuleNotFoundError: No module named"),
        ("{}['key']\n", "line 1: KeyError: key"),
        ("raise ValueError('in words for the user')\n", "line 1: in words for the user"),
        ("import json\n\njson.loads('[')\n", "line 3: JSONDecodeError: Expecting value"),
    ],
)
def test_a_mistake_in_a_python_file_of_the_user_has_its_line(tmp_path, text, words):
    path = tmp_path / "mine.py"
    path.write_text(text)
    with pytest.raises(UserError) as error, python_file(path):
        exec(compile(text, str(path), "exec"), {})
    assert str(error.value).startswith(f"{path}, {words}")


def test_errors_elsewhere_pass(tmp_path):
    with pytest.raises(ZeroDivisionError), python_file(tmp_path / "mine.py"):
        _ = 1 // 0
    with pytest.raises(SystemExit), python_file(tmp_path / "mine.py"):
        raise SystemExit(1)
