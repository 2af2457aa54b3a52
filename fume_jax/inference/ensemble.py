"""Averages the probabilities of several models, which then predict as one."""

import dataclasses
import hashlib
from collections.abc import Sequence

import numpy as np
from scipy import special

from fume_jax.inference.backends import Backend
from fume_jax.runtime.errors import UserError

# What all members must have alike: they read the same batch.
ALIKE = ("height", "width", "gases", "segmented", "classifies")


class Ensemble:
    """Runs its members one after the other, behind the protocol of a `Backend`.

    Its outputs are the logarithms of mean probabilities, of the classes after each member's own temperature.
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
        self.card = dataclasses.replace(
            first,
            model=f"ensemble of {len(members)}",
            step=max(card.step for card in (first, *others)),
            metrics={},
            temperature=1.0,
            digest=hashlib.sha256("\n".join(parts).encode()).hexdigest(),
        )

    def __call__(self, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        total = {}
        for member in self._members:
            for name, logits in member(**inputs).items():
                temperature = member.card.temperature if name == "cls_logits" else 1.0
                probabilities = special.softmax(logits.astype(np.float32) / np.float32(temperature), -1)
                total[name] = total[name] + probabilities if name in total else probabilities
        least = np.finfo(np.float32).tiny
        return {name: np.log(np.maximum(x / len(self._members), least)) for name, x in total.items()}
