"""How well a model finds gas on a prepared dataset, through any backend; and whether two agree."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from fume_jax.data import transforms
from fume_jax.data.dataset import Dataset
from fume_jax.inference.backends import Backend
from fume_jax.inference.card import ModelCard
from fume_jax.inference.predictor import Inputs, prepare_pair, stack
from fume_jax.schema import GAS, GASES, IGNORE

Example = tuple[Inputs, dict[str, np.ndarray]]


class Quality(NamedTuple):
    """Holds the gas IoU of all pixels, NaN if nothing is segmented, and the class of each pair, int [N] or empty."""

    gas_iou: float
    classes: np.ndarray


def read_examples(card: ModelCard, data: str, split: str, count: int) -> list[Example]:
    """Reads pairs spread evenly over a split, in the model's size: inputs of a `Backend`, and masks by gas."""
    found, examples = [], Dataset(data).split(split)
    for i in np.unique(np.linspace(0, len(examples) - 1, count).astype(int)):
        example = transforms.resize(examples[int(i)], height=card.height, width=card.width)
        gases = [gas for gas, present in zip(GASES, example["modality_mask"], strict=True) if present]
        inputs = prepare_pair({gas: example[f"{gas}_frame"] for gas in gases}, card.height, card.width)
        found.append((inputs, {gas: example[f"{gas}_mask"] for gas in gases}))
    return found


def measure_quality(backend: Backend, examples: Iterable[Example]) -> Quality:
    """Measures a model on examples, one after the other."""
    counter, classes = GasCounter(backend.card.segmented), []
    for inputs, masks in examples:
        outputs = backend(**stack([inputs]))
        counter.add({gas: outputs[f"{gas}_seg_logits"][0].argmax(-1) for gas in backend.card.segmented}, masks)
        if "cls_logits" in outputs:
            classes.append(int(outputs["cls_logits"][0].argmax()))
    return Quality(counter.iou, np.array(classes, int))


class GasCounter:
    """Counts the pixels of gas that were predicted, true, or both."""

    def __init__(self, gases: Sequence[str]):
        self._gases, self._both, self._any = gases, 0, 0

    def add(self, predicted: dict[str, np.ndarray], masks: dict[str, np.ndarray]) -> None:
        """Adds one pair: predicted classes and true ones, int [H, W] by gas; what is `IGNORE` does not count."""
        for gas in self._gases:
            if gas in masks:
                known = masks[gas] != IGNORE
                found, true = (predicted[gas] == GAS) & known, masks[gas] == GAS
                self._both += int((found & true).sum())
                self._any += int((found | true).sum())

    @property
    def iou(self) -> float:
        return self._both / self._any if self._any else float("nan")
