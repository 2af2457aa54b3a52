"""Draws a model from its own structure: blocks with their parts, and the ways that data flows."""

import dataclasses
from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle
from matplotlib.path import Path

from fume_jax.models.structure import Structure
from launch.study.style import COLORS, DASHES, FAINT, INK

# Sizes in inches: of a part, between parts, of the margin and the heading of a block, and between columns and blocks.
WIDTH, HEIGHT, BETWEEN, MARGIN, HEADING = 1.55, 0.36, 0.13, 0.16, 0.36
SMALL_WIDTH, COLUMN_GAP, BLOCK_GAP = 0.95, 0.42, 0.2
SHADE, PLAIN = "#EEF4F8", "#FFFFFF"


@dataclasses.dataclass
class Box:
    """A block, an input or an output in the drawing: its parts, by path, with two lines of text; its place in inches.

    x and y are those of the upper left corner; y grows downwards.
    """

    title: str
    lines: dict[str, tuple[str, str]]
    x: float = 0.0
    y: float = 0.0

    @property
    def height(self) -> float:
        return HEADING * bool(self.title) + len(self.lines) * (HEIGHT + BETWEEN) + BETWEEN

    @property
    def inner_width(self) -> float:
        return WIDTH if self.title else SMALL_WIDTH

    @property
    def width(self) -> float:
        return self.inner_width + 2 * MARGIN

    def middle(self, path: str) -> float:
        """Returns the height at which the middle of a part lies."""
        number = list(self.lines).index(path)
        return self.y + HEADING * bool(self.title) + BETWEEN + number * (HEIGHT + BETWEEN) + HEIGHT / 2


def architecture_figure(structure: Structure) -> Figure:
    """Draws the blocks of a model from left to right, in each its parts in the order of their execution.

    A part has its class, the shape of its output without the axis of the batch, and its parameters.
    """
    boxes = _create_boxes(structure)
    owner = {path: name for name, box in boxes.items() for path in box.lines}
    columns = _columns(boxes, owner, structure.edges)
    width, height = _place(boxes, owner, columns, structure.edges)
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    for box in boxes.values():
        _draw_box(axes, box)
    sources = sorted({a for a, b in structure.edges if owner[a] != owner[b]}, key=list(owner).index)
    for source, target in sorted(structure.edges):
        start, end = boxes[owner[source]], boxes[owner[target]]
        if start is end:
            _draw_inner(axes, start, source, target)
        else:
            style = sources.index(source)
            look = {"color": COLORS[style % len(COLORS)], "linestyle": DASHES[style % len(DASHES)]}
            _draw_arrow(axes, (start.x + start.width, start.middle(source)), (end.x, end.middle(target)), **look)
    return figure


def _create_boxes(structure) -> dict[str, Box]:
    boxes = {name: Box("", {name: (name, _shape(shape))}) for name, shape in structure.inputs.items()}
    used = {source for source, _ in structure.edges}
    boxes = {name: box for name, box in boxes.items() if name in used}
    for block, parts in structure.blocks.items():
        lines = {}
        for part in parts:
            times = f"{part.count} x " if part.count > 1 else ""
            detail = f"{times}{part.kind}"
            lines[part.path] = (detail, f"{_shape(part.shape)}   {_count(part.parameters)}")
        total = sum(part.parameters for part in parts)
        boxes[block] = Box(f"{block}\n{structure.kinds[block]}, {_count(total)} parameters", lines)
    return boxes | {name: Box("", {name: (name, _shape(shape))}) for name, shape in structure.outputs.items()}


def _columns(boxes, owner, edges) -> dict[str, int]:
    """Returns the column of each box: one more than the last of those that it follows from."""
    follows = {name: {owner[a] for a, b in edges if owner[b] == name and owner[a] != name} for name in boxes}
    columns: dict[str, int] = {}
    while len(columns) < len(boxes):
        for name, before in follows.items():
            if name not in columns and before <= columns.keys():
                columns[name] = max((columns[other] + 1 for other in before), default=0)
    return columns


