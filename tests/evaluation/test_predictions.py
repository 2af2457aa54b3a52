"""Predictions of any program: a model's own masks and classes give its own scores, and what does not fit is told."""

import csv
import json

import cv2
import numpy as np
import pytest

from configs import demo
from fume_jax.config import create_model, data_options
from fume_jax.data.cases import Case, parse_case
from fume_jax.data.dataset import Dataset
from fume_jax.data.faults import UnreadableFrame
from fume_jax.data.loader import Loader
from fume_jax.evaluation.evaluator import collect_results, create_eval_fns
from fume_jax.evaluation.prediction_report import score_predictions
from fume_jax.evaluation.predictions import read_mask, read_predictions
from fume_jax.evaluation.report import write_report
from fume_jax.learning.step import split_model
from fume_jax.runtime.console import Console
from fume_jax.runtime.errors import UserError
from fume_jax.runtime.mesh import create_mesh
from fume_jax.schema import CLASSES, GASES
from tests.commands import assert_refused, run

STORED = 96, 128  # height and width of the frames of the tiny dataset
SPLITS = ("val", "test")


def write_table(folder, rows, columns=("frame", "class", *CLASSES)):
    with (folder / "predictions.csv").open("w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])


def metrics_of(folder):
    return json.loads((folder / "metrics.json").read_text())


def write_own(dataset, size, report, folder):
    """Writes the report on a model without training, and what it predicts."""
    config = demo.get_config()
    config.model.backbone, config.eval.batch_size = "tiny", 5
    config.data.height, config.data.width = size
    _, params, batch_stats = split_model(create_model(config))
    model, mesh = {"params": params, "batch_stats": batch_stats}, create_mesh()
    loader = Loader(Dataset(dataset), data_options(config), mesh, Console(quiet=True))
    write_report(config, str(report), model, 7, loader, SPLITS, curves={})
    eval_fn, _ = create_eval_fns(config, mesh, masks=True)
    rows = []
    for split in SPLITS:
        found = collect_results(eval_fn, model, loader.split(split))
        for i, probabilities in enumerate(found["probabilities"]):
            decided = CLASSES[found["cls_confusion"][i].sum(0).argmax()]
            rows.append([Case(split, i).name, decided, *map(float, probabilities)])
            for present, gas in zip(found["modality_mask"][i], GASES, strict=True):
                if present:
                    cv2.imwrite(f"{folder}/{Case(split, i, gas).name}.png", found[f"{gas}_prediction"][i])
    write_table(folder, rows)


@pytest.mark.parametrize("size", [STORED, pytest.param((64, 80), marks=pytest.mark.slow)])
def test_a_models_own_masks_and_classes_have_its_own_scores(tiny_dataset, tmp_path, capsys, size):
    report, folder, scores = (tmp_path / name for name in ("report", "predictions", "scores"))
    folder.mkdir()
    write_own(tiny_dataset, size, report, folder)
    height, width = size if size != STORED else (None, None)
    score_predictions(str(folder), tiny_dataset, SPLITS, output=str(scores), height=height, width=width)
    expected, found = metrics_of(report), metrics_of(scores)
    assert not any("loss" in key for key in found)
    alone = {"step"} | {key for key in expected if key.endswith("loss")}
    assert {key: found[key] for key in expected if key not in alone} == {
        key: value for key, value in expected.items() if key not in alone
    }
    assert found.keys() - expected.keys() == {"predictions", "size", "missing_masks", "missing_classes"}
    assert 0 < found["test/iou_gas"] < 1 and found["test/hd95"] > 0 and found["val/temperature"] > 0
    words = (
        "that of the stored frames" if size == STORED else "annotated masks, of 128x96, are resized by majority vote"
    )
    assert f"Masks of CO2 and CH4 are scored at {size[1]}x{size[0]}, " in (printed := capsys.readouterr().out)
    assert words in printed
    rows, theirs = (
        list(csv.DictReader((f / "examples" / "test.csv").read_text().splitlines())) for f in (scores, report)
    )
    assert rows == [{key: value for key, value in row.items() if key != "loss"} for row in theirs]
    assert {path.name for path in (scores / "pictures").iterdir()} == {
        f"{split}_{kind}.png"
        for split in SPLITS
        for kind in ("classes", "confusion", "reliability", "coverage", "overlays")
    }


def truth(dataset, split):
    """Annotated masks by case, and classes, of a split."""
    examples = Dataset(dataset).split(split)
    masks = {
        Case(split, i, gas): example[f"{gas}_mask"]
        for i, example in enumerate(examples)
        for gas, present in zip(GASES, example["modality_mask"], strict=True)
        if present
    }
    return masks, [example["label"] for example in examples]


@pytest.fixture
def perfect(tiny_dataset, tmp_path):
    """A folder in which every mask and class of the test split is right, as `fume predict` lays them out."""
    masks, labels = truth(tiny_dataset, "test")
    folder = tmp_path / "predictions"
    (folder / "masks").mkdir(parents=True)
    for case, mask in masks.items():
        cv2.imwrite(f"{folder}/masks/{case.name}.png", mask)
    write_table(folder, [[Case("test", i).name, CLASSES[label]] for i, label in enumerate(labels)], ("frame", "class"))
    return folder


def read(folder, dataset, **options):
    return read_predictions(folder, Dataset(dataset), ("test",), STORED, **options)


def test_the_truth_has_perfect_scores_by_the_command(perfect, tiny_dataset):
    result = run("fume_jax.evaluate", f"--predictions={perfect}", f"--data={tiny_dataset}")
    assert result.returncode == 0, result.stderr
    metrics = metrics_of(perfect)
    assert metrics["test/mean_iou"] == metrics["test/balanced_accuracy"] == metrics["test/recording/accuracy"] == 1
    assert metrics["test/hd95"] == 0 and metrics["test/boundary_missed"] == 0
    # Classes without probabilities have no calibration.
    assert not any("calibration" in key for key in metrics)
    assert not list((perfect / "pictures").glob("*reliability*"))


def test_masks_alone_and_classes_alone_are_scored(perfect, tiny_dataset, tmp_path):
    (perfect / "predictions.csv").rename(tmp_path / "predictions.csv")
    for path in (perfect / "masks").glob("*_ch4.png"):
        path.unlink()
    scores = score_predictions(str(perfect), tiny_dataset, ["test"])["test"]
    assert scores["co2/iou_gas"] == 1 and "ch4/iou_gas" not in scores
    assert not {"accuracy", "joint_score", "recording/count"} & scores.keys()
    scores = score_predictions(str(tmp_path), tiny_dataset, ["test"])["test"]
    assert scores["accuracy"] == 1 and not any("iou" in name or "hd95" in name for name in scores)


def test_without_probabilities_the_majority_of_pairs_classifies_a_recording(perfect, tiny_dataset):
    labels, recordings = (
        np.array([example[key] for example in Dataset(tiny_dataset).split("test")])
        for key in ("label", "recording_index")
    )
    first = np.flatnonzero((labels == 2) & (recordings == recordings[labels == 2][0]))
    assert len(first) == 2
    predicted = labels.copy()
    predicted[first[0]] = 0  # one of two pairs: of equal numbers the first class counts
    write_table(perfect, [[f"test_{i}", CLASSES[k].lower()] for i, k in enumerate(predicted)], ("frame", "class"))
    scores = score_predictions(str(perfect), tiny_dataset, ["test"])["test"]
    assert scores["accuracy"] == 1 - 1 / len(labels)
    assert scores["recording/accuracy"] == 1 - 1 / scores["recording/count"]


def test_masks_of_another_size_are_resized_by_vote_which_is_said(perfect, tiny_dataset):
    for path in sorted((perfect / "masks").iterdir())[:3]:
        mask = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(path), mask.repeat(3, 0).repeat(3, 1))
    found = read(perfect, tiny_dataset)
    (note,) = found.notes
    assert note.startswith("3 masks of 384x288 are resized to 128x96 by majority vote: test_00000_ch4.png, ")
    masks, _ = truth(tiny_dataset, "test")
    for case, mask in masks.items():
        np.testing.assert_array_equal(found.mask(case, *STORED), mask)


