"""Frames to label next: planted faults are scored, frames are found again in any source, and written whole."""

import contextlib
import csv
import json
import shutil
import sys
import types
import zipfile
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from fume_jax.data import labels
from fume_jax.data.labels.manifest import mask_digest, read_manifest
from fume_jax.data.recording_list import Recording, read_recordings
from fume_jax.data.sources import open_source
from fume_jax.inference.predictor import Predictor
from fume_jax.inference.recording import predict_recording
from fume_jax.inference.recordings import find_settings, predict_recordings
from fume_jax.inference.review import review
from fume_jax.inference.review_scores import SelectedFrames, find_predicted
from fume_jax.inference.settings import FOUND, open_predicted
from fume_jax.runtime.errors import DONE, PARTLY_DONE, UserError
from tests.inference.test_predictor import CARD

HEIGHT, WIDTH = 64, 80
GAS, DOUBT, ONE_SIDED = 255, 130, 200
# Frames of a film in which the model errs, and by which score that shows.
PLANTED = {7: "uncertainty", 13: "disagreement", 20: "jump"}


class Planted:
    """Finds gas where a frame is bright, and in the left half also where it is less so; grey of 130 is in doubt."""

    card = CARD

    def __call__(self, co2_frame, ch4_frame, modality_mask):
        outputs = {"cls_logits": np.zeros((len(modality_mask), 3))}
        for gas, frame in (("co2", co2_frame), ("ch4", ch4_frame)):
            grey = np.rint((frame + 1) * 127.5)
            left = np.arange(WIDTH)[:, None] < WIDTH // 2
            found = (grey == GAS) | ((grey == ONE_SIDED) & left)
            sure = np.where(grey == DOUBT, 0.0, 9.0)
            outputs[f"{gas}_seg_logits"] = np.concatenate([sure * ~found, 0 * sure, sure * found], -1)
        return outputs


def film(seed):
    """30 frames with a plume on a wall of its own, and those of `PLANTED`."""
    wall = np.random.default_rng(seed).integers(0, 100, (HEIGHT, WIDTH))
    frames = np.repeat(wall[None], 30, axis=0).astype(np.uint8)
    frames[:, 20:40, 20:40] = GAS
    frames[7, 40:50, 20:40] = DOUBT
    frames[13, 0:6, 0:40] = ONE_SIDED
    frames[20, 20:36, 20:40] = 0
    return frames


@pytest.fixture(scope="module")
def predicted(tmp_path_factory):
    """A list of recordings, predicted: one of two gases, and one of CH4, the former of a known animal."""
    folder = tmp_path_factory.mktemp("predicted")
    for seed, name in enumerate(("a_co2", "a_ch4", "b")):
        np.savez(folder / f"{name}.npz", frames=film(seed), rate=10.0)
    rows = ["id,co2,ch4,start_s,ph,class_name,subject", "a,a_co2.npz,a_ch4.npz,,5.9,Transitional,07", "b,,b.npz,0.5,,,"]
    (folder / "list.csv").write_text("\n".join(rows))
    with contextlib.chdir(folder):
        assert predict() == DONE
    return folder


