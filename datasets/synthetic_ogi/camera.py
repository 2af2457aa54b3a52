"""Camera model: makes 8-bit pictures of temperatures, which are in kelvin above the mean of the background."""

import cv2
import numpy as np

from datasets.synthetic_ogi.plume import mouth
from datasets.synthetic_ogi.scene import Camera, Scene

INTERPOLATIONS = {"cubic": cv2.INTER_CUBIC, "linear": cv2.INTER_LINEAR, "nearest": cv2.INTER_NEAREST}


def background(scene: Scene, height: int, width: int, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Draws the background behind the gas, the things in it, and its change per second, float32 [height, width] each.

    Things are to be added to the background, and may move.
    """
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
    for _ in range(scene.bodies):
        things += _body(height, width, rng) * scene.contrast * rng.uniform(0.5, 3.0) * rng.choice((-1, 1))
    x, y = _axes(height, width)
    slope = abs(scene.contrast) * (scene.gradient[0] * x + scene.gradient[1] * y)
    clutter = scene.clutter * (_blotches(height, width, 60, rng) + _blotches(height, width, 12, rng))
    return slope + clutter, things, scene.drift * _blotches(height, width, 100, rng)


def _body(height, width, rng):
    """Draws the warmth of a hand, or of the flank of an animal, that reaches into the frame, in [0, 1]."""
    body = np.zeros((height, width), np.float32)
    if rng.random() < 0.5:
        # The flank ends at a line, which hair makes ragged.
        angle, place = rng.uniform(0, 2 * np.pi), rng.uniform(0.15, 0.5) * width
        y, x = np.mgrid[:height, :width].astype(np.float32)
        beyond = np.cos(angle) * (x - width / 2) + np.sin(angle) * (y - height / 2) - place
        body = np.clip(0.5 + (beyond + 0.01 * width * _blotches(height, width, 3, rng)) / (0.01 * width), 0, 1)
        return body * (1 + 0.15 * _blotches(height, width, 8, rng))
    # A hand of some fingers, which comes from a side of the frame.
    side, reach = rng.choice((0, width)), rng.uniform(0.1, 0.35) * width
    palm = np.array([side, rng.uniform(0.1, 0.9) * height])
    thick = max(1, round(rng.uniform(0.015, 0.04) * width))
    for angle in rng.uniform(-0.7, 0.7) + np.linspace(-0.35, 0.35, rng.integers(1, 6)):
        tip = palm + reach * rng.uniform(0.7, 1) * np.array([np.cos(angle) * (1 if side == 0 else -1), np.sin(angle)])
        cv2.line(body, palm.astype(int).tolist(), tip.astype(int).tolist(), 1.0, 2 * thick, cv2.LINE_AA)
    return cv2.GaussianBlur(body, (0, 0), 0.4 * thick) * rng.uniform(0.6, 1.0)


def tube(scene: Scene, height: int, width: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draws the antialiased coverage by the tube in [0, 1], and its temperature, both float32 [height, width]."""
    x, y = mouth(scene)
    radius = scene.tube_radius / scene.camera.frame_width * width
    side = -1 if scene.tube_at_right else 1
    along = np.array([side * np.cos(scene.tube_tilt), np.sin(scene.tube_tilt)])
    across = np.array([-along[1], along[0]]) * radius
    end = np.array([x * width, y * height])
    start = end - (2 * max(scene.tube_length, 0) + 0.1) * width * along  # far outside the frame
    corners = np.array([start - across, end - across, end + across, start + across])
    coverage = np.zeros((height, width), np.uint8)

    def fill(points):
        cv2.fillPoly(coverage, [np.round((points - 0.5) * 16).astype(np.int32)], 255, cv2.LINE_AA, shift=4)

    fill(corners)
    texture = 1 - scene.tube_texture * np.abs(_blotches(height, width, max(1.0, 0.3 * radius), rng))
    temperature = scene.tube_temperature * np.maximum(texture, 0.2 if scene.tube_texture <= 0.5 else -0.4)
    for _ in range(scene.connectors):
        center, half = end - rng.uniform(0.0, 0.15) * width * along, rng.uniform(0.5, 2.5) * radius * along
        wide = rng.uniform(1.2, 2.5) * across
        fill(np.array([center - half - wide, center + half - wide, center + half + wide, center - half + wide]))
        x, y = np.arange(width) - center[0], np.arange(height)[:, None] - center[1]
        near = np.abs(x * along[0] + y * along[1]) < np.hypot(*half)
        temperature = np.where(near, temperature * rng.uniform(-0.3, 1.5), temperature)
    return coverage.astype(np.float32) / 255, temperature.astype(np.float32)


def optics(camera: Camera, height: int, width: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draws the factor and the offset of optics and detector, equal in every frame, both float32 [height, width]."""
    x, y = _axes(height, width)
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
    if camera.shading:
        right, down = camera.shading_center
        offset += camera.shading * ((x - right) ** 2 + (height / width * (y - down)) ** 2) / 4
    if camera.stripes:
        offset += camera.stripes * rng.standard_normal((1, width), np.float32)
    return factor, offset


def move(things: np.ndarray, shift: float) -> np.ndarray:
    """Moves a picture, float32 [height, width], to the right by a number of pixels."""
    if not shift or not things.any():
        return things
    height, width = things.shape
    return cv2.warpAffine(
        things, np.array([[1, 0, shift], [0, 1, 0]]), (width, height), borderMode=cv2.BORDER_REPLICATE
    )


def smear(camera: Camera, picture: np.ndarray, direction: float) -> np.ndarray:
    """Blurs a picture, float32 [height, width], by the lens, and by a camera that moves in a direction in rad."""
    scale = picture.shape[1] / 320
    picture = cv2.GaussianBlur(picture, (0, 0), camera.blur * scale)
    length = round(camera.shake * scale) | 1
    if length > 1:
        kernel, reach = np.zeros((length, length), np.float32), length // 2
        x, y = (round(reach * part(direction)) for part in (np.cos, np.sin))
        cv2.line(kernel, (reach - x, reach - y), (reach + x, reach + y), 1.0)
        picture = cv2.filter2D(picture, -1, kernel / kernel.sum())
    return picture


def automatic_gain(camera: Camera, exposure: np.ndarray) -> tuple[float, float]:
    """Returns the temperature that is shown as black, and kelvin per grey level, for the exposures of a first frame."""
    low, high = np.percentile(exposure, camera.gain_percentiles)
    span = max(high - low, camera.minimal_span)
    below, above = camera.headroom
    return float(low - below * span), float((1 + below + above) * span / 255)


def display(camera: Camera, exposure: np.ndarray, gain: tuple[float, float], drawing: tuple) -> np.ndarray:
    """Exports the picture of an exposure of any size: uint8, of the size of the `drawing` of `overlay`."""
    (black, per_level), (grey, opacity) = gain, drawing
    levels, size = (exposure - black) / per_level, grey.shape[::-1]
    if camera.small_picture:
        return cv2.resize(_compress(camera, levels), size, interpolation=INTERPOLATIONS[camera.enlarged_by])
    levels = cv2.resize(levels, size, interpolation=INTERPOLATIONS[camera.enlarged_by])
    if camera.overlay:
        levels = np.clip(levels, 0, 255) * (1 - opacity) + grey * opacity
    return _compress(camera, levels)


def turn(camera: Camera, picture: np.ndarray, outside: int) -> np.ndarray:
    """Mirrors and rotates a picture or a mask, uint8 [height, width], as the camera's pictures were."""
    if camera.mirrored:
        picture = cv2.flip(picture, 1)
    if camera.rotation:
        height, width = picture.shape
        matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), camera.rotation, 1.0)
        method = cv2.INTER_NEAREST if outside < 0 else cv2.INTER_LINEAR
        picture = cv2.warpAffine(picture, matrix, (width, height), flags=method, borderValue=max(outside, 0))
    return picture


