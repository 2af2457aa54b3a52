"""Regions of masks as polygons, ellipses and run lengths, there and back.

Coordinates are those of annotation tools: x, y from the corner of the image, so the first pixel covers [0, 1] x [0, 1].
A pixel is inside an outline if its centre is, by the even-odd rule, which COCO, CVAT and LabelMe fill by as well.
"""

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import cv2
import numpy as np

from fume_jax.data.labels.label import UnusableMask

# Kind of faults of shapes.
OUTLINE = "outline"
# A region of a frame of any size: draws it as bool [height, width].
Draw = Callable[[int, int], np.ndarray]


class Layer(NamedTuple):
    """A value of masks, the region of it, and the place of the shape in the labels."""

    value: int
    draw: Draw
    place: str


def paint(layers: Iterable[Layer], height: int, width: int) -> np.ndarray:
    """Returns a mask, uint8 [height, width]; later layers lie over earlier ones.

    Raises UnusableMask, with the place, if a layer cannot be drawn.
    """
    mask = np.zeros((height, width), np.uint8)
    for layer in layers:
        try:
            mask[layer.draw(height, width)] = layer.value
        except UnusableMask as error:
            raise UnusableMask(error.kind, f"{layer.place}: {error}") from error
    return mask


def regions(mask: np.ndarray) -> dict[int, np.ndarray]:
    """Returns the region, bool [H, W], of every value of a mask but background."""
    return {int(value): mask == value for value in np.unique(mask) if value}


def box_of(region: np.ndarray) -> tuple[int, int, int, int]:
    """Returns left, top, width and height of the smallest box around a region that is not empty."""
    (rows,), (columns,) = np.nonzero(region.any(axis=1)), np.nonzero(region.any(axis=0))
    left, top = int(columns[0]), int(rows[0])
    return left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top


def as_points(pairs: Sequence, height: int, width: int, at_least: int = 3) -> np.ndarray:
    """Returns coordinates of an outline, float64 [N, 2].

    Raises UnusableMask if they are no pairs of numbers, too few, or further outside the frame than its own size: such
    outlines are of another image, and libraries need unbounded time for them.
    """
    try:
        points = np.asarray(pairs, np.float64)
    except (TypeError, ValueError, OverflowError):
        points = np.zeros(0)
    if points.ndim != 2 or points.shape[1] != 2 or not np.isfinite(points).all():
        raise UnusableMask(OUTLINE, "its points are no pairs of numbers")
    if len(points) < at_least:
        raise UnusableMask(OUTLINE, f"{len(points)} points; expected at least {at_least}")
    size = np.array([width, height])
    if (points < -size).any() or (points > 2 * size).any():
        x, y = points[np.argmax(np.abs(points).max(axis=1))]
        raise UnusableMask(OUTLINE, f"the point {x:g}, {y:g} is far outside the frame of {width}x{height}")
    return points


def from_polygons(polygons: Iterable[np.ndarray], height: int, width: int) -> np.ndarray:
    """Returns the union, bool [height, width], of what polygons [N, 2] enclose."""
    polygons = [np.asarray(polygon, np.float64) for polygon in polygons]
    if not polygons:
        return np.zeros((height, width), bool)
    starts, ends = np.concatenate(polygons), np.concatenate([np.roll(polygon, -1, axis=0) for polygon in polygons])
    # Each edge from its upper end, so that both ways along a bridge cross rows at exactly the same places.
    down = (starts[:, 1] <= ends[:, 1])[:, None]
    upper, lower = np.where(down, starts, ends), np.where(down, ends, starts)
    first, last = (np.clip(np.ceil(y - 0.5), 0, height).astype(int) for y in (upper[:, 1], lower[:, 1]))
    count = last - first
    edge = np.repeat(np.arange(len(starts)), count)
    row = np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count) + first[edge]
    slope = (lower[edge, 0] - upper[edge, 0]) / (lower[edge, 1] - upper[edge, 1])
    crossing = upper[edge, 0] + (row + 0.5 - upper[edge, 1]) * slope
    column = np.clip(np.ceil(crossing - 0.5), 0, width).astype(int)
    # A polygon crosses each row an even number of times, by turns into it and out of it.
    owner = np.repeat(np.arange(len(polygons)), [len(polygon) for polygon in polygons])[edge]
    place = (row * (width + 1) + column)[np.lexsort((column, row, owner))]
    region = np.zeros((height, width), bool)
    if len(place):
        # In the rows that are crossed alone, since there may be many small polygons in a large frame.
        top, stop = row.min(), row.max() + 1
        place, size = place - top * (width + 1), (stop - top) * (width + 1)
        changes = np.bincount(place[0::2], minlength=size) - np.bincount(place[1::2], minlength=size)
        region[top:stop] = np.cumsum(changes.reshape(-1, width + 1), axis=1)[:, :width] > 0
    return region


