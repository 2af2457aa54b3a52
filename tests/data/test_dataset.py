"""Reading prepared datasets: digests, and damage of every kind told with the file."""

import dataclasses
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

from datasets.paired_frames import PairedFramesBuilder
from fume_jax.data.dataset import Dataset
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
    builder.download_and_prepare()
    return Path(builder.data_dir)


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
