"""What the loader delivers: the batch as described, every example as often as promised, from any step on."""

import dataclasses
import itertools
import multiprocessing
import time

import chex
import jax
import numpy as np
import pytest

from configs import fume
from fume_jax.config import data_options
from fume_jax.data.dataset import Dataset
from fume_jax.data.pipeline import DataOptions, ReadOptions, evaluation_batches, training_batches
from fume_jax.learning.augment import GaussianNoise, HorizontalFlip, ModalityDropout
from fume_jax.runtime.errors import Stalled, UserError
from fume_jax.schema import GASES, batch_spec

SIZE = {"height": 48, "width": 64}
READ = ReadOptions(num_threads=2, num_workers=0, prefetch=2, timeout_seconds=60.0)


@pytest.fixture(scope="module")
def dataset(tiny_dataset):
    return Dataset(tiny_dataset)


OPTIONS = DataOptions(
    **SIZE,
    train_batch_size=4,
    eval_batch_size=4,
    sampling="uniform",
    augmentation=(HorizontalFlip(0.5), ModalityDropout(0.5)),
    seed=0,
    cache="none",
    read=READ,
)


def train(dataset, steps, *, split="train", start_step=0, **changes):
    source, labels, options = dataset.split(split), dataset.labels(split), dataclasses.replace(OPTIONS, **changes)
    return list(itertools.islice(training_batches(source, labels, options, start_step=start_step), steps))


def evaluate(dataset, batch_size, split="val"):
    return list(evaluation_batches(dataset.split(split), OPTIONS, batch_size))


def indices(batches):
    return np.concatenate([b["example_index"][b["valid"]] for b in batches])


def test_batches_are_as_described(dataset):
    for batch in (train(dataset, 1)[0], evaluate(dataset, 4)[0]):
        assert batch.keys() == batch_spec(4, **SIZE).keys()
        for key, spec in batch_spec(4, **SIZE).items():
            assert (batch[key].shape, batch[key].dtype) == (spec.shape, spec.dtype), key
        for gas in GASES:
            assert batch[f"{gas}_frame"].min() >= -1
            assert batch[f"{gas}_frame"].max() <= 1
            assert set(np.unique(batch[f"{gas}_mask"])) <= {0, 1, 2}


def test_an_absent_gas_has_a_frame_of_zeros_and_an_empty_mask(dataset):
    absent = 0
    for batch in train(dataset, 6) + evaluate(dataset, 6, "train"):
        for i, gas in enumerate(GASES):
            rows = batch["modality_mask"][:, i] == 0
            absent += rows.sum()
            assert not batch[f"{gas}_frame"][rows].any()
            assert not batch[f"{gas}_mask"][rows].any()
            assert batch[f"{gas}_frame"][~rows].any((1, 2, 3)).all()
    assert absent > 0


@pytest.mark.parametrize("batch_size", [1, 5, 12, 16])
def test_evaluation_delivers_every_example_once_in_order_and_pads(dataset, batch_size):
    batches = evaluate(dataset, batch_size)
    assert indices(batches).tolist() == list(range(12))
    assert all(len(b["labels"]) == batch_size for b in batches)
    padding = [b["example_index"][~b["valid"]] for b in batches]
    assert all((p == -1).all() for p in padding)


def test_uniform_sampling_delivers_every_example_once_an_epoch_in_a_new_order(dataset):
    first, second = (indices(batches) for batches in (lambda b: (b[:6], b[6:]))(train(dataset, 12)))
    assert sorted(first) == sorted(second) == list(range(24))
    assert first.tolist() != second.tolist()


@pytest.mark.parametrize("sampling", ["uniform", "balanced"])
def test_a_start_in_the_middle_delivers_what_would_have_come_next(dataset, sampling):
    whole = train(dataset, 10, sampling=sampling)
    rest = train(dataset, 3, sampling=sampling, start_step=7)
    chex.assert_trees_all_equal(rest, whole[7:])


def test_the_seed_decides_order_and_augmentation(dataset):
    a, b = train(dataset, 6), train(dataset, 6, seed=1)
    chex.assert_trees_all_equal(a, train(dataset, 6))
    assert indices(a).tolist() != indices(b).tolist()


def test_balanced_sampling_draws_every_class_equally_often(dataset):
    labels = dataset.labels("train")
    drawn = np.concatenate([b["labels"] for b in train(dataset, 150, sampling="balanced", train_batch_size=8)])
    np.testing.assert_allclose(np.bincount(drawn, minlength=3) / len(drawn), 1 / 3, atol=0.05)
    assert np.bincount(labels).max() / len(labels) >= 0.5, "the dataset itself is far from balanced"


