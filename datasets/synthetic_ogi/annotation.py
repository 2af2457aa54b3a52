"""Masks as a person would draw them who knows the scene and sees the picture at its brightness."""

import cv2
import numpy as np

from datasets.synthetic_ogi.scene import Viewer
from fume_jax.schema import GAS, TUBE

# A viewer sees a structure that stands out by about five times the noise (Rose 1948, doi:10.1364/JOSA.38.000196).
ROSE = 5.0


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
    visible = (smooth > threshold).astype(np.uint8)
    size = width // 60 | 1
    visible = cv2.morphologyEx(visible, cv2.MORPH_CLOSE, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size)))
    visible = _drop_small(visible, viewer.least_area * height * width)
    visible = 1 - _drop_small(1 - visible, 1e-3 * height * width)
    mask = np.where(visible > 0, GAS, 0).astype(np.uint8)
    mask[tube > 0.5] = TUBE
    gas = mask == GAS
    return mask, float(smooth[gas].mean() / noise) if gas.any() else 0.0


def _drop_small(region, least_area):
    """Removes the connected parts that are smaller than `least_area` pixels."""
    _, parts, statistics, _ = cv2.connectedComponentsWithStats(region)
    kept = statistics[:, cv2.CC_STAT_AREA] >= least_area
    kept[0] = False
    return kept[parts].astype(np.uint8)
