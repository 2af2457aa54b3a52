"""Ensembles and mirror images: means of probabilities, by hand and through the predictor."""

import dataclasses
import os
import pickle

import jax
import numpy as np
import pytest
from scipy import special

from configs import fume
from fume_jax import Predictor
from fume_jax.inference.ensemble import Ensemble, Mirrored
from fume_jax.inference.formats import PRETRAINED
from fume_jax.inference.jax_backends import create_card
from fume_jax.inference.predictor import pretrained_examples
from fume_jax.learning.step import flip_step
from fume_jax.runtime.errors import UserError

SHAPES = {"cls_logits": (2, 3), "co2_seg_logits": (2, 4, 5, 3), "ch4_seg_logits": (2, 4, 5, 3)}


class Fixed:
    """A backend of given logits."""

    uses_jax = False

    def __init__(self, seed, **changes):
        rng = np.random.default_rng(seed)
        self.card = dataclasses.replace(create_card(fume.get_config(), seed, {}), **changes)
        self.logits = {name: rng.normal(0, 3, shape).astype(np.float32) for name, shape in SHAPES.items()}

    def __call__(self, **inputs):
        return self.logits


def test_the_outputs_are_logits_of_mean_probabilities_after_each_temperature():
    members = [Fixed(1), Fixed(2, temperature=2.0), Fixed(3)]
    outputs = Ensemble(members)()
    assert outputs.keys() == SHAPES.keys()
    for name, found in outputs.items():
        divisors = [1, 2 if name == "cls_logits" else 1, 1]
        each = [special.softmax(m.logits[name] / d, -1) for m, d in zip(members, divisors, strict=True)]
        np.testing.assert_allclose(special.softmax(found, -1), np.mean(each, 0), atol=1e-6)
        assert found.dtype == np.float32


def test_certain_members_that_disagree_leave_finite_logits():
    first, second = Fixed(0), Fixed(0)
    first.logits = {name: np.full(shape, -1e4, np.float32) for name, shape in SHAPES.items()}
    second.logits = {name: x.copy() for name, x in first.logits.items()}
    for logits, place in ((first.logits, 0), (second.logits, 1)):
        for x in logits.values():
            x[..., place] = 1e4
    for found in Ensemble([first, second])().values():
        assert np.isfinite(found).all()
        np.testing.assert_allclose(special.softmax(found, -1)[..., :2], 0.5, atol=1e-6)


def test_the_card_tells_one_ensemble_from_another_and_has_no_temperature_left():
    card = Ensemble([Fixed(1, temperature=2.0), Fixed(2)]).card
    assert (card.model, card.temperature, card.metrics) == ("ensemble of 2", 1.0, {})
    assert card.digest not in ("", Ensemble([Fixed(1), Fixed(3)]).card.digest)
    assert card.digest == Ensemble([Fixed(1), Fixed(2)]).card.digest


@pytest.mark.parametrize("changes", [{"height": 96}, {"gases": ("co2",)}, {"segmented": ()}, {"classifies": False}])
def test_members_that_read_or_predict_other_things_are_refused(changes):
    with pytest.raises(UserError, match=f"cannot predict together: {next(iter(changes))}"):
        Ensemble([Fixed(1), Fixed(2, **changes)])


def test_a_model_with_itself_predicts_as_alone_and_travels_to_other_processes():
    frames = next(iter(pretrained_examples().values()))
    alone, both = Predictor.load(), Predictor.load([PRETRAINED, str(PRETRAINED)])
    expected, found = alone(**frames), both(**frames)
    assert found.label == expected.label
    for name, probability in expected.probabilities.items():
        assert found.probabilities[name] == pytest.approx(probability, abs=1e-5)
    for gas, mask in expected.masks.items():
        assert (found.masks[gas] != mask).mean() < 1e-4
    assert pickle.loads(pickle.dumps(both)).card == both.card
    assert Predictor._jax_process == os.getpid(), "or a fork would hang"
    with pytest.raises(UserError, match="at least one"):
        Predictor.load([])


