"""Random changes of one example on the host: arrays and a random generator in, arrays out.

An example is a dict of uint8 `{gas}_frame` [H, W, 1] and `{gas}_mask` [H, W] and float32 `modality_mask` [2]. Both
gases see one scene, so geometry and brightness change alike in both: what differs between them is the gas, and the
noise of the camera. The zeros of an absent gas stay zeros.

The operations and their probabilities are those of the reference (arXiv:2601.08205), done by OpenCV; lengths are in
shares of the frame, so that they mean the same at any size.
"""

import abc
import dataclasses
from collections.abc import Iterator, Sequence
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
        del rng
        return example | {key: cv2.flip(image, 1).reshape(image.shape) for key, image in _images(example)}


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
        for key, image in _images(example):
            moved[key] = cv2.warpAffine(image, matrix, (width, height), flags=_method(key)).reshape(image.shape)
        return example | moved


@dataclasses.dataclass(frozen=True)
class Elastic(RandomOperation):
    """Shears and stretches at random, and bends smoothly; what comes in from outside is black and background.

    Three points, `height / 3` from the centre, move by up to ± `affine` in x and in y, and the plane with them. On top,
    every point moves by a smooth field with nodes `sigma` apart, whose displacements have standard deviation
    `amplitude`. All three in frame heights. (Simard et al. 2003, doi:10.1109/ICDAR.2003.1227801. The reference gives
    sigma and affine only; the amplitude its library then takes is far below a pixel, so `amplitude` is our choice.)
    """

    affine: float
    sigma: float
    amplitude: float

    def apply(self, example: Example, rng: np.random.Generator) -> Example:
        height, width = example["co2_mask"].shape
        arm = height / 3
        points = (np.array([(1, 1), (1, -1), (-1, -1)]) * arm + (width / 2, height / 2)).astype(np.float32)
        moved_points = points + rng.uniform(-self.affine, self.affine, (3, 2)).astype(np.float32) * height
        (a, b, c), (d, e, f) = cv2.getAffineTransform(moved_points, points).astype(np.float32)
        # The field is drawn at its nodes alone and interpolated.
        nodes = [round(length / (self.sigma * height)) + 2 for length in (height, width)]
        field = rng.standard_normal((*nodes, 2), np.float32) * np.float32(self.amplitude * height)
        source = cv2.resize(field, (width, height), interpolation=cv2.INTER_CUBIC)
        x, y = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)[:, None]
        source[..., 0] += a * x + (b * y + c)
        source[..., 1] += d * x + (e * y + f)
        # Fixed-point coordinates, once for both gases; without fractions for masks, or those would be cut off.
        coordinates = {
            method: cv2.convertMaps(source, None, cv2.CV_16SC2, nninterpolation=method == cv2.INTER_NEAREST)
            for method in (cv2.INTER_LINEAR, cv2.INTER_NEAREST)
        }
        bent = {}
        for key, image in _images(example):
            bent[key] = cv2.remap(image, *coordinates[_method(key)], _method(key)).reshape(image.shape)
        return example | bent


@dataclasses.dataclass(frozen=True)
class OneOf(RandomOperation):
    """Applies one of `operations`, chosen in proportion to their own probabilities."""

    operations: Sequence[RandomOperation]

    def apply(self, example: Example, rng: np.random.Generator) -> Example:
        weights = np.array([operation.probability for operation in self.operations])
        chosen = np.searchsorted(np.cumsum(weights), rng.random() * weights.sum(), side="right")
        return self.operations[chosen].apply(example, rng)


@dataclasses.dataclass(frozen=True)
class GaussianNoise(RandomOperation):
    """Adds noise of a variance between `low` and `high`, in grey levels squared, to each camera's frame its own."""

    low: float
    high: float

    def apply(self, example: Example, rng: np.random.Generator) -> Example:
        deviation = np.float32(np.sqrt(rng.uniform(self.low, self.high)))
        noisy = {}
        for key, frame in _frames(example):
            noise = rng.standard_normal(frame.shape[:2], np.float32) * deviation
            noisy[key] = cv2.add(frame, noise, dtype=cv2.CV_8U).reshape(frame.shape)
        return example | noisy


@dataclasses.dataclass(frozen=True)
class GaussianBlur(RandomOperation):
    """Blurs with a kernel of an odd size between `low` and `high`, pixels."""

    low: int
    high: int

    def apply(self, example: Example, rng: np.random.Generator) -> Example:
        size = _odd(rng, self.low, self.high)
        return example | {k: cv2.GaussianBlur(f, (size, size), 0).reshape(f.shape) for k, f in _frames(example)}


