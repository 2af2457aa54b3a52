"""Simulator of dual-gas optical gas imaging (OGI) of a fermentation bottle's outlet tube.

A recording is a scene (tube, background, distance, contrast, flow) filmed for some consecutive frames through a CO2 and
a CH4 filter. Lengths are in frame widths, speeds relative to that of the gas at the tube's mouth.

**Emission.** Falling pH raises the CO2 and lowers the CH4 emission. That CH4 production falls with pH is known (Janssen
2010, doi:10.1016/j.anifeedsci.2010.07.002; Wenner et al. 2017, doi:10.3168/jds.2016-12332); the size of both effects
per pH unit, `PER_PH`, and the log-normal scatter around them are assumptions. Part of the scatter is common to both
gases (total production of the bottle), so that one gas alone says little.

**Plume.** The mean flow is an integral model of a buoyant jet with entrainment (Morton, Taylor and Turner 1956,
doi:10.1098/rspa.1956.0011): volume flux grows by `2 alpha r u` per length, momentum changes by buoyancy alone; CO2,
heavier than air, falls, CH4 rises. Puffs of gas released at the nozzle follow the mean flow and are displaced by a
frozen turbulent velocity field of four octaves, convected downstream, of which each puff feels the eddies about as
large as the local jet radius. One field and one history of puffs a recording make its frames coherent.

**Image.** Each puff is a Gaussian column of gas. Its optical depth attenuates the background and adds the gas's own
emission (Beer-Lambert): `contrast = (1 - exp(-depth)) (gas - background)`, where the background may be the warmer one.
Then come blur, vignetting, fixed pattern, temporal noise and 8-bit quantisation.

**Mask.** What an annotator would outline: where the noise-free contrast, smoothed, exceeds a threshold given in units
of the noise; small holes closed and specks dropped.
"""

import dataclasses

import cv2
import numpy as np
from scipy.stats import multivariate_normal

from fume_jax.vocabulary import GAS, GASES, TUBE

# Change of the logarithm of the emission rate per pH unit.
PER_PH = {"co2": -1.0, "ch4": 1.0}
REFERENCE_PH = 5.75
# Standard deviations of the logarithm of the emission: of each gas, and common to both.
GAS_SCATTER, COMMON_SCATTER = 0.12, 0.4

# Optical depth of a unit of column density at unit emission; a property of filter and gas. Chosen so that both plumes
# are semi-transparent at the reference pH.
ABSORPTION = {"co2": 0.012, "ch4": 0.012}
# Buoyant acceleration at the nozzle relative to momentum, per gas: CO2 falls, CH4 rises (image rows point down).
BUOYANCY = {"co2": 1.0, "ch4": -1.0}

ENTRAINMENT = 0.085
TURBULENCE = 0.5  # speed of the eddies relative to the mean flow
POTENTIAL_CORE = 10  # tube radii until the turbulence is developed
EDDY_SIZES = (0.03, 0.06, 0.12, 0.24)
EDDY_GRID = 64
CELLS_PER_EDDY = 8
EDDY_PER_RADIUS = 2.5  # size of the eddies that act most, relative to the local jet radius
PUFFS_PER_STEP = 48
MAX_AGE = 150
STEPS_BETWEEN_FRAMES = 3
PUFF_SIZES = 8
# Standard deviation of a puff relative to the local jet radius; the rest of the width is turbulent displacement.
PUFF_SPREAD = 0.3
# The mask's threshold in standard deviations of the temporal noise.
VISIBLE = 2.5


@dataclasses.dataclass(frozen=True)
class Scene:
    """What both gases of a recording share; brightness in units of the 8-bit range."""

    ph: float
    emission: dict[str, float]  # true emission rate of each gas, 1 at the reference pH without scatter
    tube_at_right: bool
    tube_row: float  # of the nozzle, in frame heights
    tube_length: float
    tube_radius: float
    tube_tilt: float  # rad, positive points down
    tube_brightness: float
    exit_speed: float  # relative; more speed, thinner column
    density: float  # strength of buoyancy, relative
    wind: tuple[float, float]  # relative to the exit speed
    contrast: float  # gas minus background; its sign says which is warmer
    background: float
    gradient: tuple[float, float]
    vignetting: float
    noise: float
    pattern: float


def draw_emission(ph: float, rng: np.random.Generator) -> dict[str, float]:
    """Emission rates of one recording at a pH level."""
    common = rng.normal(0, COMMON_SCATTER)
    return {
        gas: float(np.exp(PER_PH[gas] * (ph - REFERENCE_PH) + common + rng.normal(0, GAS_SCATTER))) for gas in GASES
    }


