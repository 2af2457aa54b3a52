"""Draws pictures of a dataset: `python -m datasets.synthetic_ogi.gallery --name=demo --output=gallery`.

`sheet.jpg` shows frames and masks of recordings that hold both gases, jets and low flows in turns. `film.webp` shows a
jet and a low flow in motion. With `--beside=DIR`, `beside.jpg` shows the images of that folder next to simulated
frames.
"""

import itertools
from pathlib import Path

import cv2
import numpy as np
from absl import flags

from fume_jax.data.images import IMAGE_SUFFIXES, UnreadableFrame, read_frame
from fume_jax.runtime import cli
from fume_jax.runtime.errors import UserError
from fume_jax.runtime.files import replacing

_NAME = flags.DEFINE_string("name", "demo", "Name of the dataset, one of those in datasets/synthetic_ogi/README.md.")
_OUTPUT = flags.DEFINE_string("output", "gallery", "Folder that receives the pictures.")
_BESIDE = flags.DEFINE_string("beside", None, "Folder of camera frames that are shown next to simulated ones.")
_RECORDINGS = flags.DEFINE_integer("recordings", 6, "Number of recordings on the sheet.", lower_bound=1)
_FRAMES = flags.DEFINE_integer("frames", 45, "Number of frames of the film.", lower_bound=1)

TILE = (320, 240)  # width and height in pixels
JPEG = (cv2.IMWRITE_JPEG_QUALITY, 85)


def main() -> None:
    from datasets.synthetic_ogi.plume import FRAMES_PER_SECOND
    from datasets.synthetic_ogi.synthetic_ogi import config_named
    from fume_jax.evaluation.overlays import save

    plans = _jets_and_low_flows(config_named(_NAME.value).plan())
    camera_frames = _camera_frames(_BESIDE.value) if _BESIDE.value else []
    pictures = {"sheet.jpg": _grid([tile for plan in plans[: _RECORDINGS.value] for tile in _tiles(plan, 1)[0]], 4)}
    if camera_frames:
        rows = zip(camera_frames, plans, strict=False)
        pictures["beside.jpg"] = _grid([tile for own, plan in rows for tile in (own, *_tiles(plan, 1)[0][:2])], 3)
    films = zip(*(_tiles(plan, _FRAMES.value) for plan in plans[:2]), strict=True)
    film = cv2.Animation()
    grids = (_grid([*jet[::2], *low_flow[::2]], 2) for jet, low_flow in films)
    film.frames = [cv2.resize(grid, None, fx=0.8, fy=0.8, interpolation=cv2.INTER_AREA) for grid in grids]
    film.durations = np.full(len(film.frames), 2 * 1000 // FRAMES_PER_SECOND)  # half speed
    output = Path(_OUTPUT.value)
    for name, picture in pictures.items():
        save(output / name, picture[..., ::-1], JPEG)
    _, data = cv2.imencodeanimation(".webp", film, (cv2.IMWRITE_WEBP_QUALITY, 60))
    with replacing(output / "film.webp") as part:
        part.write_bytes(data)
    print(f"Wrote {', '.join([*pictures, 'film.webp'])} into {output}.")


def _jets_and_low_flows(plan):
    """Returns the plans of recordings that hold both gases, jets and low flows in turns."""
    from datasets.synthetic_ogi.recording import scene_of

    plans = [p for p in itertools.chain(*plan.values()) if len(p.gases) == 2]
    is_jet = [scene_of(p).exit_speed > 1 for p in plans]
    regimes = ([p for p, jet in zip(plans, is_jet, strict=True) if jet == wanted] for wanted in (True, False))
    return [p for both in zip(*regimes, strict=False) for p in both]


def _tiles(plan, frames):
    """Returns tiles of each frame of a recording: CO2 without and with mask, CH4 without and with mask."""
    from datasets.synthetic_ogi.recording import render_film
    from fume_jax.evaluation.overlays import overlay
    from fume_jax.schema import CLASSES, GASES

    rows = []
    for example in render_film(plan, frames):
        row = []
        for gas, visibility in zip(GASES, example["visibility"], strict=True):
            frame, mask = example[f"{gas}_frame"][..., 0], example[f"{gas}_mask"]
            row.append(_tile(frame, f"{gas.upper()}, pH {example['ph']}, {CLASSES[example['label']]}"))
            row.append(_tile(overlay(frame, mask, gas)[..., ::-1], f"visibility {visibility:.0f}"))
        rows.append(row)
    return rows


def _tile(picture, caption):
    """Returns a picture, scaled to a tile, and a line of text under it, BGR uint8."""
    if picture.ndim == 2:
        picture = cv2.cvtColor(picture, cv2.COLOR_GRAY2BGR)
    tile = cv2.copyMakeBorder(cv2.resize(picture, TILE, interpolation=cv2.INTER_AREA), 0, 20, 0, 0, cv2.BORDER_CONSTANT)
    font = cv2.FONT_HERSHEY_SIMPLEX
    return cv2.putText(tile, caption, (4, TILE[1] + 14), font, 0.42, (255, 255, 255), 1, cv2.LINE_AA)


def _camera_frames(folder):
    paths = [path for path in sorted(Path(folder).glob("*")) if path.suffix.lower() in IMAGE_SUFFIXES]
    frames = []
    for path in paths:
        try:
            frames.append(read_frame(path)[..., 0])
        except UnreadableFrame as error:
            print(f"skipped: {path}: {error}")
    if not frames:
        raise UserError(f"There is no image in {folder!r}, the folder given by --beside.")
    return [_tile(frame, "camera") for frame in frames]


def _grid(tiles, columns):
    tiles = tiles + [np.zeros_like(tiles[0])] * (-len(tiles) % columns)
    return np.concatenate([np.concatenate(tiles[i : i + columns], 1) for i in range(0, len(tiles), columns)])


if __name__ == "__main__":
    cli.run(main)