@pytest.mark.parametrize("preset", ["fume", "classification_only", "segmentation_only", "ablation_segmentation"])
def test_only_a_model_that_classifies_needs_every_class_to_balance_them(dataset, preset):
    every_class, labels = data_options(fume.get_config(preset)).every_class, dataset.labels("train") % 2
    options = dataclasses.replace(OPTIONS, sampling="balanced", every_class=every_class)

    def batches():
        return training_batches(dataset.split("train"), labels, options, start_step=0)

    if every_class:
        assert preset in ("fume", "classification_only")
        with pytest.raises(UserError, match=r"class Acidotic\. .*fume:ablation_segmentation; .*sampling=uniform"):
            batches()
    else:
        drawn = labels[np.concatenate([b["example_index"] for b in itertools.islice(batches(), 100)])]
        np.testing.assert_allclose(np.bincount(drawn) / len(drawn), 1 / 2, atol=0.08)


@pytest.mark.parametrize("workers, threads", [(0, 1), (0, 5), (1, 1), (2, 3)])
def test_the_number_of_workers_and_threads_changes_nothing(dataset, workers, threads):
    augmentation = (HorizontalFlip(0.5), GaussianNoise(0.5, low=10.0, high=50.0))
    read_options = dataclasses.replace(READ, num_workers=workers, num_threads=threads)
    changed = train(dataset, 7, augmentation=augmentation, read=read_options, start_step=3)
    chex.assert_trees_all_equal(changed, train(dataset, 7, augmentation=augmentation, start_step=3))
    assert not multiprocessing.active_children(), "workers must not outlive the batches"


@pytest.mark.parametrize("batch_size, processes", [(2, 2), (4, 2), (9, 3), (5, 5)])
@pytest.mark.parametrize("split, size", [("train", 24), ("val", 12)])
def test_processes_share_the_global_batch(dataset, monkeypatch, batch_size, processes, split, size):
    """Odd sizes too: most of these batches do not divide the examples, nor the processes the batches an epoch."""
    steps = 3 * size // batch_size
    whole = train(dataset, steps, split=split, train_batch_size=batch_size)
    whole_val = evaluate(dataset, batch_size, split)
    monkeypatch.setattr(jax, "process_count", lambda: processes)
    parts, val_parts = [], []
    for index in range(processes):
        monkeypatch.setattr(jax, "process_index", lambda index=index: index)
        parts.append(train(dataset, steps, split=split, train_batch_size=batch_size))
        val_parts.append(evaluate(dataset, batch_size, split))

    def put_together(parts):
        return [jax.tree.map(lambda *shares: np.concatenate(shares), *batch) for batch in zip(*parts, strict=True)]

    chex.assert_trees_all_equal(put_together(parts), whole)
    chex.assert_trees_all_equal(put_together(val_parts), whole_val)
    read = np.bincount(indices(whole)[: steps * batch_size // size * size], minlength=size)
    assert set(read) == {steps * batch_size // size}, "over whole epochs every example is read equally often"


class Slow(HorizontalFlip):
    def draw(self, *_):
        time.sleep(3)
        return {}


@pytest.mark.parametrize("workers", [0, 1])
def test_a_read_that_hangs_ends_the_run(dataset, workers):
    read_options = dataclasses.replace(READ, num_workers=workers, timeout_seconds=0.5)
    with pytest.raises(Stalled, match=r"No batch came for 0\.5 s"):
        train(dataset, 1, augmentation=(Slow(1.0),), read=read_options)
    for worker in multiprocessing.active_children():
        worker.join(1)
    assert not multiprocessing.active_children(), "a worker that hangs must not outlive the run"


def test_a_worker_that_dies_ends_the_run(dataset):
    options = dataclasses.replace(OPTIONS, augmentation=(), read=dataclasses.replace(READ, num_workers=1))
    batches = training_batches(dataset.split("train"), dataset.labels("train"), options, start_step=0)
    next(batches)
    for worker in multiprocessing.active_children():
        worker.kill()
    with pytest.raises(UserError, match=r"A loader worker died .* lower --config.data.num_workers"):
        for _ in range(1000):
            next(batches)


def test_what_the_user_got_wrong_is_said(dataset, tmp_path):
    with pytest.raises(UserError, match=r"(?s)no prepared dataset in .*Render the embedded one"):
        Dataset(str(tmp_path))
    (tmp_path / "1.0.0").mkdir()
    (tmp_path / "1.0.0" / "dataset_info.json").touch()
    with pytest.raises(UserError, match=r"did you mean .*1\.0\.0"):
        Dataset(str(tmp_path))
    with pytest.raises(UserError, match="no split 'validation'; it has train, val, test"):
        dataset.split("validation")
    with pytest.raises(ValueError, match="one of uniform, balanced, got 'fair'"):
        train(dataset, 1, sampling="fair")