def to_polygons(region: np.ndarray) -> list[np.ndarray]:
    """Returns the exact outlines of a region, bool [H, W], as polygons, float64 [N, 2], along the edges of its pixels.

    There is a polygon for each part that holds together by edges. A hole is joined to the outline by a bridge of no
    width, along which the polygon goes there and back, so `from_polygons` gives the region without a pixel of
    difference.
    """
    _, parts = cv2.connectedComponents(region.astype(np.uint8), connectivity=4)
    outlines = {}
    for ring in _rings(region):
        x, y = ring[0]  # the first corner of the ring by rows
        if y < len(region) and x < region.shape[1] and region[y, x]:
            outlines[parts[y, x]] = ring
        else:  # the pixel below it is in a hole, the one above is not
            part = parts[y - 1, x]
            outlines[part] = _join(outlines[part], ring, region)
    return [outline.astype(np.float64) for outline in outlines.values()]


def _rings(region):
    """Yields the borders of a region, int [N, 2] of their corners, in the order of their first corners by rows.

    Along each line of the grid, corners alternately begin and end an edge. Where two pixels touch at a corner alone, it
    counts twice, so that the border follows each of them.
    """
    padded = np.pad(region.astype(bool), 1)
    northwest, northeast, southwest, southeast = padded[:-1, :-1], padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    touching = (northwest == southeast) & (northeast == southwest) & (northwest != northeast)
    y, x = np.nonzero((northwest ^ northeast ^ southwest ^ southeast) | touching)
    times = 1 + touching[y, x]
    y, x = np.repeat(y, times), np.repeat(x, times)
    if not len(y):
        return
    second = np.r_[False, (np.diff(y) == 0) & (np.diff(x) == 0)]
    # The first of two ends the edge from the left. It belongs to the pixel above if that is in the region.
    below = np.where(touching[y, x] & northeast[y, x], ~second, second)
    order = np.lexsort((below, y, x))
    down = np.empty(len(y), int)
    down[order[0::2]], down[order[1::2]] = order[1::2], order[0::2]
    corners, down, seen = np.stack([x, y], axis=1), down.tolist(), bytearray(len(y))
    for start in range(len(y)):
        ring, corner = [], start
        while not seen[corner]:
            ring += [corner, corner ^ 1]
            seen[corner] = seen[corner ^ 1] = 1
            corner = down[corner ^ 1]
        if ring:
            yield corners[ring]


def _join(outline, hole, region):
    """Joins a hole to an outline by a bridge from its first corner straight up to the next border."""
    x, y = hole[0]
    outside = np.flatnonzero(~region[:y, x])
    top = outside[-1] + 1 if len(outside) else 0
    ends = np.roll(outline, -1, axis=0)
    left, right = np.minimum(outline[:, 0], ends[:, 0]), np.maximum(outline[:, 0], ends[:, 0])
    edge = np.flatnonzero((outline[:, 1] == top) & (ends[:, 1] == top) & (left <= x) & (x <= right))[0] + 1
    foot = [(x, top)]
    return np.concatenate([outline[:edge], foot, hole, hole[:1], foot, outline[edge:]])


def as_ellipse(center: Sequence, radii: Sequence, degrees: float, height: int, width: int) -> Draw:
    """Returns the region of an ellipse about x, y that is turned clockwise; raises UnusableMask as `as_points` does."""
    ((x, y),) = as_points([center], height, width, at_least=1)
    ((radius_x, radius_y),) = as_points([radii], height, width, at_least=1)
    if min(radius_x, radius_y) <= 0 or not math.isfinite(degrees):
        raise UnusableMask(OUTLINE, f"its radii are {radius_x:g}, {radius_y:g}; expected numbers above 0")
    return functools.partial(_ellipse, x, y, radius_x, radius_y, math.radians(degrees))


