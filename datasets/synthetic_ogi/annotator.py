"""Plays the person who corrects the masks of `fume review` in LabelMe, for films whose true masks are known.

    python -m datasets.synthetic_ogi.annotator --review=review --films=films

`films` is what `python -m datasets.synthetic_ogi.film --recordings=N` wrote.
"""

from pathlib import Path

from absl import flags

from fume_jax.runtime import cli
from fume_jax.runtime.errors import UserError

_REVIEW = flags.DEFINE_string("review", None, "Folder of fume review --to=labelme.", required=True)
_FILMS = flags.DEFINE_string("films", "films", "Folder of the films.")


def main() -> None:
    from datasets.synthetic_ogi.recording import TRUTH, read_truth
    from fume_jax.data.labels import labelme
    from fume_jax.data.labels.manifest import MANIFEST, mask_digest, read_manifest

    review, changed = Path(_REVIEW.value), 0
    if not (review / MANIFEST).is_file():
        raise UserError(f"There is no {review / MANIFEST}; write it by fume review --to=labelme --output={review}.")
    rows = read_manifest(review / MANIFEST)
    for row in rows:
        path = Path(_FILMS.value) / row.recording / TRUTH
        if not path.is_file():
            raise UserError(f"There is no {path}; write films by python -m datasets.synthetic_ogi.film --recordings=9.")
        mask = read_truth(path.parent)[row.gas][row.frame_index]
        image = review / "images" / row.image
        labelme.write(image.with_suffix(".json"), image.name, mask, exact=True)
        changed += mask_digest(mask) != row.mask_digest
    print(f"Corrected {changed} of {len(rows)} masks in {review}.")


if __name__ == "__main__":
    cli.run(main)
