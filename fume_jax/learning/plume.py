"""Where a plume is, how large and where it goes, from the mask of one frame; on the host, a frame at a time.

Axes come from second moments of the pixels (Hu 1962, doi:10.1109/TIT.1962.1057692), a pixel being a square rather than
a point: a rectangle of pixels then has just the moments of the rectangle that it looks like.
"""

import dataclasses
import math

import cv2
import numpy as np

from fume_jax.schema import GAS, TUBE

# Ratio of the eigenvalues from which a tube has an axis of its own: that of a rectangle twice as long as it is wide.
# Often only a stub shows at the border of the frame, and the major axis of a shorter one may run across the tube.
SLENDER = 4.0
# Blobs of gas below this share of the largest are specks, which must not decide where a plume ends.
SPECK = 0.05


@dataclasses.dataclass(frozen=True)
class Plume:
    """What a mask says of the gas in a frame of H x W pixels; see `measure_plume`.

    Attributes:
      area_pixels: how many pixels are gas.
      fraction: their share of the frame, in [0, 1].
      centroid: their mean (x, y) in pixels, x to the right, y down, (0, 0) being the centre of the top-left pixel; None
        without gas.
      direction_degrees: where the gas goes from the tube's mouth, counter-clockwise from the right of the picture, in
        (-180, 180], so that 90 is up; None without gas or tube.
      length_pixels: how far the plume reaches along its axis; None without gas.
    """

    area_pixels: int
    fraction: float
    centroid: tuple[float, float] | None
    direction_degrees: float | None
    length_pixels: float | None


def measure_plume(mask: np.ndarray) -> Plume:
    """Measures the plume in a mask, int [H, W] of the values in `fume_jax.schema`.

    Area, fraction and centroid are those of all pixels of gas.

    The axis is the major principal axis of the largest blob of tube, pointed from its centroid towards that of the gas.
    A blob less than about twice as long as wide has no axis that could be trusted: there it is the line between the two
    centroids, and where there is no tube, or they are less than a pixel apart, the major principal axis of the plume.

    The direction runs from the mouth, the end of the tube on its axis, to the centroid of the gas. There is none
    without a tube, since a plume alone does not tell at which end the gas came out, and none over less than a pixel.

    The length is the extent of the pixels on the axis, last minus first plus one pixel. Gas in blobs of less than 5 %
    of the largest one does not count for it: one false pixel far away would otherwise decide it.
    """
    region = mask == GAS
    if not region.any():
        return Plume(0, 0.0, None, None, None)
    labels, sizes, centres, origin = _blobs(region)
    area = int(sizes.sum())
    gas = sizes @ centres / area
    plume = (sizes >= SPECK * sizes.max())[labels].view(np.uint8)
    direction, axis = None, None
    region = mask == TUBE
    if region.any():
        labels, sizes, centres, corner = _blobs(region)
        tube, centre = (labels == sizes.argmax()).view(np.uint8), centres[sizes.argmax()]
        axis = _axis_of_tube(tube, gas - centre)
        if axis is not None:
            mouth = centre + axis * ((_outline(tube, corner) - centre) @ axis).max()
            direction = _direction(gas - mouth)
    if axis is None:
        axis, _ = _principal_axis(plume)
    return Plume(
        area_pixels=area,
        fraction=area / mask.size,
        centroid=(float(gas[0]), float(gas[1])),
        direction_degrees=direction,
        length_pixels=float(np.ptp(_outline(plume, origin) @ axis)) + 1,
    )


def _blobs(region):
    """What touches at sides or corners, within the box around a region, bool [H, W], that is not empty.

    Returns:
      Labels [h, w] of the box, where 0 is the rest; pixels [n] and centroids (x, y) [n, 2] in the frame, by label; and
      the top-left pixel (x, y) of the box.
    """
    region = region.view(np.uint8)
    x, y, width, height = cv2.boundingRect(region)
    # Of OpenCV's algorithms those of this kind need half the time where statistics are asked for.
    _, labels, stats, centres = cv2.connectedComponentsWithStatsWithAlgorithm(
        region[y : y + height, x : x + width], 8, cv2.CV_32S, cv2.CCL_BBDT
    )
    sizes = stats[:, cv2.CC_STAT_AREA]
    sizes[0], centres[0] = 0, 0
    return labels, sizes, centres + np.array([x, y]), (x, y)


def _axis_of_tube(tube, towards):
    """Unit vector (x, y) of a tube in the sense of the way to the gas; None if neither has a direction."""
    axis, ratio = _principal_axis(tube)
    if ratio >= SLENDER:
        return axis if axis @ towards >= 0 else -axis
    distance = np.hypot(*towards)
    return towards / distance if distance >= 1 else None


def _principal_axis(region):
    """Unit vector (x, y) of the major axis, and the ratio of the eigenvalues of the pixels' covariance."""
    moments = cv2.moments(region, binaryImage=True)
    xx, yy, xy = (moments[name] / moments["m00"] for name in ("mu20", "mu02", "mu11"))
    angle = 0.5 * math.atan2(2 * xy, xx - yy)
    mean, half = (xx + yy) / 2 + 1 / 12, math.hypot((xx - yy) / 2, xy)  # 1/12 is the variance of a pixel's own square
    return np.array([math.cos(angle), math.sin(angle)]), (mean + half) / (mean - half)


def _outline(region, origin):
    """Pixels (x, y) at the edge of a region, among which are those that reach farthest in any direction."""
    contours, _ = cv2.findContours(region, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE, offset=origin)
    return np.concatenate(contours)[:, 0]


def _direction(vector):
    """Degrees in (-180, 180] of a vector (x, y), y down; None if it is shorter than a pixel."""
    if np.hypot(*vector) < 1:
        return None
    return 180 - (180 - math.degrees(math.atan2(-vector[1], vector[0]))) % 360
