"""One recording: what decides it, and the examples that it gives."""

import dataclasses

import numpy as np

from datasets.synthetic_ogi.scene import Scene, draw_scene
from datasets.synthetic_ogi.simulator import render_recording
from fume_jax.data.transforms import apply
from fume_jax.learning.augment import BrightnessContrast, HorizontalFlip, ShiftScaleRotate, draw_plan
from fume_jax.schema import GASES, PH_CLASS

# Changes of an augmented copy, as the published dataset applied them before it was split. Brightness changes always, so
# that no two copies are the same picture.
COPY_OPERATIONS = (
    HorizontalFlip(probability=0.5),
    ShiftScaleRotate(probability=0.8, shift=0.1, scale=0.15, rotate=15.0),
    BrightnessContrast(probability=1.0, brightness=0.1, contrast=0.2),
)
# Tags of random streams besides the scene's. Not 0: a seed that ends in zeros is the one without them.
FILM, COPY = 1, 2


@dataclasses.dataclass(frozen=True)
class RecordingPlan:
    """What decides a recording, pixel for pixel."""

    number: int
    ph: float
    gases: tuple[str, ...]
    frames: int  # consecutive ones
    copies: int  # augmented ones of each frame, besides itself
    height: int
    width: int
    seed: int
    kept: tuple[int, ...]  # which of the `frames * (1 + copies)` examples belong to the split


def scene_of(plan: RecordingPlan) -> Scene:
    """What a recording films."""
    return draw_scene(plan.ph, np.random.default_rng([plan.seed, plan.number]))


def render(plan: RecordingPlan) -> list[dict]:
    """Renders the kept examples of one recording, every frame followed by its copies."""
    scene = scene_of(plan)
    films = {gas: _film(plan, scene, gas) for gas in GASES}
    examples = []
    for index in plan.kept:
        frame, copy = divmod(index, 1 + plan.copies)
        example = _example(plan, scene, films, frame)
        if copy:
            example = _augmented(example, np.random.default_rng([plan.seed, plan.number, COPY, index]))
        examples.append(example | {"copy_index": copy})
    return examples


def _film(plan, scene, gas):
    """Frames, masks and visibility; zeros where the gas is not filmed."""
    if gas not in plan.gases:
        nothing = np.zeros((plan.frames, plan.height, plan.width), np.uint8)
        return nothing, nothing, np.zeros(plan.frames, np.float32)
    # A generator of its own, so that a gas does not depend on whether the other is filmed.
    rng = np.random.default_rng([plan.seed, plan.number, FILM, GASES.index(gas)])
    return render_recording(scene, gas, frames=plan.frames, height=plan.height, width=plan.width, rng=rng)


def _example(plan, scene, films, frame):
    pixels = {}
    for gas, (frames, masks, _) in films.items():
        pixels |= {f"{gas}_frame": frames[frame][..., None], f"{gas}_mask": masks[frame]}
    return pixels | {
        "modality_mask": np.array([gas in plan.gases for gas in GASES], np.float32),
        "label": PH_CLASS[plan.ph],
        "ph": plan.ph,
        "recording_index": plan.number,
        "frame_index": frame,
        "emission": np.array([scene.emission[gas] for gas in GASES], np.float32),
        "visibility": np.array([films[gas][2][frame] for gas in GASES], np.float32),
        "exit_speed": scene.exit_speed,
    }


def _augmented(example, rng):
    height, width = example["co2_mask"].shape
    # One after the other: drawn as one plan they would be rounded once, and give another picture.
    for operation in COPY_OPERATIONS:
        example = apply(example, draw_plan([operation], rng, height=height, width=width))
    return example
