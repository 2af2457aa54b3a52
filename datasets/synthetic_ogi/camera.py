"""Camera model: makes 8-bit pictures of temperatures, which are in kelvin above the mean of the background."""

import string

import cv2
import numpy as np

from datasets.synthetic_ogi.plume import mouth
from datasets.synthetic_ogi.scene import Camera, Scene

# The automatic gain stretches the exposures of the first frame between these percentiles to the range of the display.
GAIN_PERCENTILES = (1.0, 99.9)
MINIMAL_SPAN = 1.0  # K, so that noise alone never fills the display
CANVAS_WIDTH = 640  # width in pixels for which the overlay is laid out


def background(scene: Scene, height: int, width: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draws the background behind the gas and its change per second, both float32 [height, width]."""
    things = np.zeros((height, width), np.float32)
    for _ in range(scene.objects):
        thing = np.zeros((height, width), np.float32)
        place = rng.uniform(0, 1, 2) * (width, height)
        side = rng.integers(2)
        place[side] = rng.choice([0, (width, height)[side]])
        size, angle = rng.uniform(0.04, 0.3, 2) * width, rng.uniform(0, 180)
        if rng.random() < 0.5:
            cv2.ellipse(thing, (place, size, angle), 1.0, -1, cv2.LINE_AA)
        else:
            cv2.fillPoly(thing, [cv2.boxPoints((place, size, angle)).astype(np.int32)], 1.0, cv2.LINE_AA)
        things += thing * scene.contrast * rng.uniform(0.3, 2.0)
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    slope = abs(scene.contrast) * (scene.gradient[0] * x + scene.gradient[1] * y)
    clutter = scene.clutter * (_blotches(height, width, 60, rng) + _blotches(height, width, 12, rng))
    return slope + clutter + things, scene.drift * _blotches(height, width, 100, rng)


def tube(scene: Scene, height: int, width: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draws the antialiased coverage by the tube in [0, 1], and its temperature, both float32 [height, width]."""
    x, y = mouth(scene)
    radius = scene.tube_radius / scene.camera.frame_width * width
    side = -1 if scene.tube_at_right else 1
    along = np.array([side * np.cos(scene.tube_tilt), np.sin(scene.tube_tilt)])
    across = np.array([-along[1], along[0]]) * radius
    end = np.array([x * width, y * height])
    start = end - (2 * scene.tube_length + 0.1) * width * along  # far outside the frame
    corners = np.array([start - across, end - across, end + across, start + across])
    coverage = np.zeros((height, width), np.uint8)
    cv2.fillPoly(coverage, [np.round((corners - 0.5) * 16).astype(np.int32)], 255, cv2.LINE_AA, shift=4)
    texture = 1 - scene.tube_texture * np.abs(_blotches(height, width, max(1.0, 0.3 * radius), rng))
    return coverage.astype(np.float32) / 255, scene.tube_temperature * np.maximum(texture, 0.2)


def optics(camera: Camera, height: int, width: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draws the factor and the offset of optics and detector, equal in every frame, both float32 [height, width]."""
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    factor = 1 - camera.vignetting * (x**2 + y**2) / 2
    for _ in range(camera.dust):
        speck = np.zeros((height, width), np.float32)
        center = (rng.uniform(0, 1, 2) * (width, height)).astype(int)
        radius = rng.uniform(0.008, 0.04) * width
        cv2.circle(speck, center.tolist(), max(1, round(radius)), rng.uniform(0.05, 0.25), -1)
        factor -= cv2.GaussianBlur(speck, (0, 0), 0.5 * radius)
    columns = rng.standard_normal((1, width), np.float32)
    offset = camera.pattern * (0.8 * _blotches(height, width, 2.0, rng) + 0.4 * columns)
    bad = rng.integers(0, (height, width), (camera.bad_pixels, 2))
    offset[bad[:, 0], bad[:, 1]] += rng.normal(0, 30 * camera.netd, camera.bad_pixels)
    return factor, offset


def automatic_gain(camera: Camera, exposure: np.ndarray) -> tuple[float, float]:
    """Returns the temperature that is shown as black, and kelvin per grey level."""
    low, high = np.percentile(exposure, GAIN_PERCENTILES)
    span = max(high - low, MINIMAL_SPAN)
    below, above = camera.headroom
    return float(low - below * span), float((1 + below + above) * span / 255)


def overlay(height: int, width: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draws the overlay of the camera: grey levels and opacity in [0, 1], both float32 [height, width]."""
    bottom = round(CANVAS_WIDTH * height / width)
    grey, opacity = np.zeros((2, bottom, CANVAS_WIDTH), np.uint8)
    veil = rng.uniform(80, 230)

    def rectangle(x, y, w, h, level=255, cover=255, line=-1):
        for canvas, value in ((grey, level), (opacity, cover)):
            cv2.rectangle(canvas, (int(x), int(y)), (int(x + w), int(y + h)), value, line)

    def write(text, x, y, size):
        for canvas in (grey, opacity):
            thickness = round(3 * size)
            cv2.putText(canvas, text, (int(x), int(y)), cv2.FONT_HERSHEY_SIMPLEX, size, 255, thickness, cv2.LINE_AA)

    if rng.random() < 0.8:  # logo and name of the maker
        x, size = rng.uniform(5, 25), rng.uniform(0.7, 1.1)
        rectangle(x, bottom - 11 - 20 * size, 18 * size, 20 * size)
        name = "".join(rng.choice(list(string.ascii_uppercase), rng.integers(3, 6)))
        write(name, x + 24 * size, bottom - 11, size)
    if rng.random() < 0.8 and bottom > 200:  # temperature scale and its two ends
        x, high = rng.uniform(540, 560), rng.uniform(24, 30)
        for y, temperature in ((5, high), (bottom - 45, high - rng.uniform(1, 6))):
            rectangle(x, y, 75, 38, level=25, cover=veil)
            write(f"{temperature:.1f}", x + 10, y + 27, 0.75)
        x, y, length = int(x) + 48, 52, bottom - 110
        rectangle(x, y, 12, length)
        grey[y + 2 : y + length - 2, x + 2 : x + 11] = np.linspace(255, 0, length - 4)[:, None]
    for i in range(rng.integers(0, 3)):  # icons, such as a battery
        rectangle(28 + 45 * i, 7, 32, 34, level=25, cover=veil)
        rectangle(34 + 45 * i, 18, 20, 12, line=2)
    grey, opacity = (cv2.resize(c, (width, height), interpolation=cv2.INTER_AREA) for c in (grey, opacity))
    return grey.astype(np.float32), opacity.astype(np.float32) / 255


def display(camera: Camera, exposure: np.ndarray, gain: tuple[float, float], drawing: tuple) -> np.ndarray:
    """Exports the picture of an exposure of any size: uint8, of the size of the `drawing` that `overlay` returned."""
    (black, per_level), (grey, opacity) = gain, drawing
    levels = cv2.resize((exposure - black) / per_level, grey.shape[::-1], interpolation=cv2.INTER_CUBIC)
    if camera.overlay:
        levels = np.clip(levels, 0, 255) * (1 - opacity) + grey * opacity
    picture = np.clip(np.rint(levels), 0, 255).astype(np.uint8)
    jpeg = cv2.imencode(".jpg", picture, (cv2.IMWRITE_JPEG_QUALITY, camera.jpeg_quality))[1]
    return cv2.imdecode(jpeg, cv2.IMREAD_GRAYSCALE)


def _blotches(height, width, size, rng):
    """Draws smooth noise of unit variance; its structures have about `size` pixels of a 320 pixel wide detector."""
    cells = max(1.0, size * width / 320)
    small = rng.standard_normal((int(height / cells) + 3, int(width / cells) + 3), np.float32)
    field = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
    return field / field.std()
