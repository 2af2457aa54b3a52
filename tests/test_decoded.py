"""A dataset decoded once: the same examples, never a stale or torn one, and plain words where it cannot be kept."""

import itertools
import os
import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import chex
import jax
import numpy as np
import pytest

from fume_jax import decoded, guards
from fume_jax.augment import Elastic, GaussianNoise, HorizontalFlip, ModalityDropout
from fume_jax.errors import UserError
from fume_jax.input_pipeline import Dataset, evaluation_batches, training_batches
from tests.test_input_pipeline import READING, SIZE

AUGMENTATION = (
    HorizontalFlip(0.5),
    Elastic(0.5, affine=0.1, sigma=0.1, amplitude=0.01),
    GaussianNoise(0.5, low=10.0, high=50.0),
    ModalityDropout(0.5),
)
TRAINING = {"split": "train", "batch_size": 4, "sampling": "balanced", "seed": 0, "augmentation": AUGMENTATION}


@pytest.fixture(autouse=True)
def three_chunks(monkeypatch):
    """Of the 24 examples, the last of them smaller."""
    monkeypatch.setattr(decoded, "CHUNK", 10)


@pytest.fixture
def copy(tiny_dataset, tmp_path):
    """A copy of the dataset, of its own."""
    return shutil.copytree(tiny_dataset, tmp_path / "2.0.0")


def keep(path, split="train", size=SIZE):
    """The dataset with one split decoded on disk, and how many chunks had to be decoded for it."""
    dataset, found = Dataset(str(path)), []

    def chunks():
        for arrays in dataset.chunks(split, **size, num_threads=2):
            found.append(arrays)
            yield arrays

    dataset.keep_decoded(split, **size, chunks=chunks)
    return dataset, len(found)


def batches(dataset, start_step=0):
    training = training_batches(dataset, **SIZE, **TRAINING, start_step=start_step, reading=READING)
    evaluation = evaluation_batches(dataset, split="train", batch_size=5, **SIZE, reading=READING)
    return [*itertools.islice(training, 4), *evaluation]


def folder(path):
    return Path(path) / "cache" / "48x64" / "train"


def test_batches_are_those_of_the_dataset_itself_to_the_last_bit(tiny_dataset, copy):
    kept, chunks = keep(copy)
    assert chunks == 3
    chex.assert_trees_all_equal(batches(kept), batches(Dataset(tiny_dataset)))
    again, chunks = keep(copy)
    assert chunks == 0, "decoded once"
    chex.assert_trees_all_equal(batches(again, start_step=3), batches(Dataset(tiny_dataset), start_step=3))


def test_another_process_maps_the_files_instead_of_being_sent_them(copy):
    kept, _ = keep(copy)
    sent = pickle.dumps(kept.split("train"))
    assert len(sent) < 1000
    chex.assert_trees_all_equal(pickle.loads(sent)[3], kept.split("train")[3])


def test_it_is_made_again_where_the_dataset_or_the_size_is_another(copy):
    keep(copy)
    _, chunks = keep(copy, size={"height": 64, "width": 48})
    assert chunks == 3
    [record] = copy.glob("*train.array_record*")
    os.utime(record, ns=(0, 0))
    assert keep(copy)[1] == 3
    assert keep(copy)[1] == 0
    info = copy / "dataset_info.json"
    info.write_text(info.read_text().replace('"version": "2.0.0"', '"version": "2.0.1"'))
    assert keep(copy)[1] == 3


@pytest.mark.parametrize("name", ["pixels.npy", "label.npy", "made_from.json"])
@pytest.mark.parametrize("left", [0, 0.5, 0.999])
def test_a_torn_file_is_not_trusted(copy, name, left):
    whole, _ = keep(copy)
    # A copy: reading on in a file that is cut short while it is mapped kills the process.
    expected = jax.tree.map(np.copy, whole.split("train")[23])
    size = (folder(copy) / name).stat().st_size
    os.truncate(folder(copy) / name, int(left * size))
    again, chunks = keep(copy)
    assert chunks == 3
    chex.assert_trees_all_equal(again.split("train")[23], expected)


def test_what_was_stopped_half_way_leaves_nothing_that_is_taken_for_whole(copy):
    dataset = Dataset(str(copy))

    def stopped():
        yield next(dataset.chunks("train", **SIZE, num_threads=1))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        dataset.keep_decoded("train", **SIZE, chunks=stopped)
    assert not folder(copy).exists()
    assert keep(copy)[1] == 3
    assert sorted(path.name for path in folder(copy).parent.iterdir()) == ["train", "train.lock"]


def test_those_who_ask_together_decode_once(copy):
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(keep, [copy] * 4))
    assert sorted(chunks for _, chunks in found) == [0, 0, 0, 3]
    chex.assert_trees_all_equal(*(dataset.split("train")[7] for dataset, _ in found))


def test_a_folder_that_cannot_be_written_is_said(copy):
    (copy / "cache").touch()
    with pytest.raises(UserError, match=r"cannot be written to .*cache/48x64/train: .* --config\.data\.cache=none"):
        keep(copy)
    (copy / "cache").unlink()
    keep(copy)
    for path in (copy / "cache", *(copy / "cache").rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    assert keep(copy)[1] == 0, "what is there already needs no writing"


def test_a_disk_without_room_is_said(copy, monkeypatch):
    usage = shutil._ntuple_diskusage(10**9, 10**9, 10**5)
    monkeypatch.setattr(guards.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(UserError, match=r"The decoded split needs about 0\.3 MB of disk, and .* has 0\.1 MB free"):
        keep(copy)
    assert not folder(copy).exists()
