"""One recording: the plan that decides it, and the examples rendered from it."""

import dataclasses
from pathlib import Path

import numpy as np

from datasets.synthetic_ogi.scene import Scene, draw_scene
from datasets.synthetic_ogi.simulator import draw_setting, render_recording
from datasets.synthetic_ogi.variety import vary
from fume_jax.data.transforms import apply
from fume_jax.learning.augment import BrightnessContrast, HorizontalFlip, ShiftScaleRotate, draw_plan
from fume_jax.schema import BACKGROUND, GASES, IGNORE, PH_CLASS

# Operations of augmented copies, which preceded the published split. Brightness always changes, so that copies differ.
COPY_OPERATIONS = (
    HorizontalFlip(probability=0.5),
    ShiftScaleRotate(probability=0.8, shift=0.1, scale=0.15, rotate=15.0),
    BrightnessContrast(probability=1.0, brightness=0.1, contrast=0.2),
)
# Tags of random streams, besides that of the scene. They are not 0, because zeros at the end do not change a seed.
FILM, COPY, VARIETY = 1, 2, 3


# File beside the films of a recording, with its masks.
TRUTH = "truth.npz"


@dataclasses.dataclass(frozen=True)
class RecordingPlan:
    """Plan of a recording, which decides every pixel of it."""

    number: int
    ph: float
    gases: tuple[str, ...]
    frames: int  # number of consecutive frames
    copies: int  # number of augmented copies of each frame
    height: int
    width: int
    seed: int
    kept: tuple[int, ...]  # indices, below `frames * (1 + copies)`, of the examples that belong to the split
    varied: bool = False  # whether it is filmed as in `variety`, and not in the laboratory


def scene_of(plan: RecordingPlan) -> Scene:
    """Draws the scene of a recording."""
    scene = draw_scene(plan.ph, np.random.default_rng([plan.seed, plan.number]))
    return vary(scene, np.random.default_rng([plan.seed, plan.number, VARIETY])) if plan.varied else scene


def render(plan: RecordingPlan) -> list[dict]:
    """Renders the kept examples of a recording; the copies of a frame follow it."""
    scene = scene_of(plan)
    setting = draw_setting(scene, plan.height, plan.width)
    films = {gas: _film(plan, scene, setting, gas) for gas in GASES}
    examples = []
    for index in plan.kept:
        frame, copy = divmod(index, 1 + plan.copies)
        example = _example(plan, scene, films, frame)
        rng = np.random.default_rng([plan.seed, plan.number, COPY, index])
        # Operations are drawn and applied one after the other: a plan of all would round once and give another picture.
        for operation in COPY_OPERATIONS if copy else ():
            example = apply(example, draw_plan([operation], rng, height=plan.height, width=plan.width))
        # Outside of the frame the masks of published copies are background.
        masks = {f"{gas}_mask": example[f"{gas}_mask"] for gas in GASES}
        example |= {key: np.where(mask == IGNORE, BACKGROUND, mask).astype(np.uint8) for key, mask in masks.items()}
        examples.append(example | {"copy_index": copy})
    return examples


def render_film(plan: RecordingPlan, frames: int) -> list[dict]:
    """Renders so many frames of a recording, without copies."""
    return render(dataclasses.replace(plan, frames=frames, copies=0, kept=tuple(range(frames))))


def write_truth(folder: Path, examples: list[dict]) -> None:
    """Writes the masks of a film beside it."""
    np.savez_compressed(folder / TRUTH, **{gas: np.stack([x[f"{gas}_mask"] for x in examples]) for gas in GASES})


def read_truth(folder: Path) -> dict[str, np.ndarray]:
    """Reads the masks of the films in a folder, uint8 [T, H, W] by gas."""
    with np.load(folder / TRUTH) as masks:
        return {gas: masks[gas] for gas in GASES}


def _film(plan, scene, setting, gas):
    """Returns frames, masks and visibilities; zeros if the gas is not filmed."""
    if gas not in plan.gases:
        zeros = np.zeros((plan.frames, plan.height, plan.width), np.uint8)
        return zeros, zeros, np.zeros(plan.frames, np.float32)
    # Each gas has a generator of its own, so that it does not depend on the other one.
    rng = np.random.default_rng([plan.seed, plan.number, FILM, GASES.index(gas)])
    return render_recording(scene, setting, gas, frames=plan.frames, rng=rng)


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
        "emission": np.array([scene.has_gas * scene.emission[gas] for gas in GASES], np.float32),
        "visibility": np.array([films[gas][2][frame] for gas in GASES], np.float32),
        "exit_speed": scene.exit_speed,
    }
