"""Splits in the layouts of other programs: what these demand, and that everything comes back."""

import csv
import json
import re

import cv2
import numpy as np
import pytest

from datasets.export import writing
from datasets.export.layouts import LAYOUTS
from fume_jax.data.cases import Case, parse_case
from fume_jax.data.labels import folders, yolo
from fume_jax.data.labels.label import Meaning
from fume_jax.data.matching import match_images
from fume_jax.evaluation.predictions import read_mask
from fume_jax.runtime.errors import UserError
from fume_jax.schema import GASES, IGNORE, NOT_GAS, SPLITS
from tests.commands import run

HEIGHT, WIDTH = 24, 32


def example(seed, gases, unknown):
    """A pair whose plumes have holes and specks; CO2 may have pixels of unknown class, CH4 ones that may be tube."""
    rng = np.random.default_rng(seed)
    made = {"modality_mask": np.array([gas in gases for gas in GASES], np.float32)}
    for gas in GASES:
        mask = np.zeros((HEIGHT, WIDTH), np.uint8)
        mask[16:, 2:6], mask[4:14, 8:30], mask[6 : 8 + seed, 12:16] = 1, 2, 0
        mask[rng.random(mask.shape) < 0.05] = 2
        if unknown:
            mask[3:5, 8:20] = IGNORE if gas == "co2" else NOT_GAS
        made |= {f"{gas}_frame": rng.integers(0, 256, (HEIGHT, WIDTH, 1), np.uint8), f"{gas}_mask": mask}
    return made | {"label": seed % 3, "ph": np.float32(6.2 - 0.3 * (seed % 3)), "recording_index": np.int32(40 + seed)}


class Pairs:
    """A dataset in memory: in each split two pairs, of which the second lacks CH4."""

    def __init__(self, unknown):
        self.examples = {
            split: [example(3 * i + j, gases, unknown) for j, gases in enumerate((GASES, ("co2",)))]
            for i, split in enumerate(SPLITS)
        }

    def split(self, name):
        return self.examples[name]

    def frames(self):
        """Frame and mask by case."""
        return {
            Case(split, i, gas): (pair[f"{gas}_frame"][..., 0], pair[f"{gas}_mask"])
            for split, pairs in self.examples.items()
            for i, pair in enumerate(pairs)
            for gas, present in zip(GASES, pair["modality_mask"], strict=True)
            if present
        }


@pytest.fixture
def pairs(monkeypatch):
    pairs = Pairs(unknown=True)
    monkeypatch.setattr(writing, "Dataset", lambda path: pairs)
    return pairs


def gray(path):
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


def verify_as_nnunet(folder):
    """Asserts what `verify_dataset_integrity` of nnunetv2 2.8.1 demands of a data set of PNG files."""
    description = json.loads((folder / "dataset.json").read_text())
    assert {"labels", "channel_names", "numTraining", "file_ending"} <= description.keys()
    ending, values = description["file_ending"], description["labels"]
    assert ending == ".png"  # chooses the reader, which takes one picture in grey for each channel
    learned = sorted(value for name, value in values.items() if name != "ignore")
    assert values["background"] == 0 and values.get("ignore", max(learned) + 1) == max(learned) + 1
    allowed = sorted(values.values())
    assert allowed == list(range(len(values)))
    files = sorted(path.name for path in (folder / "imagesTr").glob(f"*{ending}"))
    cases = {name[: -len("_0000" + ending)] for name in files}
    assert len(cases) == description["numTraining"]
    for case in cases:
        images = [name for name in files if re.fullmatch(rf"{re.escape(case)}_\d{{4}}{re.escape(ending)}", name)]
        assert len(images) == len(description["channel_names"])
        mask = gray(folder / "labelsTr" / f"{case}{ending}")
        assert mask is not None and set(np.unique(mask).tolist()) <= set(allowed)
        assert {gray(folder / "imagesTr" / name).shape for name in images} == {mask.shape} and mask.ndim == 2


