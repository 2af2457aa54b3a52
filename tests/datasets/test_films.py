"""Annotated frames of films: a row names a film and a frame, and each film has one scale."""

import csv

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from datasets.fume_ogi.annotations import SINGLE_COLUMNS, read_annotations, write_pairs
from datasets.fume_ogi.fume_ogi import FumeOgi, FumeOgiConfig
from datasets.fume_ogi.plan import FaultyRecordings, Options, make_plan
from fume_jax.data.dataset import Dataset
from fume_jax.schema import CLASSES, GASES, PH_CLASS
from tests.camera import write_sequence
from tests.datasets.recordings import HEIGHT, WIDTH, frame, mask

FRAMES = 5
COLUMNS = (*SINGLE_COLUMNS, "frame_index")


def counts(number, position):
    """A deep frame; the film of `number` goes from 1000 to 1000 + 255 * 20."""
    return 1000 + 20 * frame(100 * number + position).astype(np.uint16)


def write(folder, change=lambda row: row):
    """Writes films of 16 bits, three of each class and gas, of which two frames each have masks."""
    rows, number = [], 0
    (folder / "masks").mkdir(parents=True)
    for ph in (6.5, 5.9, 5.3):
        for _ in range(3):
            for gas in GASES:
                film = f"{number}_{gas}.seq"
                write_sequence(folder / film, [counts(number, position) for position in range(FRAMES)])
                for position in (1, 4):
                    path = f"masks/{number}_{position}.png"
                    Image.fromarray(mask(number + position)).save(folder / path)
                    label = PH_CLASS[ph]
                    row = [film, path, gas, ph, label, CLASSES[label], "", 0, position]
                    rows.append(change(dict(zip(COLUMNS, row, strict=True))))
                number += 1
    table = folder / "all.csv"
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    return Options(str(table))


def test_frames_of_films_are_stored_by_the_scale_of_their_film_and_stay_in_one_split(tmp_path):
    options = write(tmp_path / "source")
    config = FumeOgiConfig(name="films", height=HEIGHT, width=WIDTH, options=options)
    builder = FumeOgi(config=config, data_dir=str(tmp_path / "data"), file_format="array_record")
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=tmp_path / "source"))
    ranges = builder.info.metadata["ranges"]
    assert len(ranges) == 18
    assert all(1000 < low < high < 1000 + 20 * 255 for low, high in ranges.values()), "after a median of 3 x 3"
    dataset, seen = Dataset(str(builder.data_path)), {}
    for split in dataset.splits:
        for example in dataset.split(split):
            for i, gas in enumerate(GASES):
                if example["modality_mask"][i]:
                    seen.setdefault(split, []).append(example[f"{gas}_frame"][..., 0])
    expected = []
    for number in range(18):
        low, high = ranges[f"{number}_{GASES[number % 2]}.seq"]
        for position in (1, 4):
            levels = np.rint(np.clip((counts(number, position) - low) / (high - low), 0, 1) * 255)
            expected.append(levels.astype(np.uint8).tobytes())
    stored = {split: {image.tobytes() for image in images} for split, images in seen.items()}
    assert set().union(*stored.values()) == set(expected)
    for first, second in zip(expected[::2], expected[1::2], strict=True):
        assert [first in images for images in stored.values()] == [second in images for images in stored.values()]


@pytest.mark.parametrize(
    ("index", "path", "words"),
    [
        ("5", None, "there is no frame 5; the file has 5"),
        ("first", None, "frame_index is 'first'; expected the number"),
        ("-1", None, "frame_index is '-1'"),
        ("0", "masks/0_1.png", "is a single frame; expected a film"),
    ],
)
def test_a_frame_that_there_is_not_is_a_fault_of_its_row(tmp_path, index, path, words):
    def change(row):
        if row["frame_path"] == "0_co2.seq" and row["frame_index"] == 1:
            row |= {"frame_index": index} | ({"frame_path": path} if path else {})
        return row

    options = write(tmp_path / "source", change)
    with pytest.raises(FaultyRecordings, match=words):
        make_plan(tmp_path / "source", options)


def test_pairs_of_films_are_written_and_read_with_their_positions(tmp_path):
    options = write(tmp_path / "source")
    plan = make_plan(tmp_path / "source", options)
    write_pairs(tmp_path / "train.csv", plan.pairs["train"])
    read = read_annotations(str(tmp_path / "train.csv"), tmp_path / "source")
    assert read.faults == []
    assert [row.frames for row in read.rows[""]] == [row.frames for row in plan.pairs["train"]]
    assert {frame.frame_index for row in read.rows[""] for frame in row.frames} == {1, 4}
