"""Masks as a person would draw them who knows the scene and sees the picture at its brightness."""

import math

import cv2
import numpy as np

from datasets.synthetic_ogi.scene import Viewer
from fume_jax.schema import GAS, TUBE

# A viewer sees a structure that stands out by about five times the noise (Rose 1948, doi:10.1364/JOSA.38.000196).
ROSE = 5.0
HOLE = 1e-3  # share of the picture below which a gap in the gas is closed


def annotate(
    levels: np.ndarray, tube: np.ndarray, noise: float, height: int, width: int, viewer: Viewer
) -> tuple[np.ndarray, float]:
    """Returns the mask uint8 [height, width], and the visibility of its gas: mean contrast over noise, 0 without gas.

    `levels` float32 [h, w] is the noiseless change of the picture by the gas in grey levels, `tube` float32 [h, w] the
    coverage by the tube in [0, 1], and `noise` the standard deviation of the camera's noise in grey levels.
    """
    noise = np.hypot(noise, viewer.noise)
    smooth = cv2.GaussianBlur(np.abs(levels), (0, 0), levels.shape[1] / 240)
    smooth, tube = (cv2.resize(a, (width, height), interpolation=cv2.INTER_LINEAR) for a in (smooth, tube))
    threshold = ROSE * noise
    if viewer.share and (smooth > threshold).any():
        threshold = max(threshold, viewer.share * float(np.percentile(smooth[smooth > threshold], 95)))
    mask = _outlined((smooth > threshold).astype(np.uint8), viewer.least_area) * np.uint8(GAS)
    mask[tube > 0.5] = TUBE
    gas = mask == GAS
    return mask, float(smooth[gas].mean() / noise) if gas.any() else 0.0


def _outlined(visible, least_area):
    """Closes small gaps and drops specks, whose area is a share of the picture; uint8 [height, width] of 0 and 1."""
    height, width = visible.shape
    size = width // 60 | 1
    visible = cv2.morphologyEx(visible, cv2.MORPH_CLOSE, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size)))
    hole = HOLE * height * width
    # Far from the gas nothing changes. What is around the gas is larger than a hole in this window too.
    x, y, w, h = cv2.boundingRect(visible)
    margin = math.ceil(hole**0.5)
    window = visible[max(0, y - margin) : y + h + margin, max(0, x - margin) : x + w + margin]
    gas = _drop_small(window, least_area * height * width)
    window[:] = 1 - _drop_small(1 - gas, hole)
    return visible


def _drop_small(region, least_area):
    """Removes the connected parts that are smaller than `least_area` pixels."""
    _, parts, statistics, _ = cv2.connectedComponentsWithStats(region)
    kept = (statistics[:, cv2.CC_STAT_AREA] >= least_area).astype(np.uint8)
    kept[0] = 0
    return kept[parts] if not kept[1:].all() else region