def _place(boxes: Mapping[str, Box], owner, columns, edges) -> tuple[float, float]:
    """Places the boxes of each column one below the other, near what they follow from; returns width and height."""
    by_column = [[name for name in boxes if columns[name] == i] for i in range(max(columns.values()) + 1)]
    heights = [sum(boxes[name].height + BLOCK_GAP for name in names) - BLOCK_GAP for names in by_column]
    total, x = max(heights) + 2 * BLOCK_GAP, COLUMN_GAP / 2
    for names, height in zip(by_column, heights, strict=True):
        centers = {}
        for name in names:
            places = [boxes[owner[a]].middle(a) for a, b in edges if owner[b] == name and owner[a] != name]
            centers[name] = sum(places) / len(places) if places else 0
        y = (total - height) / 2
        for name in sorted(names, key=centers.get):
            boxes[name].x, boxes[name].y = x, y
            y += boxes[name].height + BLOCK_GAP
        x += max(boxes[name].width for name in names) + COLUMN_GAP
    return x - COLUMN_GAP / 2, total


def _draw_box(axes: Axes, box: Box):
    if box.title:
        round_corners = "round,pad=0,rounding_size=0.08"
        edge = {"edgecolor": FAINT, "facecolor": SHADE, "linewidth": 0.8}
        axes.add_patch(FancyBboxPatch((box.x, box.y), box.width, box.height, boxstyle=round_corners, **edge))
        name, detail = box.title.split("\n")
        axes.text(box.x + MARGIN, box.y + 0.17, name, fontsize=9, weight="bold", va="center")
        size = 6.5 * min(1, 34 / len(detail))
        axes.text(box.x + MARGIN, box.y + 0.33, detail, fontsize=size, va="center", color="#444444")
    for path, (first, second) in box.lines.items():
        middle, left = box.middle(path), box.x + MARGIN
        edge = {"edgecolor": INK, "facecolor": PLAIN, "linewidth": 0.7}
        axes.add_patch(Rectangle((left, middle - HEIGHT / 2), box.inner_width, HEIGHT, **edge))
        name = path.partition(".")[2]
        title = f"{name}: {first}" if name not in ("", first) else first
        center, size = left + box.inner_width / 2, 7.5 * min(1, 23 / len(title))
        axes.text(center, middle - 0.07, title, fontsize=size, ha="center", va="center")
        axes.text(center, middle + 0.09, second, fontsize=6.5, ha="center", va="center", color="#444444")


def _draw_inner(axes, box, source, target):
    """Draws an arrow to the next part, or around those between on the right side of the box."""
    start, end = box.middle(source), box.middle(target)
    apart = list(box.lines).index(target) - list(box.lines).index(source)
    right = box.x + MARGIN + WIDTH
    if apart == 1:
        x = box.x + MARGIN + WIDTH / 2
        _draw_path(axes, [(x, start + HEIGHT / 2), (x, end - HEIGHT / 2)], [Path.MOVETO, Path.LINETO], color=INK)
    else:
        far = right + MARGIN * min(0.5 + 0.35 * abs(apart), 1.6)
        points = [(right, start + 0.06), (far, start + 0.06), (far, end - 0.06), (right, end - 0.06)]
        _draw_path(axes, points, [Path.MOVETO, *[Path.CURVE4] * 3], color=INK)


def _draw_arrow(axes, start, end, **look):
    bend = 0.5 * (end[0] - start[0])
    start = (start[0] - MARGIN, start[1])
    end = (end[0] + MARGIN, end[1])
    points = [start, (start[0] + MARGIN + bend, start[1]), (end[0] - MARGIN - bend, end[1]), end]
    _draw_path(axes, points, [Path.MOVETO, *[Path.CURVE4] * 3], **look)


def _draw_path(axes, points, codes, *, color, linestyle="-"):
    look = {"color": color, "linestyle": linestyle, "linewidth": 1.0, "capstyle": "butt"}
    axes.add_patch(FancyArrowPatch(path=Path(points, codes), arrowstyle="-|>", mutation_scale=6, **look))


def _shape(shape):
    """Formats a shape without the axis of the batch, which holds several frames where these are encoded together."""
    batch, *rest = shape
    return f"{batch} of " * (batch > 1) + " x ".join(map(str, rest))


def _count(number):
    for factor, unit in ((1e6, "M"), (1e3, "k")):
        if number >= factor:
            return f"{number / factor:.3g} {unit}"
    return str(number)
