"""Pictures of the dataset: `python -m datasets.synthetic_ogi.gallery --name=demo --output=gallery`.

Writes `sheet.jpg`, frames and masks of recordings that hold both gases, jets and low flows in turns; `film.webp`, one
of each in motion; and with `--beside=DIR`, `beside.jpg`, the frames of that folder next to simulated ones.
"""

import dataclasses
import itertools
from pathlib import Path

import cv2
import numpy as np
from absl import flags

from fume_jax.runtime import cli
from fume_jax.runtime.errors import UserError

_NAME = flags.DEFINE_string("name", "demo", "Which dataset to show; see datasets/synthetic_ogi/README.md.")
_OUTPUT = flags.DEFINE_string("output", "gallery", "Folder to write to.")
_BESIDE = flags.DEFINE_string("beside", None, "Folder of camera frames to show next to simulated ones.")
_RECORDINGS = flags.DEFINE_integer("recordings", 6, "On the sheet.", lower_bound=1)
_FRAMES = flags.DEFINE_integer("frames", 45, "Of the film.", lower_bound=1)

TILE = (320, 240)
IMAGES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"}


def main() -> None:
    from datasets.synthetic_ogi.synthetic_ogi import config_named

    plans = _jets_and_low_flows(config_named(_NAME.value).plan())
    camera_frames = _camera_frames(_BESIDE.value) if _BESIDE.value else []
    output = Path(_OUTPUT.value)
    output.mkdir(parents=True, exist_ok=True)
    _write(output / "sheet.jpg", _grid([t for plan in plans[: _RECORDINGS.value] for t in _tiles(plan, 1)[0]], 4))
    if camera_frames:
        rows = zip(camera_frames, plans, strict=False)
        _write(output / "beside.jpg", _grid([t for own, plan in rows for t in (own, *_tiles(plan, 1)[0][:2])], 3))
    films = zip(*(_tiles(plan, _FRAMES.value) for plan in plans[:2]), strict=True)
    _write_film(output / "film.webp", [_grid([*jet[::2], *low[::2]], 2) for jet, low in films])
    print(f"Wrote sheet.jpg, film.webp{' and beside.jpg' if camera_frames else ''} into {output}.")


def _jets_and_low_flows(plan):
    """Plans of the recordings that hold both gases, the two regimes in turns."""
    from datasets.synthetic_ogi.recording import scene_of

    plans = [p for p in itertools.chain(*plan.values()) if len(p.gases) == 2]
    is_jet = [scene_of(p).exit_speed > 1 for p in plans]
    regimes = ([p for p, jet in zip(plans, is_jet, strict=True) if jet == wanted] for wanted in (True, False))
    return [p for both in zip(*regimes, strict=False) for p in both]


def _tiles(plan, frames):
    """For each frame of a recording: CO2 frame, the same with its mask, CH4 frame, with mask; BGR uint8."""
    from datasets.synthetic_ogi.recording import render
    from fume_jax.evaluation.overlays import overlay
    from fume_jax.schema import CLASSES, GASES

    rows = []
    for example in render(dataclasses.replace(plan, frames=frames, copies=0, kept=tuple(range(frames)))):
        row = []
        for gas, visibility in zip(GASES, example["visibility"], strict=True):
            frame, mask = example[f"{gas}_frame"][..., 0], example[f"{gas}_mask"]
            row.append(_tile(frame, f"{gas.upper()}, pH {example['ph']}, {CLASSES[example['label']]}"))
            row.append(_tile(overlay(frame, mask, gas)[..., ::-1], f"visibility {visibility:.0f}"))
        rows.append(row)
    return rows


def _tile(picture, caption):
    """A picture of any size and a line of text under it."""
    if picture.ndim == 2:
        picture = cv2.cvtColor(picture, cv2.COLOR_GRAY2BGR)
    tile = cv2.copyMakeBorder(cv2.resize(picture, TILE, interpolation=cv2.INTER_AREA), 0, 20, 0, 0, cv2.BORDER_CONSTANT)
    place = (4, TILE[1] + 14)
    return cv2.putText(tile, caption, place, cv2.FONT_HERSHEY_SIMPLEX, 0.42, (255, 255, 255), 1, cv2.LINE_AA)


def _camera_frames(folder):
    paths = [path for path in sorted(Path(folder).glob("*")) if path.suffix.lower() in IMAGES]
    frames = [frame for frame in (cv2.imread(str(path)) for path in paths) if frame is not None]
    if not frames:
        raise UserError(f"There is no image in {folder!r}, the folder given by --beside.")
    return [_tile(frame, "camera") for frame in frames]


def _grid(tiles, columns):
    blank = np.zeros_like(tiles[0])
    tiles = tiles + [blank] * (-len(tiles) % columns)
    return np.concatenate([np.concatenate(tiles[i : i + columns], 1) for i in range(0, len(tiles), columns)])


def _write_film(path, frames):
    from datasets.synthetic_ogi.plume import FRAMES_PER_SECOND

    film = cv2.Animation()
    film.frames = [cv2.resize(frame, None, fx=0.8, fy=0.8, interpolation=cv2.INTER_AREA) for frame in frames]
    film.durations = np.full(len(frames), 2 * 1000 // FRAMES_PER_SECOND)  # at half speed
    if not cv2.imwriteanimation(str(path), film, (cv2.IMWRITE_WEBP_QUALITY, 60)):
        raise OSError(f"could not write {path}")


def _write(path, picture):
    if not cv2.imwrite(str(path), picture, (cv2.IMWRITE_JPEG_QUALITY, 85)):
        raise OSError(f"could not write {path}")


if __name__ == "__main__":
    cli.run(main)