def emission_log_density(ph: float, emission: dict[str, float]) -> float:
    """Log density of the logarithm of some gases' emission rates at a pH level."""
    gases = list(emission)
    difference = np.log([emission[gas] for gas in gases]) - [PER_PH[gas] * (ph - REFERENCE_PH) for gas in gases]
    covariance = GAS_SCATTER**2 * np.eye(len(gases)) + COMMON_SCATTER**2
    return float(multivariate_normal.logpdf(difference, cov=covariance))


def draw_scene(ph: float, rng: np.random.Generator) -> Scene:
    """Draws the scene of one recording."""
    distance = rng.uniform(0.75, 1.3)
    warmer = rng.random() < 0.7
    contrast = np.exp(rng.uniform(np.log(0.25), np.log(0.6)))
    background = rng.uniform(0.08, 0.3) if warmer else rng.uniform(0.45, 0.7)
    return Scene(
        ph=ph,
        emission=draw_emission(ph, rng),
        tube_at_right=bool(rng.random() < 0.5),
        tube_row=rng.uniform(0.3, 0.7),
        tube_length=rng.uniform(0.03, 0.16),
        tube_radius=rng.uniform(0.012, 0.018) / distance,
        tube_tilt=rng.uniform(-0.15, 0.15),
        tube_brightness=rng.uniform(0.8, 1.0) if warmer else rng.uniform(0.05, 0.2),
        exit_speed=np.exp(rng.normal(0, 0.25)),
        density=np.exp(rng.uniform(np.log(0.0003), np.log(0.03))),
        wind=(rng.normal(0, 0.02), rng.normal(0, 0.03)),
        contrast=contrast if warmer else -contrast,
        background=background,
        gradient=(rng.normal(0, 0.04), rng.normal(0, 0.04)),
        vignetting=rng.uniform(0, 0.25),
        noise=np.exp(rng.uniform(np.log(0.006), np.log(0.02))),
        pattern=rng.uniform(0.002, 0.01),
    )


