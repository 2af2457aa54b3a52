"""Position, size, direction and contrast of a plume from the mask of one frame; on the host, a frame at a time.

Axes come from second moments of the pixels (Hu 1962, doi:10.1109/TIT.1962.1057692). A pixel counts as a square rather
than a point, so that a rectangle of pixels has just the moments of the rectangle that it looks like.
"""

import dataclasses
import math

import cv2
import numpy as np

from fume_jax.schema import BACKGROUND, GAS, IGNORE, NOT_GAS, TUBE

# Ratio of eigenvalues from which a tube has an axis of its own: that of a rectangle twice as long as it is wide. Often
# only a stub shows at the border of the frame, and the major axis of a shorter one may run across the tube.
SLENDER = 4.0
# Blobs of gas below this share of the largest are specks, which must not decide the end of a plume.
SPECK = 0.05
# Distances from the gas, in shares of the longer side of the frame, between which a pixel belongs to its surroundings:
# the nearer ones hold gas too thin to be outlined, and the farther ones another background.
RING = (0.01, 0.05)
# Percentile of the contrasts that stands for the largest: a hot pixel of the camera must not decide it.
LARGEST = 99


@dataclasses.dataclass(frozen=True)
class Plume:
    """Measures of the gas in a frame, see `measure_plume`; None where there is nothing to measure.

    `fraction` is the share of the pixels of known class that is gas. `centroid` is (x, y) in pixels, x to the right, y
    down, (0, 0) being the centre of the top-left pixel. `direction_degrees` is counter-clockwise from the right of the
    image, in (-180, 180], so that 90 is up. `parts` is the number of blobs of gas that are no specks.
    `dispersion_pixels` is the root mean square distance of the gas from its centroid.
    """

    area_pixels: int
    fraction: float
    centroid: tuple[float, float] | None
    direction_degrees: float | None
    length_pixels: float | None
    parts: int
    dispersion_pixels: float | None


@dataclasses.dataclass(frozen=True)
class Contrast:
    """Contrast of a plume, see `measure_contrast`, in the unit of the values; negative where gas is darker."""

    mean: float
    largest: float


def measure_plume(mask: np.ndarray) -> Plume:
    """Measures the plume in a mask, int [H, W] of the values in `fume_jax.schema`.

    Area, fraction, centroid and dispersion are those of all pixels of gas. The dispersion of a rectangle w x h is
    sqrt((w^2 + h^2) / 12), and that of a disk is its radius / sqrt(2).

    The axis is the major principal axis of the largest blob of tube, pointed from its centroid towards that of the gas.
    A blob less than about twice as long as wide has no reliable axis; the line between the two centroids takes its
    place. Without a tube, or with less than a pixel between them, it is the major principal axis of the plume.

    The direction runs from the mouth, the end of the tube on its axis, to the centroid of the gas. It is None without a
    tube, since a plume alone does not show at which end the gas came out, and over less than a pixel.

    The length is the extent of the pixels on the axis, last minus first plus one pixel. Blobs of less than 5 % of the
    largest one do not count for it, nor as parts: one false pixel far away would otherwise decide.
    """
    region = mask == GAS
    if not region.any():
        return Plume(0, 0.0, None, None, None, 0, None)
    labels, sizes, centers, origin = _blobs(region)
    area = int(sizes.sum())
    gas = sizes @ centers / area
    counts = sizes >= SPECK * sizes.max()
    plume, dispersion = counts[labels].view(np.uint8), _dispersion(region, gas)
    direction, axis = None, None
    region = mask == TUBE
    if region.any():
        labels, sizes, centers, corner = _blobs(region)
        tube, center = (labels == sizes.argmax()).view(np.uint8), centers[sizes.argmax()]
        axis, ratio = _principal_axis(tube)
        towards = gas - center
        if ratio < SLENDER:
            axis = towards / np.hypot(*towards) if np.hypot(*towards) >= 1 else None
        elif axis @ towards < 0:
            axis = -axis
        if axis is not None:
            mouth = center + axis * ((_outline(tube, corner) - center) @ axis).max()
            x, y = gas - mouth
            if np.hypot(x, y) >= 1:
                direction = 180 - (180 - math.degrees(math.atan2(-y, x))) % 360
    if axis is None:
        axis, _ = _principal_axis(plume)
    return Plume(
        area_pixels=area,
        fraction=float(area / np.count_nonzero(mask != IGNORE)),
        centroid=(float(gas[0]), float(gas[1])),
        direction_degrees=direction,
        length_pixels=float(np.ptp(_outline(plume, origin) @ axis)) + 1,
        parts=int(counts.sum()),
        dispersion_pixels=dispersion,
    )


