"""How well a model finds gas on a prepared dataset, through any backend; and whether two agree."""

from collections.abc import Iterable
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
    """Measures a model on examples, one after the other; pixels that are `IGNORE` do not count."""
    both, either, classes = 0, 0, []
    for inputs, masks in examples:
        outputs = backend(**stack([inputs]))
        for gas in set(backend.card.segmented) & masks.keys():
            known, true = masks[gas] != IGNORE, masks[gas] == GAS
            found = (outputs[f"{gas}_seg_logits"][0].argmax(-1) == GAS) & known
            both += int((found & true).sum())
            either += int((found | true).sum())
        if "cls_logits" in outputs:
            classes.append(int(outputs["cls_logits"][0].argmax()))
    return Quality(both / either if either else np.nan, np.array(classes, int))
