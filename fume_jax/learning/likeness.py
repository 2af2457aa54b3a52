"""Whether frames look like those of training: grey levels, sharpness and size; in numpy and OpenCV.

A model is right about frames such as it was trained on, and of others it may say something false with much confidence
(Hendrycks & Gimpel 2017, arXiv:1610.02136). These checks see a camera of another range or polarity, one out of focus or
full of noise, and frames that were squeezed or enlarged. They do not see a new scene.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import cv2
import numpy as np

# In what a frame may be unlike those of training.
CHECKS = ("grey", "sharpness", "size")
# Bins of the histogram of grey levels.
BINS = 16
# Share of the training frames that are within the limits of each measure.
WITHIN = 0.99
# The largest ratio of the shapes, width to height, of two frames that are alike: 4:3 and 5:4 are, 4:3 and 3:2 are not.
SHAPES = 1.1
# The least width and height, as a share of those in training.
LEAST = 0.5


class Look(NamedTuple):
    """Holds the measures of a frame, see `measure_look`; `histogram` is float [BINS], of sum 1."""

    histogram: np.ndarray
    contrast: float
    sharpness: float


def measure_look(frame: np.ndarray) -> Look:
    """Measures a frame, uint8 [H, W] or [H, W, 1], of the model's size.

    The contrast is the standard deviation of the grey levels, and the sharpness the variance of the Laplacian
    (Pech-Pacheco et al. 2000, doi:10.1109/ICPR.2000.903548) over that of the grey levels, so that contrast does not
    count. Both are logarithms of base 10. A variance of 1, more than that of rounding, is added to each.
    """
    grey = frame.reshape(frame.shape[:2])
    histogram = np.bincount(grey.ravel() // (256 // BINS), minlength=BINS) / grey.size
    variance, detail = grey.var() + 1, cv2.Laplacian(grey, cv2.CV_32F).var() + 1
    return Look(histogram, float(np.log10(variance) / 2), float(np.log10(detail / variance)))


def grey_distance(a: Sequence[float], b: Sequence[float]) -> float:
    """Returns by how many grey levels pixels have to move, on average, to make one histogram, float [BINS], the other.

    It is the earth mover's distance (Rubner et al. 2000, doi:10.1023/A:1026543900054).
    """
    return float(np.abs(np.cumsum(np.subtract(a, b))).sum() * 256 / BINS)


def summarize_looks(looks: Iterable[Look]) -> dict[str, list[float] | float]:
    """Summarizes the looks of training frames, of which there is one at least, in 21 numbers, JSON values.

    Returns `histogram`, the mean one, [BINS]; `grey_distance`, within which `WITHIN` of the frames are from it; and
    limits of `contrast` and `sharpness`, [2] each, between which as many are.
    """
    histograms, contrast, sharpness = map(np.array, zip(*looks, strict=True))
    mean = histograms.mean(0).round(5)
    distances = [grey_distance(histogram, mean) for histogram in histograms]
    ends = (1 - WITHIN) / 2, (1 + WITHIN) / 2
    return {
        "histogram": mean.tolist(),
        "grey_distance": round(float(np.quantile(distances, WITHIN)), 2),
        "contrast": np.quantile(contrast, ends).round(6).tolist(),
        "sharpness": np.quantile(sharpness, ends).round(6).tolist(),
    }


def unlike_training(frame: np.ndarray, size: tuple[int, int], training: Mapping, gas: str) -> set[str]:
    """Returns those of `CHECKS` in which a frame is unlike those of training.

    Args:
      frame: uint8 [H, W, 1], scaled to the model's size.
      size: height and width of the frame as it was recorded.
      training: `size`, height and width of the frames of training, and by gas what `summarize_looks` returns.
      gas: gas of the frame; one that training had no frame of has the check of its size alone.
    """
    found = {"size"} if _unlike_size(size, training["size"]) else set()
    if gas in training:
        look, known = measure_look(frame), training[gas]
        far = grey_distance(look.histogram, known["histogram"]) > known["grey_distance"]
        if far or not _within(look.contrast, known["contrast"]):
            found.add("grey")
        if not _within(look.sharpness, known["sharpness"]):
            found.add("sharpness")
    return found


def _within(value, limits):
    low, high = limits
    return low <= value <= high


def _unlike_size(size, trained):
    (height, width), (own_height, own_width) = size, trained
    ratio = width * own_height / (height * own_width)
    return max(ratio, 1 / ratio) > SHAPES or height < LEAST * own_height or width < LEAST * own_width
