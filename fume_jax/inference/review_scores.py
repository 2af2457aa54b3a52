"""Scores the frames of predicted recordings by how hard they are; see `fume_jax.learning.selection`."""

import dataclasses
import itertools
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
from tqdm import tqdm

from fume_jax.data.sources import Loaded, Pair, Source, load
from fume_jax.inference.predictor import Predictor
from fume_jax.inference.settings import MODEL, open_predicted
from fume_jax.inference.summary import SUMMARY
from fume_jax.learning import selection
from fume_jax.runtime.errors import UserError
from fume_jax.runtime.files import read_json
from fume_jax.runtime.names import printable
from fume_jax.schema import GAS

TABLE = "predictions.jsonl"
# Pairs that the model takes at once, each also mirrored.
BATCH = 8


@dataclasses.dataclass(frozen=True, eq=False)
class Predicted:
    """Describes a predicted recording: its name, its folder of results, and the settings that it was predicted with."""

    name: str
    folder: Path
    settings: Mapping


@dataclasses.dataclass(frozen=True, eq=False)
class Candidate:
    """Describes a frame of one gas that may be chosen.

    Attributes:
      recording, gas, frame, time, source, frame_index: as in `fume_jax.data.labels.manifest.Reviewed`.
      scores: in the order of `selection.SCORES`.
      picture: the frame, see `selection.small_picture`.
      mask, shape: the predicted mask, uint8, compressed.
    """

    recording: Predicted
    gas: str
    frame: str
    time: float | None
    source: str
    frame_index: int
    scores: tuple[float, float, float]
    picture: np.ndarray
    mask: bytes
    shape: tuple[int, int]

    def read_mask(self) -> np.ndarray:
        return np.frombuffer(zlib.decompress(self.mask), np.uint8).reshape(self.shape)


def find_predicted(folder: Path) -> tuple[list[Predicted], int]:
    """Finds the recordings of a folder that `fume predict` wrote; tells of those that are left out, and counts them.

    Raises UserError if there is none.
    """
    if not folder.is_dir():
        raise UserError(f"There is no folder {folder}; expected one that `fume predict` wrote.")
    single = (folder / SUMMARY).exists() or (folder / TABLE).exists()
    found, faults = [], {}
    for own in [folder] if single else sorted(path for path in folder.iterdir() if path.is_dir()):
        result = read_json(own / SUMMARY) if (own / SUMMARY).exists() else {"fault": "its prediction is not complete"}
        name = own.absolute().name
        if "fault" in result:
            faults[name] = result["fault"]
        else:
            found.append(Predicted(name, own, result["settings"]))
    if not found:
        raise UserError(f"{folder} holds no prediction that is complete; expected a folder that `fume predict` wrote.")
    for name, fault in faults.items():
        print(f"left out: {printable(name)}: {fault}", flush=True)
    return found, len(faults)


class SelectedFrames:
    """Reads the frames of some names in a source, anew on each iteration; tells of those that it cannot read.

    `left_out` is the number of those in the last iteration.
    """

    def __init__(self, source: Source, names: Iterable[str]):
        """Takes names as they are in the tables of a prediction."""
        self._source, self._names, self.left_out = source, set(names), 0

    def __iter__(self) -> Iterator[tuple[Pair, Loaded]]:
        missing, self.left_out = set(self._names), 0
        for pair in self._source.pairs if missing else ():
            if (name := printable(pair.name)) not in missing:
                continue
            missing.remove(name)
            loaded = load(pair, self._source.limits)
            for fault in loaded.faults.values():
                tqdm.write(f"skipped: {fault}")
            self.left_out += len(loaded.faults)
            if loaded.frames:
                yield pair, loaded
            if not missing:
                return
        for name in sorted(missing):
            tqdm.write(f"skipped: {name} was predicted, and is not in the source any more")
        self.left_out += len(missing)


def score_recording(predictor: Predictor, recording: Predicted, most: int) -> tuple[list[Candidate], int]:
    """Scores at most `most` frames of a recording, of each gas that the model segments.

    Returns the frames of one gas, and the number of frames that were left out.

    Raises UserError if the source or the table of the prediction is gone or damaged, or nothing in it is segmented.
    """
    source, rows = open_predicted(recording.settings), _read_table(recording.folder / TABLE)
    jumps = {gas: _jumps(rows, gas) for gas in predictor.card.segmented}
    names = [row["frame"] for row in rows if any(row["frame"] in found for found in jumps.values())]
    if not names:
        raise UserError(f"it has no readable frame of {' or '.join(jumps)}, which this model segments")
    wanted = [names[i] for i in selection.candidates(len(names), most)]
    part = f", of which {len(wanted):,} are scored (--candidates)" if len(wanted) < len(names) else ""
    print(f"{printable(recording.name)}: {len(names):,} frames{part}", flush=True)
    if any(recording.settings.get(name) != getattr(predictor.card, name) for name in MODEL):
        print("note: another model predicted it; uncertainty, disagreement and masks are those of this model")
    frames, scored = SelectedFrames(source, wanted), []
    batches = iter(tqdm(frames, total=len(wanted), unit="pair", desc="score", disable=None, leave=False))
    while batch := list(itertools.islice(batches, BATCH)):
        scored += _score(predictor, recording, batch, jumps)
    return scored, frames.left_out


def _read_table(path):
    """Returns the rows of `predictions.jsonl`, frames in order of time."""
    if not path.is_file():
        raise UserError(f"there is no file {path}; predict it anew")
    try:
        return [json.loads(line) for line in path.read_bytes().splitlines()]
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}") from error


def _jumps(rows, gas):
    """Returns the jump of each frame of a gas by its name; a gas that was not segmented has none."""
    read = [row for row in rows if row[gas] == "read"]
    shares = np.array([row.get(f"{gas}_gas_fraction") or 0.0 for row in read])
    return dict(zip((row["frame"] for row in read), selection.jumps(shares).tolist(), strict=True))


def _score(predictor, recording, batch, jumps):
    """Scores a batch of (pair, loaded frames); one that is not full is padded, since a backend compiles every size."""
    inputs = [predictor.prepare(loaded.frames) for _, loaded in batch]
    padded = inputs + inputs[-1:] * (BATCH - len(inputs))
    mirrored = [{name: x[:, ::-1] if x.ndim == 3 else x for name, x in own.items()} for own in padded]
    logits, _ = predictor.run(padded + mirrored)
    scored = []
    for (pair, loaded), own, other in zip(batch, logits, logits[BATCH:], strict=False):
        frame = printable(pair.name)
        for gas, mask in predictor.interpret(loaded.frames, own, 0.0).masks.items():
            if frame not in jumps[gas]:
                continue  # it could not be read when it was predicted
            key = f"{gas}_seg_logits"
            seen, turned = (x.argmax(-1) == GAS for x in (own[key], other[key][:, ::-1]))
            scores = (selection.uncertainty(own[key]), jumps[gas][frame], selection.disagreement(seen, turned))
            film = pair.positions is not None
            scored.append(
                Candidate(
                    recording=recording,
                    gas=gas,
                    frame=frame,
                    time=None if pair.time is None else round(pair.time, 4),
                    source=recording.settings[gas] if film else str(pair.frames[gas]),
                    frame_index=pair.positions[gas] if film else -1,
                    scores=scores,
                    picture=selection.small_picture(loaded.frames[gas][..., 0]),
                    mask=zlib.compress(mask.tobytes(), 1),
                    shape=mask.shape,
                )
            )
    return scored
