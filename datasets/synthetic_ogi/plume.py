"""Gas plume: its flow, and the amount of gas along each line of sight."""

import dataclasses
import math

import cv2
import numpy as np
import scipy.fft

from datasets.synthetic_ogi.scene import Scene

GRAVITY = 9.81
# Density relative to air, minus 1: CO2 falls, CH4 rises (image rows point down).
EXCESS_DENSITY = {"co2": 0.52, "ch4": -0.45}
VISCOSITY = 1.5e-5  # m2/s, of air, which carries the gas
DIFFUSIVITY = 1.8e-5  # m2/s, between those of CO2 (1.6e-5) and CH4 (2.2e-5) in air
ENTRAINMENT = 0.1
# A round jet breaks up `BREAK_UP` diameters from the mouth at the Reynolds number `TURBULENT`, and later below it.
TURBULENT, BREAK_UP = 2500, 2
GUST = 0.5  # s, duration of a gust of wind
FRONT_SPEED = 0.5  # speed of the front of a starting jet or plume, relative to the flow behind it
FRAMES_PER_SECOND = 30
FLICKER = 0.12  # standard deviation of the logarithm of the rate of release
HISTORY_RATE = 240  # samples of the rate of release per second
MEMORY = 40.0  # s, age from which gas is as if it were of that age
RELEASE = 1  # tag of the random stream of the release

LAYERS = 2
EDDY_SIZES = (0.38, 0.19, 0.095, 0.048, 0.024, 0.012)  # in frame widths
EDDY_PER_RADIUS = 1.5  # size of the eddies that displace most, relative to the local radius
DISPLACEMENT = 0.3  # displacement by eddies of all sizes, relative to the local radius
INTERMITTENCY = 0.35  # standard deviation of the logarithm of the column in turbulent flow
EDDY_GRID, CELLS_PER_EDDY = 128, 8
HIGHEST_WAVE = 26  # waves per field of eddies beyond which its spectrum is nought
STEP = 0.004  # step along the path, in frame widths
ROW_OF_PIXELS = 256  # pixels in the reach of the plume are listed in rows, because `remap` limits the length of a list


@dataclasses.dataclass(frozen=True)
class MeanFlow:
    """Tables of the steady plume, with a row for each `STEP`; lengths are in frame widths and times in seconds."""

    path: np.ndarray  # [n, 2], position relative to the mouth, away from the tube and down
    direction: np.ndarray  # [n, 2]
    speed: np.ndarray
    radius: np.ndarray
    age: np.ndarray  # time since the gas left the mouth
    column: np.ndarray  # amount of gas on a line of sight through the axis, mole fraction times metre
    dilution: np.ndarray  # concentration relative to that at the mouth, 1 to 0
    turbulence: np.ndarray  # 0 laminar, 1 developed


def mean_flow(scene: Scene, gas: str) -> MeanFlow:
    """Integrates the fluxes of volume and momentum of the plume along its path."""
    r, wide = scene.bore_radius, scene.camera.frame_width
    fraction = min(1.0, scene.mole_fraction * scene.emission[gas])
    buoyancy = GRAVITY * EXCESS_DENSITY[gas] * fraction * r**2 * scene.exit_speed
    reynolds = 2 * r * scene.exit_speed / VISCOSITY
    laminar_length = 2 * r * BREAK_UP * max(1.0, TURBULENT / reynolds) ** 1.5
    # Fluxes of a round jet, divided by pi.
    volume = r**2 * scene.exit_speed
    mx, my = (volume * scene.exit_speed * part(scene.tube_tilt) for part in (math.cos, math.sin))
    wind_x, wind_y = map(float, scene.wind)
    x = y = arc = age = 0.0
    step, rows = STEP * wide, []
    # The path ends outside the frame, wherever along a side the tube enters it.
    outside = max(0.0, -scene.tube_length)
    # Plain numbers: those of NumPy take several times as long.
    while arc < (2 + outside) * wide and -0.3 * wide < x < (1.1 + outside) * wide and abs(y) < 0.9 * wide:
        ux, uy = mx / volume, my / volume
        speed = max(math.hypot(ux, uy), 0.01)
        radius = math.sqrt(volume / speed)
        vx, vy = ux + wind_x, uy + wind_y
        drifting = max(math.hypot(vx, vy), 0.01)
        turbulence = min(max((arc - laminar_length) / (20 * r), 0.0), 1.0)
        rows.append((x, y, vx / drifting, vy / drifting, drifting, speed, radius, age, volume, turbulence))
        x, y, arc, age = x + step * vx / drifting, y + step * vy / drifting, arc + step, age + step / drifting
        my += step * buoyancy / speed
        volume += step * (2 * ENTRAINMENT * turbulence * radius * speed + 4 * DIFFUSIVITY)
    t = np.array(rows)
    drifting, speed, radius, age, volume, turbulence = t[:, 4:].T
    dilution = r**2 * scene.exit_speed / volume
    column = fraction * r**2 * scene.exit_speed / (speed * radius) * np.pi**0.5
    tables = (t[:, :2] / wide, t[:, 2:4], drifting / wide, radius / wide, age, column, dilution, turbulence)
    return MeanFlow(*(table.astype(np.float32) for table in tables))