def export_nnunet(monkeypatch, folder, *, unknown=True):
    monkeypatch.setattr(writing, "Dataset", lambda path: Pairs(unknown))
    writing.export("data", "nnunet", str(folder))
    return folder


@pytest.mark.parametrize("unknown", [True, False])
def test_nnunet_would_take_it(unknown, monkeypatch, tmp_path, capsys):
    folder = export_nnunet(monkeypatch, tmp_path / "Dataset501_Plumes", unknown=unknown)
    verify_as_nnunet(folder)
    description = json.loads((folder / "dataset.json").read_text())
    assert list(description["labels"]) == ["background", "tube", "gas"] + ["ignore"] * unknown
    cases = {path.stem for path in (folder / "labelsTr").iterdir()}
    assert len(cases) == description["numTraining"] == 6
    masks = [gray(folder / "labelsTr" / f"{case}.png") for case in cases]
    assert {mask.dtype for mask in masks} == {np.dtype(np.uint8)}
    assert set(np.unique(masks).tolist()) == set(description["labels"].values())
    (fold,) = json.loads((folder / "splits_final.json").read_text())
    assert set(fold["train"]) | set(fold["val"]) == cases and not set(fold["train"]) & set(fold["val"])
    assert all(case.startswith("val_") for case in fold["val"])
    tests = {path.name.removesuffix("_0000.png") for path in (folder / "imagesTs").iterdir()}
    assert tests == {"test_00000_co2", "test_00000_ch4", "test_00001_co2"}
    assert {path.stem for path in (folder / "labelsTs").iterdir()} == tests
    printed = capsys.readouterr().out
    assert ("pixels of unknown class, in 6 frames, have the label ignore, 3." in printed) == unknown
    assert ("pixels that may be tube, in 3 frames, are background." in printed) == unknown
    assert "rename" not in printed


def paint_unknown_label(folder):
    cv2.imwrite(str(folder / "labelsTr" / "val_00000_co2.png"), np.full((HEIGHT, WIDTH), IGNORE, np.uint8))


def cut_mask(folder):
    cv2.imwrite(str(folder / "labelsTr" / "val_00000_co2.png"), np.zeros((HEIGHT, WIDTH - 1), np.uint8))


def remove_label(folder):
    (folder / "labelsTr" / "val_00000_co2.png").unlink()


def remove_image(folder):
    (folder / "imagesTr" / "val_00000_co2_0000.png").unlink()


def raise_ignored(folder):
    text = (folder / "dataset.json").read_text()
    (folder / "dataset.json").write_text(text.replace('"ignore": 3', '"ignore": 255'))


def add_channel(folder):
    text = (folder / "dataset.json").read_text()
    (folder / "dataset.json").write_text(text.replace('"0": "infrared"', '"0": "infrared", "1": "other"'))


@pytest.mark.parametrize(
    "harm", [paint_unknown_label, cut_mask, remove_label, remove_image, raise_ignored, add_channel]
)
def test_nnunet_would_not_take_it_harmed(harm, monkeypatch, tmp_path):
    """As nnunetv2 itself refused each of these."""
    folder = export_nnunet(monkeypatch, tmp_path / "Dataset501_Plumes")
    harm(folder)
    with pytest.raises(AssertionError):
        verify_as_nnunet(folder)


READERS = {"nnunet": folders.read, "mmseg": folders.read, "yolo": yolo.read}


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_mask_and_frame_comes_back_by_our_own_readers(name, pairs, tmp_path):
    writing.export("data", name, str(tmp_path / "out"))
    found = READERS[name](tmp_path / "out", Meaning({}, {}, {}))
    assert not found.faults
    expected = pairs.frames()
    cases = {parse_case(label.image.stem): label for label in found.labels}
    assert cases.keys() == expected.keys()
    for case, label in cases.items():
        frame, mask = expected[case]
        mask = np.where(mask == NOT_GAS, 0, mask)
        if name == "yolo":
            mask = np.where(mask == IGNORE, 0, mask)
        np.testing.assert_array_equal(gray(label.image), frame)
        np.testing.assert_array_equal(label.read_mask(), mask)
        # nnU-Net takes its validation cases from the training ones.
        assert label.split == ("train" if name == "nnunet" and case.split == "val" else case.split)