@pytest.fixture
def films(predicted, tmp_path, monkeypatch):
    """A copy of the predicted films, which is the current folder."""
    shutil.copytree(predicted, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(autouse=True)
def written(monkeypatch):
    """What was given to the writers of labels, of which there are fakes."""
    calls = {}

    def many(tool):
        def write(path, entries):
            calls[path] = dict(entries)
            path.write_text(tool)

        return types.SimpleNamespace(write=write)

    def one(path, image_name, mask, *, exact):
        assert (path.parent / image_name).exists()
        calls[path] = (image_name, mask, exact)

    for tool in ("labelme", "cvat", "coco"):
        fake = types.SimpleNamespace(write=one) if tool == "labelme" else many(tool)
        monkeypatch.setitem(sys.modules, f"fume_jax.data.labels.{tool}", fake)
        monkeypatch.setattr(labels, tool, fake, raising=False)
    return calls


def predict(table="list.csv"):
    options = {"batch_size": 4, "products": ()}
    return predict_recordings(Predictor(Planted()), read_recordings(table), "predictions", **options)


def chosen(output="review", predictions="predictions", code=DONE, **options):
    """Rows of the review of predictions."""
    options = {"count": 8, "to": "labelme"} | options
    assert review(Predictor(Planted()), predictions, output, **options) == code
    return read_manifest(Path(output) / "review.csv")


def test_frames_in_which_the_model_errs_have_high_scores(films):
    rows = chosen(count=500)
    for recording, gas, first in (("a", "co2", 0), ("a", "ch4", 0), ("b", "ch4", 5)):
        found = {row.frame_index: row for row in rows if (row.recording, row.gas) == (recording, gas)}
        assert set(PLANTED) <= set(found) and min(found) >= first, "positions are those in the file, not in the part"
        for position, score in PLANTED.items():
            others = [getattr(row, score) for i, row in found.items() if i != position]
            assert getattr(found[position], score) > max(others)
            assert found[position].frame == f"frame_{position:06d}" and found[position].time == position / 10
    assert [row.score for row in rows] == sorted((row.score for row in rows), reverse=True)


def test_frames_like_no_other_are_not_chosen(films):
    rows = chosen(count=9)
    assert not {row.frame_index for row in rows} & set(PLANTED)
    shares = Counter((row.recording, row.gas) for row in rows)
    assert {shares["b", "ch4"], shares["a", "co2"] + shares["a", "ch4"]} == {4, 5}
    assert shares["a", "co2"] - shares["a", "ch4"] in (-1, 0, 1)


def test_a_row_says_where_a_frame_is_from_and_what_was_predicted(films, written):
    rows = {(row.recording, row.gas, row.frame_index): row for row in chosen(count=500)}
    row = rows["a", "ch4", 7]
    assert (row.source, row.ph, row.class_name, row.subject) == ("./a_ch4.npz", 5.9, "Transitional", "7")
    assert (rows["b", "ch4", 7].ph, rows["b", "ch4", 7].class_name, rows["b", "ch4", 7].subject) == (None, "", "")
    assert row.image == "a/a_frame_000007_ch4.png" and row.model == "fume 1"
    image = cv2.imread(f"review/images/{row.image}", cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(image, film(1)[7])
    name, mask, exact = written[Path("review/images/a/a_frame_000007_ch4.json")]
    assert name == "a_frame_000007_ch4.png" and not exact
    np.testing.assert_array_equal(mask, 2 * (film(1)[7] == GAS))
    assert row.mask_digest == mask_digest(mask)
    # 200 pixels in doubt, of 64 x 80; the plume is steady, and is found in the mirrored frame.
    assert (row.uncertainty, row.jump, row.disagreement) == (pytest.approx(200 / (HEIGHT * WIDTH), abs=3e-3), 0, 0)


def test_the_contact_sheet_shows_all_chosen_frames(films):
    chosen(count=12)
    sheet = cv2.imread("review/contact_sheet.jpg")
    assert sheet.shape == (3 * 240, 4 * 320, 3) and sheet.std() > 20


@pytest.mark.parametrize("tool", ["cvat", "coco"])
def test_other_tools_get_all_masks_in_one_file(films, written, tool):
    rows = chosen(to=tool)
    path = {"cvat": "annotations.xml", "coco": "annotations/instances_review.json"}[tool]
    masks = written[Path("review") / path]
    assert {row.image: row.mask_digest for row in rows} == {name: mask_digest(mask) for name, mask in masks.items()}
    if tool == "cvat":
        with zipfile.ZipFile("review/images.zip") as file:
            assert set(file.namelist()) == set(masks)


def test_polygons_are_written_unless_masks_are_asked_for(films, written):
    chosen(exact=True)
    assert {exact for _, _, exact in written.values()} == {True}


def test_the_choice_is_bounded_and_repeatable(films):
    first = chosen("first", per_recording=2)
    assert {row.recording: sum(x.recording == row.recording for x in first) for row in first} == {"a": 2, "b": 2}
    assert chosen("second", per_recording=2) == first


def test_fewer_frames_than_asked_for_are_said(films, capsys):
    assert len(chosen(count=500)) == 85  # 30 of either gas, and 25 of the part
    assert "there are not 500 to choose" in capsys.readouterr().out


def test_long_recordings_are_scored_in_part(films, capsys):
    rows = chosen(count=500, most=6)
    assert "a: 30 frames, of which 6 are scored (--candidates)" in capsys.readouterr().out
    assert {row.frame_index for row in rows if row.recording == "a"} == {0, 6, 12, 17, 23, 29}
    assert len(rows) == 18


def test_a_source_that_is_gone_is_told_and_left_out(films, capsys):
    (films / "b.npz").unlink()
    assert {row.recording for row in chosen(code=PARTLY_DONE)} == {"a"}
    assert "left out: b: There is no file or folder ./b.npz" in capsys.readouterr().out
    for path in films.glob("*.npz"):
        path.unlink()
    with pytest.raises(UserError, match="No frame of predictions could be scored"):
        review(Predictor(Planted()), "predictions", "other", count=3, to="coco")
    assert not (films / "other").exists()


def test_predictions_that_failed_or_are_not_complete_are_left_out(films, capsys):
    (films / "list.csv").write_text((films / "list.csv").read_text() + "\nc,nowhere.npz,,,,,")
    predict()
    (films / "predictions" / "b" / "recording.json").unlink()
    assert {row.recording for row in chosen(code=PARTLY_DONE)} == {"a"}
    out = capsys.readouterr().out
    assert "left out: b: its prediction is not complete" in out
    assert "left out: c: There is no file or folder" in out


def test_frames_that_changed_since_are_told(films, capsys):
    np.savez(films / "b.npz", frames=film(2)[:15], rate=10.0)
    assert len(chosen(count=500, code=PARTLY_DONE)) == 60 + 10
    assert "skipped: frame_000029 was predicted, and is not in the source any more" in capsys.readouterr().out


def test_images_are_found_again_by_their_names(films, written):
    (films / "frames").mkdir()
    for i, frame in enumerate(film(0)):
        for gas in ("co2", "ch4"):
            cv2.imwrite(str(films / "frames" / f"{i}:00_{gas}.png"), frame)
    predictor = Predictor(Planted())
    settings = find_settings(predictor, Recording("single", "frames", "frames"), None, 4)
    source = open_source("frames", "frames")
    options = {"batch_size": 4, "products": (), "settings": settings}
    assert predict_recording(predictor, source, "single", **options) == DONE
    (films / "frames" / "7:00_co2.png").write_bytes(b"damaged")
    rows = {(row.frame, row.gas): row for row in chosen(predictions="single", count=500, code=PARTLY_DONE)}
    for name in ("13:00", "20:00"):
        row = rows[name, "co2"]
        assert (row.recording, row.time, row.frame_index) == ("single", None, -1)
        assert row.source == f"frames/{name}_co2.png"
        assert row.image.startswith(f"single/single_{name[:2]}_00~") and row.image.endswith("_co2.png")
    assert ("7:00", "ch4") in rows and ("7:00", "co2") not in rows


def test_a_folder_that_may_hold_corrections_is_refused(films):
    chosen()
    before = (films / "review" / "review.csv").stat().st_mtime_ns
    with pytest.raises(UserError, match="review is not empty, and masks in it may be corrected ones"):
        chosen()
    assert (films / "review" / "review.csv").stat().st_mtime_ns == before
    (films / "frames").mkdir()
    with pytest.raises(UserError, match="There is no folder nowhere"):
        chosen("other", "nowhere")
    with pytest.raises(UserError, match="frames holds no prediction that is complete"):
        chosen("other", "frames")


def test_frames_of_a_prediction_have_the_names_and_times_of_its_tables(films):
    for name, count in (("a", 30), ("b", 25)):
        (recording,) = (found for found in find_predicted(films / "predictions")[0] if found.name == name)
        table = list(csv.DictReader((films / "predictions" / name / "predictions.csv").read_text().splitlines()))
        pairs = list(open_predicted(recording.settings).pairs)
        assert [(pair.name, str(pair.time)) for pair in pairs] == [(row["frame"], row["time"]) for row in table]
        assert len(pairs) == count
        frames = SelectedFrames(open_predicted(recording.settings), ["frame_000009", "frame_000007"])
        assert [pair.name for pair, _ in frames] == ["frame_000007", "frame_000009"] and frames.left_out == 0


def test_an_offset_that_was_found_is_kept(films, monkeypatch):
    monkeypatch.setattr(
        "fume_jax.inference.recordings.find_offset", lambda *_, **__: types.SimpleNamespace(seconds=0.3)
    )
    shutil.rmtree(films / "predictions")
    (films / "list.csv").write_text("id,co2,ch4,offset_s\na,a_co2.npz,a_ch4.npz,auto")
    predict()
    settings = json.loads((films / "predictions" / "a" / "recording.json").read_text())["settings"]
    assert (settings["offset"], settings[FOUND]) == ("auto", 0.3)
    first = next(pair for pair in open_predicted(settings).pairs if len(pair.frames) == 2)
    assert first.positions == {"co2": 0, "ch4": 3}
    assert predict() == DONE, "a prediction whose offset was found is done"
    del settings[FOUND]
    with pytest.raises(UserError, match="does not say where its frames are; predict it anew"):
        open_predicted(settings)


def test_labels_of_the_list_are_handed_on_and_do_not_invalidate_predictions(films):
    table = (films / "predictions" / "a" / "predictions.csv").stat().st_mtime_ns
    (films / "list.csv").write_text((films / "list.csv").read_text().replace("5.9,Transitional,07", "6.2,Healthy,8"))
    assert predict() == DONE
    assert (films / "predictions" / "a" / "predictions.csv").stat().st_mtime_ns == table
    labels = {(row.ph, row.class_name, row.subject) for row in chosen(count=12) if row.recording == "a"}
    assert labels == {(6.2, "Healthy", "8")}


def test_one_recording_and_many_are_told_apart(films):
    shutil.copytree(films / "predictions" / "b", films / "alone")
    assert [found.name for found in find_predicted(films / "alone")[0]] == ["alone"]
    assert [found.name for found in find_predicted(films / "predictions")[0]] == ["a", "b"]