def test_all_that_does_not_fit_is_said_at_once(perfect, tiny_dataset):
    masks = sorted((perfect / "masks").iterdir())
    for path in masks[:4]:
        path.unlink()
    masks[4].write_bytes(masks[5].read_bytes()[:60])
    cv2.imwrite(str(masks[6]), np.full(STORED, 255, np.uint8))
    cv2.imwrite(f"{perfect}/{masks[7].name}", np.zeros(STORED, np.uint8))
    cv2.imwrite(f"{perfect}/overlay.png", np.zeros(STORED, np.uint8))
    cv2.imwrite(f"{perfect}/train_00000_co2.png", np.zeros(STORED, np.uint8))
    rows = [["test_00000", "Sour"], ["test_00001", "Healthy"], ["test_00001", "Healthy"], ["test_00099", "Healthy"]]
    write_table(perfect, [*rows, *[[f"test_{i:05d}", "Acidotic"] for i in range(2, 11)]], ("frame", "class"))
    with pytest.raises(UserError) as error:
        read(perfect, tiny_dataset)
    told = str(error.value)
    names, lacking = [path.stem for path in masks], "test_00000_co2, test_00000_ch4, test_00001_co2, ..."
    for words in (
        f"4 predictions lack a mask; --allow_missing counts them as all background: {lacking}",
        f"2 masks are unusable (expected PNG files of 0 background, 1 tube, 2 gas): {names[4]}.png (",
        f"{names[6]}.png (holds 255)",
        f"1 masks are of a frame that has another one: {names[7]}.png (masks/{names[7]}.png)",
        "1 predictions lack a class; --allow_missing counts them as the class farthest from the true one: test_00011",
        "1 classes are unknown (expected Healthy, Transitional, Acidotic): row 2 (Sour)",
        "1 rows of predictions.csv are of a pair that has another one: row 4 (test_00001)",
        "1 rows of predictions.csv are of no pair, left out: row 5 (test_00099)",
        "1 PNG files that are of no frame, left out: overlay.png",
        "1 masks of train, which is not scored: train_00000_co2.png",
    ):
        assert words in told, told


