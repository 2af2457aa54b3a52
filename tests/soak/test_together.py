"""Two of everything at once: one does the work, and the other one says who does it, or both end well."""

import re
import shutil

import pytest

from fume_jax.inference.backends import open_backend
from tests.commands import start, train_arguments
from tests.soak.tally import TALLY
from tests.soak.test_kills import COMMANDS, inputs  # noqa: F401


def both(words):
    """Starts a command twice; exit codes, sorted, and what both printed."""
    processes = [start(*map(str, words)) for _ in range(2)]
    printed = "".join(process.communicate()[0] for process in processes)
    assert "Traceback" not in printed, printed
    return sorted(process.returncode for process in processes), printed


@pytest.mark.soak
@pytest.mark.parametrize("name", ["predict", "evaluate", "render", "prepare"])
def test_one_of_two_in_a_folder_works_and_the_other_one_is_refused(inputs, tmp_path, name):  # noqa: F811
    shutil.copytree(inputs, tmp_path / "work")
    with TALLY.case("two at once", name):
        codes, printed = both(COMMANDS[name].words(tmp_path / "work"))
        COMMANDS[name].sound(tmp_path / "work")
        assert COMMANDS[name].done(tmp_path / "work")
        # A second one may come so late that the first has ended.
        assert codes == [0, 0] or (codes == [0, 1] and re.search("Another process is", printed)), printed


@pytest.mark.soak
def test_two_trainings_of_one_run(tiny_dataset, tmp_path):
    with TALLY.case("two at once", "train"):
        codes, printed = both(["fume_jax.main", *train_arguments(tiny_dataset, tmp_path / "run")])
        assert codes == [0, 1] and "Another process is training in" in printed, printed


@pytest.mark.soak
def test_two_exports_to_one_file_are_both_written_whole(inputs, tmp_path):  # noqa: F811
    shutil.copytree(inputs, tmp_path / "work")
    with TALLY.case("two at once", "export"):
        codes, printed = both(COMMANDS["export"].words(tmp_path / "work"))
        assert codes == [0, 0], printed
        open_backend(tmp_path / "work" / "out" / "m.pth")
        assert [path.name for path in (tmp_path / "work" / "out").iterdir()] == ["m.pth"]