def measure_contrast(values: np.ndarray, mask: np.ndarray) -> Contrast | None:
    """Measures how much brighter the gas is than its surroundings in a frame.

    The surroundings are the background pixels of a ring around the gas, which begins 1 % and ends 5 % of the frame's
    longer side away from the nearest gas. The contrast of a pixel of gas is its value less the median of the ring, so
    what it measures includes a gradient of the background along the plume.

    Args:
      values: numbers [H, W] in any unit, such as grey levels or kelvins. NaN and infinities do not count.
      mask: int [H, W] of the values in `fume_jax.schema`.

    Returns:
      The mean contrast, and the largest: the 99th percentile of the magnitudes, with the sign that prevails among the
      pixels from there on. None without gas, or without a ring, as where gas fills the frame.
    """
    region = (mask == GAS).view(np.uint8)
    x, y, width, height = cv2.boundingRect(region)
    if not width:
        return None
    inner, outer = (share * max(mask.shape) for share in RING)
    # Distances beyond the ring do not matter, and their computation takes most of the time.
    margin = math.ceil(outer)
    box = (slice(max(y - margin, 0), y + height + margin), slice(max(x - margin, 0), x + width + margin))
    region, values = region[box], np.asarray(values[box], np.float64)
    distance = cv2.distanceTransform(1 - region, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    finite = np.isfinite(values)
    free = (mask[box] == BACKGROUND) | (mask[box] == NOT_GAS)
    ring = values[(distance > inner) & (distance <= outer) & free & finite]
    gas = values[(region == 1) & finite]
    if not len(ring) or not len(gas):
        return None
    contrasts = gas - np.median(ring)
    largest = np.percentile(abs(contrasts), LARGEST)
    tail = contrasts[abs(contrasts) >= largest].sum()
    return Contrast(mean=float(contrasts.mean()), largest=float(np.copysign(largest, tail)))


def _dispersion(region, center):
    """Returns the root mean square distance of the pixels of a region, bool [H, W], from their centroid, as squares."""
    # Sums of columns and of rows: OpenCV's moments, which hold the sum of products too, take many times as long.
    by_axis = (cv2.reduce(region.view(np.uint8), axis, cv2.REDUCE_SUM, dtype=cv2.CV_32S).ravel() for axis in (0, 1))
    squares = [n @ (np.arange(len(n)) - c) ** 2 / n.sum() for n, c in zip(by_axis, center, strict=True)]
    return math.sqrt(sum(squares) + 2 / 12)  # 1/12 is the variance of a pixel's own square on an axis


def _blobs(region):
    """Finds the connected components (sides or corners touch) of a region, bool [H, W], that is not empty.

    Returns labels [h, w] within the box around the region, 0 outside it; pixels [n] and centroids (x, y) [n, 2] in the
    frame, by label; and the top-left pixel (x, y) of the box.
    """
    region = region.view(np.uint8)
    x, y, width, height = cv2.boundingRect(region)
    # This one of OpenCV's algorithms takes half the time of the others where statistics are computed.
    _, labels, stats, centers = cv2.connectedComponentsWithStatsWithAlgorithm(
        region[y : y + height, x : x + width], 8, cv2.CV_32S, cv2.CCL_BBDT
    )
    sizes = stats[:, cv2.CC_STAT_AREA]
    sizes[0], centers[0] = 0, 0
    return labels, sizes, centers + np.array([x, y]), (x, y)


def _principal_axis(region):
    """Returns the unit vector (x, y) of the major axis, and the ratio of the eigenvalues of the pixels' covariance."""
    moments = cv2.moments(region, binaryImage=True)
    xx, yy, xy = (moments[name] / moments["m00"] for name in ("mu20", "mu02", "mu11"))
    angle = 0.5 * math.atan2(2 * xy, xx - yy)
    mean, half = (xx + yy) / 2 + 1 / 12, math.hypot((xx - yy) / 2, xy)  # 1/12 is the variance of a pixel's own square
    return np.array([math.cos(angle), math.sin(angle)]), (mean + half) / (mean - half)


def _outline(region, origin):
    """Returns pixels (x, y) at the edge of a region, those that reach farthest in any direction among them."""
    contours, _ = cv2.findContours(region, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE, offset=origin)
    return np.concatenate(contours)[:, 0]
