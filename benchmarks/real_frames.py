"""Scores a model on annotated frames of real cameras: `python -m benchmarks.real_frames --frames=DIR`.

DIR holds frames and beside each its mask, `NAME_mask.png`, 0 background, 1 tube, 2 gas, 255 unknown. The kind of a
frame is that of a table with the columns `frame` and `kind`, or else the letters that its name begins with. A frame
counts for its kind, and a kind for the mean, however many frames it has.
"""

import dataclasses
import re
from pathlib import Path

import numpy as np
from absl import flags

from benchmarks.report import Report
from fume_jax.inference import flags as model_flags
from fume_jax.runtime import cli
from fume_jax.runtime.errors import UserError

_FRAMES = flags.DEFINE_string("frames", None, "Folder of frames and masks.", required=True)
_KINDS = flags.DEFINE_string("kinds", None, "CSV file with the columns frame and kind. Default: by the names.")
_SHEET = flags.DEFINE_string("sheet", None, "Picture to write: every frame with its annotated and its predicted mask.")
flags.declare_key_flag("output")
flags.adopt_module_key_flags(model_flags)
MASK = "_mask"
SCORES = ("iou", "precision", "recall", "boundary_pixels")


@dataclasses.dataclass(frozen=True)
class Scored:
    """A frame with its masks, and its scores of gas by `SCORES`; NaN where there is nothing to score."""

    name: str
    kind: str
    gas: str
    frame: np.ndarray
    truth: np.ndarray
    prediction: np.ndarray
    scores: dict[str, float]


def main() -> int:
    """Scores the frames; returns the exit code."""
    model_flags.check()
    files = find_frames(Path(_FRAMES.value), _KINDS.value and Path(_KINDS.value))
    predictor = model_flags.load_predictor()
    report = Report(model=str(predictor.card.digest), frames=len(files))
    scored = [score_frame(predictor, path, kind) for path, kind in files]
    for found in scored:
        report.add("frames", frame=found.name, kind=found.kind, **found.scores)
    kinds = {kind: [found.scores for found in scored if found.kind == kind] for _, kind in files}
    means = {kind: {name: _mean([x[name] for x in own]) for name in SCORES} for kind, own in kinds.items()}
    for kind, mean in means.items():
        report.add("kinds", kind=kind, frames=len(kinds[kind]), **mean)
    report.add("kinds", kind="mean", frames=len(files), **{n: _mean([x[n] for x in means.values()]) for n in SCORES})
    if _SHEET.value:
        from fume_jax.evaluation.overlays import save

        save(Path(_SHEET.value), sheet(scored))
    return report.finish()


def find_frames(folder: Path, kinds: Path | None) -> list[tuple[Path, str]]:
    """Returns the frames that have a mask, and their kinds; UserError if there are none, or a kind is missing."""
    from fume_jax.data.table import read_table

    frames = sorted(path for path in folder.glob("*.*") if _mask_of(path).is_file())
    if not frames:
        raise UserError(f"{folder} holds no frame with a mask NAME{MASK}.png beside it.")
    if kinds is None:
        return [(path, re.match(r"[A-Za-z]*", path.stem)[0].lower() or "frame") for path in frames]
    by_name = {
        line.cells["frame"]: line.cells["kind"] for line in read_table(kinds, (("frame", "kind"),), __name__).lines
    }
    found = [(path, by_name.get(path.name) or by_name.get(path.stem)) for path in frames]
    if lacking := [path.name for path, kind in found if not kind]:
        raise UserError(f"{kinds} names no kind of {', '.join(lacking)}.")
    return found


def score_frame(predictor, path: Path, kind: str) -> Scored:
    """Predicts a frame alone, and scores its gas; a frame whose name names no gas is one of CO2."""
    from fume_jax.data.images import read_frame, read_pixels
    from fume_jax.data.matching import gas_of
    from fume_jax.learning.surface_distance import surface_distances
    from fume_jax.schema import GAS, IGNORE

    gas, frame, truth = gas_of(path.stem) or "co2", read_frame(path), read_pixels(_mask_of(path)).values
    if truth.shape != frame.shape[:2]:
        raise UserError(f"{path} has another size than its mask.")
    prediction = predictor.predict([{gas: frame}])[0].masks[gas]
    known = truth != IGNORE
    true, found = (truth == GAS) & known, (prediction == GAS) & known
    both = np.count_nonzero(true & found)
    with np.errstate(invalid="ignore"):
        counts = np.count_nonzero(true | found), np.count_nonzero(found), np.count_nonzero(true)
        scores = [np.float64(both) / count for count in counts]
    distance = surface_distances(truth, prediction, GAS)[1]
    scores = dict(zip(SCORES, map(float, (*scores, distance)), strict=True))
    return Scored(path.stem, kind, gas, frame, truth, prediction, scores)


def sheet(scored: list[Scored]) -> np.ndarray:
    """Draws annotated and predicted masks side by side, two frames a row, RGB uint8 [H, W, 3]."""
    import cv2

    from fume_jax.evaluation.overlays import overlay

    tiles = []
    for found in scored:
        pair = [overlay(found.frame[..., 0], mask, found.gas) for mask in (found.truth, found.prediction)]
        tile = np.concatenate(
            [cv2.resize(picture, (320, 240), interpolation=cv2.INTER_AREA) for picture in pair], axis=1
        )
        text = f"{found.kind} {found.name}: IoU {found.scores['iou']:.2f}"
        for color, width in ((0, 3), (255, 1)):
            cv2.putText(tile, text, (8, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (color,) * 3, width, cv2.LINE_AA)
        tiles.append(tile)
    tiles += [np.zeros_like(tiles[0])] * (len(tiles) % 2)
    return np.concatenate([np.concatenate(tiles[i : i + 2], axis=1) for i in range(0, len(tiles), 2)])


def _mask_of(path):
    return path.with_name(f"{path.stem}{MASK}.png")


def _mean(values):
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")


if __name__ == "__main__":
    cli.run(main)
