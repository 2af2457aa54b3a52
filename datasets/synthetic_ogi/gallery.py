"""Pictures of the dataset: `python -m datasets.synthetic_ogi.gallery --name=demo --output=gallery`.

Writes `sheet.jpg`, annotated frames of the first recordings that hold both gases; `film.webp`, a momentum jet and a low
flow in motion; and with `--beside=DIR`, `beside.jpg`, the frames of that folder next to simulated ones.
"""

import dataclasses
import itertools
from pathlib import Path

import cv2
import numpy as np
from absl import flags

from fume_jax import cli
from fume_jax.errors import UserError

_NAME = flags.DEFINE_string("name", "demo", "Which dataset to show; see datasets/synthetic_ogi/README.md.")
_OUTPUT = flags.DEFINE_string("output", "gallery", "Folder to write to.")
_BESIDE = flags.DEFINE_string("beside", None, "Folder of camera frames to show next to simulated ones.")
_RECORDINGS = flags.DEFINE_integer("recordings", 12, "On the sheet.", lower_bound=1)
_FRAMES = flags.DEFINE_integer("frames", 45, "Of the film.", lower_bound=1)

TILE = (320, 240)
FILM_TILE = (256, 192)
IMAGES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"}


def main() -> None:
    from datasets.synthetic_ogi.plume import FRAMES_PER_SECOND
    from datasets.synthetic_ogi.synthetic_ogi import SyntheticOgi

    if _NAME.value not in SyntheticOgi.builder_configs:
        raise UserError(
            f"There is no dataset named {_NAME.value!r}; choose one of: {', '.join(SyntheticOgi.builder_configs)}."
        )
    camera_frames = _camera_frames(_BESIDE.value) if _BESIDE.value else []
    plans = itertools.chain(*SyntheticOgi.builder_configs[_NAME.value].plan().values())
    plans = [plan for plan in sorted(plans, key=lambda plan: plan.number) if len(plan.gases) == 2]
    output = Path(_OUTPUT.value)
    output.mkdir(parents=True, exist_ok=True)
    tiles = [tile for plan in plans[: _RECORDINGS.value] for tile in _annotated(_shortened(plan, 1))[0]]
    _write(output / "sheet.jpg", _grid(tiles, 4))
    if camera_frames:
        simulated = itertools.chain(*(_annotated(_shortened(plan, 1))[0][:1] for plan in plans))
        pairs = zip(camera_frames, simulated, simulated, strict=False)
        _write(output / "beside.jpg", _grid([tile for row in pairs for tile in row], 3))
    kinds = [next(plan for plan in plans if _is_jet(plan) == jet) for jet in (True, False)]
    films = [_annotated(_shortened(plan, _FRAMES.value)) for plan in kinds]
    animation = cv2.Animation()
    animation.frames = [
        _grid([cv2.resize(t, FILM_TILE, interpolation=cv2.INTER_AREA) for t in both], 2)
        for both in (jet + low for jet, low in zip(*films, strict=True))
    ]
    animation.durations = np.full(_FRAMES.value, 2 * 1000 // FRAMES_PER_SECOND)  # at half speed
    if not cv2.imwriteanimation(str(output / "film.webp"), animation, (cv2.IMWRITE_WEBP_QUALITY, 60)):
        raise OSError(f"could not write {output / 'film.webp'}")
    print(f"Wrote {', '.join(sorted(path.name for path in output.iterdir()))} into {output}.")


def _shortened(plan, frames):
    return dataclasses.replace(plan, frames=frames, copies=0, kept=tuple(range(frames)))


def _is_jet(plan):
    from datasets.synthetic_ogi.scene import draw_scene

    return draw_scene(plan.ph, np.random.default_rng([plan.seed, plan.number])).exit_speed > 1


def _annotated(plan):
    """Outlined frames of both gases, BGR uint8, a pair for each frame of a recording."""
    from datasets.synthetic_ogi.recording import render
    from fume_jax.pictures import overlay
    from fume_jax.vocabulary import CLASSES, GASES

    pairs = []
    for example in render(plan):
        tiles = []
        for gas, visibility in zip(GASES, example["visibility"], strict=True):
            tile = overlay(example[f"{gas}_frame"][..., 0], example[f"{gas}_mask"], gas)[..., ::-1]
            text = f"{gas.upper()}, pH {example['ph']} ({CLASSES[example['label']]}), visibility {visibility:.0f}"
            tile = cv2.resize(tile, TILE, interpolation=cv2.INTER_AREA)
            tiles.append(
                cv2.putText(tile, text, (44, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (0, 255, 255), 1, cv2.LINE_AA)
            )
        pairs.append(tiles)
    return pairs


def _camera_frames(folder):
    paths = [path for path in sorted(Path(folder).glob("*")) if path.suffix.lower() in IMAGES]
    frames = [frame for frame in (cv2.imread(str(path)) for path in paths) if frame is not None]
    if not frames:
        raise UserError(f"There is no image in {folder!r}, the folder given by --beside.")
    return [cv2.resize(frame, TILE, interpolation=cv2.INTER_AREA) for frame in frames]


def _grid(tiles, columns):
    blank = np.zeros_like(tiles[0])
    tiles = tiles + [blank] * (-len(tiles) % columns)
    return np.concatenate([np.concatenate(tiles[i : i + columns], 1) for i in range(0, len(tiles), columns)])


def _write(path, picture):
    if not cv2.imwrite(str(path), picture, (cv2.IMWRITE_JPEG_QUALITY, 85)):
        raise OSError(f"could not write {path}")


if __name__ == "__main__":
    cli.run(main)
