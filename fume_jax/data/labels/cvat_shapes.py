"""Shapes in XML of CVAT as layers of masks."""

import functools
import math
import re
from collections.abc import Iterable
from xml.etree.ElementTree import Element

import numpy as np

from fume_jax.data.labels.collector import Collector
from fume_jax.data.labels.label import UnusableMask
from fume_jax.data.labels.shapes import (
    OUTLINE,
    Draw,
    Layer,
    as_ellipse,
    as_points,
    decode_cvat,
    from_polygons,
)

# Elements with an area, and those without or with one that is none of a frame.
AREAS = ("polygon", "box", "ellipse", "mask")
_OTHERS = ("polyline", "points", "cuboid", "skeleton", "tag")


def whole_number(text: str | None) -> int | None:
    """Returns a number of at most nine digits, such as that of a frame; None if it is none."""
    return int(text) if re.fullmatch("[0-9]{1,9}", text or "") else None


def read_shape(
    collector: Collector, element: Element, label: str | None, place: str, size: tuple[int, int]
) -> tuple[int, Layer] | None:
    """Returns `z_order` and layer of a shape; None if it has no area or is at fault."""
    place = f"{place}, {element.tag}"
    if element.tag not in AREAS:
        if element.tag in _OTHERS:
            collector.count(f"shapes of the type {element.tag}, which are left out", place)
        return None
    if element.tag == "box":
        collector.count("boxes, taken as filled rectangles", place)
    try:
        draw = _region_of(element, *size)
        order = int(element.get("z_order", "0"))
    except UnusableMask as error:
        collector.fault(error.kind, place, str(error))
        return None
    except ValueError as error:
        collector.fault(OUTLINE, place, f"has an attribute that is no number ({error})")
        return None
    value = collector.value(label or "", place)
    return None if value is None else (order, Layer(value, draw, place))


def in_order(shapes: Iterable[tuple[int, Layer] | None]) -> list[Layer]:
    """Returns the layers of what `read_shape` returns by their `z_order`, those of one by their order."""
    return [layer for _, layer in sorted(filter(None, shapes), key=lambda shape: shape[0])]


def _region_of(element: Element, height: int, width: int) -> Draw:
    size = height, width
    if element.tag == "mask":
        runs = [int(run) for run in element.get("rle", "").split(",")]
        box = tuple(int(element.get(key, "")) for key in ("left", "top", "width", "height"))
        return functools.partial(decode_cvat, runs, box)
    if element.tag == "polygon":
        pairs = [pair.split(",") for pair in element.get("points", "").split(";")]
        return functools.partial(from_polygons, [as_points(pairs, *size)])
    degrees = float(element.get("rotation", "0"))
    if element.tag == "ellipse":
        x, y, *radii = (float(element.get(key, "")) for key in ("cx", "cy", "rx", "ry"))
        return as_ellipse((x, y), radii, degrees, *size)
    left, top, right, bottom = (float(element.get(key, "")) for key in ("xtl", "ytl", "xbr", "ybr"))
    corners = as_points([[left, top], [right, top], [right, bottom], [left, bottom]], *size)
    return functools.partial(from_polygons, [_turned(corners, math.radians(degrees))])


def _turned(corners, angle):
    """Returns points that are turned clockwise, as seen with y down, about their centre."""
    center = corners.mean(axis=0)
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    return center + (corners - center) @ turn if angle else corners
