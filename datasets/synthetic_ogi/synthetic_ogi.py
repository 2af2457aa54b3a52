"""TFDS builder of simulated dual-gas OGI recordings. Needs no TensorFlow and no download."""

import concurrent.futures
import dataclasses
import functools
import itertools
import multiprocessing
import os

import cv2
import numpy as np
import tensorflow_datasets as tfds
from tqdm import tqdm

from datasets.paired_frames import paired_frames
from datasets.synthetic_ogi import bounds
from datasets.synthetic_ogi.simulator import draw_scene, render_recording
from fume_jax.vocabulary import GASES, PH_CLASS

# Single-gas frames of each pH level in the published in-vitro recordings; only the proportions are used.
PH_FRAMES = {6.5: 1008, 6.2: 1050, 5.9: 945, 5.6: 3087, 5.3: 1512, 5.0: 1365}

# TFDS holds the examples of a shard in memory while it writes them, 1.2 MB each at 640x480.
RECORDINGS_PER_SHARD = 80


@dataclasses.dataclass(kw_only=True)
class SyntheticOgiConfig(tfds.core.BuilderConfig):
    """Size of a rendered dataset; `recordings` counts them per split."""

    recordings: dict[str, int] = dataclasses.field(default_factory=dict)
    frames_per_recording: int = 2
    height: int = 480
    width: int = 640
    # Share of the recordings that lack one gas; two of three of these lack CH4, the gas less often filmed.
    single_gas: float = 0.1
    seed: int = 0


class SyntheticOgi(tfds.core.ShardBasedBuilder):
    """Pairs of simulated OGI frames with plume masks and pH class; no recording is in two splits.

    Examples are stored in the order of recordings: training shuffles anyway, and TFDS's own shuffling needs TensorFlow
    for more than 1 GB a split.
    """

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [
        SyntheticOgiConfig(
            name="demo",
            description="1,600 pairs of 640x480 frames from 800 recordings.",
            recordings={"train": 520, "val": 120, "test": 160},
        ),
        SyntheticOgiConfig(
            name="tiny",
            description="For tests: 48 pairs of 128x96 frames from 24 recordings.",
            recordings={"train": 12, "val": 6, "test": 6},
            height=96,
            width=128,
        ),
    ]

    def _info(self) -> tfds.core.DatasetInfo:
        config = self.builder_config
        emission = {"emission": tfds.features.Tensor(shape=(len(GASES),), dtype=np.float32)}
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.__doc__,
            features=paired_frames(config.height, config.width, emission),
            metadata=tfds.core.MetadataDict(),
        )

    def _shard_iterators_per_split(self, dl_manager):
        del dl_manager
        first, shards = 0, {}
        for split, count in self.builder_config.recordings.items():
            plans = plan_recordings(self.builder_config, first, count)
            rendered = self._render(split, plans)
            # Shards are written one after the other, each from where the one before stopped.
            sizes = [len(plans[i : i + RECORDINGS_PER_SHARD]) for i in range(0, count, RECORDINGS_PER_SHARD)]
            shards[split] = [functools.partial(self._shard, split, rendered, size) for size in sizes]
            first += count
        return shards

    def _render(self, split, plans):
        with tqdm(total=len(plans), desc=f"render {split}", unit="recording", disable=None) as bar:
            for examples in self._pool.map(render, plans, chunksize=4):
                bar.update()
                yield examples

    def _shard(self, split, rendered, size):
        for examples in itertools.islice(rendered, size):
            for example in examples:
                self._seen[split].append(_summary(example))
                yield f"{example['recording_index']:05d}_{example['frame_index']:02d}", example

    def _download_and_prepare(self, dl_manager, download_config):
        self._seen = {split: [] for split in self.builder_config.recordings}
        # A fresh interpreter a worker: forking a process that runs threads can hang it.
        context = multiprocessing.get_context("spawn")
        with concurrent.futures.ProcessPoolExecutor(os.cpu_count(), context, initializer=_one_thread) as self._pool:
            super()._download_and_prepare(dl_manager, download_config)
        shares = {ph: n / sum(PH_FRAMES.values()) for ph, n in PH_FRAMES.items()}
        self.info.metadata["bounds"] = {
            "oracle/balanced_accuracy": bounds.oracle_bound(self._seen["test"], shares),
            "baseline/histogram/balanced_accuracy": bounds.histogram_bound(self._seen["train"], self._seen["test"]),
        }


@dataclasses.dataclass(frozen=True)
class RecordingPlan:
    """What decides a recording, pixel for pixel."""

    number: int
    ph: float
    gases: tuple[str, ...]
    frames: int
    height: int
    width: int
    seed: int


def plan_recordings(config: SyntheticOgiConfig, first: int, count: int) -> list[RecordingPlan]:
    """Plans `count` recordings, numbered from `first`: every pH level by its share, in random order."""
    rng = np.random.default_rng([config.seed, first])
    shares = np.array(list(PH_FRAMES.values())) / sum(PH_FRAMES.values())
    # Whole recordings nearest to the shares (largest remainder), at least one where there is room for all levels.
    exact = shares * count
    counts = np.maximum(np.floor(exact), 1 if count >= len(shares) else 0).astype(int)
    while counts.sum() < count:
        counts[np.argmax(exact - counts)] += 1
    while counts.sum() > count:
        counts[np.argmax(np.where(counts > 1, counts - exact, -np.inf))] -= 1
    levels = rng.permutation(np.repeat(list(PH_FRAMES), counts))
    gases = np.full(count, None)
    single = rng.permutation(count)[: round(config.single_gas * count)]
    for i, number in enumerate(single):
        gases[number] = ("co2",) if i % 3 != 2 else ("ch4",)
    return [
        RecordingPlan(
            number=first + i,
            ph=float(ph),
            gases=gases[i] or GASES,
            frames=config.frames_per_recording,
            height=config.height,
            width=config.width,
            seed=config.seed,
        )
        for i, ph in enumerate(levels)
    ]


def render(plan: RecordingPlan) -> list[dict]:
    """Renders the examples of one recording."""
    rng = np.random.default_rng([plan.seed, plan.number])
    scene = draw_scene(plan.ph, rng)
    shape = (plan.frames, plan.height, plan.width)
    films = {gas: (np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)) for gas in GASES}
    for gas in plan.gases:
        films[gas] = render_recording(scene, gas, frames=plan.frames, height=plan.height, width=plan.width, rng=rng)
    return [
        {f"{gas}_frame": films[gas][0][i][..., None] for gas in GASES}
        | {f"{gas}_mask": films[gas][1][i] for gas in GASES}
        | {
            "modality_mask": np.array([gas in plan.gases for gas in GASES], np.float32),
            "label": PH_CLASS[plan.ph],
            "ph": plan.ph,
            "recording_index": plan.number,
            "frame_index": i,
            "emission": np.array([scene.emission[gas] for gas in GASES], np.float32),
        }
        for i in range(plan.frames)
    ]


def _summary(example):
    """What the bounds need of an example, without its pixels."""
    histograms = [bounds.frame_histogram(example[f"{gas}_frame"]) for gas in GASES]
    return {key: example[key] for key in ("label", "modality_mask", "emission")} | {"histograms": histograms}


def _one_thread():
    cv2.setNumThreads(1)
