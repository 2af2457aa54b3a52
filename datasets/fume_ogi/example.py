"""Writes simulated recordings in the layout that `datasets.fume_ogi` reads: to see it, and to try everything on.

    python -m datasets.fume_ogi.example --output=recordings

As the published files are: a CSV file for each split with a row for each single-gas frame, Windows paths, 21 copies of
every original, and these spread over the splits.
"""

import csv
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from absl import flags

from fume_jax.runtime import cli

_OUTPUT = flags.DEFINE_string("output", None, "Folder to write to.")
_RECORDINGS = flags.DEFINE_integer(
    "recordings", 40, "Bottles filmed, most of them through both filters.", lower_bound=9
)
_COPIES = flags.DEFINE_integer("copies", 20, "Augmented ones of each filmed frame.", lower_bound=2)
_HEIGHT = flags.DEFINE_integer("height", 240, "Of the frames, pixels.", lower_bound=48)
_WIDTH = flags.DEFINE_integer("width", 320, "Of the frames, pixels.", lower_bound=64)
_SEED = flags.DEFINE_integer("seed", 0, "Other recordings of the same kind.", lower_bound=0)
flags.mark_flag_as_required("output")


def main() -> None:
    import multiprocessing

    from datasets.fume_ogi.annotations import SINGLE_COLUMNS
    from datasets.shards import prefetch_with_bar
    from datasets.synthetic_ogi.plan import counts_by_share, plan_recordings
    from datasets.synthetic_ogi.synthetic_ogi import PUBLISHED_FRAMES

    plans = plan_recordings(
        counts_by_share(_RECORDINGS.value, PUBLISHED_FRAMES, single_gas=0.3),
        {"train": 0.7, "val": 0.15, "test": 0.15},
        frames=1,
        copies=_COPIES.value,
        split_over="copies",
        height=_HEIGHT.value,
        width=_WIDTH.value,
        seed=_SEED.value,
    )
    output = Path(_OUTPUT.value)
    with ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("spawn")) as pool:
        for split, own in plans.items():
            jobs = [(output, split, plan) for plan in own]
            lines = [
                line for found in prefetch_with_bar(pool, _write, jobs, desc=split, unit="recording") for line in found
            ]
            with (output / f"{split}_annotations.csv").open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, SINGLE_COLUMNS)
                writer.writeheader()
                writer.writerows(lines)
            print(f"{output / f'{split}_annotations.csv'}: {len(lines)} frames")


def _write(job):
    """Writes the frames and masks of a recording that belong to a split, and returns their rows."""
    import cv2

    from datasets.synthetic_ogi.recording import render
    from fume_jax.schema import CLASSES, GASES

    output, split, plan = job
    lines = []
    for example in render(plan):
        for gas, present in zip(GASES, example["modality_mask"], strict=True):
            if not present:
                continue
            name = f"{plan.number:04d}_{example['copy_index']:02d}.png"
            for folder, image in (("images", example[f"{gas}_frame"]), ("masks", example[f"{gas}_mask"])):
                path = output / folder / split / gas / name
                path.parent.mkdir(parents=True, exist_ok=True)
                if not cv2.imwrite(str(path), image):
                    raise OSError(f"could not write {path}")
            lines.append(
                {
                    "frame_path": rf"mmseg_dataset\images\{split}\{gas}\{name}",
                    "mask_path": rf"mmseg_dataset\masks\{split}\{gas}\{name}",
                    "gas_type": gas,
                    "ph_value": example["ph"],
                    "class_id": example["label"],
                    "class_name": CLASSES[example["label"]],
                    "original_sample_id": plan.number,
                    "augmentation_id": example["copy_index"],
                }
            )
    return lines


if __name__ == "__main__":
    cli.run(main)
