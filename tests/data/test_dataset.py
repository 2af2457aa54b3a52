"""Reading prepared datasets: digests, and damage of every kind told with the file."""

import contextlib
import dataclasses
import io
import json
import os
import pickle
import random
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds

from datasets.paired_frames import PairedFramesBuilder, preparing
from fume_jax.data import pipeline
from fume_jax.data.dataset import Dataset
from fume_jax.runtime.errors import UserError
from fume_jax.schema import GASES, SPLITS

HEIGHT, WIDTH, EXAMPLES = 16, 24, 6


@dataclasses.dataclass(kw_only=True)
class SmallConfig(tfds.core.BuilderConfig):
    height: int = HEIGHT
    width: int = WIDTH
    seed: int = 0


class Small(PairedFramesBuilder):
    """Random pairs."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        return self._create_info({})

    def _create_pool(self):
        return ThreadPoolExecutor(1)

    def _shard_iterators_per_split(self, dl_manager):
        items = dict.fromkeys(SPLITS, range(EXAMPLES))
        return self._shards(self._example, items, pairs=3 * EXAMPLES, most_pairs=1)

    def _example(self, index):
        rng = np.random.default_rng([self.builder_config.seed, index])
        pixels = {f"{gas}_frame": rng.integers(0, 256, (HEIGHT, WIDTH, 1), np.uint8) for gas in GASES}
        pixels |= {f"{gas}_mask": rng.integers(0, 3, (HEIGHT, WIDTH), np.uint8) for gas in GASES}
        others = {"label": index % 3, "ph": 5.6, "recording_index": index, "frame_index": 0}
        return pixels | {"modality_mask": np.ones(2, np.float32)} | others

    def _keyed(self, split, example):
        yield f"{example['recording_index']:04d}", example


def prepare(folder, seed=0):
    """The path of a small dataset."""
    builder = Small(config=SmallConfig(name="small", seed=seed), data_dir=folder, file_format="array_record")
    with contextlib.redirect_stdout(io.StringIO()):
        builder.download_and_prepare()
    return Path(builder.data_dir)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return prepare(tmp_path_factory.mktemp("small"))


@pytest.fixture
def own(small, tmp_path):
    """A copy to spoil."""
    return Path(shutil.copytree(small, tmp_path / "own"))


def read_all(path):
    dataset = Dataset(str(path))
    dataset.digest  # noqa: B018
    return {split: (list(dataset.split(split)), dataset.labels(split).tolist()) for split in dataset.splits}


def shard(path, split="val"):
    return next(path.glob(f"*-{split}.*"))


def edit(path, change):
    path.write_text(change(path.read_text()))


def without_digest(path):
    """A dataset as another builder leaves it."""
    (path / "metadata.json").write_text("{}")
    return path


# --- digests ---


def test_the_digest_is_that_of_the_data_wherever_the_folder_is(tmp_path):
    path = prepare(tmp_path / "first")
    again, other = prepare(tmp_path / "again"), prepare(tmp_path / "other", seed=1)
    digest = Dataset(str(path)).digest
    assert Dataset(str(again)).digest == digest, "prepared anew of the same data"
    assert Dataset(str(other)).digest != digest
    moved = shutil.move(path, tmp_path / "moved")
    assert Dataset(str(moved)).digest == digest


def test_a_dataset_of_another_builder_has_a_digest_too(tmp_path):
    path = without_digest(prepare(tmp_path / "first"))
    other = without_digest(prepare(tmp_path / "other", seed=1))
    digest = Dataset(str(path)).digest
    assert Dataset(str(other)).digest != digest
    moved = shutil.move(path, tmp_path / "moved")
    assert Dataset(str(moved)).digest == digest


# --- damage ---

# Files of a dataset and the bits of each that are flipped, one in each copy.
FLIPS = {"*.array_record*": 40, "dataset_info.json": 20, "features.json": 20, "label.labels.txt": 5, "metadata.json": 5}


@pytest.mark.parametrize("pattern", FLIPS)
def test_a_flipped_bit_changes_no_example_or_is_told_with_the_folder(pattern, small, own):
    expected, rng, told = read_all(small), random.Random(pattern), 0
    for _ in range(FLIPS[pattern]):
        path = rng.choice(sorted(own.glob(pattern)))
        good = path.read_bytes()
        data = bytearray(good)
        data[rng.choice([i for i, byte in enumerate(data) if byte])] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
        try:
            found = read_all(own)
        except UserError as error:
            told += 1
            assert str(own) in str(error) and (str(path) in str(error) or "array_record" not in pattern)
        else:
            np.testing.assert_equal(found, expected)
        path.write_bytes(good)
    assert told, "some of these bits matter"


def cut(path):
    os.truncate(shard(path), shard(path).stat().st_size // 2)


def fewer(path):
    edit(path / "dataset_info.json", lambda text: text.replace(f'"{EXAMPLES}"', f'"{EXAMPLES - 1}"'))


def pipe(path):
    file = shard(path)
    file.unlink()
    os.mkfifo(file)


DAMAGE = {
    "a missing shard": (lambda path: shard(path).unlink(), "lacks the file .*-val"),
    "a cut shard": (cut, "-val.* is damaged"),
    "an empty shard": (lambda path: shard(path).write_bytes(b""), "-val.* is damaged"),
    "a shard of garbage": (lambda path: shard(path).write_bytes(b"x" * 70_000), "-val.* is damaged"),
    "a pipe for a shard": (pipe, "lacks the file .*-val"),
    "fewer examples than there are": (fewer, "holds 6 examples of .*dataset_info.json says 5"),
    "no features.json": (lambda path: (path / "features.json").unlink(), "lacks the file features.json"),
    "features.json is a list": (lambda path: (path / "features.json").write_text("[]"), "features.json is damaged"),
    "dataset_info.json is a list": (lambda path: (path / "dataset_info.json").write_text("[]"), "is damaged"),
    "dataset_info.json is empty": (lambda path: (path / "dataset_info.json").write_text(""), "json is damaged"),
    "dataset_info.json has other fields": (
        lambda path: (path / "dataset_info.json").write_text("{}"),
        "is damaged: Invalid version",
    ),
    "deep metadata.json": (lambda path: (path / "metadata.json").write_text("[" * 100_000), "metadata.json is damaged"),
    "bounds are words": (
        lambda path: (path / "metadata.json").write_text('{"bounds": {"a": "b"}}'),
        "numbers as bounds",
    ),
    "other classes": (
        lambda path: (path / "label.labels.txt").write_text("Acidotic\nTransitional\nHealthy\n"),
        "classes Acidotic, Transitional, Healthy; expected Healthy",
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_told_with_the_file(name, own):
    spoil, words = DAMAGE[name]
    spoil(own)
    with pytest.raises(UserError, match=words):
        read_all(own)


@pytest.mark.parametrize("name", ["[2024] *?", "{DATASET}", "back\\slash", "new\nline", "π ü", "~", "%s"])
def test_a_folder_may_have_any_name_in_unicode(name, small, tmp_path):
    expected = read_all(small)
    np.testing.assert_equal(read_all(shutil.copytree(small, tmp_path / name)), expected)
    np.testing.assert_equal(read_all(prepare(tmp_path / name / "new")), expected)


def test_a_name_that_is_not_utf8_is_refused_in_words(small, tmp_path):
    folder = shutil.copytree(small, tmp_path / os.fsdecode(b"pr\xe9"))
    with pytest.raises(UserError, match="is not UTF-8"):
        Dataset(str(folder))
    with pytest.raises(UserError, match="is not UTF-8"), preparing(str(folder), "small", "x"):
        pass


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_damaged_example_is_told_in_threads_and_workers_too(workers, own):
    file = shard(own, "train")
    data = bytearray(file.read_bytes())
    data[1000] ^= 1
    file.write_bytes(data)
    source = Dataset(str(own)).split("train")
    read = pipeline.ReadOptions(num_threads=2, num_workers=workers, prefetch=1, timeout_seconds=60)
    options = pipeline.DataOptions(
        height=HEIGHT, width=WIDTH, train_batch_size=2, eval_batch_size=2, sampling="uniform", augmentation=(), seed=0,
        cache="none", read=read,
    )  # fmt: skip
    with pytest.raises(UserError, match=r"-train.*, example \d of train, is damaged"):
        list(pipeline.evaluation_batches(source, options, 2, requests_only=False))
    with pytest.raises(UserError, match="is damaged"):
        list(pickle.loads(pickle.dumps(source)))


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace(
            "tensorflow_datasets.core.features.tensor_feature.Tensor", "planted_module.Tensor", 1
        ),
        lambda text: json.dumps({"type": "planted_module.Tensor", "content": {}}),
        lambda text: json.dumps({"python_class_name": "planted_module.Tensor", "jsonFeature": {"json": "{}"}}),
        lambda text: json.dumps(
            {
                "pythonClassName": "tensorflow_datasets.core.features.sequence_feature.Sequence",
                "jsonFeature": {"json": json.dumps({"feature": {"type": "planted_module.Tensor"}})},
            }
        ),
    ],
    ids=["nested", "old form", "other spelling", "JSON in JSON"],
)
def test_a_feature_of_another_module_is_refused_before_it_is_imported(change, own, tmp_path, monkeypatch):
    (tmp_path / "planted_module.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    edit(own / "features.json", change)
    with pytest.raises(UserError, match=r"names the feature 'planted_module\.Tensor', which is not one of TFDS"):
        Dataset(str(own))
    assert "planted_module" not in sys.modules
