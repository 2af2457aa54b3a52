"""Where scores go, and which dataset a run belongs to."""

import json
import shutil
from pathlib import Path

import pytest

from tests.commands import assert_refused, run, train_arguments


def files(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def other_dataset(tiny_dataset, tmp_path):
    """The same examples as those that another preparation made."""
    folder = Path(shutil.copytree(tiny_dataset, tmp_path / "other"))
    metadata = json.loads((folder / "metadata.json").read_text())
    (folder / "metadata.json").write_text(json.dumps(metadata | {"digest": "of others"}))
    return folder


@pytest.mark.slow
def test_scores_go_where_they_are_wanted_and_another_dataset_is_told(trained, other_dataset, tmp_path):
    workdir, before = trained[0], files(trained[0])
    arguments = [f"--workdir={workdir}", f"--data={other_dataset}", "--split=test", f"--output={tmp_path}/scores"]
    result = run("fume_jax.evaluate", *arguments)
    assert result.returncode == 0, result.stderr
    assert f"WARNING: {workdir} was trained on synthetic_ogi/tiny/3.0.0 (24 train, 12 val" in result.stdout
    assert f"Wrote {tmp_path}/scores/metrics.json" in result.stdout
    assert files(workdir) == before
    assert {path.name for path in (tmp_path / "scores").iterdir()} == {"metrics.json", "examples", "pictures", ".lock"}
    scores, own = (json.loads((folder / "metrics.json").read_text()) for folder in (tmp_path / "scores", workdir))
    assert scores["test/loss"] == own["test/loss"]
    assert scores["dataset"] == own["dataset"] and scores["dataset_digest"] != own["dataset_digest"]


def test_a_dataset_prepared_anew_behind_its_path_is_refused(trained, tiny_dataset, other_dataset, tmp_path):
    workdir = tmp_path / "run"
    (workdir / "checkpoints" / "6").mkdir(parents=True)
    shutil.copy(trained[0] / "dataset.json", workdir)
    config = (trained[0] / "config.json").read_text()
    (workdir / "config.json").write_text(config.replace(str(tiny_dataset), str(other_dataset)))
    result = run("fume_jax.main", *train_arguments(other_dataset, workdir))
    assert_refused(
        result, f"{workdir} holds a run that was trained on another dataset", "there: synthetic_ogi", "now: "
    )


@pytest.mark.slow
def test_a_run_that_is_further_than_its_dataset_asks_for_ends(trained, tiny_dataset, tmp_path):
    workdir = Path(shutil.copytree(trained[0], tmp_path / "run"))
    (workdir / "dataset.json").unlink()  # of an earlier version
    (workdir / "checkpoints" / "36").rename(workdir / "checkpoints" / "42")  # as if there had been more pairs
    result = run("fume_jax.main", *train_arguments(tiny_dataset, workdir))
    assert result.returncode == 0, result.stderr
    assert "resuming after step 42" in result.stdout and "Best checkpoint: step " in result.stdout
    assert (workdir / "dataset.json").exists()


@pytest.mark.slow
def test_scores_of_a_damaged_file_are_written_anew(trained, tmp_path):
    (tmp_path / "metrics.json").write_text("[]")
    result = run("fume_jax.evaluate", f"--workdir={trained[0]}", "--split=test", f"--output={tmp_path}")
    assert result.returncode == 0, result.stderr
    assert f"WARNING: {tmp_path}/metrics.json is damaged" in result.stdout
    assert "test/loss" in json.loads((tmp_path / "metrics.json").read_text())
