"""Scenes beyond the laboratory: what cameras, people and weather elsewhere make of a release.

`vary` changes a scene of `scene.draw_scene` for the dataset `pretraining`. Its distributions are assumptions, widened
until real frames look like draws from them; README.md names the frames that guided them. The physics of the gas stays.
"""

import dataclasses

import numpy as np

from datasets.synthetic_ogi.scene import Camera, Scene, Viewer, between

GASLESS = 0.2  # share of recordings without gas
# Shares of views, and how much wider than in the laboratory each is, at least and at most.
VIEWS = {
    "laboratory": (0.4, (1.0, 1.0)),  # the laboratory's camera and background too
    "alike": (0.1, (1.0, 1.0)),
    "cloud": (0.1, (0.3, 0.8)),  # the tube is out of view
    "close": (0.1, (0.4, 1.0)),
    "far": (0.3, (1.5, 5.0)),  # jets of few pixels
}


def vary(scene: Scene, rng: np.random.Generator) -> Scene:
    """Draws a scene as it may be filmed anywhere, from one of the laboratory."""
    kind = rng.choice(list(VIEWS), p=[share for share, _ in VIEWS.values()])
    # Both polarities are equally frequent, and the contrast goes down to what nobody sees.
    polarity, strength = (1 if rng.random() < 0.5 else -1), between(0.25, 4.0, rng)
    has_gas = bool(rng.random() >= GASLESS)
    if kind == "laboratory":
        other = polarity * np.sign(scene.contrast)
        changes = {"contrast": other * scene.contrast, "tube_temperature": other * scene.tube_temperature}
        return dataclasses.replace(scene, has_gas=has_gas, **changes)
    contrast = polarity * strength
    # A nozzle is mostly heated or cooled with the gas, and sometimes by something else.
    nozzle = contrast * between(0.6, 5.0, rng) * (1 if rng.random() < 0.8 else -1)
    view = scene.camera.frame_width * between(*VIEWS[kind][1], rng)
    return dataclasses.replace(
        scene,
        viewer=Viewer(noise=1.2, share=between(0.08, 0.2, rng), least_area=1.5e-4),
        has_gas=has_gas,
        tube_length=-between(0.05, 0.5, rng) if kind == "cloud" else rng.uniform(0.02, 0.35),
        tube_row=rng.uniform(0.1, 0.9),
        tube_tilt=rng.normal(0, 0.35),
        tube_radius=min(scene.bore_radius * between(1.1, 6.0, rng), 0.05 * view),
        tube_temperature=nozzle,
        tube_texture=rng.uniform(0.0, 1.2),
        connectors=int(rng.choice(4, p=(0.5, 0.25, 0.15, 0.1))),
        wind=(rng.normal(0, 0.05), rng.normal(0, 0.05)),
        unsteady_wind=rng.uniform(0.0, 0.03),
        contrast=contrast,
        # Of gas that is as warm as the air nothing is left to see once it has mixed, and little of other gas.
        cooling=rng.uniform(scene.cooling, 1.1),
        gradient=tuple(rng.normal(0, 0.6 if rng.random() < 0.25 else 0.15, 2).tolist()),
        clutter=strength * (between(0.002, 0.02, rng) if rng.random() < 0.75 else between(0.02, 0.08, rng)),
        objects=int(rng.choice(4, p=(0.6, 0.25, 0.1, 0.05))),
        bodies=int(rng.choice(3, p=(0.8, 0.15, 0.05))),
        motion=rng.normal(0, 0.03),
        camera=_vary_camera(scene.camera, view, strength, rng),
    )


def _vary_camera(camera: Camera, view: float, strength: float, rng: np.random.Generator) -> Camera:
    small = rng.random() < 0.35  # a picture of few pixels that was enlarged
    low, high = rng.uniform(0.3, 2.0), rng.uniform(97.0, 99.97)
    return dataclasses.replace(
        camera,
        frame_width=view,
        detector_width=int(between(96, 320, rng)) if small else 320,
        enlarged_by=str(rng.choice(("cubic", "linear", "nearest"), p=(0.45, 0.4, 0.15))),
        small_picture=bool(small and rng.random() < 0.6),
        blur=between(0.5, 5.0, rng) if rng.random() < 0.4 else rng.uniform(0.5, 1.2),
        shake=between(1.0, 8.0, rng) if rng.random() < 0.15 else 0.0,
        vignetting=rng.uniform(0.0, 0.5),
        netd=between(0.002, 0.04, rng),
        pattern=between(0.002, 0.03, rng),
        stripes=between(0.004, 0.08, rng) if rng.random() < 0.25 else 0.0,
        ghost=rng.uniform(-0.15, 0.15) if rng.random() < 0.15 else 0.0,
        gain_percentiles=(low, high),
        minimal_span=between(0.3, 2.0, rng),
        headroom=(rng.uniform(0.0, 0.9) * rng.random(), rng.uniform(-0.1, 0.9) * rng.random()),
        jpeg_quality=int(rng.integers(12, 97)),
        overlay=bool(rng.random() < 0.5),
        any_maker=bool(rng.random() < 0.7),
        mirrored=bool(rng.random() < 0.3),
        rotation=rng.uniform(-25, 25) if rng.random() < 0.15 else 0.0,
        wedge=int(rng.choice((0, 0, 0, 255, 114))),
        # A cooled detector sees itself in the lens: the frame is darker or brighter around a point (narcissus).
        shading=rng.choice((-1, 1)) * strength * between(0.3, 6.0, rng) if rng.random() < 0.4 else 0.0,
        shading_center=tuple(rng.uniform(-1, 1, 2).tolist()),
    )
