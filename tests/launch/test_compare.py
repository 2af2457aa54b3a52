"""Comparison of runs with a main one: numbers of cases done by hand, and everything that is left out is told."""

import csv
import math

import numpy as np
import pytest

from fume_jax.runtime.errors import UserError
from launch import comparison, scored
from tests.commands import assert_refused, run
from tests.launch.scored_runs import write_run

RECORDINGS = np.repeat(np.arange(40), 2)
# By pair: main is right in all; the other one is wrong in both pairs of the first ten recordings, and finds less gas.
WRONG = RECORDINGS >= 10


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Main and two others with two seeds each, a model of masks with one, and a run of other data."""
    folder = tmp_path_factory.mktemp("runs")
    for seed in (0, 1):
        write_run(folder / f"main-seed_{seed}", RECORDINGS, RECORDINGS >= 0, 8 + seed)
        write_run(folder / f"worse-seed_{seed}", RECORDINGS, WRONG, 6 + RECORDINGS % 2)
        write_run(folder / f"alike-seed_{seed}", RECORDINGS, RECORDINGS > 0, 8 + seed)
    write_run(folder / "masks-seed_0", RECORDINGS, WRONG, 9, classes=False)
    write_run(folder / "foreign-seed_0", RECORDINGS, WRONG, digest="other")
    return folder


@pytest.fixture(scope="module")
def entries(folder):
    runs, _ = scored.read_runs(folder, sorted(path.parent.name for path in folder.glob("*/config.json")))
    pooled, notes = scored.pool(runs)
    assert notes == []
    return comparison.select(pooled, "main")


def test_an_entry_of_other_examples_is_left_out_and_told(entries):
    main, others, notes = entries
    assert (main.entry, [own.entry for own in others]) == ("main", ["alike", "masks", "worse"])
    assert notes == ["foreign is left out: it was scored on other examples than main."]


def test_differences_are_those_of_the_means_over_seeds(entries):
    rows = comparison.compare_metrics(*entries[:2])
    gas = {row.run: row for row in rows if row.metric == "iou_gas"}
    assert list(gas) == ["main", "alike", "masks", "worse"], "main first"
    assert (gas["main"].seeds, gas["main"].mean) == (2, pytest.approx(0.85))
    assert gas["main"].sd == pytest.approx(0.1 / 2**0.5)
    assert math.isnan(gas["main"].difference)
    assert (gas["alike"].difference, gas["alike"].p) == (0.0, 1.0)
    assert gas["worse"].difference == pytest.approx(0.85 - 0.65)
    # Groups of recordings have 0.25 and 0.15 more in turn: mean 0.2, deviation 0.05.
    assert gas["worse"].effect == pytest.approx(0.2 / (0.05 * (40 / 39) ** 0.5))
    assert gas["worse"].low == pytest.approx(0.2 - 1.96 * 0.05 / 40**0.5, abs=0.003)
    assert gas["worse"].effect_low < gas["worse"].effect < gas["worse"].effect_high
    assert math.isnan(gas["alike"].effect)
    # Three comparisons: the smallest p counts three times.
    assert gas["worse"].p_holm == pytest.approx(3 * gas["worse"].p)
    right = {row.run: row for row in rows if row.metric == "accuracy"}
    assert list(right) == ["main", "alike", "worse"]
    assert right["worse"].difference == pytest.approx(0.25)
    assert right["worse"].p_holm == pytest.approx(2 * right["worse"].p)


def test_classes_of_recordings_are_compared_by_mcnemar(entries):
    alike, worse = comparison.compare_classes(*entries[:2])
    assert (alike.run, alike.recordings, alike.main_alone, alike.other_alone, alike.p) == ("alike", 40, 1, 0, 1.0)
    assert (worse.main_alone, worse.other_alone, worse.p) == (10, 0, pytest.approx(2 / 2**10))
    assert worse.p_holm == pytest.approx(4 / 2**10)


def test_what_is_too_little_is_said(entries, tmp_path):
    main, others, _ = entries
    said = comparison.caveats(main, others, comparison.compare_classes(main, others))
    assert said == [
        "masks has one seed; the differences may be those of chance in training.",
        "main and alike disagree about 1 recordings; McNemar's test needs 6 to find a difference.",
    ]
    for name in ("a", "b"):
        write_run(tmp_path / name, [0, 0, 0, 1], [1, 1, 1, 1])
        write_run(tmp_path / f"{name}1", [0, 0, 0, 0], [1, 1, 1, 1], digest="one")
    few = {own.entry: own for own in scored.pool(scored.read_runs(tmp_path, ["a", "b", "a1", "b1"])[0])[0]}
    said = comparison.caveats(few["a"], [few["b"]], [])
    assert said[0] == "There are only 2 independent groups of recordings; intervals and p-values mean little."
    assert said[1].startswith("a, b have one seed each")
    said = comparison.caveats(few["a1"], [few["b1"]], [])
    assert said[0].startswith("The test examples are of one group of recordings, so nothing can be said")


def test_the_command_prints_markdown_and_writes_tables(tmp_path):
    write_run(tmp_path / "main-seed_0", RECORDINGS, RECORDINGS >= 0, 8)
    write_run(tmp_path / "worse-seed_0", RECORDINGS, WRONG, 6)
    write_run(tmp_path / "foreign-seed_0", RECORDINGS, WRONG, digest="other")
    (tmp_path / "waiting-seed_0").mkdir()
    (tmp_path / "waiting-seed_0" / "config.json").write_text("{}")
    result = run("launch.compare", f"--runs={tmp_path}", "--main=main", f"--output={tmp_path}/out")
    assert result.returncode == 2, result.stderr
    assert "### iou_gas\n\n| run | seeds | mean | sd | main less it |" in result.stdout
    assert "| worse | 1 | 0.600 | - | 0.200 | 0.200 to 0.200 | < 0.001 | < 0.001 | - |" in result.stdout
    assert "### recording/balanced_accuracy" in result.stdout and "### mean_iou" not in result.stdout
    assert "| worse | 40 | 10 | 0 | inf | " in result.stdout
    assert (
        "foreign is left out" in result.stdout and "waiting-seed_0 is left out: it is not scored yet." in result.stdout
    )
    rows = list(csv.DictReader((tmp_path / "out" / "comparison.csv").open()))
    worse = next(row for row in rows if (row["metric"], row["run"]) == ("iou_gas", "worse"))
    assert float(worse["difference"]) == pytest.approx(0.2)
    assert next(row for row in rows if row["run"] == "main")["p"] == ""
    assert [row["run"] for row in csv.DictReader((tmp_path / "out" / "classes.csv").open())] == ["worse"]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--main=mine"], "--main is mine; expected one of two or more scored entries"),
        (["--main=main", "--metrics=iou"], "--metrics has iou; expected some of iou_gas, mean_iou"),
    ],
)
def test_names_that_there_are_not_are_refused_with_those_that_there_are(flags, words, folder):
    assert_refused(run("launch.compare", f"--runs={folder}", *flags), words)


def test_a_run_in_place_of_its_folder_is_told_with_the_folder(folder):
    with pytest.raises(UserError, match=rf"main-seed_0 is a single run; .* in: --runs=.*{folder.name}\.$"):
        comparison.load(folder / "main-seed_0", None, least=1)
