"""Files of labels: which are listed, in which order, and where images are found."""

import numpy as np
import pytest

from fume_jax.data.labels.collector import Collector
from fume_jax.data.labels.finding import find_image, list_files, split_of
from tests.data.labels.masks import MEANING, image


def test_files_are_listed_in_natural_order_without_hidden_ones(tmp_path):
    names = ["r2/f_10.png", "r2/f_2.PNG", "r10/f_1.png", "r2/a.txt", ".git/f.png", "r2/._f_2.png", "__MACOSX/f.png"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = [path.relative_to(tmp_path).as_posix() for path in list_files(tmp_path, (".png",))]
    assert found == ["r2/f_2.PNG", "r2/f_10.png", "r10/f_1.png"]
    assert len(list_files(tmp_path)) == 4
    assert list_files(tmp_path / "r2/a.txt", (".png",)) == [tmp_path / "r2/a.txt"]
    assert list_files(tmp_path / "absent") == []


@pytest.mark.parametrize("name", ["r1/a.png", "r1/a", "r1\\a.png", "../set/images/r1/a.png"])
def test_images_are_found_by_names_of_every_form(tmp_path, name):
    path = image(tmp_path / "set" / "images" / "r1" / "a.png")
    assert find_image(name, [tmp_path / "none", tmp_path / "set"]) == path
    assert find_image("r1/b.png", [tmp_path / "set"]) is None


def test_images_in_a_folder_that_is_a_link_keep_their_path(tmp_path):
    image(tmp_path / "disk" / "a.png")
    (tmp_path / "images").symlink_to("disk")
    assert find_image("a.png", [tmp_path]) == tmp_path / "images" / "a.png"


def test_splits_by_name():
    assert [split_of(name) for name in ("Training", "valid", "testing", "contest")] == ["train", "val", "test", ""]
    assert split_of("b1", "val", "train") == "val"


def test_labels_are_in_natural_order_and_notes_count(tmp_path):
    collector = Collector(tmp_path, MEANING)
    for name in ("f_10", "f_2"):
        collector.add(image(tmp_path / f"{name}.png"), -1, name, "", "", lambda: np.zeros((20, 30), np.uint8))
        collector.count("boxes", tmp_path / name, 600)
    for frame in (11, 3):
        collector.add(tmp_path / "a.mp4", frame, f"frame_{frame}", "a", "", lambda: None)
    collector.note("read as boxes")
    result = collector.result()
    assert [label.name for label in result.labels] == ["frame_3", "frame_11", "f_2", "f_10"]
    assert result.notes == ["boxes: 1,200 (such as f_10)", "read as boxes"] and not result.faults