def render_recording(
    scene: Scene, gas: str, *, frames: int, height: int, width: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Films one gas of a scene.

    Returns:
      Frames uint8 [frames, height, width] and masks uint8 of the same shape (0 background, 1 tube, 2 gas).
    """
    tube = _draw_tube(scene, height, width)
    background = _background(scene, height, width, rng)
    pattern = _fixed_pattern(scene, height, width, rng)
    images, masks = [], []
    for column in _gas_columns(scene, gas, frames, height, width, rng):
        depth = ABSORPTION[gas] * scene.emission[gas] / scene.exit_speed * column
        signal = scene.contrast * -np.expm1(-depth)
        clean = background + signal
        clean = clean * (1 - tube) + scene.tube_brightness * tube
        noise = rng.standard_normal((height, width), np.float32) * scene.noise
        images.append(_to_uint8(cv2.GaussianBlur(clean, (0, 0), width / 640) + pattern + noise))
        masks.append(_annotate(signal, tube, scene.noise))
    return np.stack(images), np.stack(masks)


# --- plume ---


def _mean_flow(scene, gas, max_length=1.6, step=0.005):
    """Centreline of the plume: positions [n, 2], unit directions [n, 2], speed [n] and radius [n] by arc length."""
    # Fluxes of volume and momentum of a round jet of speed 1, over pi.
    volume = scene.tube_radius**2
    momentum = volume * np.array([np.cos(scene.tube_tilt), np.sin(scene.tube_tilt)])
    buoyancy = BUOYANCY[gas] * scene.density / scene.exit_speed**2 * volume / scene.tube_radius
    position = np.zeros(2)
    rows = []
    for _ in range(int(max_length / step)):
        velocity = momentum / volume
        speed = max(np.hypot(*velocity), 0.02)
        radius = np.sqrt(volume / speed)
        drifting = velocity + scene.wind
        drift_speed = np.hypot(*drifting)
        rows.append((*position, *(drifting / drift_speed), drift_speed, radius))
        position = position + step * drifting / drift_speed
        momentum = momentum + step * np.array([0.0, buoyancy / speed])
        volume += step * 2 * ENTRAINMENT * radius * speed
    rows = np.array(rows, np.float32)
    return rows[:, :2], rows[:, 2:4], rows[:, 4], rows[:, 5], step


def _eddies(rng):
    """Velocity fields [octaves, grid * grid, 2] of unit variance: divergence-free, periodic, one eddy size each."""
    k = np.fft.fftfreq(EDDY_GRID) * EDDY_GRID
    kx, ky = np.meshgrid(k, k)
    wave = np.hypot(kx, ky)
    band = np.exp(-((wave - EDDY_GRID / CELLS_PER_EDDY) ** 2) / 8)
    fields = []
    for _ in EDDY_SIZES:
        stream = np.fft.fft2(rng.standard_normal((EDDY_GRID, EDDY_GRID))) * band
        u = np.stack([np.fft.ifft2(1j * ky * stream).real, np.fft.ifft2(-1j * kx * stream).real], -1)
        fields.append((u / u.std()).reshape(-1, 2))
    return np.stack(fields).astype(np.float32)


def _gas_columns(scene, gas, frames, height, width, rng):
    """Yields the column density of each frame, float32 [height, width], in puffs per squared tube radius."""
    dt = 0.5 * EDDY_SIZES[0]  # half of the smallest eddy at exit speed
    path, direction, speed, radius, felt = _by_age(scene, gas, dt)
    eddies = _eddies(rng)
    convection = [0.6 * np.interp(size / EDDY_PER_RADIUS, radius, speed) for size in EDDY_SIZES]
    steps = len(path) + (frames - 1) * STEPS_BETWEEN_FRAMES
    flicker = np.exp(0.35 * _smooth_noise(steps, 6, rng))
    reach = [np.flatnonzero(f > 0.02 * f.max())[[0, -1]] + (0, 1) for f in felt.T]  # first and last age, exclusive
    shift = np.zeros((len(path), PUFFS_PER_STEP, 2), np.float32)  # of every puff from the mean path, youngest first
    for t in range(steps):
        shift = np.roll(shift, 1, axis=0)
        shift[0] = rng.uniform(-0.7, 0.7, (PUFFS_PER_STEP, 2)) * scene.tube_radius
        for octave, size in enumerate(EDDY_SIZES):
            # Only ages released by now, and of them only those that feel eddies of this size.
            rows = slice(*reach[octave].clip(max=t + 1))
            position = path[rows, None] + shift[rows] - (convection[octave] * t * dt) * direction[rows, None]
            # Truncation floors, since the offset makes every position positive; the grid is a power of two.
            cell = ((position + 64) * (CELLS_PER_EDDY / size)).astype(np.int32) & (EDDY_GRID - 1)
            velocity = eddies[octave].take(cell[..., 1] * EDDY_GRID + cell[..., 0], axis=0)
            shift[rows] += dt * felt[rows, octave, None, None] * velocity
        if t >= len(path) - 1 and (t - len(path) + 1) % STEPS_BETWEEN_FRAMES == 0:
            strength = flicker[t - np.arange(len(path))]
            yield _splat(scene, path[:, None] + shift, strength, radius, height, width)


def _by_age(scene, gas, dt):
    """What a puff meets as it ages, a row a time step: path, direction, speed, jet radius, eddy speed per octave."""
    path, direction, speed, radius, step = _mean_flow(scene, gas)
    arc = [0.0]
    while len(arc) < MAX_AGE and arc[-1] < (len(path) - 2) * step:
        arc.append(arc[-1] + dt * float(speed[int(arc[-1] / step)]))
    rows = (np.array(arc) / step).astype(int)
    path, direction, speed, radius = path[rows], direction[rows], speed[rows], radius[rows]
    felt = np.exp(-(np.log(np.array(EDDY_SIZES) / (EDDY_PER_RADIUS * radius[:, None])) ** 2) / (2 * 0.6**2))
    felt /= np.sqrt((felt**2).sum(1, keepdims=True))
    developed = np.minimum(1, np.array(arc) / (POTENTIAL_CORE * scene.tube_radius))
    return path, direction, speed, radius, (felt * (TURBULENCE * speed * developed)[:, None]).astype(np.float32)


def _smooth_noise(n, scale, rng):
    noise = np.convolve(rng.standard_normal(n + 8 * scale), np.hanning(4 * scale), "same")[4 * scale : -4 * scale]
    return noise / noise.std()


def _splat(scene, position, strength, radius, height, width):
    """Sums the puffs, drawn at half size as Gaussians of `PUFF_SIZES` sizes, and enlarges the picture."""
    h, w = height // 2, width // 2
    nozzle = _nozzle(scene)
    x = nozzle[0] + (-position[..., 0] if scene.tube_at_right else position[..., 0])
    y = nozzle[1] * height / width + position[..., 1]
    x, y = x * w - 0.5, y * w - 0.5
    sigma = PUFF_SPREAD * radius * w
    edges = np.geomspace(sigma.min(), sigma.max() * 1.001, PUFF_SIZES + 1)
    level = np.clip(np.digitize(sigma, edges) - 1, 0, PUFF_SIZES - 1)
    total = np.zeros((h, w), np.float32)
    margin = int(3 * sigma.max()) + 1
    for k in range(PUFF_SIZES):
        rows = level == k
        if not rows.any():
            continue
        grid = _bin(x[rows], y[rows], np.repeat(strength[rows], x.shape[1]), h, w, margin)
        size = sigma[rows].mean()
        total += cv2.GaussianBlur(grid, (0, 0), size)[margin:-margin, margin:-margin]
    total *= (scene.tube_radius * w) ** 2
    return cv2.resize(total, (width, height), interpolation=cv2.INTER_LINEAR)


def _bin(x, y, mass, h, w, margin):
    """Spreads points over their four nearest pixels of a picture with a margin around it."""
    x, y = x.ravel() + margin, y.ravel() + margin
    inside = (x >= 0) & (y >= 0) & (x < w + 2 * margin - 1) & (y < h + 2 * margin - 1)
    x, y, mass = x[inside], y[inside], mass[inside]
    column, row = x.astype(np.int64), y.astype(np.int64)
    fx, fy = x - column, y - row
    stride = w + 2 * margin
    index = row * stride + column
    picture = np.zeros(stride * (h + 2 * margin))
    for offset, share in ((0, (1 - fx) * (1 - fy)), (1, fx * (1 - fy)), (stride, (1 - fx) * fy), (stride + 1, fx * fy)):
        picture += np.bincount(index + offset, share * mass, minlength=len(picture))
    return picture.reshape(-1, stride).astype(np.float32)


# --- camera and annotator ---


def _nozzle(scene):
    """Position of the tube's mouth in frame widths and heights."""
    return (1 - scene.tube_length if scene.tube_at_right else scene.tube_length), scene.tube_row


def _draw_tube(scene, height, width):
    """Coverage of the tube, float32 [height, width] in [0, 1], antialiased."""
    x, y = _nozzle(scene)
    mouth = np.array([x * width, y * height])
    side = -1 if scene.tube_at_right else 1
    along = np.array([side * np.cos(scene.tube_tilt), np.sin(scene.tube_tilt)])
    across = np.array([-along[1], along[0]]) * scene.tube_radius * width
    start = mouth - (2 * scene.tube_length + 0.1) * width * along  # well outside the frame
    corners = np.array([start - across, mouth - across, mouth + across, start + across])
    tube = np.zeros((height, width), np.uint8)
    cv2.fillPoly(tube, [np.round(corners * 16).astype(np.int32)], 255, cv2.LINE_AA, shift=4)
    return tube.astype(np.float32) / 255


def _background(scene, height, width, rng):
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    texture = cv2.resize(rng.standard_normal((4, 5), np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    level = scene.background + scene.gradient[0] * x + scene.gradient[1] * y + 0.015 * texture
    return level * (1 - scene.vignetting * (x**2 + y**2) / 2)


def _fixed_pattern(scene, height, width, rng):
    """Blotches of a few pixels and faint columns, as uncooled and filtered cameras leave them."""
    blotches = cv2.GaussianBlur(rng.standard_normal((height // 2, width // 2), np.float32), (0, 0), width / 160)
    blotches = cv2.resize(blotches / blotches.std(), (width, height))
    return scene.pattern * (blotches + 0.3 * rng.standard_normal((1, width), np.float32))


def _to_uint8(image):
    return np.clip(np.rint(255 * image), 0, 255).astype(np.uint8)


def _annotate(signal, tube, noise):
    width = signal.shape[1]
    smooth = cv2.GaussianBlur(np.abs(signal), (0, 0), width / 160)
    gas = (smooth > VISIBLE * noise).astype(np.uint8)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width // 80 | 1, width // 80 | 1))
    gas = cv2.morphologyEx(cv2.morphologyEx(gas, cv2.MORPH_CLOSE, disc), cv2.MORPH_OPEN, disc)
    mask = np.where(gas > 0, GAS, 0).astype(np.uint8)
    mask[tube > 0.5] = TUBE
    return mask
