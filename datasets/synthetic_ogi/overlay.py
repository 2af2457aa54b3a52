"""What cameras draw over their pictures: logos, scales, spot values, icons and lines of text.

Grey levels and opacity in [0, 1] are float32 [height, width]. Everything is laid out for a picture `CANVAS_WIDTH` wide.
"""

import string

import cv2
import numpy as np

CANVAS_WIDTH = 640
LETTERS = list(string.ascii_uppercase)


class Canvas:
    """Grey levels and opacity that fill a canvas as things are drawn; places and sizes are in its pixels."""

    def __init__(self, height: int, width: int):
        self.size = width, height
        self.bottom = round(CANVAS_WIDTH * height / width)
        self.grey, self.opacity = np.zeros((2, self.bottom, CANVAS_WIDTH), np.uint8)

    def rectangle(self, x, y, w, h, level=255, cover=255, line=-1):
        for canvas, value in ((self.grey, level), (self.opacity, cover)):
            cv2.rectangle(canvas, (int(x), int(y)), (int(x + w), int(y + h)), value, line)

    def write(self, text, x, y, size, level=255):
        """Writes above and to the right of a place."""
        for canvas, value in ((self.grey, level), (self.opacity, 255)):
            thickness = max(1, round(3 * size))
            cv2.putText(canvas, text, (int(x), int(y)), cv2.FONT_HERSHEY_SIMPLEX, size, value, thickness, cv2.LINE_AA)

    def line(self, x, y, to_x, to_y, level=255, width=2):
        for canvas, value in ((self.grey, level), (self.opacity, 255)):
            cv2.line(canvas, (int(x), int(y)), (int(to_x), int(to_y)), value, width, cv2.LINE_AA)

    def drawn(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns grey levels and opacity in the size of the picture."""
        grey, opacity = (cv2.resize(c, self.size, interpolation=cv2.INTER_AREA) for c in (self.grey, self.opacity))
        return grey.astype(np.float32), opacity.astype(np.float32) / 255


def laboratory(height: int, width: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draws the overlay of the laboratory's camera: a logo, a scale at the right, and icons."""
    canvas, veil = Canvas(height, width), rng.uniform(80, 230)
    bottom = canvas.bottom
    if rng.random() < 0.8:  # logo and name of the maker
        x, size = rng.uniform(5, 25), rng.uniform(0.7, 1.1)
        canvas.rectangle(x, bottom - 11 - 20 * size, 18 * size, 20 * size)
        name = "".join(rng.choice(LETTERS, rng.integers(3, 6)))
        canvas.write(name, x + 24 * size, bottom - 11, size)
    if rng.random() < 0.8 and bottom > 200:  # temperature scale and its two ends
        x, high = rng.uniform(540, 560), rng.uniform(24, 30)
        for y, temperature in ((5, high), (bottom - 45, high - rng.uniform(1, 6))):
            canvas.rectangle(x, y, 75, 38, level=25, cover=veil)
            canvas.write(f"{temperature:.1f}", x + 10, y + 27, 0.75)
        x, y, length = int(x) + 48, 52, bottom - 110
        canvas.rectangle(x, y, 12, length)
        canvas.grey[y + 2 : y + length - 2, x + 2 : x + 11] = np.linspace(255, 0, length - 4)[:, None]
    for i in range(rng.integers(0, 3)):  # icons, such as a battery
        canvas.rectangle(28 + 45 * i, 7, 32, 34, level=25, cover=veil)
        canvas.rectangle(34 + 45 * i, 18, 20, 12, line=2)
    return canvas.drawn()


def of_any_maker(height: int, width: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draws the overlay of some camera: what it shows, and where, is drawn at random."""
    canvas, style = Canvas(height, width), _Style(rng)
    corners = [(left, top) for left in (True, False) for top in (True, False)]
    free = [corners[i] for i in rng.permutation(len(corners))]
    edge = free[0]
    parts = ((_scale, 0.6), (_logo, 0.6), (_icons, 0.5), (_values, 0.4), (_status, 0.35), (_spots, 0.4))
    for draw, share in parts:
        if rng.random() < share:
            # A scale keeps to an edge, and spots to the middle; the rest share the corners.
            draw(canvas, style, edge if draw in (_scale, _spots) else free.pop(), rng)
    return canvas.drawn()


class _Style:
    """How a maker draws: text with or without a plate behind it, white on dark or dark on white, of some size."""

    def __init__(self, rng):
        self.ink, self.plate = (255, 25) if rng.random() < 0.8 else (10, 235)
        self.veil = 0 if rng.random() < 0.4 else rng.uniform(60, 255)
        self.size = rng.uniform(0.45, 0.85)
        self.margin = rng.uniform(4, 24)

    def label(self, canvas, text, corner, row=0):
        """Writes a line of text into a corner, `row` lines away from the edge."""
        (w, h), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, self.size, max(1, round(3 * self.size)))
        left, top = corner
        x = self.margin if left else CANVAS_WIDTH - self.margin - w
        y = self.margin + row * 2 * h if top else canvas.bottom - self.margin - h - row * 2 * h
        if self.veil:
            canvas.rectangle(x - 5, y - 5, w + 10, h + 10, self.plate, self.veil)
        canvas.write(text, x, y + h, self.size, self.ink)


def _number(rng):
    return f"{rng.uniform(-5, 90):.1f}" + rng.choice(["", " C", " F"])


def _logo(canvas, style, corner, rng):
    (left, top), side = corner, rng.uniform(14, 30)
    name = "".join(rng.choice(LETTERS, rng.integers(3, 9)))
    x = style.margin if left else CANVAS_WIDTH - style.margin - side * (1 + 0.8 * len(name))
    y = style.margin if top else canvas.bottom - style.margin - side
    canvas.rectangle(x, y, 0.8 * side, side, style.ink)
    canvas.write(name, x + 1.2 * side, y + side, side / 28, style.ink)


def _icons(canvas, style, corner, rng):
    left, top = corner
    for i in range(rng.integers(1, 5)):
        x = style.margin + 45 * i if left else CANVAS_WIDTH - style.margin - 32 - 45 * i
        y = style.margin if top else canvas.bottom - style.margin - 34
        if style.veil:
            canvas.rectangle(x, y, 32, 34, style.plate, style.veil)
        canvas.rectangle(x + 6, y + 11, 20, 12, style.ink, line=2)


def _values(canvas, style, corner, rng):
    """Values of spots and boxes, such as "Sp1 24.3"."""
    for row in range(rng.integers(1, 4)):
        style.label(canvas, f"{rng.choice(['Sp', 'Max', 'Min', 'Ar', ''])}{row + 1} {_number(rng)}", corner, row)


def _status(canvas, style, corner, rng):
    """Date and time, or emissivity and distance."""
    day = f"20{rng.integers(10, 30)}-{rng.integers(1, 13):02d}-{rng.integers(1, 29):02d} {rng.integers(24):02d}:00:00"
    style.label(canvas, day if rng.random() < 0.6 else f"e={rng.uniform(0.8, 1):.2f} d={rng.integers(1, 30)}m", corner)


def _spots(canvas, style, _, rng):
    """Crosses and boxes where the camera measures."""
    for _ in range(rng.integers(1, 4)):
        x, y = rng.normal(0.5, 0.15, 2) * (CANVAS_WIDTH, canvas.bottom)
        reach, gap = rng.uniform(8, 25), rng.uniform(0, 6)
        if rng.random() < 0.7:
            for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1)):
                canvas.line(x + gap * dx, y + gap * dy, x + reach * dx, y + reach * dy, style.ink)
        else:
            canvas.rectangle(x, y, 4 * reach, 3 * reach, style.ink, line=2)


def _scale(canvas, style, corner, rng):
    """A scale of grey levels along an edge, with the values of its ends."""
    left, top = corner
    thick, start = rng.uniform(8, 22), rng.uniform(0.05, 0.2)
    levels = np.linspace(255, 0, 256)
    if rng.random() < 0.75:
        x, y, h = (style.margin if left else CANVAS_WIDTH - style.margin - thick), start * canvas.bottom, 0
        w, h = thick, (1 - 2 * start) * canvas.bottom
        levels = levels[:, None]
    else:
        x, y = start * CANVAS_WIDTH, (style.margin if top else canvas.bottom - style.margin - thick)
        w, h, levels = (1 - 2 * start) * CANVAS_WIDTH, thick, levels[None, ::-1]
    x, y, w, h = (max(3, int(value)) for value in (x, y, w, h))
    canvas.rectangle(x, y, w, h, style.ink)
    inside = canvas.grey[y + 2 : y + h - 1, x + 2 : x + w - 1]
    inside[:] = cv2.resize(levels, inside.shape[::-1], interpolation=cv2.INTER_LINEAR)
    for end in (True, False):
        style.label(canvas, _number(rng), (left, end) if h > w else (end, top))