@dataclasses.dataclass(frozen=True)
class Eddies:
    """Turbulence of one eddy size at the pixels that the plume can reach, which are listed as [rows, columns]."""

    cells: float  # cells of the field per frame width
    speed: float  # convection speed in frame widths per second
    field: np.ndarray  # [grid + 1, grid + 1, 4], periodic: displacement along and across, texture, nothing
    amplitude: np.ndarray  # [rows, columns], amplitude of the displacement in frame widths
    share: np.ndarray  # [rows, columns], weight of the texture


def gas_columns(scene: Scene, gas: str, frames: int, height: int, width: int, rng: np.random.Generator):
    """Yields, for each frame, the columns of gas and their mean dilution, both float32 [height, width].

    A column is the concentration integrated along a line of sight, in mole fraction times metre. The dilution is 1 at
    the mouth.
    """
    blank = np.zeros((2, height, width), np.float32)
    if not scene.has_gas:
        yield from [blank] * frames
        return
    flow = mean_flow(scene, gas)
    started, flicker = _history(flow, frames, np.random.default_rng([scene.shared_seed, RELEASE]))
    front, _ = _front(flow, started + (frames - 1) / FRAMES_PER_SECOND)
    along, across, pixels = _plume_coordinates(scene, flow, front, height, width)
    if not len(pixels):
        yield from [blank] * frames
        return
    row = _row(flow, along)
    turbulence = _turbulence(scene, flow, row, 0.1 / width, rng)
    developed = INTERMITTENCY * flow.turbulence[row]
    layers = LAYERS if developed.any() else 1
    dilution = _picture(pixels, flow.dilution[row], height, width)
    for frame in range(frames):
        t = frame / FRAMES_PER_SECOND
        total = np.zeros_like(along)
        for layer in range(layers):
            s, n, texture = _displaced(along, across, turbulence, t, layer / layers)
            column = _column(flow, s, n, started + t, flicker[: round((MEMORY + t) * HISTORY_RATE) + 1])
            total += column * np.exp(developed * texture)
        yield _picture(pixels, total / layers, height, width), dilution


def _picture(pixels, values, height, width):
    """Returns a picture [height, width] with values at some pixels and zeros elsewhere."""
    picture = np.zeros(height * width, np.float32)
    picture[pixels] = values
    return picture.reshape(height, width)


def _displaced(along, across, turbulence, t, phase):
    """Returns the coordinates that the gas seen at plume coordinates comes from, and its texture.

    `phase` differs between layers.
    """
    s, n, texture = along.copy(), across.copy(), np.zeros_like(along)
    # Small eddies act where the larger ones have moved the gas, which makes filaments and curls.
    for eddies in turbulence:
        scale = eddies.cells / EDDY_GRID
        x, y = _in_period(s * scale + (phase - eddies.speed * t * scale)), _in_period(n * scale)
        u = cv2.remap(eddies.field, x, y, cv2.INTER_LINEAR)
        s += eddies.amplitude * u[..., 0]
        n += eddies.amplitude * u[..., 1]
        texture += eddies.share * u[..., 2]
    return s, n, texture


def _in_period(turns):
    """Returns the cell of a periodic field for a number of periods, float32: `remap` wraps ten times as slowly."""
    turns -= np.floor(turns)
    turns *= EDDY_GRID
    return turns