def test_an_ensemble_has_no_limit_of_confidence_and_knows_training_frames_that_all_know():
    known, others = {"size": [64, 80]}, {"size": [96, 128]}
    first = Fixed(1, abstain_below=0.7, recording_abstain_below=0.6, training_frames=known)
    card = Ensemble([first, Fixed(2, training_frames=known)]).card
    assert (card.abstain_below, card.recording_abstain_below, card.training_frames) == (None, None, known)
    assert Ensemble([first, Fixed(2, training_frames=others)]).card.training_frames is None


class Sided(Fixed):
    """A backend whose logits depend on the place in the frame."""

    def __call__(self, co2_frame, ch4_frame, modality_mask):
        outputs = {"cls_logits": co2_frame[:, 0, :3, 0] * modality_mask[:, :1]}
        for gas, frame in (("co2", co2_frame), ("ch4", ch4_frame)):
            ramp = np.linspace(-1, 1, frame.shape[2], dtype=np.float32)[:, None] * np.ones_like(frame)
            outputs[f"{gas}_seg_logits"] = np.concatenate([0 * frame, frame * ramp, 3 * frame], -1)
        return outputs


@pytest.fixture
def inputs():
    rng = np.random.default_rng(0)
    frames = {f"{gas}_frame": rng.normal(0, 1, (2, 6, 8, 1)).astype(np.float32) for gas in ("co2", "ch4")}
    return frames | {"modality_mask": np.array([[1, 1], [1, 0]], np.float32)}


def test_mirror_images_are_averaged_as_evaluation_does(inputs):
    backend = Sided(0)
    expected = flip_step(
        {},
        {},
        inputs,
        predict_fn=lambda params, batch_stats, batch: jax.tree.map(
            jax.numpy.asarray, backend(**{name: np.asarray(x) for name, x in batch.items()})
        ),
    )
    found = Mirrored(backend)(**inputs)
    assert found.keys() == expected.keys()
    for name, x in expected.items():
        np.testing.assert_allclose(found[name], x, atol=1e-5)
        assert np.abs(special.softmax(found[name], -1) - special.softmax(backend(**inputs)[name], -1)).max() > 0.1


def test_the_mirrored_frame_has_the_mirrored_prediction(inputs):
    backend = Mirrored(Sided(0))
    turned = {name: x[:, :, ::-1] if x.ndim == 4 else x for name, x in inputs.items()}
    found, other = backend(**inputs), backend(**turned)
    np.testing.assert_allclose(found["cls_logits"], other["cls_logits"], atol=1e-6)
    np.testing.assert_allclose(found["co2_seg_logits"], other["co2_seg_logits"][:, :, ::-1], atol=1e-6)


def test_the_card_of_mirror_images_says_so_and_has_their_calibration_if_there_is_one():
    card = create_card(fume.get_config(), 7, {"val/temperature": 2.0, "val/abstain_below": 0.5})
    assert (card.temperature, card.abstain_below, card.recording_abstain_below) == (2.0, 0.5, None)
    mirrored = Mirrored(Fixed(1, temperature=2.0, abstain_below=0.5)).card
    assert (mirrored.model, mirrored.temperature, mirrored.abstain_below) == ("fume with mirror images", 2.0, 0.5)
    metrics = {"val_tta/temperature": 3.0, "val_tta/abstain_below": 0.6, "val_tta/recording/abstain_below": 0.4}
    mirrored = Mirrored(Fixed(1, temperature=2.0, metrics=metrics)).card
    assert (mirrored.temperature, mirrored.abstain_below, mirrored.recording_abstain_below) == (3.0, 0.6, 0.4)


def test_a_predictor_with_mirror_images_travels_to_other_processes(monkeypatch):
    monkeypatch.setattr("fume_jax.inference.predictor.open_backend", lambda *given: Fixed(1))
    for path in (None, "run", ["a", "b"]):
        sent = pickle.loads(pickle.dumps(Predictor.load(path, tta=True)))
        assert isinstance(sent.backend, Mirrored) and sent.card.model.endswith(" with mirror images")
        assert not isinstance(pickle.loads(pickle.dumps(Predictor.load(path))).backend, Mirrored)
