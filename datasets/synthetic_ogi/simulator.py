"""Simulator of dual-gas optical gas imaging (OGI) of gas that leaves a tube.

A recording is a scene (tube, flow, background, camera) filmed for some consecutive frames through a CO2 and a CH4
filter: two releases of one bottle's gas, filmed from the same stage on. `scene` draws the random parts. The model has
these parts:

**Emission** (`emission`). pH decides the emission `e` of each gas up to scatter. The gas leaves the tube diluted in
air, at the mole fraction `x0 = min(1, e * mole_fraction)` and the speed `u0`, through an opening of radius `r0`.

**Mean flow** (`plume.mean_flow`). An integral model of a buoyant jet with entrainment (Morton, Taylor and Turner 1956,
doi:10.1098/rspa.1956.0011). With radius `b` and speed `u` by arc length `s`, volume flux `V = b^2 u` and momentum flux
`M = V u`, both over pi,

    dV/ds = 2 alpha u b + 4 D          entrainment of turbulent, diffusion of laminar flow
    dMx/ds = 0,  dMy/ds = B / u        B = g (rho/rho_air - 1) x0 r0^2 u0, constant

and the gas moves at this speed plus that of the wind. Reynolds number `Re = 2 r0 u0 / nu` and Froude number
`Fr^2 = u0^2 / (g' r0)` tell the two regimes apart. A fast jet is straight and turbulent: it breaks up some diameters
from the mouth, the later the lower `Re` (regimes of round jets: McNaughton and Sinclair 1966, J. Fluid Mech. 25, 367),
and widens as a cone, `db/ds = 2 alpha`. A low flow stays laminar and thin, and gravity bends it within a few radii: CO2
falls, CH4 rises. The height of the tube in the frame decides how much of it is visible.

**Start** (`plume._column`). Half of the films begin soon after the release. The front of a starting jet or plume moves
at about half the speed of the flow behind it, and the gas that catches up swells its head (Turner 1962, J. Fluid Mech.
13, 356; Bhamidipati and Woods 2017, doi:10.1017/jfm.2017.762). The rate of release flickers.

**Turbulence** (`plume.gas_columns`). Divergence-free fields of eddies of six sizes, frozen and convected at 0.6 of the
speed of the flow where the eddies of that size act most, displace the gas from the mean flow. Large eddies act first,
and smaller ones where the larger ones have moved the gas; at the radius `b` the eddies of size about `b` act most. A
line of sight passes several eddies: the columns of two layers with eddies far apart are averaged. The concentration
inside is log-normally intermittent. Unsteady wind displaces laminar flow in the same way, and more with its age.

**Column** (`plume.mean_flow`). The amount of gas is conserved, so a line of sight through the axis meets the
path-integrated concentration `C = sqrt(pi) x0 r0^2 u0 / (u b)`, which is nearly constant along a jet.

**Radiometry** (`render_recording`). Beer-Lambert with an absorption coefficient `a` of the gas within its filter (MWIR:
CO2 4.2-4.4 um, CH4 3.2-3.4 um), linearised in temperature (see Benson, Panek and Drayton, Direct measurements of
minimum detectable vapor concentrations using passive infrared optical imaging systems): through the gas the camera sees

    T = T_background exp(-a C) + T_gas (1 - exp(-a C)),

where the background may be warmer than the gas. The gas loses a share of its contrast as it mixes with air. The
coefficients are assumptions, chosen so that both gases are semi-transparent at the reference pH.

**Camera** (`camera`). Background with gradient, clutter, warm objects and slow drift, which limits sensitivity as much
as noise does (Hagen 2018, doi:10.1117/1.OE.57.11.114102); blur, vignetting, dust, temporal noise (NETD), fixed pattern
and bad pixels on a detector at most 320 pixels wide; automatic gain from percentiles of the first frame; 8 bits; an
overlay of logo, scale and icons; JPEG.

**Mask** (`annotation`). The outline that a person who knows the scene would draw at the brightness of that picture,
under the overlay too, and its visibility.
"""

import dataclasses

import cv2
import numpy as np