def _history(flow, frames, rng):
    """Draws the seconds between the start of the release and the first frame, and the relative emission by time.

    The emission is that of the last `MEMORY` seconds before the first frame, and of the time that is filmed.
    """
    long_ago, front = rng.random() < 0.5, rng.uniform(0.1, 0.8)
    started = 2 * flow.age[-1] if long_ago else flow.age[int(front * (len(flow.age) - 1))]
    # Sampled up to the last frame, whatever the speed of the flow: both gases leave the mouth at one rate.
    samples, scale = round((MEMORY + frames / FRAMES_PER_SECOND) * HISTORY_RATE) + 1, HISTORY_RATE // 5
    kernel = np.hanning(4 * scale)
    noise = np.convolve(rng.standard_normal(samples + 8 * scale), kernel, "same")[4 * scale : -4 * scale]
    flicker = np.exp(FLICKER * (noise / np.sqrt((kernel**2).sum())).astype(np.float32))
    return float(started) / FRONT_SPEED, flicker


def _column(flow, s, n, since_start, flicker):
    """Returns columns at plume coordinates: those of the steady plume, behind a rounded front that collects gas."""
    row = _row(flow, s)
    front, wide = _front(flow, since_start)
    radius, column = flow.radius, flow.column
    starting = front < np.inf
    if starting:
        head = np.exp(-(((np.arange(len(radius)) * STEP - front + wide) / wide) ** 2)).astype(np.float32)
        radius, column = radius * (1 + 0.5 * head), column * (1 + 0.6 * head)
    emitted = flicker[len(flicker) - 1 - np.minimum(flow.age * HISTORY_RATE, len(flicker) - 1).astype(np.int32)]
    # This profile lies between the flat one at the mouth and the bell of a developed jet.
    square = (n / radius[row]) ** 2
    value = (column * emitted)[row] * np.exp(-square * np.sqrt(square))
    value *= _step(s / (0.3 * flow.radius[0]))
    if starting:
        value *= _step((front - s - 0.5 * n * n / wide) / (0.25 * wide))
    return value


def _front(flow, since_start):
    """Returns the distance of the front along the path, and the width of its head; infinite if it has left the path."""
    age = FRONT_SPEED * since_start
    if age >= flow.age[-1]:
        return np.inf, np.inf
    row = float(np.interp(age, flow.age, np.arange(len(flow.age))))
    return row * STEP, 1.4 * float(np.interp(row, np.arange(len(flow.radius)), flow.radius))


def _row(flow, s):
    """Returns the row of the flow's tables at a distance along the path."""
    return np.clip(s / STEP, 0, len(flow.age) - 1).astype(np.int32)


def _step(x):
    """Rises smoothly from 0 at -1 to 1 at 1."""
    x = np.clip(0.5 * x + 0.5, 0, 1)
    return x * x * (3 - 2 * x)