def _ellipse(x, y, radius_x, radius_y, angle, height, width):
    across, down = np.arange(width) + 0.5 - x, (np.arange(height) + 0.5 - y)[:, None]
    along = across * math.cos(angle) + down * math.sin(angle)
    aside = down * math.cos(angle) - across * math.sin(angle)
    return (along * radius_y) ** 2 + (aside * radius_x) ** 2 <= (radius_x * radius_y) ** 2


def encode_coco(region: np.ndarray) -> dict:
    """Returns a region as compressed run lengths of COCO, with `counts` as text."""
    from pycocotools import mask as coco

    encoded = coco.encode(np.asfortranarray(region, np.uint8))
    return {"size": list(region.shape), "counts": encoded["counts"].decode("ascii")}


def decode_coco(segmentation: list | dict, height: int, width: int) -> np.ndarray:
    """Returns a segmentation of COCO, polygons or run lengths of either form, as bool [height, width].

    Polygons are filled by COCO's own library. Run lengths are checked here, since it takes runs that do not cover the
    frame and returns whatever is in memory for the rest. Raises UnusableMask for what is no segmentation.
    """
    if isinstance(segmentation, dict):
        counts, size = segmentation.get("counts"), segmentation.get("size")
        if size != [height, width]:
            raise UnusableMask(OUTLINE, f"its run lengths are of a size of {size}; expected {[height, width]}")
        runs = _inflate(counts) if isinstance(counts, str) else counts
        return _expand(runs, height * width).reshape(width, height).T
    from pycocotools import mask as coco

    polygons = [as_points(_pairs(polygon), height, width).ravel().tolist() for polygon in segmentation]
    return coco.decode(coco.merge(coco.frPyObjects(polygons, height, width))).astype(bool)


def _pairs(numbers):
    if not isinstance(numbers, list) or len(numbers) % 2:
        raise UnusableMask(OUTLINE, "a polygon is no list of x, y, x, y, ...")
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def _inflate(text):
    """Returns the run lengths in COCO's compressed text: 5 bits a character, each run less the one before the last."""
    runs, value, shift = [], 0, 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64:
            raise UnusableMask(OUTLINE, f"its compressed run lengths hold the character {character!r}")
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            value -= (bits & 16) << (shift - 4)
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    if shift:
        raise UnusableMask(OUTLINE, "its compressed run lengths end in the middle of a number")
    return runs


def _expand(runs, total):
    """Returns run lengths of False, True, False, ... as bool [total]; raises UnusableMask if they have another sum."""
    whole = isinstance(runs, list) and all(type(run) is int and run >= 0 for run in runs)
    if not whole or sum(runs) != total:
        got = f"a sum of {sum(runs):,}" if whole else "others"
        raise UnusableMask(
            OUTLINE, f"expected run lengths with a sum of {total:,}, as many as there are pixels; got {got}"
        )
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs)


def encode_cvat(region: np.ndarray) -> tuple[list[int], tuple[int, int, int, int]]:
    """Returns a region as run lengths of CVAT, by rows from background on, and their box: left, top, width, height."""
    left, top, width, height = box_of(region)
    flat = region[top : top + height, left : left + width].ravel()
    edges = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff(np.r_[0, edges, flat.size]).tolist()
    return [0, *runs] if flat[0] else runs, (left, top, width, height)


def decode_cvat(runs: list[int], box: tuple[int, int, int, int], height: int, width: int) -> np.ndarray:
    """Returns run lengths of CVAT in their box as bool [height, width]; raises UnusableMask if they do not fit."""
    left, top, columns, rows = box
    if min(left, top) < 0 or min(columns, rows) < 1 or left + columns > width or top + rows > height:
        raise UnusableMask(OUTLINE, f"its box {left}, {top}, {columns}x{rows} leaves the frame of {width}x{height}")
    region = np.zeros((height, width), bool)
    region[top : top + rows, left : left + columns] = _expand(runs, rows * columns).reshape(rows, columns)
    return region