def _axes(height, width):
    """Returns x [1, width] and y [height, 1], float32, which are -1 and 1 at the edges of a picture."""
    return np.linspace(-1, 1, width, dtype=np.float32)[None], np.linspace(-1, 1, height, dtype=np.float32)[:, None]


def through_other_camera(frame: np.ndarray) -> np.ndarray:
    """Returns a frame, uint8 [H, W, 1], as a camera shows it whose polarity is the other, black-hot for white-hot.

    The contrast is half as large, and edges are as soft as those of a lens out of focus by 1/200 of the width.
    """
    blurred = cv2.GaussianBlur(frame, (0, 0), frame.shape[1] / 200)
    return (192 - blurred // 2)[..., None]


def _compress(camera, levels):
    picture = np.clip(np.rint(levels), 0, 255).astype(np.uint8)
    jpeg = cv2.imencode(".jpg", picture, (cv2.IMWRITE_JPEG_QUALITY, camera.jpeg_quality))[1]
    return cv2.imdecode(jpeg, cv2.IMREAD_GRAYSCALE)


def _blotches(height, width, size, rng):
    """Draws smooth noise of unit variance; its structures have about `size` pixels of a 320 pixel wide detector."""
    cells = max(1.0, size * width / 320)
    small = rng.standard_normal((int(height / cells) + 3, int(width / cells) + 3), np.float32)
    field = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
    return field / field.std()
