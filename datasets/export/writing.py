"""Writes the frames of a prepared dataset in the layout of another program, all of them or none."""

import collections
import csv
import functools
import io
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np

from datasets.export.layouts import LAYOUTS, Layout, png
from datasets.paired_frames import prefetch_with_bar
from fume_jax.data.cases import Case, parse_case
from fume_jax.data.dataset import Dataset
from fume_jax.runtime.errors import UserError
from fume_jax.runtime.files import check_folder, full_disk, scratch
from fume_jax.schema import CLASSES, GASES, IGNORE, NOT_GAS, SPLITS

TABLE = "cases.csv"
COLUMNS = ("case", "split", "example", "gas", "label", "ph", "recording")


def export(data: str, name: str, output: str) -> None:
    """Writes all frames of a dataset, with `cases.csv`, in one of `LAYOUTS`, and prints what it wrote and changed.

    `output` appears when it is complete. Raises UserError if it is there already, or the dataset cannot be read.
    """
    layout, folder = LAYOUTS[name], Path(os.path.abspath(output))
    if folder.exists() and (not folder.is_dir() or os.listdir(folder)):
        raise UserError(f"--output={output} is there already; name a new folder.")
    check_folder(folder)
    dataset = Dataset(data)
    with full_disk(folder.parent, "the export"), scratch(folder.parent, f".{folder.name}.") as place:
        made = place / "made"
        made.mkdir()
        rows, unknown, not_gas = _write_frames(dataset, layout, made)
        cases = [parse_case(row["case"]) for row in rows]
        for path, text in layout.describe(cases, bool(unknown)).items():
            (made / path).write_text(text, encoding="utf-8")
        (made / TABLE).write_text(_table(rows), encoding="utf-8", newline="")
        if folder.exists():
            folder.rmdir()
        made.rename(folder)
    counts = collections.Counter(row["split"] for row in rows)
    print(f"Wrote {', '.join(f'{counts[split]:,} frames of {split}' for split in SPLITS)} to {output}.")
    if unknown:
        print(f"{sum(unknown):,} pixels of unknown class, in {len(unknown):,} frames, {layout.unknown}.")
    if not_gas:
        print(f"{sum(not_gas):,} pixels that may be tube, in {len(not_gas):,} frames, are background.")
    print(layout.advice(folder.name))


def _write_frames(dataset, layout, folder):
    """Returns the rows of the table, and how many pixels are IGNORE and NOT_GAS in the frames that have any."""
    rows, unknown, not_gas = [], [], []
    cv2.setNumThreads(1)  # each thread of the pool encodes pictures
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for split in SPLITS:
            examples = dataset.split(split)
            write = functools.partial(_write_example, examples, split, layout, folder)
            for found in prefetch_with_bar(pool, write, range(len(examples)), desc=split, unit="pair"):
                for row, counts in found:
                    rows.append(row)
                    for pixels, count in zip((unknown, not_gas), counts, strict=True):
                        pixels += [count] if count else []
    return rows, unknown, not_gas


def _write_example(examples, split, layout: Layout, folder, index):
    """Writes the frames of a pair; returns for each its row and the pixels that are IGNORE and NOT_GAS."""
    example, found = examples[index], []
    for gas, present in zip(GASES, example["modality_mask"], strict=True):
        if not present:
            continue
        case, mask = Case(split, index, gas), example[f"{gas}_mask"]
        for path, content in (
            (layout.image(case), png(example[f"{gas}_frame"])),
            (layout.label(case), layout.encode(mask)),
        ):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content)
        values = (
            case.name,
            split,
            Case(split, index).name,
            gas,
            CLASSES[example["label"]],
            f"{example['ph']:.4g}",
            int(example["recording_index"]),
        )
        counts = [int(np.count_nonzero(mask == value)) for value in (IGNORE, NOT_GAS)]
        found.append((dict(zip(COLUMNS, values, strict=True)), counts))
    return found


def _table(rows):
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
