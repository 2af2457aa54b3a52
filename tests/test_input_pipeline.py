"""What the loader delivers: the batch as described, every example as often as promised, from any step on."""

import itertools

import chex
import jax
import numpy as np
import pytest

from fume_jax.augment import HorizontalFlip, ModalityDropout
from fume_jax.errors import UserError
from fume_jax.input_pipeline import Dataset, evaluation_batches, training_batches
from fume_jax.vocabulary import GASES, batch_spec

SIZE = {"height": 48, "width": 64}
READING = {"num_threads": 2, "prefetch": 2}


@pytest.fixture(scope="module")
def dataset(tiny_dataset):
    return Dataset(tiny_dataset)


def train(dataset, steps, **options):
    defaults = {"split": "train", "batch_size": 4, "sampling": "uniform", "seed": 0, "start_step": 0}
    defaults |= {"augmentation": (HorizontalFlip(0.5), ModalityDropout(0.5))}
    return list(itertools.islice(training_batches(dataset, **SIZE, **READING, **defaults | options), steps))


def evaluate(dataset, batch_size, split="val"):
    return list(evaluation_batches(dataset, split=split, batch_size=batch_size, **SIZE, **READING))


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
    drawn = np.concatenate([b["labels"] for b in train(dataset, 150, sampling="balanced", batch_size=8)])
    np.testing.assert_allclose(np.bincount(drawn, minlength=3) / len(drawn), 1 / 3, atol=0.05)
    assert np.bincount(labels).max() / len(labels) >= 0.5, "the dataset itself is far from balanced"


@pytest.mark.parametrize("batch_size", [2, 4])
def test_processes_share_the_global_batch(dataset, monkeypatch, batch_size):
    whole = train(dataset, 15, batch_size=batch_size)
    whole_val = evaluate(dataset, batch_size)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    parts, val_parts = [], []
    for index in range(2):
        monkeypatch.setattr(jax, "process_index", lambda index=index: index)
        parts.append(train(dataset, 15, batch_size=batch_size))
        val_parts.append(evaluate(dataset, batch_size))
    for step, batch in enumerate(whole):
        dealt = np.stack([p[step]["co2_frame"] for p in parts], 1).reshape(batch["co2_frame"].shape)
        np.testing.assert_array_equal(dealt, batch["co2_frame"])
    assert sorted(np.concatenate([indices(p) for p in val_parts])) == indices(whole_val).tolist()
    assert len(val_parts[0]) == len(val_parts[1])


def test_what_the_user_got_wrong_is_said(dataset, tmp_path):
    with pytest.raises(UserError, match=r"(?s)no prepared dataset in .*Render the embedded one"):
        Dataset(str(tmp_path))
    with pytest.raises(UserError, match="no split 'validation'; it has train, val, test"):
        dataset.split("validation")
    with pytest.raises(ValueError, match="one of uniform, balanced, got 'fair'"):
        train(dataset, 1, sampling="fair")
