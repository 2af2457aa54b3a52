"""Masks of every form, and images to label."""

import json

import cv2
import hypothesis.strategies as st
import numpy as np

from fume_jax.data.labels.label import Meaning
from fume_jax.schema import IGNORE, NOT_GAS

MEANING = Meaning(values={}, colors={}, names={"background": 0, "tube": 1, "gas": 2, "plume": 2})

# What a damaged or strange JSON file may hold anywhere.
VALUES_OF_JSON = st.sampled_from(
    [None, True, -1, 10**400, 1e300, float("nan"), "", "x", "../..", [], [None], [[]], [[1, 2], [3]], {}, {"a": True}]
)


def random_mask(seed):
    """Tube, gas with holes and islands, thin jets, and pixels that nobody knows; sometimes nothing."""
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 36, 2)
    smooth = cv2.GaussianBlur(rng.random((height, width)), (0, 0), rng.uniform(0.7, 4))
    mask = np.where(smooth > np.quantile(smooth, rng.uniform(0.3, 1)), 2, 0).astype(np.uint8)
    mask[:, : rng.integers(0, 3)] = 1
    for _ in range(rng.integers(0, 4)):
        start, end = (tuple(int(rng.integers(0, size)) for size in (width, height)) for _ in range(2))
        cv2.line(mask, start, end, int(rng.choice([0, 1, 2])), 1, int(rng.choice([4, 8])))
    if seed % 10 == 0:
        mask[rng.random(mask.shape) < 0.05] = IGNORE
        mask[rng.random(mask.shape) < 0.05] = NOT_GAS
    return mask


def image(path, height=20, width=30):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.full((height, width), 90, np.uint8))
    return path


def kinds(labels):
    return [fault.kind for fault in labels.faults]


def text(labels):
    """Everything that is told."""
    return "\n".join([f"{fault.place}: {fault.message}" for fault in labels.faults] + labels.notes)


def box(left, top, right, bottom, height=20, width=30):
    region = np.zeros((height, width), bool)
    region[top:bottom, left:right] = True
    return region


def put(path, key, value):
    """Gives every entry of that key in a JSON file another value; the whole file without a key."""

    def changed(content):
        if isinstance(content, dict):
            return {name: value if name == key else changed(entry) for name, entry in content.items()}
        return [changed(entry) for entry in content] if isinstance(content, list) else content

    path.write_text(json.dumps(changed(json.loads(path.read_text())) if key else value))
