"""The report on a folder of runs: its numbers are those of cases done by hand, and its page needs no other file."""

import base64
import csv
import dataclasses
import html.parser
import math
import types

import numpy as np
import pytest
from flax import nnx
from hypothesis import given
from hypothesis import strategies as st

from configs.fume import get_config
from fume_jax.models import count_parameters, create_model
from fume_jax.runtime.byproducts import ByProducts
from fume_jax.training.checkpoint import save_config
from launch import scored
from launch.study import charts, cost, page, panel, published, style, tables
from launch.study.gather import gather
from tests.commands import assert_refused, run
from tests.launch.scored_runs import write_run

RECORDINGS = np.repeat(np.arange(24), 2)


def write_entry(folder, name, right, gas, **options):
    """A scored run with a real config, of a small model."""
    run_folder = folder / name
    write_run(run_folder, RECORDINGS, right, gas, config=False, **options)
    config = get_config()
    config.model.backbone = "tiny"
    config.data.height, config.data.width = 64, 80
    config.model.tasks = "segmentation" if options.get("classes") is False else None
    save_config(config, run_folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The main entry with two seeds, one that is worse in gas and in classes, one without classes."""
    folder = tmp_path_factory.mktemp("study")
    for seed in (0, 1):
        write_entry(folder, f"reference-seed_{seed}", RECORDINGS >= 0, 8 + seed)
    write_entry(folder, "less_&_worse-seed_0", RECORDINGS >= 8, 6 + RECORDINGS % 2)
    write_entry(folder, "masks-seed_0", RECORDINGS >= 0, 9, classes=False)
    return folder


@pytest.fixture(scope="module")
def study(folder):
    return gather(folder, None, timed=False)


@pytest.fixture(scope="module")
def report(study, tmp_path_factory):
    """The folder of the report, and what could not be drawn."""
    output, told = tmp_path_factory.mktemp("output"), []
    page.write_report(output, study, None, ByProducts(told.append))
    return output, told


def test_the_main_entry_comes_first_with_scores_and_sizes_of_its_model(study):
    assert [entry.name for entry in study.entries] == ["reference", "less_&_worse", "masks"]
    assert study.main.score("iou_gas") == pytest.approx(0.85)
    assert study.main.score("co2/iou_gas") == pytest.approx(0.85)
    assert math.isnan(study.entries[2].score("macro_f1"))
    model = nnx.eval_shape(lambda: create_model("fume", backbone="tiny", rngs=nnx.Rngs(0)))
    assert study.main.cost.parameters == count_parameters(model)
    assert study.entries[2].cost.parameters < study.main.cost.parameters
    assert math.isnan(study.main.cost.milliseconds)


def test_models_are_timed_once_each_and_in_turns(study, monkeypatch):
    # On a machine that gets slower with every call, masks alone take half of the time.
    now, called = [0.0], []

    def compile_model(model):
        def call():
            called.append(model.options.tasks)
            now[0] += (1 if model.options.tasks == "segmentation" else 2) * 1e-3 * (1 + len(called) // 2)

        return call

    monkeypatch.setattr(cost, "_compile", compile_model)
    monkeypatch.setattr(cost, "time", types.SimpleNamespace(perf_counter=lambda: now[0]))
    costs = cost.measure_costs([entry.config for entry in study.entries], timed=True)
    assert called[:4] == ["both", "segmentation"] * 2
    assert len(called) == 2 * (cost.WARM_UP + cost.TURNS), "reference and the worse one are the same model"
    assert costs[0].milliseconds == costs[1].milliseconds == pytest.approx(2 * costs[2].milliseconds, rel=0.1)
    assert costs[0].milliseconds == pytest.approx(2 * (1 + cost.WARM_UP + cost.TURNS / 2), rel=0.1)
    costs = [dataclasses.replace(found, milliseconds=2.0) for found in costs]
    entries = [dataclasses.replace(entry, cost=own) for entry, own in zip(study.entries, costs, strict=True)]
    table = tables.create_tables(dataclasses.replace(study, entries=entries, device="a CPU"))[2]
    assert table.head[-2:] == ["ms a pair", "pairs a second"] and table.rows[0][-2:] == ["2.00", "500"]
    assert table.notes[0] == "Time of one pair on a CPU; frames of 80x64."


def test_distances_are_means_over_the_frames_that_have_them():
    # Frames of CO2 with 2 and 4 pixels, one of CH4 with 9: each frame counts once.
    counts = {"co2_confusion": np.diag([8, 1, 1]), "ch4_confusion": np.diag([8, 1, 1])}
    counts |= {"co2_distances": np.array([6.0, 3.0, 2.0]), "ch4_distances": np.array([9.0, 6.0, 1.0])}
    found = scored.all_metrics(counts)
    assert (found["co2/hd95"], found["co2/asd"]) == (3.0, 1.5)
    assert (found["hd95"], found["asd"]) == (5.0, 3.0)
    none = scored.all_metrics(counts | {"co2_distances": np.zeros(3)})
    assert math.isnan(none["co2/hd95"]) and none["hd95"] == 9.0


def test_tables_have_means_and_spreads_and_published_rows_that_are_marked(study):
    segmentation, classification, cost, differences = tables.create_tables(study)
    column = list(segmentation.head).index("gas IoU")
    assert segmentation.rows[0][column] == "0.850 ± 0.071"
    assert segmentation.rows[1][column] == "0.650"
    assert "CH4 gas IoU" not in segmentation.head, "a column that no entry has"
    marked = {row[0]: row for row in segmentation.rows if row[0].endswith("*")}
    assert marked["FUME *"][list(segmentation.head).index("mIoU")] == "0.810"
    assert published.NOTE in segmentation.notes and "other data" in published.NOTE
    assert classification.rows[2][1:] == ["-"] * (len(classification.head) - 1)
    assert not any("second" in heading for heading in cost.head), "speed was not measured"
    worse = next(row for row in differences.rows if row[:2] == ["less_&_worse", "gas IoU"])
    assert worse[2] == "-0.200" and worse[4] == "< 0.001"
    assert "Speed is not measured." in cost.notes


def test_files_of_tables_are_escaped_and_whole(report, study):
    output, _ = report
    tex = (output / "tables.tex").read_text()
    assert r"less\_\&\_worse & " in tex and r"0.850 $\pm$ 0.071" in tex
    assert tex.count(r"\toprule") == tex.count(r"\end{table}") == 4
    assert "| reference | " in (output / "tables.md").read_text()
    rows = list(csv.DictReader((output / "scores.csv").read_text().splitlines()))
    gas = next(row for row in rows if (row["run"], row["metric"]) == ("reference", "iou_gas"))
    assert [float(gas[name]) for name in ("pooled", "low", "high")] == pytest.approx([0.85] * 3), "alike in all"
    assert {row["metric"] for row in rows if "other data" in row["run"]} > {"hd95", "milliseconds"}


def test_every_figure_is_drawn_in_all_formats_or_told(report):
    output, told = report
    drawn = {path.name for path in (output / "figures").iterdir()}
    names = ("architecture", "scores", "classes", "confusions", "differences", "tradeoff")
    assert drawn == {f"{name}.{suffix}" for name in names for suffix in ("svg", "pdf", "png")}, "no logs of training"
    (line,) = told
    assert "Predictions of reference-seed_0 could not be made" in line and "no checkpoint" in line


def test_the_same_figure_is_the_same_file(study, tmp_path):
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        with style.styled():
            style.save(charts.scores_figure(study), folder, "scores")
    for suffix in style.FORMATS:
        assert (tmp_path / f"a/scores.{suffix}").read_bytes() == (tmp_path / f"b/scores.{suffix}").read_bytes()


def test_the_page_needs_no_other_file_and_has_every_figure(report):
    output, _ = report
    parser, seen = html.parser.HTMLParser(), []
    parser.handle_starttag = lambda tag, attributes: seen.append((tag, dict(attributes)))
    parser.feed((output / "report.html").read_text())
    links = [value for _, own in seen for name, value in own.items() if name in ("href", "src", "srcset")]
    assert links and all(link.startswith(("#", "data:image/")) for link in links)
    ids = {own["id"] for _, own in seen if "id" in own}
    assert {link[1:] for link in links if link.startswith("#")} == ids
    pictures = [own for tag, own in seen if tag == "img"]
    assert len(pictures) == 6 and all(own["alt"] for own in pictures)
    svg = base64.b64decode(pictures[0]["src"].partition(",")[2])
    assert svg == (output / "figures" / "architecture.svg").read_bytes()
    assert "less_&amp;_worse" in (output / "report.html").read_text()


def test_differences_are_drawn_on_the_side_that_is_worse(study):
    axes = charts.deltas_figure(study).axes[0]
    marks = {line.get_marker(): line for line in axes.lines if line.get_marker() not in ("None", None, "")}
    assert marks["v"].get_xdata()[0] == pytest.approx(-0.2), "0.65 less 0.85"
    assert marks["^"].get_xdata()[0] == pytest.approx(0.05), "0.9 less 0.85"


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=12))
def test_the_front_has_every_point_that_no_other_beats(points):
    array = np.array(points, float).reshape(-1, 2)
    front = charts.pareto(array)
    beaten = [any((c <= a and s >= b) and (c, s) != (a, b) for c, s in points) for a, b in points]
    assert {points[i] for i in front} == {point for point, lost in zip(points, beaten, strict=True) if not lost}
    assert array[front, 0].tolist() == sorted(set(array[front, 0]))


def test_points_without_a_score_are_not_on_the_front():
    assert charts.pareto(np.array([[1, np.nan], [2, 0.5], [np.nan, 0.9]])) == [1]


def test_curves_are_averaged_at_the_steps_that_all_runs_have():
    steps, values = charts.shared_steps([([1, 2, 3], [0.1, 0.2, 0.3]), ([2, 3, 4], [0.4, 0.5, 0.6])])
    assert steps.tolist() == [2, 3] and values.tolist() == [[0.2, 0.3], [0.4, 0.5]]
    assert len(charts.shared_steps([])[0]) == 0


def test_the_pair_of_median_loss_of_each_class_is_drawn(tmp_path):
    rows = [("0", "Healthy", "0.9"), ("1", "Healthy", "0.1"), ("2", "Healthy", "0.2"), ("3", "Acidotic", "7")]
    rows += [("4", "Acidotic", ""), ("5", "Healthy", "0.3")]
    lines = ["example_index,label,loss", *(",".join(row) for row in rows)]
    (tmp_path / "test.csv").write_text("\n".join(lines))
    assert panel.choose_pairs(tmp_path / "test.csv") == {"Healthy": 2, "Acidotic": 3}


def test_a_panel_has_a_column_for_everything_that_there_is():
    frame, mask = np.zeros((2, 64, 80, 1), np.float32), np.zeros((2, 64, 80), int)
    batch = {"co2_frame": frame, "ch4_frame": frame, "co2_mask": mask, "ch4_mask": mask}
    batch |= {"modality_mask": np.array([[1.0, 1.0], [1.0, 0.0]]), "labels": np.array([0, 2])}
    outputs = {"cls_logits": np.eye(3)[:2], "co2_seg_logits": np.zeros((2, 64, 80, 3))}
    figure = panel.draw_panel(batch, outputs, {"co2_to_ch4": np.ones((2, 2, 3))}, 2)
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert titles == ["CO2 frame", "CH4 frame", "CO2 truth", "CO2 predicted", "where CO2\nlooks in CH4"]
    labels = [axes.get_ylabel() for axes in figure.axes if "\nas " in axes.get_ylabel()]
    assert labels == ["Healthy\nas Healthy", "Acidotic\nas Transitional"]


@pytest.mark.slow
def test_the_command_writes_a_report_and_says_what_it_lacks(folder, tmp_path):
    result = run("launch.report", f"--runs={folder}", f"--output={tmp_path}/out", "--nospeed")
    assert result.returncode == 2, result.stderr
    assert "could not be made" in result.stdout
    assert "less_&_worse, masks have one seed each" in result.stdout
    assert f"Wrote {tmp_path}/out/report.html" in result.stdout
    assert (tmp_path / "out" / "report.html").stat().st_size > 1e5
    refused = run("launch.report", f"--runs={folder}", f"--output={tmp_path}/out", "--main=mine")
    assert_refused(refused, "--main is mine; expected one of the scored entries of", "less_&_worse, masks, reference")


@pytest.mark.slow
def test_a_trained_run_has_its_predictions_and_its_curves_drawn(trained, tmp_path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "fume-seed_0").symlink_to(trained[0])
    result = run("launch.report", f"--runs={tmp_path}/runs", f"--output={tmp_path}/out")
    assert result.returncode == 0, result.stdout + result.stderr
    drawn = {path.stem for path in (tmp_path / "out" / "figures").glob("*.png")}
    assert {"predictions", "training", "tradeoff"} <= drawn and "differences" not in drawn
    rows = csv.DictReader((tmp_path / "out" / "scores.csv").read_text().splitlines())
    values = {row["metric"]: row["pooled"] for row in rows if row["run"] == "fume"}
    assert float(values["hd95"]) > 0 and float(values["milliseconds"]) > 0
