"""Files that are complete or not there, and folders that can be written."""

import zipfile

import pytest

from fume_jax.runtime.errors import UserError
from fume_jax.runtime.files import check_folder, check_zip, lock, read_json, readable, replace_text


def test_a_folder_that_can_be_written_or_created_is_fine(tmp_path):
    check_folder(tmp_path)
    check_folder(tmp_path / "not" / "yet")
    assert not (tmp_path / "not").exists()


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("file", "file is a file; expected a folder"),
        ("file/below", "file is a file; expected a folder"),
        ("link", "link is a link to .*nowhere, which does not exist"),
        ("link/below", "link is a link to .*nowhere, which does not exist"),
    ],
)
def test_what_is_no_folder_is_told(tmp_path, path, words):
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match=f"{words}.* Do this"):
        check_folder(tmp_path / path, "Do this.")
    with pytest.raises(UserError, match=words), lock(tmp_path / path):
        pass
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("content", [b"[]", b"{", b"\xff\xfe", b"3", b"[" * 100_000])
def test_damaged_json_is_named(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.json is damaged"):
        read_json(tmp_path / "a.json")


def test_text_that_is_no_unicode_is_written(tmp_path):
    replace_text(tmp_path / "a.txt", "pr\udce9")
    assert (tmp_path / "a.txt").read_text() == "pr\\udce9"


def test_what_a_library_says_of_a_damaged_file_names_it(tmp_path):
    with pytest.raises(UserError, match=r"a\.bin is damaged, or not a model: odd"), readable("a.bin", "a model"):
        raise ValueError("odd")
    with pytest.raises(PermissionError), readable("a.bin", "a model"):
        raise PermissionError


def test_an_error_before_anything_is_written_leaves_no_folder(tmp_path):
    with pytest.raises(ZeroDivisionError), lock(tmp_path / "new" / "run"):
        _ = 1 / 0
    assert not (tmp_path / "new").exists()
    with pytest.raises(ZeroDivisionError), lock(tmp_path / "new"):
        (tmp_path / "new" / "kept").touch()
        _ = 1 / 0
    assert (tmp_path / "new" / "kept").exists()
    (tmp_path / "old").mkdir()
    with pytest.raises(ZeroDivisionError), lock(tmp_path / "old"):
        _ = 1 / 0
    assert (tmp_path / "old").is_dir()


@pytest.mark.parametrize("lost", [1, 100, 5000])
def test_a_zip_file_that_has_lost_bytes_is_a_damaged_one(tmp_path, lost):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as file:
        for name in ("a", "b", "c"):
            file.writestr(name, bytes(range(200)) * 30)
    content = path.read_bytes()
    path.write_bytes(content[:6500] + content[6500 + lost :])
    with pytest.raises((UserError, zipfile.BadZipFile)):
        check_zip(path, 10**6)
