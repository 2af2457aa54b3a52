"""Averages probabilities of several models, or over a frame and its mirror image, which then predict as one model."""

import dataclasses
import hashlib
from collections.abc import Iterable, Sequence

import numpy as np

from fume_jax.inference.backends import Backend
from fume_jax.inference.card import read_calibration
from fume_jax.learning.probabilities import softmax
from fume_jax.runtime.errors import UserError

# What all members must have alike: they read the same batch.
ALIKE = ("height", "width", "gases", "segmented", "classifies")


class Ensemble:
    """Runs its members one after the other, behind the protocol of a `Backend`.

    Its outputs are the logarithms of mean probabilities, of the classes after each member's own temperature. No
    confidence below which it should abstain was chosen for it. It knows frames of training if its members have the
    same.
    """

    def __init__(self, members: Sequence[Backend]):
        """Takes two or more models; UserError if they cannot read one batch or predict different things."""
        first, *others = (member.card for member in members)
        for card in others:
            if differing := [name for name in ALIKE if getattr(card, name) != getattr(first, name)]:
                pairs = ", ".join(f"{name} {getattr(first, name)} and {getattr(card, name)}" for name in differing)
                raise UserError(f"These models cannot predict together: {pairs}.")
        self._members = tuple(members)
        parts = [f"{card.model} {card.step} {card.config_hash} {card.digest}" for card in (first, *others)]
        same_frames = all(card.training_frames == first.training_frames for card in others)
        self.card = dataclasses.replace(
            first,
            model=f"ensemble of {len(members)}",
            step=max(card.step for card in (first, *others)),
            metrics={},
            temperature=1.0,
            abstain_below=None,
            recording_abstain_below=None,
            training_frames=first.training_frames if same_frames else None,
            digest=hashlib.sha256("\n".join(parts).encode()).hexdigest(),
        )

    def __call__(self, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        return _mean_logits(self._calibrated(member, inputs) for member in self._members)

    @staticmethod
    def _calibrated(member, inputs):
        outputs, temperature = dict(member(**inputs)), np.float32(member.card.temperature)
        if "cls_logits" in outputs:
            outputs["cls_logits"] = outputs["cls_logits"].astype(np.float32) / temperature
        return outputs


class Mirrored:
    """Runs a model on each frame and on its mirror image, behind the protocol of a `Backend`.

    Its outputs are the logarithms of mean probabilities, as those of `fume_jax.learning.step.flip_step`. The card says
    so in its `model`, and has the calibration that `fume evaluate --tta` fitted, if that scored the model.
    """

    def __init__(self, backend: Backend):
        self._backend = backend
        self.card = dataclasses.replace(
            backend.card,
            model=f"{backend.card.model} with mirror images",
            **read_calibration(backend.card.metrics, "val_tta"),
        )

    def __call__(self, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        return _mean_logits(self._each(inputs))

    def _each(self, inputs):
        yield self._backend(**inputs)
        mirrored = self._backend(**{name: _mirror(x) for name, x in inputs.items()})
        yield {name: _mirror(x) for name, x in mirrored.items()}


def _mirror(x):
    return np.flip(x, axis=2) if x.ndim == 4 else x  # frames and their logits alone have a width


def _mean_logits(outputs: Iterable[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Returns the logarithms, float32, of the mean of the softmax of several outputs of one model or of several."""
    total, count = {}, 0
    for count, output in enumerate(outputs, 1):  # noqa: B007
        for name, logits in output.items():
            probabilities = softmax(logits.astype(np.float32))
            total[name] = total[name] + probabilities if name in total else probabilities
    least = np.finfo(np.float32).tiny
    return {name: np.log(np.maximum(x / count, least)) for name, x in total.items()}
