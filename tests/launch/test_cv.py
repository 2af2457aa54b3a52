"""Cross-validation as a user runs it: folds of whole recordings, a run of every fold and seed, scores of them all."""

import csv
import json

import pytest

from fume_jax.data.dataset import Dataset
from fume_jax.data.folds import cut_folds, read_folds, stored_values, write_folds
from launch.plan import Run
from tests.commands import assert_refused, run
from tests.launch.six import states

# Numbers of pairs and recordings of the dataset `tiny`.
PAIRS, RECORDINGS = 48, 24


@pytest.fixture
def words(tiny_dataset, tmp_path):
    """Words of a command that cross-validates with fake trainings."""
    flags = [
        f"--data={tiny_dataset}",
        f"--output={tmp_path}/cv",
        "--config=fume:multi_task",
        "--gpus=0",
        "--parallel=2",
    ]
    return ["tests.launch.fake_training", "launch.cv", *flags, "--set=train.epochs=1"]


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_dry_run_shows_a_training_for_each_fold_and_seed_and_writes_nothing(words, tmp_path):
    result = run(*words, "--folds=3", "--seeds=2", "--dry_run")
    assert result.returncode == 0, result.stderr
    shown = [line for line in result.stdout.splitlines() if "fume_jax.main" in line]
    assert len(shown) == 6
    for i, line in enumerate(shown):
        assert f"--config.data.fold={i // 2} " in line and f"--config.seed={i % 2} " in line
        assert f"--config.data.folds={tmp_path}/cv/folds.csv " in line
        assert line.endswith(f"--workdir={tmp_path}/cv/fume_multi_task-fold_{i // 2}-seed_{i % 2} --num_processes=1")
    assert not (tmp_path / "cv").exists()


@pytest.mark.slow
def test_folds_are_trained_scored_together_and_gone_on_with(words, tmp_path):
    first = run(*words, "--folds=3")
    assert first.returncode == 0, first.stdout + first.stderr
    names = [f"fume_multi_task-fold_{fold}-seed_0" for fold in range(3)]
    assert states(first.stdout) == dict.fromkeys(names, "done")
    folds = read_folds(tmp_path / "cv" / "folds.csv")
    assert set(folds) == set(range(RECORDINGS)) and set(folds.values()) == {0, 1, 2}
    assert "fume_multi_task: 24 examples of 24 groups of recordings, one seed" in first.stdout

    again = run(*words, "--folds=3", "--seeds=2")
    assert again.returncode == 0, again.stdout + again.stderr
    assert "3 of 6 runs to do" in again.stdout
    scores = {row["metric"]: row for row in rows_of(tmp_path / "cv" / "scores.csv")}
    # Seed 1 gets a recording of each fold wrong: 3 of 24.
    assert float(scores["accuracy"]["pooled"]) == pytest.approx((1 + 21 / 24) / 2)
    assert (scores["accuracy"]["runs"], scores["accuracy"]["method"]) == ("6", "BCa")
    rows = rows_of(tmp_path / "cv" / "out_of_fold.csv")
    assert sorted((row["seed"], int(row["recording_index"])) for row in rows) == [
        (seed, recording) for seed in "01" for recording in range(RECORDINGS)
    ]
    assert all(folds[int(row["recording_index"])] == int(row["fold"]) for row in rows)

    shown = run(*words, "--seeds=2", "--status")
    assert shown.returncode == 0 and "the mean of 2 seeds" in shown.stdout
    assert_refused(run(*words, "--folds=3", "--seed=9"), "folds.csv has other folds. Use another --output")


def test_folds_of_a_file_are_used_if_every_class_can_be_trained(words, tiny_dataset, tmp_path):
    values = stored_values(Dataset(tiny_dataset))
    label_of = dict(zip(values["recording_index"].tolist(), values["label"].tolist(), strict=True))
    fold_of = cut_folds(values["recording_index"], values["label"], 4, seed=1)
    write_folds(tmp_path / "mine.csv", fold_of)
    result = run(*words, f"--splits={tmp_path}/mine.csv", "--dry_run")
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("fume_jax.main") == 4
    assert_refused(run(*words, f"--splits={tmp_path}/mine.csv", "--folds=5"), "--folds is 5; ", "mine.csv has 4 folds")

    # Transitional recordings are in two folds next to each other.
    few = {recording: fold % 2 if label_of[recording] == 1 else fold for recording, fold in fold_of.items()}
    write_folds(tmp_path / "few.csv", few)
    result = run(*words, f"--splits={tmp_path}/few.csv", "--dry_run")
    assert "Fold 3 has no recording of Transitional: its own test scores leave that out." in result.stdout
    assert_refused(result, "The trainings of fold 0 have no recording of Transitional: a class needs recordings in at")

    write_folds(tmp_path / "more.csv", fold_of | {24: 0})
    assert_refused(run(*words, f"--splits={tmp_path}/more.csv"), "1 recordings are not in the dataset (24)")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--sweep=launch/sweeps/seeds.py"], "There are --config and --sweep; expected one of them."),
        (["--folds=25"], "The dataset has 24 independent groups of recordings, too few for 25 folds."),
        (["--set=train.epoch=1"], 'Did you mean "epochs"'),
        (["--status"], "There is no file"),
    ],
)
def test_mistakes_are_refused_before_anything_is_written(flags, said, words, tmp_path):
    assert_refused(run(*words, *flags), said)
    assert not (tmp_path / "cv").exists()


def test_a_cloud_must_have_the_table_of_folds():
    assert Run("x", "fume", {"data.folds": "runs/cv/folds.csv"}).needs.files == ["runs/cv/folds.csv"]
    assert Run("x", "fume", {}).needs.files == []


@pytest.mark.slow
def test_real_trainings_test_the_recordings_of_their_folds(tiny_dataset, tmp_path):
    (tmp_path / "tiny.py").write_text(
        "import tests.tiny\nfrom configs import demo\n\ndef get_config():\n"
        "    config = demo.get_config()\n    config.model.backbone = 'tiny'\n    return config\n"
    )
    small = {"train.epochs": 1, "data.height": 64, "data.width": 80, "optimizer.warmup_epochs": 0, "log.images": 0}
    settings = [f"--set={key}={value}" for key, value in (small | {"eval.every_epochs": 1}).items()]
    flags = [f"--config={tmp_path}/tiny.py", f"--data={tiny_dataset}", f"--output={tmp_path}/cv", "--gpus=0"]
    result = run("launch.cv", *flags, "--folds=3", *settings, seconds=1200)
    assert result.returncode == 0, result.stdout + result.stderr
    folds, tested = read_folds(tmp_path / "cv" / "folds.csv"), []
    for fold in range(3):
        folder = tmp_path / "cv" / f"tiny-fold_{fold}-seed_0"
        own = [int(row["recording_index"]) for row in rows_of(folder / "examples" / "test.csv")]
        assert {folds[recording] for recording in own} == {fold}
        described = json.loads((folder / "dataset.json").read_text())
        assert described["name"].endswith(f"fold {fold} of 3") and sum(described["pairs"].values()) == PAIRS
        tested += own
    assert len(tested) == PAIRS and set(tested) == set(range(RECORDINGS))
    assert "tiny: 48 examples of 24 groups of recordings, one seed" in result.stdout
