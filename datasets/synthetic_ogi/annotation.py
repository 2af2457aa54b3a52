"""Masks as a person would draw them who sees the picture at its brightness and knows what the scene holds."""

import cv2
import numpy as np

from fume_jax.schema import GAS, TUBE

# A structure is seen when it stands out by about five times the noise (Rose 1948, doi:10.1364/JOSA.38.000196).
ROSE = 5.0
# Noise that display and eye add to the camera's, in grey levels: what is fainter than 5 x 3 of 255 nobody outlines.
VIEWER_NOISE = 3.0


def annotate(levels: np.ndarray, tube: np.ndarray, noise: float, height: int, width: int) -> tuple[np.ndarray, float]:
    """Outlines tube and gas.

    Args:
      levels: float32 [h, w], how much the gas changes the picture, in grey levels, without noise.
      tube: float32 [h, w] in [0, 1], coverage.
      noise: of the camera, standard deviation in grey levels.

    Returns:
      The mask uint8 [height, width] and the visibility of its gas: mean contrast over noise, 0 where there is none.
    """
    noise = np.hypot(noise, VIEWER_NOISE)
    smooth = cv2.GaussianBlur(np.abs(levels), (0, 0), levels.shape[1] / 240)
    smooth, tube = (cv2.resize(a, (width, height), interpolation=cv2.INTER_LINEAR) for a in (smooth, tube))
    visible = (smooth > ROSE * noise).astype(np.uint8)
    size = width // 60 | 1
    visible = cv2.morphologyEx(visible, cv2.MORPH_CLOSE, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size)))
    area = height * width
    visible = _drop_small(visible, 5e-4 * area)
    visible = 1 - _drop_small(1 - visible, 1e-3 * area)
    mask = np.where(visible > 0, GAS, 0).astype(np.uint8)
    mask[tube > 0.5] = TUBE
    gas = mask == GAS
    return mask, float(smooth[gas].mean() / noise) if gas.any() else 0.0


def _drop_small(region, least_area):
    """Without the connected parts that are smaller than `least_area` pixels."""
    _, parts, statistics, _ = cv2.connectedComponentsWithStats(region)
    kept = statistics[:, cv2.CC_STAT_AREA] >= least_area
    kept[0] = False
    return kept[parts].astype(np.uint8)
