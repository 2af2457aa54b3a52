"""Random changes of one example on the host: arrays and a random generator in, arrays out.

An example is a dict of uint8 `{gas}_frame` [H, W, 1] and `{gas}_mask` [H, W] and float32 `modality_mask` [2]. Both
gases see one scene, so geometry and brightness change alike in both: what differs between them is the gas.
"""

import abc
import dataclasses
from typing import Any

import cv2
import numpy as np

from fume_jax.vocabulary import GASES

Example = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class RandomOperation(abc.ABC):
    """Changes an example with probability `probability`; the input is left as it is."""

    probability: float

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        return self.apply(example, rng) if rng.random() < self.probability else example

    @abc.abstractmethod
    def apply(self, example: Example, rng: np.random.Generator) -> Example:
        """The changed example."""


@dataclasses.dataclass(frozen=True)
class HorizontalFlip(RandomOperation):
    """Mirrors left and right."""

    def apply(self, example: Example, rng: np.random.Generator) -> Example:
        flipped = {key: np.ascontiguousarray(example[key][:, ::-1]) for key in _images(example)}
        return example | flipped


@dataclasses.dataclass(frozen=True)
class ShiftScaleRotate(RandomOperation):
    """Moves, scales and turns about the centre; what comes in from outside is black and background.

    `shift` is in frame sizes, `scale` the largest change of 1, `rotate` in degrees.
    """

    shift: float
    scale: float
    rotate: float

    def apply(self, example: Example, rng: np.random.Generator) -> Example:
        height, width = example["co2_mask"].shape
        angle, scale = rng.uniform(-self.rotate, self.rotate), 1 + rng.uniform(-self.scale, self.scale)
        matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle, scale)
        matrix[:, 2] += rng.uniform(-self.shift, self.shift, 2) * (width, height)
        moved = {}
        for key, image in _images(example).items():
            method = cv2.INTER_NEAREST if key.endswith("mask") else cv2.INTER_LINEAR
            moved[key] = cv2.warpAffine(image, matrix, (width, height), flags=method).reshape(image.shape)
        return example | moved


@dataclasses.dataclass(frozen=True)
class BrightnessContrast(RandomOperation):
    """Multiplies grey levels by up to 1 ± `contrast` and adds up to ± `brightness` of the 8-bit range."""

    brightness: float
    contrast: float

    def apply(self, example: Example, rng: np.random.Generator) -> Example:
        gain = 1 + rng.uniform(-self.contrast, self.contrast)
        offset = 255 * rng.uniform(-self.brightness, self.brightness)
        table = np.clip(np.rint(np.arange(256) * gain + offset), 0, 255).astype(np.uint8)
        return example | {f"{gas}_frame": table[example[f"{gas}_frame"]] for gas in GASES}


@dataclasses.dataclass(frozen=True)
class ModalityDropout(RandomOperation):
    """Drops one gas, each equally likely, from a pair that has both; never the only one."""

    def apply(self, example: Example, rng: np.random.Generator) -> Example:
        if example["modality_mask"].sum() < len(GASES):
            return example
        dropped = rng.integers(len(GASES))
        modality_mask = np.ones(len(GASES), np.float32)
        modality_mask[dropped] = 0
        gas = GASES[dropped]
        # The frame is zeroed with every other absent one, after normalisation.
        return example | {"modality_mask": modality_mask, f"{gas}_mask": np.zeros_like(example[f"{gas}_mask"])}


def resize(example: Example, *, height: int, width: int) -> Example:
    """Resizes frames by area (linearly where they grow) and masks to the nearest pixel."""
    if example["co2_mask"].shape == (height, width):
        return example
    resized = {}
    for key, image in _images(example).items():
        if key.endswith("mask"):
            resized[key] = cv2.resize(image, (width, height), interpolation=cv2.INTER_NEAREST)
        else:
            resized[key] = resize_frame(image, height, width)
    return example | resized


def resize_frame(frame: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resizes one uint8 frame [H, W, 1]: averages where it shrinks, interpolates where it grows."""
    method = cv2.INTER_AREA if frame.shape[0] >= height and frame.shape[1] >= width else cv2.INTER_LINEAR
    return cv2.resize(frame, (width, height), interpolation=method).reshape(height, width, 1)


def normalise(frame: np.ndarray, present: float) -> np.ndarray:
    """Grey levels 0..255 to float32 [-1, 1]; 0.0 everywhere if the gas is absent."""
    return (frame.astype(np.float32) / 255 - 0.5) / 0.5 * np.float32(present)


def _images(example):
    return {f"{gas}_{kind}": example[f"{gas}_{kind}"] for gas in GASES for kind in ("frame", "mask")}
