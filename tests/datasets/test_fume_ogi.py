"""Annotated recordings on disk: nothing lost, nothing leaked, every fault reported at once."""

import csv
import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from datasets.fume_ogi.annotations import SINGLE_COLUMNS
from datasets.fume_ogi.content import read_mask
from datasets.fume_ogi.faults import KINDS
from datasets.fume_ogi.plan import FaultyRecordings, Options, make_plan, statistics
from fume_jax.data.dataset import Dataset
from fume_jax.data.images import read_frame
from fume_jax.data.table import as_id
from fume_jax.runtime.errors import UserError
from fume_jax.schema import CLASSES, GASES, SPLITS
from tests.commands import run

RECORDINGS, COPIES = 26, 4


def prepare(source, data_dir, *arguments):
    return run("datasets.fume_ogi", f"--source={source}", f"--data-dir={data_dir}", *arguments)


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """Recordings in the published layout, split over copies."""
    folder = tmp_path_factory.mktemp("recordings")
    options = [f"--recordings={RECORDINGS}", f"--copies={COPIES}", "--height=48", "--width=64"]
    result = run("datasets.fume_ogi.example", f"--output={folder}", *options)
    assert result.returncode == 0, result.stderr
    return folder


@pytest.fixture(scope="module")
def prepared(recordings, tmp_path_factory):
    """Folders of the prepared dataset and of the pairs written with it."""
    data_dir = tmp_path_factory.mktemp("data")
    result = prepare(recordings, data_dir, f"--write-pairs={data_dir / 'pairs'}")
    assert result.returncode == 0, result.stderr
    assert "warning" not in result.stdout.lower(), "of the example"
    assert f"Frames are grouped by recording: {RECORDINGS} groups." in result.stdout
    return data_dir / "fume_ogi" / "original_64x48" / "1.3.0", data_dir / "pairs"


@pytest.fixture
def own(recordings, tmp_path):
    """A copy of the recordings to change."""
    return Path(shutil.copytree(recordings, tmp_path / "own"))


