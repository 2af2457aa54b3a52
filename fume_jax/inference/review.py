"""Chooses frames of predicted recordings for a person to label next, and writes them for a tool that edits masks."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fume_jax.data.labels.manifest import Reviewed, mask_digest
from fume_jax.inference.output import output_folder
from fume_jax.inference.predictor import Predictor
from fume_jax.inference.review_output import Chosen, check_empty, image_name, write_review
from fume_jax.inference.review_scores import Candidate, find_predicted, score_recording
from fume_jax.learning import selection
from fume_jax.runtime.errors import DONE, PARTLY_DONE, UserError
from fume_jax.runtime.names import printable
from fume_jax.schema import GASES

# Distance of small pictures of different gases, which is at most 2 within a gas.
DIFFERENT = 3.0


def review(
    predictor: Predictor,
    predictions: str,
    output: str,
    *,
    count: int,
    to: str,
    exact: bool = False,
    per_recording: int | None = None,
    most: int = 400,
    seed: int = 0,
) -> int:
    """Chooses frames of one gas and writes them with their predicted masks; see `fume_jax.commands.review`.

    Args:
      predictor: model that scores the frames and predicts their masks.
      predictions: folder that `fume predict` wrote, of one recording or of many.
      output: new folder for the frames.
      count: number of frames to choose.
      to, exact: tool, of `review_output.WRITERS`, and whether LabelMe gets masks rather than polygons.
      per_recording: the most frames to choose of a recording.
      most: the most frames to score of a recording.
      seed: of the choice.

    Returns:
      `DONE`; `PARTLY_DONE` if a recording or a frame was left out or a by-product failed, which is printed.

    Raises:
      UserError: if nothing can be scored, the model segments no gas, or the output is in use or not empty.
    """
    if not predictor.card.segmented:
        raise UserError("This model segments no gas, so it has no masks to correct. Choose one that does.")
    check_empty(Path(output))
    recordings, left_out = find_predicted(Path(predictions))
    sources = {recording.settings.get(gas) for recording in recordings for gas in GASES} - {None}
    with output_folder(output, sources):
        pool = []
        for recording in recordings:
            try:
                found, faults = score_recording(predictor, recording, most)
            except UserError as error:
                print(f"left out: {printable(recording.name)}: {error}", flush=True)
                found, faults = [], 1
            pool += found
            left_out += faults
        if not pool:
            raise UserError(f"No frame of {predictions} could be scored.")
        chosen = _choose(pool, predictor.card, count, per_recording, seed)
        print(f"{len(chosen):,} of {len(pool):,} scored frames are chosen", end="")
        print(f"; there are not {count:,} to choose (--frames, --per_recording)" * (len(chosen) < count), flush=True)
        left_out += write_review(Path(output), chosen, to, exact)
    return PARTLY_DONE if left_out else DONE


def _choose(pool: Sequence[Candidate], card, count, per_recording, seed) -> list[Chosen]:
    """Returns the chosen frames, the highest score first: an even share of each recording, and of each of its gases."""
    ranks = selection.to_ranks(np.array([candidate.scores for candidate in pool]))
    totals = ranks.mean(axis=1)
    recordings = [candidate.recording.name for candidate in pool]
    groups = [recordings, [(candidate.recording.name, candidate.gas) for candidate in pool]]
    # The frames of both gases show one scene, and must not take the place of each other.
    gases = np.array([GASES.index(candidate.gas) for candidate in pool])[:, None]
    pictures = np.concatenate([[candidate.picture for candidate in pool], DIFFERENT * gases], axis=1)
    chosen = selection.choose(totals, groups, pictures, count, most=per_recording, seed=seed)
    return [Chosen(pool[i], _row(pool[i], float(totals[i]), card), selection.SCORES[ranks[i].argmax()]) for i in chosen]


def _row(candidate, total, card):
    settings = candidate.recording.settings
    scores = dict(zip(selection.SCORES, candidate.scores, strict=True))
    return Reviewed(
        image=image_name(candidate),
        recording=candidate.recording.name,
        gas=candidate.gas,
        frame=candidate.frame,
        time=candidate.time,
        source=candidate.source,
        frame_index=candidate.frame_index,
        **{name: round(score, 4) for name, score in scores.items()},
        score=round(total, 4),
        mask_digest=mask_digest(candidate.read_mask()),
        model=f"{card.model} {card.step} {(card.digest or card.config_hash)[:16]}".strip(),
        ph=settings.get("ph"),
        class_name=settings.get("class_name") or "",
        subject=settings.get("subject") or "",
    )
