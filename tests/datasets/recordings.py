"""Small recordings in the layout of datasets/fume_ogi/README.md, for tests to spoil."""

import csv
from pathlib import Path

import numpy as np
from PIL import Image

from datasets.fume_ogi.annotations import SINGLE_COLUMNS
from fume_jax.schema import CLASSES, GASES, PH_CLASS

HEIGHT, WIDTH = 24, 32
ORIGINALS = 3  # of each class, one for each split


def mask(number):
    """A mask with a tube and gas, in another place for every number."""
    values = np.zeros((HEIGHT, WIDTH), np.uint8)
    values[16:22, 2:6] = 1
    values[number % 8 : number % 8 + 6, 8:20] = 2
    return values


def frame(number):
    return np.random.default_rng(number).integers(0, 256, (HEIGHT, WIDTH), np.uint8)


def write(folder: Path, save_mask=lambda path, values: Image.fromarray(values).save(path), ending="png") -> Path:
    """Writes the recordings; returns the path of their table."""
    rows, number = [], 0
    for ph in (6.5, 5.9, 5.3):
        for original in range(ORIGINALS):
            for gas in GASES:
                paths = [f"images/{number:03d}.png", f"masks/{number:03d}.{ending}"]
                for path in paths:
                    (folder / path).parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(frame(number)).save(folder / paths[0])
                save_mask(folder / paths[1], mask(number))
                label = PH_CLASS[ph]
                rows.append([*paths, gas, ph, label, CLASSES[label], 10 * label + original, 0])
                number += 1
    table = folder / "all.csv"
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([SINGLE_COLUMNS, *rows])
    return table


def rewrite(table: Path, change) -> None:
    """Writes a table anew, each of whose rows, a dict of its cells, `change(number, cells)` has changed."""
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for number, cells in enumerate(rows):
        change(number, cells)
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
