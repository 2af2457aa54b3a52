"""From films to labels and back: what the README does, on small films."""

import numpy as np
import pytest

from datasets.synthetic_ogi.recording import read_truth
from fume_jax.data.labels.manifest import read_manifest
from fume_jax.data.video import read_video
from tests.commands import assert_refused, run
from tests.datasets.test_import import mask_in, rows_of


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    folder = tmp_path_factory.mktemp("films") / "films"
    made = run("datasets.synthetic_ogi.film", "--recordings=3", "--frames=4", "--width=96", f"--output={folder}")
    assert made.returncode == 0, made.stderr
    assert all(name in made.stdout for name in ("Healthy", "Transitional", "Acidotic"))
    return folder


def test_another_camera_has_the_other_polarity_and_half_the_contrast(films, tmp_path):
    arguments = ["--recordings=1", "--frames=2", "--width=96", "--other_camera", f"--output={tmp_path}"]
    assert run("datasets.synthetic_ogi.film", *arguments).returncode == 0
    (own,) = tmp_path.glob("recording*/co2.mp4")
    (_, other), (_, same) = (next(iter(read_video(str(path)))) for path in (own, films / own.parent.name / "co2.mp4"))
    other, same = (frame[..., 0].astype(float) for frame in (other, same))
    slope = np.polyfit(same.ravel(), other.ravel(), 1)[0]
    assert -0.6 < slope < -0.25
    truth = [read_truth(path)["co2"] for path in (own.parent, films / own.parent.name)]
    np.testing.assert_array_equal(truth[0][0], truth[1][0])


@pytest.mark.slow
def test_frames_that_are_predicted_chosen_and_corrected_come_back_as_they_were_filmed(films, tmp_path):
    predicted, review = tmp_path / "predicted", tmp_path / "review"
    for module, *arguments in (
        ("fume_jax.predict", f"--recordings={films / 'recordings.csv'}", f"--output={predicted}", "--save="),
        ("fume_jax.commands.review", f"--predictions={predicted}", "--frames=5", "--to=labelme", f"--output={review}"),
        ("datasets.synthetic_ogi.annotator", f"--review={review}", f"--films={films}"),
        ("datasets.fume_ogi.import_labels", "--from=labelme", f"--source={review}", f"--output={tmp_path / 'own'}"),
    ):
        done = run(module, *arguments)
        assert done.returncode == 0, done.stderr
    chosen, rows = read_manifest(review / "review.csv"), rows_of(review)
    assert len(chosen) == len(rows) == 5
    for row in chosen:
        truth = read_truth(films / row.recording)[row.gas][row.frame_index]
        path = f"masks/{row.recording}/{row.frame}_{row.gas}.png"
        np.testing.assert_array_equal(mask_in(review, path), truth)
        assert float(rows[path]["ph_value"]) == row.ph
        assert rows[path]["label_source"] == "person"


def test_the_annotator_says_what_is_missing(films, tmp_path):
    assert_refused(run("datasets.synthetic_ogi.annotator", f"--review={tmp_path}"), "review.csv", "fume review")
