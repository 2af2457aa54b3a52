"""Applies plans of `fume_jax.learning.augment` with OpenCV, and resizes and normalizes frames.

An example is a dict of uint8 `{gas}_frame` [H, W, 1] and `{gas}_mask` [H, W] and float32 `modality_mask` [2]. The zeros
of an absent gas stay zeros.
"""

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

from fume_jax.learning.augment import NORMALIZED, Plan
from fume_jax.schema import GASES, IGNORE

Example = dict[str, Any]
# Added to a grey level before its fraction is cut off: it rounds, and a half up, whatever the last bits of a sum are.
ROUNDING = 0.501


def apply(example: Example, plan: Plan) -> Example:
    """Returns the augmented example; does not change its argument."""
    changed = dict(example)
    warp = _warp_fn(plan, *example["co2_mask"].shape)
    for number, gas in enumerate(GASES):
        frame, mask = f"{gas}_frame", f"{gas}_mask"
        if example["modality_mask"][number]:
            if warp is not None:
                # Masks are never interpolated: the mean of background and gas is the value of the tube. These maps take
                # the pixel nearest to a position, unlike `cv2.resize`, so masks move as their frames do.
                changed[frame] = warp(example[frame], cv2.INTER_LINEAR, 0).reshape(example[frame].shape)
                changed[mask] = warp(example[mask], cv2.INTER_NEAREST, IGNORE)
            changed[frame] = _change_levels(changed[frame], plan, number)
    dropped = plan.get("dropped", -1)
    if dropped >= 0 and example["modality_mask"].all():
        zeros = {f"{GASES[dropped]}_{kind}": np.zeros_like(changed[f"co2_{kind}"]) for kind in ("frame", "mask")}
        changed |= zeros | {"modality_mask": (np.arange(len(GASES)) != dropped).astype(np.float32)}
    return changed


def _warp_fn(plan, height, width) -> Callable[[np.ndarray, int, int], np.ndarray] | None:
    """Returns the map of a plan, a function of image, interpolation and value outside; None for the identity."""
    matrix = plan.get("matrix", np.eye(2, 3))
    if "nodes" in plan and plan["nodes"].any():
        # Source coordinates of every pixel, x and y, float32 [H, W, 2].
        (a, b, c), (d, e, f) = matrix
        source = cv2.resize(plan["nodes"], (width, height), interpolation=cv2.INTER_CUBIC)
        x, y = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)[:, None]
        source[..., 0] += a * x + (b * y + c)
        source[..., 1] += d * x + (e * y + f)
        return lambda image, method, outside: cv2.remap(image, source, None, method, borderValue=outside)
    if np.array_equal(matrix, np.eye(2, 3)):
        return None
    if np.array_equal(matrix, [[-1, 0, width - 1], [0, 1, 0]]):
        return lambda image, method, outside: cv2.flip(image, 1)

    def warp(image, method, outside):
        flags = method | cv2.WARP_INVERSE_MAP
        return cv2.warpAffine(image, matrix, (width, height), flags=flags, borderValue=outside)

    return warp


def _change_levels(frame, plan, number):
    if plan.get("deviation", 0):
        rng = np.random.default_rng([plan["noise_seed"], number])
        frame = cv2.add(frame, rng.standard_normal(frame.shape, np.float32) * plan["deviation"], dtype=cv2.CV_8U)
    if "kernel" in plan:
        frame = _filter(frame, plan["kernel"])
    if "levels" in plan and not np.array_equal(plan["levels"], np.arange(256)):
        frame = cv2.LUT(frame, plan["levels"])
    return frame.reshape(*frame.shape[:2], 1)


def _filter(frame, kernel):
    rows, columns = kernel.sum(1), kernel.sum(0)
    reach = max(np.ptp(np.flatnonzero(line)) for line in (rows, columns)) // 2
    if not reach:
        return frame
    inner = slice(len(kernel) // 2 - reach, len(kernel) // 2 + reach + 1)
    if np.allclose(np.outer(rows, columns), kernel, atol=1e-6):
        return cv2.sepFilter2D(frame, -1, columns[inner], rows[inner])
    return cv2.filter2D(frame, -1, kernel[inner, inner])


def resize(example: Example, *, height: int, width: int) -> Example:
    """Resizes frames and masks with `resize_frame` and `resize_mask`."""
    resized = {}
    for gas in GASES:
        resized[f"{gas}_frame"] = resize_frame(example[f"{gas}_frame"], height, width)
        resized[f"{gas}_mask"] = resize_mask(example[f"{gas}_mask"], height, width)
    return example | resized


def resize_frame(frame: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resizes one uint8 frame [H, W, 1]: averages pixels if it shrinks, interpolates if it grows.

    It does so in float32 and rounds once. OpenCV rounds bytes on the way, by rules that differ from size to size and
    from platform to platform, which `fume_jax.interop.end_to_end` could not follow.
    """
    if frame.shape[:2] == (height, width):
        return frame
    grey = _resize(frame.astype(np.float32), height, width)
    return (grey + np.float32(ROUNDING)).astype(np.uint8).reshape(height, width, 1)


def resize_mask(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resizes one uint8 mask [H, W] by vote: every pixel takes the class of the largest share in it, or the lowest.

    The shares are resized as frames are, so masks stay where their frames are. OpenCV's nearest pixel is the first one
    of those that become one, which moves masks by up to half a pixel.
    """
    if mask.shape == (height, width):
        return mask
    mask = np.ascontiguousarray(mask)
    winner, largest = np.zeros((2, height, width), np.uint8)
    for value in np.flatnonzero(cv2.calcHist([mask], [0], None, [256], [0, 256])):
        share = _resize((mask == value) * np.uint8(255), height, width)
        winner[share > largest] = value
        cv2.max(largest, share, dst=largest)
    return winner


def _resize(image, height, width):
    """Resizes by area, or linearly if a side grows; both keep the centre of the picture in place."""
    method = cv2.INTER_AREA if image.shape[0] >= height and image.shape[1] >= width else cv2.INTER_LINEAR
    return cv2.resize(image, (width, height), interpolation=method)


def normalize(frame: np.ndarray, present: float) -> np.ndarray:
    """Scales grey levels 0..255 to float32 [-1, 1]; returns 0.0 everywhere if the gas is absent."""
    return cv2.LUT(frame, NORMALIZED * np.float32(present)).reshape(frame.shape)
