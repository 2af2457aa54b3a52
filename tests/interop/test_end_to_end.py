"""What is done before and after a model, inside of the exported program, is what `Predictor` does."""

import cv2
import hypothesis
import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from torch import nn

from fume_jax.data.transforms import ROUNDING, resize_frame
from fume_jax.inference.predictor import Predictor, prepare_pair
from fume_jax.interop.end_to_end import EndToEnd
from tests.inference.test_predictor import Known

SIDES = st.integers(1, 200)


class KnownNetwork(nn.Module):
    """The same as `Known`, in PyTorch."""

    def forward(self, co2_frame, ch4_frame, modality_mask):
        outputs = {"cls_logits": torch.log(torch.tensor([1.0, 2, 5])) * modality_mask.sum(1)[:, None]}
        for gas, frame in (("co2", co2_frame), ("ch4", ch4_frame)):
            outputs[f"{gas}_seg_logits"] = torch.cat([0 * frame, -frame - 0.9, frame - 0.1], 1)
        return outputs


def program(height, width, temperature=1.0):
    return EndToEnd(KnownNetwork(), height=height, width=width, temperature=temperature, rounding=ROUNDING)


@hypothesis.given(SIDES, SIDES, SIDES, SIDES, st.integers(0, 9))
@hypothesis.settings(max_examples=60, deadline=None)
def test_frames_of_any_size_are_prepared_as_a_predictor_prepares_them(height, width, new_height, new_width, seed):
    frame = np.random.default_rng(seed).integers(0, 256, (height, width, 1), np.uint8)
    prepared = program(new_height, new_width)._prepare(torch.from_numpy(frame[None, ..., 0]))
    expected = prepare_pair({"co2": frame}, new_height, new_width)["co2_frame"]
    different = prepared[0, 0].numpy() != expected[..., 0]
    # A sum may lie within its last bits of the limit at which it is rounded up.
    assert different.mean() <= 2e-3 and np.abs(prepared[0, 0].numpy() - expected[..., 0]).max() < 1 / 127


@pytest.mark.parametrize("size", [(480, 640), (513, 640), (1080, 1920), (120, 160), (200, 600), (240, 320)])
def test_frames_of_usual_sizes_are_prepared_exactly_so(size):
    frame = np.random.default_rng(0).integers(0, 256, (*size, 1), np.uint8)
    prepared = program(240, 320)._prepare(torch.from_numpy(frame[None, ..., 0]))
    np.testing.assert_array_equal(prepared[0, 0].numpy(), prepare_pair({"co2": frame}, 240, 320)["co2_frame"][..., 0])


@pytest.mark.parametrize("sizes", [((128, 160), (101, 77)), ((64, 80), (32, 40)), ((50, 300), (700, 90))])
def test_masks_and_probabilities_are_those_of_a_predictor(sizes):
    rng = np.random.default_rng(1)
    small = [cv2.resize(rng.integers(0, 256, (6, 8), np.uint8), size[::-1]) for size in sizes]
    frames = dict(zip(("co2", "ch4"), small, strict=True))
    expected = Predictor(Known()).predict([frames])[0]
    with torch.inference_mode():
        inputs = {gas: torch.from_numpy(frame)[None] for gas, frame in frames.items()}
        found = program(64, 80)(**inputs, modality_mask=torch.ones(1, 2))
    for gas, mask in expected.masks.items():
        assert found[f"{gas}_mask"].dtype == torch.uint8 and len(np.unique(mask)) == 3
        assert (found[f"{gas}_mask"][0].numpy() != mask).mean() < 1e-4  # all but ties
    np.testing.assert_allclose(found["probabilities"][0], list(expected.probabilities.values()), atol=1e-6)


def test_an_absent_gas_has_an_empty_mask_and_the_temperature_is_that_of_the_card():
    bright = torch.full((1, 30, 40), 250, dtype=torch.uint8)
    found = program(64, 80, temperature=2.0)(bright, bright, torch.tensor([[1.0, 0.0]]))
    assert (found["co2_mask"] == 2).all() and (found["ch4_mask"] == 0).all()
    roots = np.sqrt([1, 2, 5])
    np.testing.assert_allclose(found["probabilities"][0], roots / roots.sum(), atol=1e-6)


def test_grey_levels_are_rounded_once_and_halves_up():
    frame = np.array([[1, 2, 0, 0], [2, 1, 0, 1], [3, 3, 255, 255], [3, 4, 255, 255]], np.uint8)[..., None]
    assert resize_frame(frame, 2, 2)[..., 0].tolist() == [[2, 0], [3, 255]]  # means 1.5, 0.25, 3.25, 255
