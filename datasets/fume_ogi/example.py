"""Writes simulated recordings in the layout that `datasets.fume_ogi` reads, as an example and to try everything on.

    python -m datasets.fume_ogi.example --output=recordings

The files look as the published ones do: a CSV file for each split has a row for each single-gas frame, paths are those
of Windows, every original has 21 copies, and these are spread over the splits.
"""

import csv
import functools
from pathlib import Path

from absl import flags

from fume_jax.runtime import cli
from fume_jax.runtime.files import replacing

_OUTPUT = flags.DEFINE_string("output", None, "Folder that receives the recordings.")
_RECORDINGS = flags.DEFINE_integer("recordings", 40, "Number of bottles that are filmed.", lower_bound=9)
_COPIES = flags.DEFINE_integer("copies", 20, "Number of augmented copies of each filmed frame.", lower_bound=2)
_HEIGHT = flags.DEFINE_integer("height", 240, "Height of the frames in pixels.", lower_bound=48)
_WIDTH = flags.DEFINE_integer("width", 320, "Width of the frames in pixels.", lower_bound=64)
_SEED = flags.DEFINE_integer("seed", 0, "Seed of the recordings; another seed renders others.", lower_bound=0)
flags.mark_flag_as_required("output")


def main() -> None:
    from datasets.fume_ogi.annotations import GROUP_COLUMNS, SINGLE_COLUMNS
    from datasets.paired_frames import create_process_pool, prefetch_with_bar
    from datasets.synthetic_ogi.plan import SyntheticOgiConfig, counts_by_share
    from datasets.synthetic_ogi.synthetic_ogi import PUBLISHED_FRAMES

    config = SyntheticOgiConfig(
        name="example",
        recordings=counts_by_share(_RECORDINGS.value, PUBLISHED_FRAMES, single_gas=0.3),
        splits={"train": 0.7, "val": 0.15, "test": 0.15},
        frames=1,
        copies=_COPIES.value,
        split_over="copies",
        height=_HEIGHT.value,
        width=_WIDTH.value,
        seed=_SEED.value,
    )
    output, header = Path(_OUTPUT.value), (*SINGLE_COLUMNS, GROUP_COLUMNS["recording"])
    with create_process_pool() as pool:
        for split, plans in config.plan().items():
            write = functools.partial(_write, output, split)
            written = prefetch_with_bar(pool, write, plans, desc=split, unit="recording")
            rows = [row for rows in written for row in rows]
            path = output / f"{split}_annotations.csv"
            with replacing(path) as part, part.open("w", newline="", encoding="utf-8") as file:
                csv.writer(file).writerows([header, *rows])
            print(f"{path}: {len(rows)} frames")


def _write(output, split, plan):
    """Writes the frames and masks of a recording that belong to a split; returns their rows."""
    from datasets.synthetic_ogi.recording import render
    from fume_jax.evaluation.overlays import save
    from fume_jax.schema import CLASSES, GASES

    rows = []
    for example in render(plan):
        for gas, present in zip(GASES, example["modality_mask"], strict=True):
            if not present:
                continue
            name = f"{plan.number:04d}_{example['copy_index']:02d}.png"
            for folder, kind in (("images", "frame"), ("masks", "mask")):
                path = output / folder / split / gas / name
                save(path, example[f"{gas}_{kind}"])
            paths = [rf"mmseg_dataset\{folder}\{split}\{gas}\{name}" for folder in ("images", "masks")]
            label, copy = example["label"], example["copy_index"]
            # One frame of each recording is filmed, so it is the original and the recording.
            rows.append((*paths, gas, example["ph"], label, CLASSES[label], plan.number, copy, plan.number))
    return rows


if __name__ == "__main__":
    cli.run(main)
