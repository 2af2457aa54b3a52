"""Scene of a recording: a tube, the gas that leaves it, the background and the camera, in SI units.

Temperatures are differences from the mean of the background in kelvin. The distributions below are chosen to cover
laboratory and controlled-release recordings; none is a measurement.
"""

import dataclasses

import numpy as np

from datasets.synthetic_ogi.emission import draw_emission

LOW_FLOW_SHARE = 0.3


@dataclasses.dataclass(frozen=True)
class Viewer:
    """Person who outlines the gas; the defaults are those of the laboratory."""

    # Noise that display and eye add to that of the camera, in grey levels: nobody outlines gas fainter than 5 x 3.
    noise: float = 3.0
    share: float = 0.0  # contrast from which gas is outlined, as a share of that of the densest gas in the picture
    least_area: float = 5e-4  # share of the frame below which a speck of gas is left out


@dataclasses.dataclass(frozen=True)
class Camera:
    """Optics, detector, display and overlay of a camera."""

    frame_width: float  # m, width of the view at the distance of the plume
    blur: float  # standard deviation of the point spread, in pixels of a 320 pixel wide detector
    vignetting: float  # darkening in the corners, relative
    netd: float  # K, temporal noise
    pattern: float  # K, fixed pattern noise
    bad_pixels: int
    dust: int  # number of specks on the optics, out of focus
    headroom: tuple[float, float]  # margin of the automatic gain below and above, relative to the span of the scene
    jpeg_quality: int
    overlay: bool  # whether logo, icons and temperature scale are drawn over the picture
    # What the cameras of `variety` have besides; the defaults are those of the laboratory.
    detector_width: int = 320  # pixels
    enlarged_by: str = "cubic"  # interpolation from the detector to the picture: cubic, linear or nearest
    small_picture: bool = False  # whether the picture is compressed before it is enlarged
    # K, what the light of lens and camera adds a frame width from its center
    shading: float = 0.0
    shading_center: tuple[float, float] = (0.0, 0.0)  # -1 and 1 are the edges of the frame
    shake: float = 0.0  # length of the smear by a moving camera, in pixels of a 320 pixel wide detector
    stripes: float = 0.0  # K, offsets of the columns of the detector
    ghost: float = 0.0  # share of the light that the lens reflects to the opposite side
    gain_percentiles: tuple[float, float] = (1.0, 99.9)  # percentiles of the exposures that the automatic gain spans
    minimal_span: float = 1.0  # K, least span of the automatic gain, so that noise alone never fills the display
    any_maker: bool = False  # whether the overlay is that of any maker's camera
    mirrored: bool = False  # whether the picture is, overlay and all
    rotation: float = 0.0  # degrees by which the picture was turned
    wedge: int = 0  # grey level of the corners of a turned picture


@dataclasses.dataclass(frozen=True)
class Scene:
    """Scene that the films of both gases share."""

    ph: float
    emission: dict[str, float]  # emission rate of each gas, 1 at the reference pH without scatter
    mole_fraction: float  # mole fraction of the gas at the mouth at unit emission; the rest is air
    exit_speed: float  # m/s
    bore_radius: float  # m, radius of the opening
    tube_radius: float  # m, outer radius
    tube_length: float  # visible length in frame widths
    tube_row: float  # release height: row of the mouth in frame heights
    tube_at_right: bool
    tube_tilt: float  # rad, positive points down
    tube_temperature: float  # K
    tube_texture: float  # relative contrast of a braided hose
    wind: tuple[float, float]  # m/s, away from the tube and down
    unsteady_wind: float  # m/s
    contrast: float  # K, temperature of the gas at the mouth minus that of the background
    cooling: float  # share of the contrast that is lost when the gas has mixed with the air
    gradient: tuple[float, float]  # change of the background from centre to edge, relative to the contrast
    clutter: float  # K, standard deviation of the background
    drift: float  # K/s, slow change of the background
    objects: int  # number of objects at the edge of the frame, warmer than the background where the gas is
    shared_seed: int  # seed of background, tube and overlay, and of the stage of the release at which filming begins
    camera: Camera
    # What the scenes of `variety` have besides; the defaults are those of the laboratory.
    viewer: Viewer = Viewer()
    has_gas: bool = True
    connectors: int = 0  # number of collars on the tube
    bodies: int = 0  # number of warm bodies, such as hands and animals, that reach into the frame
    motion: float = 0.0  # frame widths per second by which objects and bodies move


def draw_scene(ph: float, rng: np.random.Generator) -> Scene:
    """Draws the scene of one recording: a momentum jet, or a low flow that gravity bends."""
    low_flow = rng.random() < LOW_FLOW_SHARE
    warmer = 1 if rng.random() < 0.75 else -1
    contrast = between(1.0, 4.0, rng)
    bore = rng.uniform(0.0018, 0.0032)
    return Scene(
        ph=ph,
        emission=draw_emission(ph, rng),
        mole_fraction=between(0.15, 0.3, rng) if low_flow else between(0.09, 0.18, rng),
        exit_speed=between(0.08, 0.35, rng) if low_flow else between(2.5, 15.0, rng),
        bore_radius=bore,
        tube_radius=bore * rng.uniform(1.1, 2.0),
        tube_length=rng.uniform(0.03, 0.2),
        tube_row=rng.uniform(0.15, 0.85) if low_flow else rng.uniform(0.3, 0.7),
        tube_at_right=bool(rng.random() < 0.5),
        tube_tilt=rng.normal(0, 0.15),
        tube_temperature=warmer * contrast * rng.uniform(1.0, 1.6),
        tube_texture=rng.uniform(0.0, 0.5),
        wind=(rng.normal(0, 0.02), rng.normal(0, 0.02)),
        unsteady_wind=rng.uniform(0.0, 0.015),
        contrast=warmer * contrast,
        cooling=rng.uniform(0.1, 0.7) if low_flow else rng.uniform(0.0, 0.4),
        gradient=(rng.normal(0, 0.12), rng.normal(0, 0.12)),
        clutter=between(0.005, 0.06, rng),
        drift=rng.normal(0, 0.2),
        objects=int(rng.choice(3, p=(0.65, 0.25, 0.1))),
        shared_seed=int(rng.integers(2**32)),
        camera=Camera(
            frame_width=rng.uniform(0.18, 0.34),
            blur=rng.uniform(0.5, 1.1),
            vignetting=rng.uniform(0.0, 0.3),
            netd=between(0.006, 0.04, rng),
            pattern=between(0.005, 0.04, rng),
            bad_pixels=int(rng.integers(0, 12)),
            dust=int(rng.choice(4, p=(0.5, 0.3, 0.15, 0.05))),
            headroom=(rng.uniform(0.0, 0.15), rng.uniform(-0.05, 0.15)),
            jpeg_quality=int(rng.integers(40, 96)),
            overlay=bool(rng.random() < 0.5),
        ),
    )


def between(low: float, high: float, rng: np.random.Generator) -> float:
    """Draws a number whose logarithm is uniform."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))
