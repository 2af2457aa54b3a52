"""The commands as a user runs them: real processes, real files, exit codes."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest

from tests.commands import ROOT, assert_refused, run, start, train_arguments
from tests.videos import flip

REAL_FRAMES = ROOT.parent / "shared" / "data" / "ogi_real"


def read_table(path):
    return list(csv.DictReader(path.read_text().splitlines()))


@pytest.fixture
def frames(tmp_path):
    """Folders of two gases in every kind of image there is, some of it unusable."""
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 256, (96, 128), np.uint8)
    images = {
        "co2/a.png": grey,
        "ch4/a.png": grey[:, ::-1],
        "co2/colour.png": cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR),
        "ch4/deep.tiff": grey.astype(np.uint16) * 200,
        "co2/large.jpg": cv2.resize(grey, (640, 480)),
    }
    for name, image in images.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        assert cv2.imwrite(str(tmp_path / name), image)
    return tmp_path


@pytest.mark.slow
def test_training_leaves_a_complete_run_folder(trained):
    workdir, printed = trained
    files = {"config.json", "dataset.json", "validation.json", "metrics.json", ".lock"}
    assert {p.name for p in workdir.iterdir()} == files | {"checkpoints", "events", "examples", "pictures"}
    assert "36" in {p.name for p in (workdir / "checkpoints").iterdir()}
    assert list((workdir / "events").glob("events.out.tfevents.*"))
    for name in ("val_overlays", "test_overlays", "val_confusion", "test_confusion"):
        assert cv2.imread(str(workdir / "pictures" / f"{name}.png")).std() > 10
    assert "balanced_accuracy" in printed
    assert "parameters, batch 4 (4 a device), 36 steps" in printed


@pytest.mark.slow
def test_metrics_are_flat_complete_and_count_every_example_once(trained):
    metrics = json.loads((trained[0] / "metrics.json").read_text())
    for key in ("test/iou_gas", "test/co2/iou_gas", "test/ch4/iou_gas", "val/mean_iou", "test/balanced_accuracy"):
        assert 0 <= metrics[key] <= 1, key
    assert 0 <= metrics["oracle/balanced_accuracy"] <= 1
    assert 0 <= metrics["baseline/histogram/balanced_accuracy"] <= 1
    for split in ("val", "test"):
        assert sum(metrics[f"{split}/{name}_support"] for name in ("Healthy", "Transitional", "Acidotic")) == 12


@pytest.mark.slow
def test_evaluation_alone_gives_the_same_metrics(trained):
    workdir, _ = trained
    before = json.loads((workdir / "metrics.json").read_text())
    (workdir / "metrics.json").unlink()
    result = run("fume_jax.evaluate", f"--workdir={workdir}")
    assert result.returncode == 0, result.stderr
    assert json.loads((workdir / "metrics.json").read_text()) == before


@pytest.mark.slow
def test_events_hold_every_logged_step_once_and_overlays(trained):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(trained[0] / "events")).Reload()
    assert [e.step for e in events.Scalars("train/loss")] == list(range(6, 37, 6))
    assert [e.step for e in events.Scalars("val/balanced_accuracy")] == list(range(12, 37, 12))
    assert {e.step for e in events.Images("val/overlays")} <= set(range(12, 37, 12))  # TensorBoard keeps a sample
    assert events.Images("val/overlays")[-1].step == 36
    assert {"train/grad_norm", "train/learning_rate", "val/co2/iou_gas"} <= set(events.Tags()["scalars"])


@pytest.mark.slow
def test_a_run_stopped_before_its_first_step_ends_in_order(tiny_dataset, tmp_path):
    process = start("fume_jax.main", *train_arguments(tiny_dataset, tmp_path / "run"))
    while not (tmp_path / "run" / "config.json").exists():
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    printed, _ = process.communicate()
    assert process.returncode == 75, printed
    assert "stopped after step 0 of 36; the same command resumes the run" in printed
    assert "Fatal" not in printed


@pytest.mark.slow
def test_a_run_whose_loss_is_lost_says_at_which_step_and_on_what(tiny_dataset, tmp_path):
    lost = ["--config.optimizer.learning_rate=1e30", "--config.train.max_skipped_updates=3"]
    arguments = [*train_arguments(tiny_dataset, tmp_path / "run"), "--config.model.name=multi_task", *lost]
    result = run("fume_jax.main", *arguments)
    words = "not finite at step 5, after 3 skipped"
    assert_refused(result, words, "loss nan", "grad_norm", "training examples")


@pytest.mark.slow
def test_a_signal_to_all_processes_of_a_job_stops_it_like_one_to_the_first(tiny_dataset, tmp_path):
    arguments = [*train_arguments(tiny_dataset, tmp_path / "run"), "--config.data.num_workers=1"]
    process = start("fume_jax.main", *arguments, group=True)
    while not process.stdout.readline().startswith("epoch 1,"):
        assert process.poll() is None
    os.killpg(process.pid, signal.SIGTERM)
    printed = process.communicate()[0]
    assert process.returncode == 75, printed
    step = re.search(r"stopped after step (\d+) of 36", printed)[1]
    assert (tmp_path / "run" / "checkpoints" / step).is_dir()


@pytest.mark.slow
def test_a_run_that_no_longer_gains_ends_early_and_is_over_when_started_again(tiny_dataset, tmp_path):
    stopping = ["--config.early_stopping.patience=1", "--config.early_stopping.min_delta=1e9"]
    arguments = [*train_arguments(tiny_dataset, tmp_path / "run"), "--config.model.name=multi_task", *stopping]
    arguments += ["--config.log.quiet", "--config.deterministic"]  # which a CPU is anyway
    metrics = []
    for _ in range(2):
        result = run("fume_jax.main", *arguments)
        assert result.returncode == 0, result.stderr
        assert result.stdout.startswith("\nBest checkpoint: step ")
        metrics.append((tmp_path / "run" / "metrics.json").read_text())
    assert metrics[0] == metrics[1]
    assert set(json.loads((tmp_path / "run" / "validation.json").read_text())) == {"12", "24"}


@pytest.mark.slow
def test_a_run_starts_from_another_and_scores_it_first(trained, tiny_dataset, tmp_path):
    workdir, _ = trained
    # A margin that changes nothing, as gas leads somewhere in each frame.
    changed = [f"--config.init_from={workdir}", "--config.model.gas_margin=1e-9"]
    process = start("fume_jax.main", *train_arguments(tiny_dataset, tmp_path), *changed)
    printed = ""
    while "epoch 0 of 6, step 0: validation loss" not in printed and (line := process.stdout.readline()):
        printed += line
    process.terminate()
    process.communicate()
    assert process.returncode == 75, printed
    loaded = re.search(rf"\d+ arrays loaded from step (\d+) of {workdir}\n", printed)
    assert f"WARNING: config.model.gas_margin is 1e-09, and 0 in {workdir}" in printed
    before, after = (json.loads((folder / "validation.json").read_text()) for folder in (workdir, tmp_path))
    assert after["0"] == pytest.approx(before[loaded[1]], rel=1e-3)
    result = run("fume_jax.evaluate", f"--workdir={tmp_path}", "--split=val")
    assert result.returncode == 0, result.stderr
    words = f"Best checkpoint: step 0 of {tmp_path}, what it started from: no step did better in joint_score"
    assert words in result.stdout


@pytest.mark.slow
def test_prediction_handles_every_usable_image_and_lists_the_others(trained, frames):
    (frames / "co2" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    (frames / "ch4" / "empty.png").write_bytes(b"")
    output = frames / "output"
    result = run(
        "fume_jax.predict",
        f"--workdir={trained[0]}",
        f"--co2={frames / 'co2'}",
        f"--ch4={frames / 'ch4'}",
        f"--output={output}",
    )
    assert result.returncode == 2, result.stderr
    assert "broken.png: not an image" in result.stdout
    assert "empty.png: the file is empty" in result.stdout
    rows = {row["frame"]: row for row in read_table(output / "predictions.csv")}
    assert list(rows) == ["a", "colour", "deep", "large"]
    for row in rows.values():
        probabilities = [float(row[name]) for name in ("Healthy", "Transitional", "Acidotic")]
        assert sum(probabilities) == pytest.approx(1, abs=1e-3)
        assert row["class"] == ("Healthy", "Transitional", "Acidotic")[int(np.argmax(probabilities))]
    sizes = {"a_co2": (96, 128), "a_ch4": (96, 128), "colour_co2": (96, 128), "deep_ch4": (96, 128)}
    sizes["large_co2"] = (480, 640)
    for folder in ("masks", "overlays"):
        assert {p.stem for p in (output / folder).iterdir()} == set(sizes)
    for name, size in sizes.items():
        mask = cv2.imread(str(output / "masks" / f"{name}.png"), cv2.IMREAD_UNCHANGED)
        assert mask.shape == size
        assert set(np.unique(mask)) <= {0, 1, 2}
        assert cv2.imread(str(output / "overlays" / f"{name}.png")).shape == (*size, 3)
        frame, gas = name.split("_")
        assert float(rows[frame][f"{gas}_gas_fraction"]) == pytest.approx((mask == 2).mean(), abs=1e-5)
    assert rows["colour"]["ch4_gas_fraction"] == rows["deep"]["co2_gas_fraction"] == ""


@pytest.mark.slow
def test_an_evaluation_leaves_a_row_an_example_and_pictures_of_everything(trained):
    workdir, printed = trained
    rows = read_table(workdir / "examples" / "test.csv")
    metrics = json.loads((workdir / "metrics.json").read_text())
    assert [int(row["example_index"]) for row in rows] == list(range(12))
    right = np.mean([row["label"] == row["prediction"] for row in rows])
    assert right == pytest.approx(metrics["test/accuracy"])
    low, high = metrics["test/accuracy/interval"]
    assert low <= metrics["test/accuracy"] <= high
    recordings = {row["recording_index"] for row in rows}
    assert metrics["test/recording/count"] == metrics["test/groups"] == len(recordings)
    low, high = metrics["test/recording/accuracy/interval"]
    assert low <= metrics["test/recording/accuracy"] <= high
    assert "recording/Transitional_f1" in printed and "of recordings" in printed
    hd95 = [float(row[f"{gas}_hd95"]) for row in rows for gas in ("co2", "ch4") if row[f"{gas}_hd95"]]
    assert metrics["test/hd95"] == (pytest.approx(np.mean(hd95), rel=1e-4) if hd95 else None)
    assert 0 <= metrics["test/expected_calibration_error"] <= 1
    assert f"only {metrics['test/groups']} independent groups of recordings" in printed
    kinds = {"classes", "confusion", "reliability", "coverage"} | {
        f"{k}{a}" for k in ("overlays", "best", "worst") for a in ("", "_attention")
    }
    pictures = {path.stem for path in (workdir / "pictures").iterdir()}
    assert pictures == {"training", *(f"{split}_{kind}" for split in ("val", "test") for kind in kinds)}
    for picture in pictures:
        assert cv2.imread(str(workdir / "pictures" / f"{picture}.png")).std() > 10


@pytest.mark.slow
def test_averaging_over_flips_and_the_protocol_of_the_original_are_scored_beside_the_usual(trained):
    workdir, _ = trained
    before = json.loads((workdir / "metrics.json").read_text())
    tables = {}
    for name, arguments in {
        "test_tta": ["--split=test", "--tta"],
        "train": ["--split=train"],
        "train_reference": ["--split=train", "--protocol=reference"],
    }.items():
        result = run("fume_jax.evaluate", f"--workdir={workdir}", *arguments)
        assert result.returncode == 0, result.stderr
        metrics = json.loads((workdir / "metrics.json").read_text())
        assert metrics.items() >= before.items()
        assert metrics[f"{name}/loss"] != before["test/loss"]
        tables[name] = read_table(workdir / "examples" / f"{name}.csv")
        assert ("ch4_iou_gas" in tables[name][0]) == (name != "train_reference")
    # Masks of CO2 alone are scored, but of all pairs, also of those without CO2.
    without = [i for i, row in enumerate(tables["train"]) if not row["co2_mean_iou"]]
    assert len(without) == 4
    assert all(tables["train_reference"][i]["loss"] != tables["train"][i]["loss"] for i in without)
    assert "train_reference/ch4/iou_gas" not in metrics


@pytest.mark.slow
def test_an_evaluation_of_an_unknown_split_changes_nothing(trained):
    def files():
        return {p: p.stat().st_mtime_ns for p in trained[0].rglob("*") if p.is_file() and p.name != ".lock"}

    before = files()
    for argument, words in [
        ("--split=test,nope", "no split 'nope'"),
        ("--split=", "at least one split"),
        ("--data=moved", "no prepared dataset in 'moved'"),
    ]:
        assert_refused(run("fume_jax.evaluate", f"--workdir={trained[0]}", argument), words)
    assert files() == before


@pytest.mark.slow
def test_prediction_of_nothing_but_damaged_images_does_nothing(trained, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"broken")
    (tmp_path / "output").mkdir()
    (tmp_path / "output" / "predictions.csv").write_text("earlier")
    arguments = [f"--workdir={trained[0]}", f"--co2={tmp_path / 'broken.png'}", f"--output={tmp_path / 'output'}"]
    result = run("fume_jax.predict", *arguments)
    assert result.returncode == 1
    assert "broken.png: not an image" in result.stdout
    assert {p.name for p in (tmp_path / "output").iterdir()} == {".lock", "predictions.csv"}
    assert (tmp_path / "output" / "predictions.csv").read_text() == "earlier"


@pytest.mark.slow
def test_a_film_of_two_gases_is_predicted_by_the_model_shipped_whatever_is_missing_or_damaged(tmp_path):
    films, output = tmp_path / "films", tmp_path / "output"
    made = run("datasets.synthetic_ogi.film", "--name=tiny", "--frames=12", "--ch4_missing=4", f"--output={films}")
    assert made.returncode == 0, made.stderr
    flip(films / "co2.mp4", packet=5, where=0)
    arguments = [f"--{gas}={films / f'{gas}.mp4'}" for gas in ("co2", "ch4")]
    result = run("fume_jax.predict", *arguments, f"--output={output}", "--batch_size=5", "--save=video")
    assert result.returncode == 2, result.stderr
    rows = {round(float(row["time"]) * 30): row for row in read_table(output / "predictions.csv")}
    assert list(rows) == list(range(12))
    assert [i for i, row in rows.items() if row["ch4"] == "absent"] == [3, 7, 11]
    (damaged,) = (i for i, row in rows.items() if row["co2"] == "unreadable")
    assert f"skipped: {films / 'co2.mp4'} at {damaged / 30:.3f} s: not decodable" in result.stdout
    assert rows[damaged]["ch4"] == "read" and rows[damaged]["class"] and not rows[damaged]["co2_gas_pixels"]
    assert {path.name for path in output.iterdir()} == {
        ".lock",
        "annotated.mp4",
        "predictions.csv",
        "predictions.jsonl",
        "recording.html",
        "recording.json",
        "timeline.png",
    }
    settings = json.loads((output / "recording.json").read_text())["settings"]
    assert settings["ch4"] == str(films / "ch4.mp4") and (settings["model"], settings["rate"]) == ("fume", None)


@pytest.mark.slow
@pytest.mark.skipif(not REAL_FRAMES.is_dir(), reason="the real camera frames are not part of the project")
def test_real_camera_frames_are_predicted_at_their_own_size(trained, tmp_path):
    frame = next(p for p in sorted(REAL_FRAMES.glob("*.png")) if "mask" not in p.name)
    arguments = [f"--workdir={trained[0]}", f"--co2={frame}", f"--output={tmp_path}"]
    assert run("fume_jax.predict", *arguments).returncode == 0
    assert cv2.imread(str(tmp_path / "masks" / f"{frame.stem}_co2.png"), cv2.IMREAD_UNCHANGED).shape == (480, 640)


@pytest.mark.slow
def test_a_run_folder_of_another_config_is_refused(trained, tiny_dataset):
    arguments = [*train_arguments(tiny_dataset, trained[0]), "--config.train.epochs=7"]
    words = "another config", "train.epochs: 6 there, 7 now", "--config.init_from="
    assert_refused(run("fume_jax.main", *arguments), *words)


@pytest.mark.parametrize(
    "override, words",
    [
        ("--config.train.batchsize=8", ["batchsize", 'Did you mean "batch_size"']),
        ("--config.loss.gama=1", ["There is no config key 'gama'", "configs/fume.py"]),
        ("--config.train.batch_size=many", ["batch_size", "many"]),
        ("--config.seed=-1", ["config.seed is -1; expected"]),
        (
            "--config.train.gradient_accumulation_steps=3",
            ["config.train.batch_size is 4, which 1 devices cannot share evenly in 3 parts"],
        ),
        ("--workdir=README.md", ["README.md is a file; expected a folder"]),
        ("--work=x", ["There is no flag --work; did you mean --workdir?"]),
        ("--wokdir=x", ["There is no flag --wokdir; did you mean --workdir"]),
        ("--zzz", ["There is no flag --zzz; --help lists the flags."]),
    ],
)
def test_a_wrong_setting_is_refused_in_plain_words(tmp_path, tiny_dataset, override, words):
    result = run("fume_jax.main", *train_arguments(tiny_dataset, tmp_path / "run"), override)
    assert_refused(result, *words)


def test_a_key_of_a_config_that_is_not_named_is_refused():
    result = run("fume_jax.main", "--config.seed=3", "--workdir=x")
    assert_refused(result, "There is no flag --config.seed; expected --config=NAME before it")


def test_a_batch_that_the_devices_cannot_share_is_refused(tmp_path, tiny_dataset):
    result = run("fume_jax.main", *train_arguments(tiny_dataset, tmp_path / "run"), devices=8)
    assert_refused(result, "config.train.batch_size is 4, which 8 devices cannot share evenly", "such as 8")
    assert not (tmp_path / "run").exists()


def test_a_run_of_another_version_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model": {"name": "fume", "dtype": "float32"}}')
    assert_refused(run("fume_jax.evaluate", f"--workdir={tmp_path}"), "another version", "lacks a key")


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--co2=README.md", "--save=masks,film"], ["--save=masks,film", "masks, overlays, video"]),
        (["--co2=README.md", "--workdir=a", "--model=b.onnx"], ["--workdir", "--model", "not both"]),
        ([], ["at least one gas"]),
    ],
)
def test_mistakes_in_a_prediction_are_said_in_plain_words(tmp_path, arguments, words):
    assert_refused(run("fume_jax.predict", *arguments, f"--output={tmp_path / 'out'}"), *words)
    assert not (tmp_path / "out").exists()


def test_columns_of_a_list_of_recordings_that_are_not_read_are_told(tmp_path):
    (tmp_path / "list.csv").write_text("id,co2,ch4,mm\na,a.png,,0.5\n")
    arguments = [f"--recordings={tmp_path / 'list.csv'}", f"--output={tmp_path / 'out'}", "--workdir=nowhere"]
    result = run("fume_jax.predict", *arguments)
    assert result.returncode == 1
    assert f"note: {tmp_path / 'list.csv'} has columns that are not read: mm; known are" in result.stdout


def test_the_largest_frame_is_a_flag(tmp_path, frames):
    arguments = [f"--co2={frames / 'co2/a.png'}", f"--output={tmp_path / 'out'}", "--max_megapixels=0.01"]
    result = run("fume_jax.predict", *arguments)
    assert result.returncode == 1
    assert "128x96 is more than 0.01 megapixels; --max_megapixels" in result.stdout


def test_folders_without_a_frame_in_common_or_at_all_are_refused(tmp_path, frames):
    (frames / "co2" / "a.png").unlink()
    common = ["--workdir=nowhere", f"--output={tmp_path / 'out'}"]
    result = run("fume_jax.predict", *common, f"--co2={frames / 'co2'}", f"--ch4={frames / 'ch4'}")
    assert_refused(result, "predict one gas at a time")
    (frames / "none").mkdir()
    assert_refused(run("fume_jax.predict", *common, f"--co2={frames / 'none'}"), "holds no image")


@pytest.mark.parametrize(
    "module",
    [
        *(f"fume_jax.{name}" for name in ("main", "evaluate", "predict", "convert", "export", "app", "summary")),
        "fume_jax.commands.review",
        "fume_jax.commands.watch",
        "datasets.synthetic_ogi",
        "datasets.synthetic_ogi.film",
        "datasets.fume_ogi",
        "datasets.fume_ogi.example",
    ],
)
def test_help_answers_before_anything_heavy_is_imported(module):
    command = [sys.executable, "-X", "importtime", "-m", module, "--help"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert "--" in result.stdout and result.returncode == 0
    imported = {line.split("|")[-1].strip() for line in result.stderr.splitlines()}
    assert not imported & {"jax", "flax", "tensorflow_datasets", "tensorflow", "cv2"}


def test_the_accelerator_benchmark_needs_only_the_learning_floor():
    script = "import sys, benchmarks.gpu; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    result = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60)
    imported = set(result.stdout.split())
    assert {"jax", "flax", "optax"} <= imported
    assert not imported & {"grain", "tensorflow_datasets", "ml_collections", "orbax", "cv2", "tensorboardX"}