def test_what_a_case_is_of_is_in_a_table(pairs, tmp_path):
    writing.export("data", "mmseg", str(tmp_path / "out"))
    rows = list(csv.DictReader((tmp_path / "out" / "cases.csv").read_text().splitlines()))
    assert [row["case"] for row in rows] == [case.name for case in pairs.frames()]
    assert rows[5] == {
        "case": "val_00001_co2",
        "split": "val",
        "example": "val_00001",
        "gas": "co2",
        "label": "Transitional",
        "ph": "5.9",
        "recording": "44",
    }


@pytest.mark.parametrize(
    ("name", "images"), [("mmseg", "img_dir/test"), ("yolo", "images/test"), ("nnunet", "imagesTs")]
)
def test_masks_of_exported_frames_are_named_for_their_case(name, images, pairs, tmp_path):
    writing.export("data", name, str(tmp_path / "out"))
    folder = str(tmp_path / "out" / images)
    found, _ = match_images(dict.fromkeys(GASES, folder))
    # As `fume predict` names masks and pairs.
    assert {parse_case(f"{pair}_{gas}") for pair, files in found.items() for gas in files} == {
        case for case in pairs.frames() if case.split == "test"
    }
    assert [parse_case(pair) for pair in found] == [Case("test", 0), Case("test", 1)]
    for path in (tmp_path / "out" / "ann_dir" / "test").glob("*_ch4.png"):
        read_mask(path)  # which the scores of predictions read


def test_what_outlines_cannot_say_is_said(pairs, tmp_path, capsys):
    writing.export("data", "yolo", str(tmp_path / "out"))
    unknown = [(mask == IGNORE).sum() for case, (_, mask) in pairs.frames().items() if case.gas == "co2"]
    words = (
        f"{sum(unknown)} pixels of unknown class, in 6 frames, are background, since outlines cannot leave pixels open"
    )
    assert words in capsys.readouterr().out
    import yaml

    description = yaml.safe_load((tmp_path / "out" / "data.yaml").read_text())
    assert description == {**{split: f"images/{split}" for split in SPLITS}, "names": {0: "tube", 1: "gas"}}
    for path in (tmp_path / "out" / "labels").rglob("*.txt"):
        for line in path.read_text().splitlines():
            number, *numbers = line.split()
            assert number in "01" and len(numbers) >= 6 and len(numbers) % 2 == 0
            assert all(0 <= float(value) <= 1 for value in numbers)


def test_a_folder_that_nnunet_would_not_find_is_told(pairs, tmp_path, capsys):
    writing.export("data", "nnunet", str(tmp_path / "plumes"))
    assert "such as Dataset501_Plumes; rename plumes" in capsys.readouterr().out


def test_nothing_is_half_written_and_nothing_overwritten(pairs, tmp_path):
    pairs.examples["test"][1] = {"modality_mask": np.ones(2)}  # cannot be written
    with pytest.raises(KeyError):
        writing.export("data", "mmseg", str(tmp_path / "below" / "out"))
    assert not list((tmp_path / "below").iterdir())
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").touch()
    with pytest.raises(UserError, match="is there already; name a new folder"):
        writing.export("data", "mmseg", str(tmp_path / "out"))


def test_the_command_writes_a_prepared_dataset(tiny_dataset, tmp_path):
    (tmp_path / "out").mkdir()
    result = run("datasets.export", f"--data={tiny_dataset}", "--format=mmseg", f"--output={tmp_path}/out")
    assert result.returncode == 0, result.stderr
    assert "Wrote 36 frames of train, 24 frames of val, 24 frames of test to " in result.stdout
    assert len(list((tmp_path / "out" / "img_dir" / "test").iterdir())) == 24
    assert {path.name for path in tmp_path.iterdir()} == {"out"}