@dataclasses.dataclass(frozen=True)
class MotionBlur(RandomOperation):
    """Smears along a line of any direction through a kernel of an odd size between `low` and `high`, pixels."""

    low: int
    high: int

    def apply(self, example: Example, rng: np.random.Generator) -> Example:
        size = _odd(rng, self.low, self.high)
        angle, reach = rng.uniform(0, np.pi), size // 2
        end = np.rint(np.array([np.cos(angle), np.sin(angle)]) * reach).astype(int)
        kernel = cv2.line(np.zeros((size, size), np.float32), reach - end, reach + end, 1.0)
        kernel /= kernel.sum()
        return example | {key: cv2.filter2D(frame, -1, kernel).reshape(frame.shape) for key, frame in _frames(example)}


@dataclasses.dataclass(frozen=True)
class BrightnessContrast(RandomOperation):
    """Multiplies grey levels by up to 1 ± `contrast` and adds up to ± `brightness` of the 8-bit range."""

    brightness: float
    contrast: float

    def apply(self, example: Example, rng: np.random.Generator) -> Example:
        gain = 1 + rng.uniform(-self.contrast, self.contrast)
        offset = 255 * rng.uniform(-self.brightness, self.brightness)
        return _map_levels(example, np.arange(256) * gain + offset)


@dataclasses.dataclass(frozen=True)
class Gamma(RandomOperation):
    """Raises grey levels, as shares of white, to a power between `low` and `high`."""

    low: float
    high: float

    def apply(self, example: Example, rng: np.random.Generator) -> Example:
        return _map_levels(example, 255 * (np.arange(256) / 255) ** rng.uniform(self.low, self.high))


@dataclasses.dataclass(frozen=True)
class ModalityDropout(RandomOperation):
    """Drops one gas, each equally likely, from a pair that has both; never the only one."""

    def apply(self, example: Example, rng: np.random.Generator) -> Example:
        if example["modality_mask"].sum() < len(GASES):
            return example
        dropped = rng.integers(len(GASES))
        modality_mask = np.ones(len(GASES), np.float32)
        modality_mask[dropped] = 0
        zeros = {f"{GASES[dropped]}_{kind}": np.zeros_like(example[f"co2_{kind}"]) for kind in ("frame", "mask")}
        return example | {"modality_mask": modality_mask} | zeros


def resize(example: Example, *, height: int, width: int) -> Example:
    """Resizes frames by area (linearly where they grow) and masks to the nearest pixel."""
    resized = {}
    for gas in GASES:
        resized[f"{gas}_frame"] = resize_frame(example[f"{gas}_frame"], height, width)
        resized[f"{gas}_mask"] = resize_mask(example[f"{gas}_mask"], height, width)
    return example | resized


def resize_frame(frame: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resizes one uint8 frame [H, W, 1]: averages where it shrinks, interpolates where it grows."""
    if frame.shape[:2] == (height, width):
        return frame
    method = cv2.INTER_AREA if frame.shape[0] >= height and frame.shape[1] >= width else cv2.INTER_LINEAR
    return cv2.resize(frame, (width, height), interpolation=method).reshape(height, width, 1)


def resize_mask(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resizes one uint8 mask [H, W] to the nearest pixel."""
    if mask.shape == (height, width):
        return mask
    return cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST)


def normalise(frame: np.ndarray, present: float) -> np.ndarray:
    """Grey levels 0..255 to float32 [-1, 1]; 0.0 everywhere if the gas is absent."""
    table = (np.arange(256, dtype=np.float32) / 255 - 0.5) / 0.5 * np.float32(present)
    return cv2.LUT(frame, table).reshape(frame.shape)


def _map_levels(example, levels):
    table = np.clip(np.rint(levels), 0, 255).astype(np.uint8)
    return example | {key: cv2.LUT(frame, table).reshape(frame.shape) for key, frame in _frames(example)}


def _odd(rng, low, high):
    return low + 2 * int(rng.integers((high - low) // 2 + 1))


def _method(key):
    # The mean of background and gas is the value of the tube: masks are never interpolated.
    return cv2.INTER_NEAREST if key.endswith("mask") else cv2.INTER_LINEAR


def _frames(example) -> Iterator[tuple[str, np.ndarray]]:
    """Frames of the gases that are there."""
    for gas, present in zip(GASES, example["modality_mask"], strict=True):
        if present:
            yield f"{gas}_frame", example[f"{gas}_frame"]


def _images(example) -> Iterator[tuple[str, np.ndarray]]:
    """Frames and masks of the gases that are there."""
    for key, frame in _frames(example):
        yield key, frame
        mask = key.replace("frame", "mask")
        yield mask, example[mask]
