"""Ensembles: the mean of their members' probabilities, by hand and through the predictor."""

import dataclasses
import pickle

import numpy as np
import pytest
from scipy import special

from configs import fume
from fume_jax import Predictor
from fume_jax.inference.card import create_card
from fume_jax.inference.ensemble import Ensemble
from fume_jax.inference.predictor import pretrained_examples
from fume_jax.runtime.errors import UserError
from fume_jax.training.weights import PRETRAINED

SHAPES = {"cls_logits": (2, 3), "co2_seg_logits": (2, 4, 5, 3), "ch4_seg_logits": (2, 4, 5, 3)}


class Fixed:
    """A backend of given logits."""

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
    with pytest.raises(UserError, match="at least one"):
        Predictor.load([])