def lines(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def rewrite(path, rows):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def file_of(source, path):
    return source / path.replace("\\", "/").removeprefix("mmseg_dataset/")


# --- the layout and what becomes of it ---


def test_the_example_is_written_as_the_published_files_are(recordings):
    rows = [row for split in SPLITS for row in lines(recordings / f"{split}_annotations.csv")]
    assert tuple(rows[0]) == (*SINGLE_COLUMNS, "recording_id")
    assert all(row["frame_path"].startswith("mmseg_dataset\\images\\") for row in rows)
    copies = {}
    for row in rows:
        copies.setdefault((row["original_sample_id"], row["gas_type"]), []).append(int(row["augmentation_id"]))
    assert all(sorted(found) == list(range(COPIES + 1)) for found in copies.values())
    assert {row["class_name"] for row in rows} == set(CLASSES)


def test_every_frame_is_stored_once_as_it_is_in_its_file(recordings, prepared):
    rows = [row for split in SPLITS for row in lines(recordings / f"{split}_annotations.csv")]
    expected = {(row["gas_type"], row["original_sample_id"], row["augmentation_id"]): row for row in rows}
    dataset = Dataset(str(prepared[0]))
    for split in SPLITS:
        for example in dataset.split(split):
            for gas, present in zip(GASES, example["modality_mask"], strict=True):
                key = (gas, *(example[f"{gas}_{name}"].decode() for name in ("original", "augmentation")))
                if not present:
                    assert key == (gas, "", "")
                    assert not example[f"{gas}_frame"].any() and not example[f"{gas}_mask"].any()
                    continue
                row = expected.pop(key)
                np.testing.assert_array_equal(
                    example[f"{gas}_frame"], read_frame(file_of(recordings, row["frame_path"]))
                )
                np.testing.assert_array_equal(example[f"{gas}_mask"], read_mask(file_of(recordings, row["mask_path"])))
                assert (example["label"], example["ph"]) == (int(row["class_id"]), np.float32(row["ph_value"]))
    assert not expected


def test_the_default_split_does_not_leak_and_the_published_one_says_that_it_does(recordings, prepared, tmp_path):
    dataset = Dataset(str(prepared[0]))
    assert dataset.leak == ""
    found = {split: {example["recording_index"] for example in dataset.split(split)} for split in SPLITS}
    assert not (found["train"] & found["val"] or found["train"] & found["test"] or found["val"] & found["test"])

    result = prepare(recordings, tmp_path, "--split=published")
    assert result.returncode == 0, result.stderr
    assert f"WARNING: The splits leak: {RECORDINGS} of {RECORDINGS} recordings" in result.stdout
    leaking = Dataset(str(tmp_path / "fume_ogi" / "published_64x48" / "1.3.0"))
    assert f"{RECORDINGS} of {RECORDINGS} recordings are in more than one" in leaking.leak
    rows = {split: len(lines(recordings / f"{split}_annotations.csv")) for split in SPLITS}
    frames = {split: sum(e["modality_mask"].sum() for e in leaking.split(split)) for split in SPLITS}
    assert frames == rows


def test_written_pairs_give_the_identical_dataset(recordings, prepared, tmp_path):
    pattern = f"--annotations={prepared[1]}/{{split}}_annotations.csv"
    result = prepare(recordings, tmp_path, pattern, "--seed=7")
    assert result.returncode == 0, result.stderr
    again, first = (Dataset(str(p)) for p in (tmp_path / "fume_ogi/original_seed7_64x48/1.3.0", prepared[0]))
    for split in SPLITS:
        assert len(again.split(split)) == len(first.split(split)) > 0
        for a, b in zip(again.split(split), first.split(split), strict=True):
            assert a.keys() == b.keys()
            for key in a:
                np.testing.assert_array_equal(a[key], b[key], err_msg=key)


def test_statistics_are_printed_stored_and_right(recordings, prepared):
    stored = json.loads((prepared[0] / "metadata.json").read_text())["statistics"]
    rows = [row for split in SPLITS for row in lines(recordings / f"{split}_annotations.csv")]
    for gas in GASES:
        assert sum(row[gas] for row in stored) == sum(row["gas_type"] == gas for row in rows)
    for row in stored:
        assert row["examples"] == row["co2"] + row["ch4"] - row["both"]
    assert sum(row["co2"] for row in stored if row["ph"] == 5.9) == sum(
        row["gas_type"] == "co2" and row["ph_value"] == "5.9" for row in rows
    )


def test_folds_and_pairs_by_id_have_folders_of_their_own(recordings, tmp_path):
    result = prepare(recordings, tmp_path, "--split=1/3", "--pairing=id", "--seed=2", "--name=farm")
    assert result.returncode == 0, result.stderr
    dataset = Dataset(str(tmp_path / "fume_ogi" / "farm_64x48" / "1.3.0"))
    for example in dataset.split("train"):
        if example["modality_mask"].all():
            assert example["co2_original"] == example["ch4_original"]
            assert example["co2_augmentation"] == example["ch4_augmentation"]
    assert prepare(recordings, tmp_path, "--split=1/3", "--pairing=id", "--seed=2").returncode == 0
    assert (tmp_path / "fume_ogi" / "fold1of3_paired_by_id_seed2_64x48" / "1.3.0").is_dir()


def test_a_dataset_made_of_other_files_is_not_taken_for_this_one(recordings, own, tmp_path):
    assert prepare(own, tmp_path).returncode == 0
    again = prepare(own, tmp_path).stdout
    assert "is there already, unchanged" in again
    assert f"{own / 'val_annotations.csv'}: {len(lines(own / 'val_annotations.csv'))} rows" in again
    mask = file_of(own, lines(own / "train_annotations.csv")[0]["mask_path"])
    assert cv2.imwrite(str(mask), np.zeros((48, 64), np.uint8))
    result = prepare(own, tmp_path)
    assert result.returncode == 1
    assert "holds a dataset made of other recordings" in result.stderr and "--name" in result.stderr
    assert prepare(own, tmp_path, "--name=corrected").returncode == 0


def test_frames_of_another_size_are_resized_and_that_is_said(own, tmp_path):
    row = lines(own / "train_annotations.csv")[0]
    for path in (row["frame_path"], row["mask_path"]):
        image = cv2.imread(str(file_of(own, path)), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(file_of(own, path)), cv2.resize(image, (128, 96), interpolation=cv2.INTER_NEAREST))
    result = prepare(own, tmp_path)
    assert result.returncode == 0, result.stderr
    assert "1 frame(s) of 128x96 are resized to 64x48" in result.stdout


# --- faults ---


def plant(own):
    """Every kind of fault, in rows that are told by their place; a dict of the expected faults."""
    tables = {split: lines(own / f"{split}_annotations.csv") for split in SPLITS}
    train, val, test = tables.values()
    transitional = [row["class_id"] == "1" for row in val]
    tables["val"] = val = [row for row, rare in zip(val, transitional, strict=True) if not rare]
    acidotic = [i for i, row in enumerate(train) if row["class_id"] == "2"]
    missing, damaged, size, values, gas, label, name, ph, original, dubious, outside, form, cells = acidotic[:13]
    source, group = acidotic[13:15]

    def place(split, index):
        return f"{own / f'{split}_annotations.csv'} row {index + 2}"

    file_of(own, train[missing]["frame_path"]).unlink()
    file_of(own, train[damaged]["mask_path"]).write_bytes(b"\x89PNG\r\n\x1a\n damaged")
    cv2.imwrite(str(file_of(own, train[size]["mask_path"])), np.zeros((40, 64), np.uint8))
    cv2.imwrite(str(file_of(own, train[values]["mask_path"])), np.full((48, 64), 255, np.uint8))
    train[gas]["gas_type"] = "n2o"
    train[label]["class_id"] = "3"
    train[name]["class_name"] = "Healthy"
    train[ph]["ph_value"] = "56"
    train[outside]["mask_path"] = "../masks/x.png"
    colors = np.dstack([np.zeros((48, 64, 2), np.uint8), np.ones((48, 64), np.uint8)])
    cv2.imwrite(str(file_of(own, train[form]["mask_path"])), colors)
    train[cells]["augmentation_id"] += "\0"
    train[original]["original_sample_id"] = ""
    for row in train + val + test:
        row["label_source"] = ""
    train[source]["label_source"] = "somebody"
    train[group]["recording_id"] = "2.02E+16"
    train[dubious] |= {"class_id": "0", "class_name": "Healthy"}
    train.append(train[acidotic[20]])
    shutil.copy(file_of(own, train[acidotic[21]]["frame_path"]), file_of(own, test[0]["frame_path"]))
    gas_of_other = train[acidotic[22]]["gas_type"]
    healthy = [i for i, row in enumerate(train) if (row["class_id"], row["gas_type"]) == ("0", gas_of_other)]
    earlier, contradicting = sorted((healthy[0], acidotic[22]))
    shutil.copy(file_of(own, train[earlier]["frame_path"]), file_of(own, train[contradicting]["frame_path"]))
    for split, rows in tables.items():
        rewrite(own / f"{split}_annotations.csv", rows)
    return {
        ("missing_file", place("train", missing)),
        ("unreadable_file", place("train", damaged)),
        ("size", place("train", size)),
        ("mask_values", place("train", values)),
        ("mask_form", place("train", form)),
        ("outside", place("train", outside)),
        ("table", place("train", cells)),
        ("gas", place("train", gas)),
        ("class", place("train", label)),
        ("class", place("train", name)),
        ("ph", place("train", ph)),
        ("original", place("train", original)),
        ("label_source", place("train", source)),
        ("group", place("train", group)),
        ("duplicate_row", place("train", len(train) - 1)),
        ("duplicate_frame", place("test", 0)),
        ("contradicting_frame", place("train", contradicting)),
        ("empty_class", "split val"),
        ("class_against_ph", place("train", dubious)),
    }


def test_every_fault_is_reported_in_one_run_and_nothing_else(own, tmp_path):
    expected = plant(own)
    report = tmp_path / "report.csv"
    result = prepare(own, tmp_path / "data", "--split=published", f"--report={report}")
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert {(row["kind"], row["place"]) for row in lines(report)} == expected
    rows = [int(row["place"].split()[-1]) for row in lines(report) if row["place"].startswith("train")]
    assert rows == sorted(rows)
    assert len(lines(report)) == len(expected)
    assert {kind for kind, _ in expected} == (set(KINDS) - {"no_gas"}) | {"class_against_ph"}
    for kind in set(KINDS) - {"no_gas"}:
        assert f"1 {kind}: " in result.stderr or f"2 {kind}: " in result.stderr
    assert f"Every fault is in {report}" in result.stderr
    assert not list((tmp_path / "data").rglob("*.json"))


def test_allowed_faults_drop_their_rows_and_say_how_many(own, tmp_path):
    plant(own)
    report = tmp_path / "report.csv"
    some = prepare(own, tmp_path / "data", "--split=published", f"--report={report}", "--allow=missing_file,size")
    assert some.returncode == 1
    assert "size" in {row["kind"] for row in lines(report)}, "what is allowed is listed too"
    assert "1 size: " not in some.stderr and "1 ph: " in some.stderr
    rows = sum(len(lines(own / f"{split}_annotations.csv")) for split in SPLITS)
    result = prepare(own, tmp_path / "data", "--split=published", f"--report={report}", f"--allow={','.join(KINDS)}")
    assert result.returncode == 0, result.stderr
    assert f"17 row(s) dropped, 1 warning(s). Every fault is in {report}." in result.stdout
    dataset = Dataset(str(tmp_path / "data" / "fume_ogi" / "published_64x48" / "1.3.0"))
    assert sum(e["modality_mask"].sum() for split in SPLITS for e in dataset.split(split)) == rows - 17


def test_a_class_against_its_ph_is_kept_as_annotated(own):
    rows = lines(own / "train_annotations.csv")
    changed = next(row for row in rows if row["ph_value"] == "6.2")
    changed |= {"class_id": "1", "class_name": "Transitional"}
    rewrite(own / "train_annotations.csv", rows)
    plan = make_plan(own, Options())
    assert [fault.kind for fault in plan.warnings] == ["class_against_ph"]
    stated = [r for rows in plan.pairs.values() for r in rows if (r.ph, r.label) == (6.2, 1)]
    assert [len(row.frames) for row in stated] == [1]


def test_files_of_one_name_are_told_apart_and_blank_lines_counted(own, tmp_path):
    for split in SPLITS:
        (own / split).mkdir()
        lines_of = (own / f"{split}_annotations.csv").read_text().split("\n", 1)
        (own / split / "own.csv").write_text(lines_of[0] + "\n\n" + lines_of[1])
    first = lines(own / "train" / "own.csv")[0]
    file_of(own, first["frame_path"]).unlink()
    plan = make_plan(own, Options(annotations=f"{own}/{{split}}/own.csv", split="published", allow=("missing_file",)))
    assert [fault.place for fault in plan.dropped] == [f"{own}/train/own.csv row 3"]
    frames = {split: sum(len(row.frames) for row in rows) for split, rows in plan.pairs.items()}
    assert frames == {split: plan.read[f"{own}/{split}/own.csv"] - (split == "train") for split in SPLITS}


def test_a_split_without_a_row_is_refused(own):
    rows = lines(own / "train_annotations.csv")
    one = {row["class_id"]: row["original_sample_id"] for row in rows}
    rewrite(own / "train_annotations.csv", [row for row in rows if row["original_sample_id"] in one.values()])
    options = Options(annotations=str(own / "train_annotations.csv"), allow=("empty_class",))
    with pytest.raises(UserError, match="No row is left for val, test"):
        make_plan(own, options)


def test_long_numbers_stay_different_ids():
    assert as_id("20230101123045123") != as_id("20230101123045124")
    assert as_id("007.0") == as_id("7") == "7"


def test_an_id_is_a_number_however_a_spreadsheet_writes_it(own):
    before = make_plan(own, Options())
    rows = lines(own / "train_annotations.csv")
    for row, form in zip(rows, ("{}.0", "00{}", " {} ", "{}.") * 9, strict=False):
        row["original_sample_id"] = form.format(row["original_sample_id"])
    rewrite(own / "train_annotations.csv", rows)
    make_plan.cache_clear()
    assert make_plan(own, Options()) == before


def test_the_same_pixels_in_two_splits_by_original_are_a_leak_too(own):
    before = make_plan(own, Options())
    first = {split: next(row for row in before.pairs[split] if row.label == 0) for split in ("train", "test")}
    frame = {split: row.frames[0].frame_path for split, row in first.items()}
    shutil.copy(own / frame["train"], own / frame["test"])
    make_plan.cache_clear()
    with pytest.raises(FaultyRecordings) as caught:
        make_plan(own, Options())
    assert [fault.kind for fault in caught.value.faults] == ["duplicate_frame"]
    assert frame["test"] in caught.value.faults[0].message


@pytest.mark.parametrize(
    "options, words",
    [
        (["--source=nowhere"], ["no folder nowhere"]),
        (["--annotations=missing_{split}.csv"], ["no annotation file missing_train.csv", "--annotations=PATTERN"]),
        (["--split=random"], ["--split is 'random'; expected original, published, or fold K of N"]),
        (["--split=3/3"], ["Fold 3 of 3"]),
        (["--group_by=farm"], ["--group_by is 'farm'; expected one of original, recording, subject"]),
        (["--pairing=best"], ["--pairing is 'best'; expected one of random, id"]),
        (["--allow=dust"], ["--allow knows no kind dust"]),
    ],
)
def test_a_wrong_option_is_refused_in_plain_words(recordings, tmp_path, options, words):
    result = prepare(recordings, tmp_path, *options)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr + result.stdout
    for word in words:
        assert word in result.stderr
    assert not list(tmp_path.rglob("*.json"))


# --- paired files ---


def as_reference(pairs, folder, change=lambda rows: rows):
    """Paired files as the published ones: without the ids of originals, paths as on Windows."""
    folder.mkdir()
    for split in SPLITS:
        rows = [{k: v for k, v in row.items() if "_id" not in k or k == "class_id"} for row in lines(pairs / split)]
        for row in rows:
            for key in ("co2_frame", "ch4_frame", "co2_mask", "ch4_mask"):
                row[key] = row[key] and "mmseg_dataset\\" + row[key].replace("/", "\\")
        rewrite(folder / f"{split}.csv", change(rows) if split == "train" else rows)
    return str(folder / "{split}.csv")


@pytest.fixture
def pairs(prepared, tmp_path):
    """The written pairs under the names of the splits."""
    for split in SPLITS:
        shutil.copy(prepared[1] / f"{split}_annotations.csv", tmp_path / split)
    return tmp_path


def test_pairs_without_ids_are_used_in_the_split_they_come_in_only(recordings, prepared, pairs):
    pattern = as_reference(pairs, pairs / "reference")
    for split in ("original", "0/3"):
        with pytest.raises(UserError, match="used in the split they come in"):
            make_plan(recordings, Options(annotations=pattern, split=split))
    plan = make_plan(recordings, Options(annotations=pattern, split="published"))
    assert "whether the splits leak is unknown" in plan.leak
    stored = json.loads((prepared[0] / "metadata.json").read_text())["statistics"]
    assert statistics(plan.pairs) == stored


def test_pairs_whose_originals_are_in_two_splits_are_refused_unless_asked_for(recordings, pairs):
    moved = lines(pairs / "train")
    rewrite(pairs / "val", lines(pairs / "val") + moved[:1])
    rewrite(pairs / "train", moved[1:])
    pattern = str(pairs / "{split}")
    with pytest.raises(UserError, match=rf"that leaks: \d of {RECORDINGS} recordings are in more than one split"):
        make_plan(recordings, Options(annotations=pattern))
    assert "The splits leak" in make_plan(recordings, Options(annotations=pattern, split="published")).leak
    with pytest.raises(UserError, match="--pairing=id needs the single-gas files"):
        make_plan(recordings, Options(annotations=pattern, split="published", pairing="id"))


def test_a_frame_in_two_pairs_is_a_warning_and_a_pair_that_contradicts_itself_a_fault(recordings, pairs):
    def change(rows):
        both = [row for row in rows if row["is_paired"] == "True"]
        both[0]["co2_frame"], both[0]["co2_mask"] = both[1]["co2_frame"], both[1]["co2_mask"]
        both[2]["missing_modality"] = "ch4"
        both[3]["is_paired"] = "False"
        both[4] |= {"co2_frame": "", "ch4_frame": ""}
        both[5]["ch4_mask"] = ""
        return rows

    pattern = as_reference(pairs, pairs / "changed", change)
    with pytest.raises(FaultyRecordings) as caught:
        make_plan(recordings, Options(annotations=pattern, split="published"))
    assert sorted(fault.kind for fault in caught.value.faults) == ["gas", "gas", "gas", "missing_file"]
    assert "frame_used_twice" in {fault.kind for fault in caught.value.warnings}


# --- training on it ---


@pytest.mark.slow
def test_a_model_is_trained_on_it_and_its_metrics_say_that_the_split_leaks(recordings, tmp_path):
    assert prepare(recordings, tmp_path, "--split=published").returncode == 0
    arguments = [f"--config.data.path={tmp_path / 'fume_ogi/published_64x48/1.3.0'}", f"--workdir={tmp_path / 'run'}"]
    small = {"model.backbone": "tiny", "data.height": 64, "data.width": 80, "train.epochs": 1, "log.images": 0}
    arguments += [f"--config.{key}={value}" for key, value in small.items()]
    result = run("fume_jax.main", "--config=fume:classification_only", *arguments)
    assert result.returncode == 0, result.stderr
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert f"{RECORDINGS} of {RECORDINGS} recordings" in metrics["leak"]
    assert result.stdout.count("WARNING: The splits leak") == 2
    assert 0 <= metrics["test/balanced_accuracy"] <= 1
