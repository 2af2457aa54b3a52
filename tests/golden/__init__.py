"""Values the original PyTorch implementation computed, and the deterministic weights and inputs it computed them on.

Those of the backbones other than Fast-SCNN torchvision computed.

Weights are a function of their state-dict key, inputs of their name, so that nothing but results is stored.
"""

import json
import zlib
from pathlib import Path

import numpy as np

DATA = Path(__file__).parent
SHAPES = json.loads((DATA / "state_dict_shapes.json").read_text())
GOLDEN = np.load(DATA / "golden.npz")
BACKBONES = np.load(DATA / "backbones.npz")  # written by `torchvision_features.py`
# Models whose state dict lists one encoder under the names of two.
SHARED = ("fume", "fume_concat")


def rng(name: str) -> np.random.RandomState:
    return np.random.RandomState(zlib.crc32(name.encode()))


def weight(key: str, shape: tuple[int, ...]) -> np.ndarray:
    leaf = key.split(".")[-1]
    if leaf == "num_batches_tracked":
        return np.zeros(shape, np.int64)
    if leaf == "running_var" or (leaf == "weight" and len(shape) == 1):
        values = rng(key).uniform(0.5, 1.5, shape)
    elif leaf in ("running_mean", "bias"):
        values = 0.1 * rng(key).standard_normal(shape)
    elif leaf == "gamma":
        values = rng(key).uniform(0.2, 0.8, shape)
    else:
        values = np.sqrt(1 / np.prod(shape[1:])) * rng(key).standard_normal(shape)
    return np.asarray(values, np.float32)


def state_dict(name: str) -> dict[str, np.ndarray]:
    """Weights of a model; those of a shared encoder stand twice, as in PyTorch."""

    def source(key):
        return key.replace("ch4_encoder.", "co2_encoder.") if name in SHARED else key

    return {key: weight(source(key), tuple(shape)) for key, shape in SHAPES[name].items()}


def inputs(batch_size: int, height: int, width: int, case: str = "both") -> dict[str, np.ndarray]:
    """Frames NHWC and modality mask; `case` is both, co2_only or ch4_only."""
    frames, modality_mask = [], np.ones((batch_size, 2), np.float32)
    for i, gas in enumerate(("co2", "ch4")):
        frame = rng(gas).uniform(-1, 1, (batch_size, 1, height, width)).astype(np.float32).transpose(0, 2, 3, 1)
        if case not in ("both", f"{gas}_only"):
            frame, modality_mask[:, i] = np.zeros_like(frame), 0
        frames.append(frame)
    return {"co2_frame": frames[0], "ch4_frame": frames[1], "modality_mask": modality_mask}


def targets(batch_size: int, height: int, width: int) -> dict[str, np.ndarray]:
    random = np.random.RandomState(0)
    return {
        "co2_mask": random.randint(0, 3, (batch_size, height, width)),
        "ch4_mask": random.randint(0, 3, (batch_size, height, width)),
        "labels": random.randint(0, 3, (batch_size,)),
        "valid": np.ones(batch_size, bool),
    }


def backbone_frame() -> np.ndarray:
    """One frame NHWC of odd sizes at the strides, of which all dilations meet more than zeros."""
    return rng("backbone").uniform(-1, 1, (1, 300, 320, 1)).astype(np.float32)


def thinned(features: np.ndarray) -> np.ndarray:
    """The part of features NHWC that is stored."""
    step = -(-features.shape[1] // 19)
    return features[:, ::step, ::step, ::8]
