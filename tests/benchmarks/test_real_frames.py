"""Scores on frames of real cameras: by hand, and of the pretrained model where such frames are at hand."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from benchmarks import real_frames
from fume_jax.inference.predictor import Predictor
from fume_jax.runtime.errors import UserError
from fume_jax.schema import GAS, IGNORE
from tests.commands import ROOT

REAL = ROOT.parent / "shared" / "data" / "ogi_real"


class Fixed:
    """Predicts gas in the left half of every frame."""

    def predict(self, pairs):
        mask = np.zeros((20, 40), np.uint8)
        mask[:, :20] = GAS
        return [SimpleNamespace(masks=dict.fromkeys(pair, mask)) for pair in pairs]


def write(folder: Path, name: str, truth):
    Image.fromarray(np.full((20, 40), 99, np.uint8)).save(folder / f"{name}.png")
    Image.fromarray(truth).save(folder / f"{name}_mask.png")


def test_scores_are_those_of_known_pixels(tmp_path):
    truth = np.zeros((20, 40), np.uint8)
    truth[:, 10:30] = GAS
    write(tmp_path, "jet_ch4", truth)
    scored = real_frames.score_frame(Fixed(), tmp_path / "jet_ch4.png", "jet")
    assert scored.gas == "ch4"
    assert [scored.scores[name] for name in ("iou", "precision", "recall")] == [1 / 3, 0.5, 0.5]
    assert 0 < scored.scores["boundary_pixels"] < 10
    truth[:, :10] = IGNORE
    write(tmp_path, "jet_ch4", truth)
    scores = real_frames.score_frame(Fixed(), tmp_path / "jet_ch4.png", "jet").scores
    assert (scores["iou"], scores["precision"], scores["recall"]) == (0.5, 1.0, 0.5)


def test_kinds_are_those_of_the_table_or_of_the_names(tmp_path):
    for name in ("jet_1", "jet_2", "cloud3"):
        write(tmp_path, name, np.zeros((20, 40), np.uint8))
    assert [kind for _, kind in real_frames.find_frames(tmp_path, None)] == ["cloud", "jet", "jet"]
    table = tmp_path / "kinds.csv"
    table.write_text("frame,kind\njet_1,near\njet_2.png,far\n")
    with pytest.raises(UserError, match=r"no kind of cloud3\.png"):
        real_frames.find_frames(tmp_path, table)
    table.write_text("frame,kind\njet_1,near\njet_2.png,far\ncloud3,far\n")
    assert [kind for _, kind in real_frames.find_frames(tmp_path, table)] == ["far", "near", "far"]
    with pytest.raises(UserError, match="no frame with a mask"):
        real_frames.find_frames(ROOT / "docs", None)


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_dir(), reason="frames of real cameras are not beside the checkout")
def test_the_pretrained_model_finds_gas_in_real_frames():
    predictor = Predictor.load()
    scored = [real_frames.score_frame(predictor, path, kind) for path, kind in real_frames.find_frames(REAL, None)]
    assert np.mean([found.scores["iou"] for found in scored]) > 0.55
    assert real_frames.sheet(scored).shape == (7 * 240, 4 * 320, 3)
