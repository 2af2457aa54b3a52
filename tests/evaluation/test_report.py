"""Which examples a report shows."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from configs import fume
from fume_jax.evaluation.report import (
    _earlier_scores,
    _measure_training_frames,
    _write_metrics,
    choose_examples,
    identity,
    intervals,
)
from fume_jax.inference.jax_backends import create_card
from fume_jax.runtime.byproducts import ByProducts
from fume_jax.runtime.console import Console
from fume_jax.runtime.errors import UserError
from tests.commands import run
from tests.evaluation.test_certainty import Frames


def table(loss, recordings):
    return {
        "example_index": np.arange(len(loss)),
        "recording_index": np.array(recordings),
        "loss": np.array(loss, float),
    }


def test_best_and_worst_are_one_of_a_recording_in_order_of_loss():
    chosen = choose_examples(table([0.5, 0.1, 0.2, 0.9, 0.8, np.nan], [1, 2, 2, 3, 3, 4]))
    assert chosen["best"].tolist() == [1, 0, 4]
    assert chosen["worst"].tolist() == [3, 0, 2]
    assert chosen["overlays"].tolist() == [0, 1, 2, 3, 4, 5]


def test_where_no_example_has_a_loss_none_is_best():
    assert set(choose_examples(table([np.nan, np.nan], [1, 2]))) == {"overlays"}


def test_intervals_are_over_recordings_also_of_their_own_scores():
    rng = np.random.default_rng(0)
    # Ten recordings of four pairs, half of them classified rightly in every pair.
    labels, recordings = np.repeat(np.arange(10) % 2, 4), np.repeat(np.arange(10), 4)
    right = (recordings < 5)[:, None]
    truth = np.eye(3)[labels]
    probabilities = 0.8 * np.where(right, truth, np.roll(truth, 1, 1)) + 0.2 * rng.dirichlet([1, 1, 1], 40)
    confusions = np.zeros((40, 3, 3), int)
    confusions[np.arange(40), labels, probabilities.argmax(1)] = 1
    found = {"labels": labels, "recording_index": recordings, "probabilities": probabilities}
    found = intervals(found | {"cls_confusion": confusions})
    names = {"accuracy", "balanced_accuracy", "macro_f1"}
    assert found.keys() == names | {f"recording/{name}" for name in names | {"Transitional_f1"}}
    # All pairs of a recording agree, so that recordings say what pairs do.
    for name in names:
        assert found[f"recording/{name}"] == pytest.approx(found[name])
    low, high = found["recording/accuracy"]
    assert low < 0.5 < high
    assert intervals({"recording_index": recordings, "co2_confusion": 7 * confusions}).keys() >= {"iou_gas"}


def test_limits_and_training_frames_reach_the_card_of_the_model(tmp_path):
    loader = SimpleNamespace(options=SimpleNamespace(height=6, width=8), dataset=Frames(5))
    measured = _measure_training_frames(loader, ByProducts())
    scores = {"val": {"temperature": 1.5, "abstain_below": 0.5, "recording/abstain_below": np.nan}}
    dataset = SimpleNamespace(name="frames", digest="1", bounds={}, leak="")
    for further in (measured, {}):  # the second time as a later evaluation that does not measure them
        path, source = tmp_path / "metrics.json", {"step": 3} | identity(dataset)
        content = _earlier_scores(path, source, Console()) | source | further
        _write_metrics(path, content, scores, {"val": {}}, dataset)
        card = create_card(fume.get_config(), 3, json.loads((tmp_path / "metrics.json").read_text()))
        assert (card.temperature, card.abstain_below, card.recording_abstain_below) == (1.5, 0.5, None)
        assert card.training_frames == measured["training_frames"] and card.training_frames["size"] == [12, 16]


def test_training_frames_that_cannot_be_read_are_told_and_left_out(capsys):
    def damaged(name):
        raise UserError("it is damaged")

    options, by_products = SimpleNamespace(height=6, width=8), ByProducts()
    loader = SimpleNamespace(options=options, dataset=SimpleNamespace(split=damaged))
    assert _measure_training_frames(loader, by_products) == {} and by_products.failures["training_frames"] == 1
    assert "a summary of the training frames could not be made: it is damaged" in capsys.readouterr().out


@pytest.mark.slow
def test_pictures_and_tables_that_cannot_be_written_do_not_cost_the_scores(trained, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(trained[0], workdir, ignore=shutil.ignore_patterns("metrics.json", "examples", "pictures"))
    (workdir / "examples").touch()  # files where folders belong
    (workdir / "pictures").touch()
    result = run("fume_jax.evaluate", f"--workdir={workdir}", "--split=test")
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    expected = json.loads((trained[0] / "metrics.json").read_text())
    metrics = json.loads((workdir / "metrics.json").read_text())
    assert {key: expected[key] for key in metrics} == metrics
    lines = result.stdout.splitlines()
    told = [i for i, line in enumerate(lines) if line.startswith("WARNING: ") and "could not be made" in line]
    assert len(told) == 5 and "pictures: 8 more could not be made" in lines[told[-1]]
    assert any(f"{workdir}/examples/test.csv could not be made: " in line for line in lines)
    assert told[0] > next(i for i, line in enumerate(lines) if line.startswith("iou_gas"))  # scores come first
