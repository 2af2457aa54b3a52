"""Tables come first and always; names, folders and failures of what comes besides them do no harm."""

import csv
import json
import os
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from fume_jax.data.sources import Pair, Source
from fume_jax.evaluation import overlays
from fume_jax.inference.output import output_folder
from fume_jax.inference.predictor import Predictor
from fume_jax.inference.recording import predict_recording
from fume_jax.runtime.errors import DONE, PARTLY_DONE, UserError
from tests.commands import ROOT, assert_refused, run
from tests.inference.test_predictor import Known, half_bright
from tests.runtime.test_preflight import on_small_disk

NOT_UTF8 = os.fsdecode(b"pr\xe9_1")
SEVEN_HOURS = 7 * 3600.0


def predict(output, names=("a", "b", "c"), times=(0.0, 0.1, 0.2), **options):
    """Predicts frames of these names and times of a film; returns the exit code, and the rows of both tables."""
    pairs = [Pair(name, time, {"co2": half_bright(64, 80)}) for name, time in zip(names, times, strict=False)]
    code = predict_recording(Predictor(Known()), Source(pairs, ("co2",), rate=10.0), output, batch_size=2, **options)
    with open(Path(output) / "predictions.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return code, rows, list(map(json.loads, (Path(output) / "predictions.jsonl").read_text().splitlines()))


# --- names ---


@pytest.mark.parametrize("folder", [os.fsdecode(b"sa\xefda"), "[2024]", "a b%d'\"=1", "ü"])
def test_names_and_folders_may_hold_any_bytes(tmp_path, folder):
    code, rows, lines = predict(tmp_path / folder, [NOT_UTF8, "b", "%d[1]"])
    assert code == DONE
    assert [row["frame"] for row in rows] == [line["frame"] for line in lines] == ["pr\\udce9_1", "b", "%d[1]"]
    for product in ("masks", "overlays"):
        written = {os.fsencode(path.name) for path in (tmp_path / folder / product).iterdir()}
        assert written == {b"pr\xe9_1_co2.png", b"b_co2.png", b"%d[1]_co2.png"}
    for name in ("annotated.mp4", "timeline.png"):
        assert (tmp_path / folder / name).stat().st_size > 1000


def test_long_names_get_a_mask_each(tmp_path):
    names = ["x" * 250 + end for end in ("1", "2")]
    code, rows, _ = predict(tmp_path, names)
    assert code == DONE and [row["frame"] for row in rows] == names
    assert len(list((tmp_path / "masks").iterdir())) == len(list((tmp_path / "overlays").iterdir())) == 2


@pytest.mark.parametrize("name", ["../x", "/x", "a/b", "a\0"])
def test_a_name_that_leads_elsewhere_is_told_and_writes_nothing_there(tmp_path, capsys, name):
    code, rows, _ = predict(tmp_path / "out", [name, "b"])
    assert code == PARTLY_DONE and [row["frame"] for row in rows] == [name, "b"]
    assert [path.name for path in (tmp_path / "out" / "masks").iterdir()] == ["b_co2.png"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"] and not Path("/x_co2.png").exists()
    assert "is no file name" in capsys.readouterr().out


def test_a_frame_named_like_a_formula_is_text_in_spreadsheets(tmp_path):
    names = ['=HYPERLINK("http:a","b")', "@x", "-1"]
    code, rows, lines = predict(tmp_path, names)
    assert code == DONE
    assert [row["frame"] for row in rows] == [f"'{name}" for name in names]
    assert [line["frame"] for line in lines] == names
    assert all(
        float(row["co2_direction_degrees"] or 0) == (line["co2_direction_degrees"] or 0)
        for row, line in zip(rows, lines, strict=True)
    )


# --- by-products ---


def occupy(*names):
    """Makes folders where files belong, and a file where a folder belongs, before the prediction."""

    def make(output):
        for name in names:
            if name.endswith("/"):
                (output / name.rstrip("/")).mkdir(parents=True)
            else:
                (output / name).write_text("occupied")

    return make


FAILURES = {
    "masks": (occupy("masks"), "masks/a_co2 could not be made: "),
    "one mask": (occupy("masks/b_co2.png/"), "masks/b_co2 could not be made: Is a directory"),
    "overlays": (occupy("overlays"), "overlays/a_co2 could not be made: "),
    "film": (occupy("annotated.mp4/"), "annotated.mp4 could not be made: Is a directory"),
    "timeline": (occupy("timeline.png/"), "timeline.png could not be made: Is a directory"),
    "everything": (
        occupy("masks", "overlays", "annotated.mp4/", "timeline.png/"),
        "masks: 1 more could not be made",
    ),
}


@pytest.mark.parametrize(("spoil", "words"), FAILURES.values(), ids=FAILURES)
def test_what_comes_besides_the_tables_may_fail(tmp_path, capsys, spoil, words):
    spoil(tmp_path)
    code, rows, lines = predict(tmp_path, "abcd", (0.0, 0.1, 0.2, 0.3))
    assert code == PARTLY_DONE
    assert [row["frame"] for row in rows] == [line["frame"] for line in lines] == list("abcd")
    assert words in capsys.readouterr().out
    assert not list(tmp_path.rglob("*.part"))


def test_a_pause_of_seven_hours_costs_the_film_alone(tmp_path, capsys):
    code, rows, _ = predict(tmp_path, "abc", (0.0, 0.1, SEVEN_HOURS))
    assert code == PARTLY_DONE and [float(row["time"]) for row in rows] == [0.0, 0.1, SEVEN_HOURS]
    assert "WARNING: annotated.mp4 could not be made: " in capsys.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} == {
        "predictions.csv",
        "predictions.jsonl",
        "masks",
        "overlays",
        "timeline.png",
        "recording.html",
        "recording.json",
    }


@pytest.mark.parametrize("error", [ValueError("of a library"), MemoryError(), cv2.error("of OpenCV")])
def test_whatever_a_drawing_raises_the_tables_are_there(tmp_path, monkeypatch, capsys, error):
    def draw(*_, **__):
        raise error

    monkeypatch.setattr(overlays, "overlay", draw)
    code, rows, _ = predict(tmp_path, products=("overlays",))
    assert code == PARTLY_DONE and len(rows) == 3 and "overlays/a_co2 could not be made" in capsys.readouterr().out


def test_tables_that_cannot_be_written_are_an_error_and_earlier_ones_stay(tmp_path, monkeypatch):
    (tmp_path / "predictions.csv").write_text("earlier")
    monkeypatch.setattr(json, "dumps", lambda *_: "x" * 2**16)

    class Full:
        def __getattr__(self, name):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("fume_jax.inference.output.csv.writer", lambda file: Full())
    with pytest.raises(UserError, match=r"The disk is full \(No space left on device\): a prediction could not"):
        predict(tmp_path, products=())
    assert [path.name for path in tmp_path.iterdir()] == ["predictions.csv"]
    assert (tmp_path / "predictions.csv").read_text() == "earlier"


def test_a_picture_replaces_the_earlier_one_whole_or_not_at_all(tmp_path, monkeypatch):
    picture = np.zeros((8, 8), np.uint8)
    overlays.save(tmp_path / "new" / "a.png", picture)
    before = (tmp_path / "new" / "a.png").read_bytes()

    def cut(path, data):
        with open(path, "wb") as file:
            file.write(bytes(data)[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", cut)
    with pytest.raises(OSError, match="No space"):
        overlays.save(tmp_path / "new" / "a.png", picture + 255)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.png"]
    assert (tmp_path / "new" / "a.png").read_bytes() == before


# --- the folder ---


def test_one_prediction_a_folder_and_leftovers_of_killed_ones_go(tmp_path):
    output = tmp_path / "new" / "out"
    with output_folder(str(output), [None, "film.mp4"]):
        for name in ("predictions.csv.part", "masks/a.png.part", "overlays/b.png.part", "masks/c.png"):
            (output / name).parent.mkdir(exist_ok=True)
            (output / name).touch()
        with (
            pytest.raises(UserError, match=r"Another process is predicting into .*out; .* another --output"),
            output_folder(str(output), []),
        ):
            pass
        assert (output / "masks" / "a.png.part").exists()
    with output_folder(str(output), []):
        left = [path.relative_to(output) for path in sorted(output.rglob("*")) if path.is_file()]
        assert list(map(str, left)) == [".lock", "masks/c.png"]


@pytest.mark.parametrize(
    ("output", "frames"),
    [
        ("frames", "frames"),
        ("frames/", "./frames/."),
        ("frames/out", "frames"),
        ("link/out", "frames"),
        ("frames/out", "frames/**/*.png"),
        ("frames", "frames/*_co2.png"),
        ("fra", "fra*/*.png"),
        ("new", "*/masks/*.png"),
    ],
)
def test_a_folder_whose_files_would_be_taken_for_frames_is_refused(tmp_path, monkeypatch, output, frames):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "frames").mkdir()
    (tmp_path / "link").symlink_to("frames")
    with (
        pytest.raises(UserError, match=r"--output=.* lies among the frames of .*Choose a folder elsewhere"),
        output_folder(output, [None, frames]),
    ):
        pass
    assert {path.name for path in tmp_path.iterdir()} == {"frames", "link"} and not any(Path("frames").iterdir())


@pytest.mark.parametrize(
    ("output", "frames"),
    [("out", "frames"), ("frames_out", "frames"), ("out", "*.png"), ("frames", "frames/a.png"), ("out", "fr*/*.png")],
)
def test_a_folder_elsewhere_is_fine(tmp_path, monkeypatch, output, frames):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "frames").mkdir()
    (tmp_path / "frames" / "a.png").touch()
    with output_folder(output, [frames, None]):
        assert Path(output).is_dir()


@pytest.mark.parametrize("kind", ["file", "fifo", "below a file"])
def test_what_is_no_folder_is_refused(tmp_path, kind):
    path = tmp_path / "x"
    os.mkfifo(path) if kind == "fifo" else path.touch()
    output = str(path / "out" if kind == "below a file" else path)
    words = r"--output=.*cannot be written|is a file" if kind == "below a file" else "is a file already; name a folder"
    with pytest.raises(UserError, match=words), output_folder(output, []):
        pass


def test_a_folder_that_cannot_be_written_is_told_before_the_model_is_loaded(tmp_path):
    example = ROOT / "fume_jax/assets/examples/healthy_jet_co2.png"
    (tmp_path / "file").touch()
    result = run("fume_jax.predict", f"--co2={example}", "--workdir=nowhere", f"--output={tmp_path / 'file' / 'out'}")
    assert_refused(result, str(tmp_path / "file"))
    assert "nowhere" not in result.stderr


def test_a_disk_that_can_only_be_read_is_told(tmp_path):
    code = "from fume_jax.inference.output import output_folder; output_folder('{0}', []).__enter__()"
    result = on_small_disk(tmp_path, "1m,ro", f'{sys.executable} -c "{code.format(tmp_path)}"')
    assert "UserError: " in result.stderr and "cannot be written: " in result.stderr, result.stderr


def test_logits_near_the_largest_float_are_finite():
    class Huge(Known):
        def __call__(self, **inputs):
            return {name: np.sign(x).astype(np.float32) * 3e38 for name, x in super().__call__(**inputs).items()}

    prediction = Predictor(Huge())(co2=half_bright(64, 80))
    assert prediction.plumes["co2"].area_pixels == 64 * 40


# --- probabilities of pixels ---


def test_probabilities_of_pixels_have_the_size_of_the_model_and_give_the_mask_back(tmp_path):
    pairs = [Pair(name, i / 10, {"co2": half_bright(128, 160)}) for i, name in enumerate("abc")]
    source = Source(pairs, ("co2",), rate=10.0)
    options = {"batch_size": 2, "products": ("masks", "probabilities")}
    assert predict_recording(Predictor(Known()), source, tmp_path, **options) == DONE
    assert len(list((tmp_path / "probabilities").iterdir())) == 3 and not (tmp_path / "overlays").exists()
    with np.load(tmp_path / "probabilities" / "b_co2.npz") as file:
        found = {name: file[name] for name in file.files}
    assert list(found) == ["background", "tube", "gas"]
    assert {(x.shape, x.dtype) for x in found.values()} == {((64, 80), np.dtype(np.float16))}
    np.testing.assert_allclose(sum(found.values()).astype(float), 1, atol=2e-3)
    grey = 250 / 127.5 - 1
    levels = np.exp([0, -grey - 0.9, grey - 0.1])
    assert found["gas"][5, 79] == pytest.approx(levels[2] / levels.sum(), abs=1e-3)
    # Logarithms differ from logits by a number that all classes share, so that they give the same mask.
    enlarged = [cv2.resize(np.log(x.astype(np.float32)), (160, 128)) for x in found.values()]
    mask = cv2.imread(str(tmp_path / "masks" / "b_co2.png"), cv2.IMREAD_UNCHANGED)
    assert (np.argmax(enlarged, 0) == mask).mean() > 0.999


def test_probabilities_that_cannot_be_written_are_told(tmp_path, capsys):
    (tmp_path / "probabilities").touch()
    code, rows, _ = predict(tmp_path, products=("probabilities",))
    assert code == PARTLY_DONE and len(rows) == 3
    assert "probabilities/a_co2 could not be made: " in capsys.readouterr().out
