"""Folders for files on the way to their names, and archives that claim too much."""

import subprocess
import sys
import zipfile

import pytest

from fume_jax.runtime.errors import UserError
from fume_jax.runtime.files import check_zip, scratch
from tests.commands import ROOT


def killed_while_it_held_one(parent):
    code = "import os, sys; from pathlib import Path; from fume_jax.runtime.files import scratch\n"
    code += "with scratch(Path(sys.argv[1]), '.work-') as f: (f / 'big').write_text('x'); os.kill(os.getpid(), 9)"
    assert subprocess.run([sys.executable, "-c", code, str(parent)], cwd=ROOT).returncode == -9


def test_a_folder_vanishes_with_its_owner_or_at_the_next_start(tmp_path):
    killed_while_it_held_one(tmp_path / "new")
    (left,) = (tmp_path / "new").glob(".work-*")
    (tmp_path / "new" / "other").mkdir()
    with scratch(tmp_path / "new", ".work-") as first, scratch(tmp_path / "new", ".work-") as second:
        assert first != second and not left.exists()
        assert first.is_dir() and second.is_dir()  # that of a living owner stays
    with pytest.raises(ZeroDivisionError), scratch(tmp_path / "new", ".work-") as third:
        _ = 1 / 0
    assert not third.exists()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["other"]


def test_an_archive_that_claims_too_much_is_refused_unread(tmp_path):
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for i in range(3):
            file.writestr(f"zeros{i}", bytes(10**6))
    assert path.stat().st_size < 10**4
    check_zip(path, 3 * 10**6)
    with pytest.raises(UserError, match=r"bomb.zip would take 0.0 GB unpacked; expected at most"):
        check_zip(path, 3 * 10**6 - 1)