from datasets.synthetic_ogi import camera as cam
from datasets.synthetic_ogi import overlay
from datasets.synthetic_ogi.annotation import annotate
from datasets.synthetic_ogi.plume import FRAMES_PER_SECOND, gas_columns
from datasets.synthetic_ogi.scene import Scene

# Optical depth of a metre of pure gas, averaged over the band of the filter.
ABSORPTION = {"co2": 1400.0, "ch4": 1400.0}
STILL = 2  # tag of the random stream of background, tube and overlay, which both films share


@dataclasses.dataclass(frozen=True)
class Setting:
    """What the films of both gases share, float32 [h, w] of the detector unless it says otherwise."""

    background: np.ndarray
    things: np.ndarray  # objects and bodies, to be added to the background
    drift: np.ndarray  # change of the background per second
    clear: np.ndarray  # share of the light that the tube lets pass
    tube: np.ndarray  # light of the tube
    drawing: tuple[np.ndarray, np.ndarray]  # `overlay`, of the size of the picture
    direction: float  # rad, in which the camera shakes


def draw_setting(scene: Scene, height: int, width: int) -> Setting:
    """Draws what the films of a scene share; height and width are those of the picture."""
    w = min(width, scene.camera.detector_width)
    h = round(height * w / width)
    rng = np.random.default_rng([scene.shared_seed, STILL])
    background = cam.background(scene, h, w, rng)
    coverage, temperature = cam.tube(scene, h, w, rng)
    drawing = (overlay.of_any_maker if scene.camera.any_maker else overlay.laboratory)(height, width, rng)
    return Setting(*background, 1 - coverage, temperature * coverage, drawing, rng.uniform(0, np.pi))


def render_recording(
    scene: Scene, setting: Setting, gas: str, *, frames: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Films one gas of a scene.

    Returns frames uint8 [frames, height, width], masks uint8 of the same shape (0 background, 1 tube, 2 gas), and the
    visibility of the gas in each mask, contrast over noise, float32 [frames].
    """
    camera = scene.camera
    h, w = setting.clear.shape
    factor, offset = cam.optics(camera, h, w, rng)
    gain, images, masks, visibility = None, [], [], []

    def shown(temperature):
        picture = temperature * setting.clear + setting.tube
        return cam.smear(camera, picture, setting.direction) * factor + offset

    for i, (column, dilution) in enumerate(gas_columns(scene, gas, frames, h, w, rng)):
        seconds = i / FRAMES_PER_SECOND
        empty = setting.background + setting.drift * seconds
        still = empty + cam.move(setting.things, scene.motion * seconds * w)
        gas_temperature = scene.contrast * (1 - scene.cooling * (1 - dilution))
        absorbed = 1 - np.exp(-ABSORPTION[gas] * column)
        signal = absorbed * (gas_temperature - still)
        exposure = noiseless = shown(still + signal)
        if camera.ghost:
            exposure = exposure + camera.ghost * cv2.GaussianBlur(exposure[::-1, ::-1], (0, 0), w / 80)
        exposure = exposure + camera.netd * rng.standard_normal((h, w), np.float32)
        gain = gain or cam.automatic_gain(camera, exposure)
        images.append(cam.turn(camera, cam.display(camera, exposure, gain, setting.drawing), camera.wedge))
        noise = np.hypot(camera.netd, camera.pattern) / gain[1]
        levels = signal / gain[1]
        if scene.viewer.share:  # a viewer who sees no more than the display shows, and gas on things as beside them
            on_display = np.subtract(*(np.clip((x - gain[0]) / gain[1], 0, 255) for x in (noiseless, shown(still))))
            beside = absorbed * (gas_temperature - empty) / gain[1]
            levels = np.where(np.abs(on_display) < np.abs(beside), on_display, beside)
        mask, seen = annotate(levels, 1 - setting.clear, noise, *setting.drawing[0].shape, scene.viewer)
        masks.append(cam.turn(camera, mask, -1))
        visibility.append(seen)
    return np.stack(images), np.stack(masks), np.array(visibility, np.float32)