def test_what_is_missing_counts_as_said_if_it_may_be_missing(perfect, tiny_dataset):
    masks, labels = truth(tiny_dataset, "test")
    case = next(case for case in masks if (masks[case] == 2).any())
    (perfect / "masks" / f"{case.name}.png").unlink()
    rows = [[Case("test", i).name, "" if label else CLASSES[label]] for i, label in enumerate(labels)]
    write_table(perfect, rows, ("frame", "class"))
    found = read(perfect, tiny_dataset, allow_missing=True)
    assert not found.mask(case, *STORED).any()
    # Healthy for Acidotic, Acidotic for the one in between.
    assert found.classes["test"].tolist() == [{0: 0, 1: 2, 2: 0}[label] for label in labels]
    assert found.missing == {"masks": 1, "classes": sum(label > 0 for label in labels)}
    assert f"1 predictions lack a mask, and count as all background: {case.name}" in found.notes


def test_probabilities_must_be_those_of_the_class(perfect, tiny_dataset):
    rows = [[f"test_{i:05d}", "Healthy", "0,8", "0.15", "0.049"] for i in range(9)]  # a decimal comma, rounded
    wrong = [["Healthy", 0.2, 0.7, 0.1], ["Healthy", 0.9, 0.9, 0.1], ["Healthy", 1, "", 0]]
    write_table(perfect, rows + [[f"test_{9 + i:05d}", *values] for i, values in enumerate(wrong)])
    with pytest.raises(UserError) as error:
        read(perfect, tiny_dataset)
    assert "1 pairs have a class that is not the most probable one: row 11 (Healthy)" in str(error.value)
    assert "2 pairs have probabilities that are not three numbers with a sum of 1: row 12, row 13" in str(error.value)
    write_table(perfect, [row[:3] for row in rows], ("frame", "class", "Healthy"))
    with pytest.raises(
        UserError, match=r"predictions.csv has probabilities of Healthy alone; expected a column for each"
    ):
        read(perfect, tiny_dataset)


def test_a_folder_without_predictions_is_refused(tiny_dataset, tmp_path):
    cv2.imwrite(f"{tmp_path}/a.png", np.zeros(STORED, np.uint8))
    result = run("fume_jax.evaluate", f"--predictions={tmp_path}", f"--data={tiny_dataset}")
    words = "holds no prediction of test; expected masks such as test_00012_co2.png"
    assert_refused(result, f"{tmp_path} {words}", "1 PNG files that are of no frame, left out: a.png")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--predictions=x"], "Expected --data=DATASET"),
        (["--predictions=x", "--data=y", "--tta"], "--tta cannot be used to score predictions"),
        (["--predictions=x", "--data=y", "--workdir=z"], "--workdir cannot be used to score predictions"),
        (["--workdir=x", "--height=64", "--allow_missing"], "--height, --allow_missing cannot be used to score a run"),
        (["--predictions=nowhere", "--data=y"], "There is no folder nowhere"),
    ],
)
def test_flags_that_do_not_go_together_are_refused(arguments, words):
    assert_refused(run("fume_jax.evaluate", *arguments), words)


def test_masks_are_grey_levels_indices_or_equal_channels_of_png(tmp_path):
    from PIL import Image

    mask = np.array([[0, 1], [2, 2]], np.uint8)
    indexed = Image.fromarray(mask, "L").convert("P")
    indexed.putpalette([0, 0, 0, 90, 160, 255, 255, 140, 0])
    forms = [Image.fromarray(mask), Image.fromarray(mask.astype(np.uint16)), Image.fromarray(np.stack([mask] * 3, -1))]
    for image in (*forms, Image.fromarray(np.dstack([mask] * 3 + [np.full_like(mask, 255)]))):
        image.save(tmp_path / "a.png")
        np.testing.assert_array_equal(read_mask(tmp_path / "a.png"), mask)
    indexed.putdata(mask.ravel().tolist())
    indexed.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "a.png"), mask)
    indexed.convert("RGB").save(tmp_path / "a.png")
    with pytest.raises(UnreadableFrame, match="in colour"):
        read_mask(tmp_path / "a.png")
    Image.fromarray(mask).save(tmp_path / "a.png", "JPEG")
    with pytest.raises(UnreadableFrame, match="is a JPEG file"):
        read_mask(tmp_path / "a.png")


def test_names_come_back():
    for case in (Case("test", 12, "co2"), Case("train", 123456, "ch4"), Case("val", 0)):
        assert parse_case(case.name) == case
    assert Case("test", 12, "co2").name == "test_00012_co2"
    # As nnU-Net's images are named, and as `fume predict` names the masks and pairs of these.
    assert parse_case("test_00012_co2_0000") == parse_case("test_00012_0000_co2") == Case("test", 12, "co2")
    assert parse_case("test_00012_0000") == Case("test", 12)
    for name in ("test", "test_a", "tests_00012_co2", "test_00012_o2", "a_test_00012_co2", "test_00012_co2_0001", ""):
        assert parse_case(name) is None