def _plume_coordinates(scene, flow, front, height, width):
    """Returns distances along the path and from it, float32, of the pixels that the plume can reach, and these pixels.

    All are [rows, ROW_OF_PIXELS]; the pixels are indices into the picture, and the last row repeats some of them. There
    are no rows if the plume stays out of view. `front` is the distance of its front along the path.
    """
    x, y = mouth(scene)
    step = max(1, width // 80)  # the coordinates are smooth
    size = -(-width // step), -(-height // step)
    right, down = ((np.arange(n) + 0.5) / n for n in size)
    right = x - right if scene.tube_at_right else right - x
    points = np.stack(np.broadcast_arrays(right, (down[:, None] - y) * height / width), -1).astype(np.float32)
    nearest = _nearest(points.reshape(-1, 2), flow.path).reshape(size[::-1])
    offset = points - flow.path[nearest]
    direction = flow.direction[nearest]
    along = nearest * STEP + (offset * direction).sum(-1)
    across = direction[..., 0] * offset[..., 1] - direction[..., 1] * offset[..., 0]
    reach = 3.0 * flow.radius + 0.01 + 3 * scene.unsteady_wind / scene.camera.frame_width * GUST
    end = min(len(flow.age) * STEP, front + reach[int(min(front / STEP, len(reach) - 1))])
    inside = (np.abs(across) < reach[nearest]) & (along > -0.05) & (along < end)
    pixels = np.flatnonzero(cv2.resize(inside.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST))
    pixels = np.resize(pixels, (-(-len(pixels) // ROW_OF_PIXELS), ROW_OF_PIXELS))
    full = (cv2.resize(a.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR) for a in (along, across))
    return *(a.ravel()[pixels] for a in full), pixels


def _nearest(points, path):
    """Returns the index of the point of a path [n, 2] that is nearest to each point, int [points]."""
    # |path - point|^2 without |point|^2, as one product of matrices.
    terms = np.concatenate([-2 * path, (path**2).sum(1, keepdims=True)], 1)
    return (np.pad(points, ((0, 0), (0, 1)), constant_values=1) @ terms.T).argmin(1)


def mouth(scene: Scene) -> tuple[float, float]:
    """Returns the position of the tube's mouth in frame widths and frame heights."""
    return (1 - scene.tube_length if scene.tube_at_right else scene.tube_length), scene.tube_row


def _turbulence(scene, flow, row, least, rng):
    """Draws the eddies of every size that displaces the gas by more than `least`, largest first."""
    sizes = np.array(EDDY_SIZES)[:, None]
    felt = np.exp(-(np.log(sizes / (EDDY_PER_RADIUS * flow.radius)) ** 2) / (2 * 0.7**2))
    felt *= DISPLACEMENT * flow.turbulence * flow.radius / np.sqrt((felt**2).sum(0))
    wind = scene.unsteady_wind / scene.camera.frame_width * np.minimum(flow.age, GUST)
    felt[0] = np.hypot(felt[0], wind)
    share = felt / np.sqrt((felt**2).sum(0) + 1e-12)
    acting = np.flatnonzero(felt.max(1) > least)
    eddies = []
    for i, field in zip(acting, _eddy_fields(acting, rng), strict=True):
        size = EDDY_SIZES[i]
        # Eddies move with the flow where they act most.
        speed = 0.6 * float(flow.speed[np.abs(flow.radius - size / EDDY_PER_RADIUS).argmin()])
        amplitude, texture = felt[i].astype(np.float32)[row], share[i].astype(np.float32)[row]
        eddies.append(Eddies(CELLS_PER_EDDY / size, speed, field, amplitude, texture))
    return eddies


def _eddy_fields(sizes, rng):
    """Draws fields [sizes, grid + 1, grid + 1, 4] of unit variance: a divergence-free displacement, a texture, nothing.

    The last row and column are the first ones of the next period; `remap` is faster with four channels than with three.

    `sizes` are indices into `EDDY_SIZES`; the field of one size does not depend on the other sizes.
    """
    rows = np.arange(-HIGHEST_WAVE, HIGHEST_WAVE + 1)
    kx, ky = np.arange(HIGHEST_WAVE + 1, dtype=np.float32), rows[:, None].astype(np.float32)
    band = np.exp(-((np.hypot(kx, ky) - EDDY_GRID / CELLS_PER_EDDY) ** 2) / (0.1 * EDDY_GRID))
    noise = _complex_noise((2, len(EDDY_SIZES), *band.shape), rng)[:, sizes]
    stream, texture = noise * band
    spectrum = np.zeros((len(sizes), 3, EDDY_GRID, len(kx)), np.complex64)
    spectrum[:, :, rows] = np.stack([1j * ky * stream, -1j * kx * stream, texture], 1)
    fields = scipy.fft.irfft(scipy.fft.ifft(spectrum, axis=2, overwrite_x=True), EDDY_GRID, axis=3)
    fields /= np.sqrt(np.einsum("fcyx,fcyx->fc", fields, fields) / EDDY_GRID**2)[..., None, None]  # their means are 0
    wrapped = np.zeros((len(sizes), EDDY_GRID + 1, EDDY_GRID + 1, 4), np.float32)
    wrapped[:, :-1, :-1, :3] = np.moveaxis(fields, 1, -1)
    wrapped[:, -1] = wrapped[:, 0]
    wrapped[:, :, -1] = wrapped[:, :, 0]
    return wrapped


def _complex_noise(shape, rng):
    return rng.standard_normal((*shape, 2), np.float32).view(np.complex64)[..., 0]
