"""Labels that were imported once, for the tests of imports."""

import shutil

import pytest


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """A folder of LabelMe, with the result of its import beside it. Tests that change it take a copy."""
    from tests.datasets.test_import import as_labelme, import_from

    source = tmp_path_factory.mktemp("imported") / "source"
    as_labelme(source)
    assert import_from(source).returncode == 0
    return source


@pytest.fixture
def source(imported, tmp_path):
    """A folder that was imported, in which nothing is done yet."""
    shutil.copytree(imported.parent, tmp_path / "copy")
    return tmp_path / "copy" / "source"
