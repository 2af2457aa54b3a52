"""How hard a rendered dataset is: what must be beaten, and what cannot be."""

from collections.abc import Sequence

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from datasets.synthetic_ogi.emission import emission_log_density
from fume_jax.schema import CLASSES, GASES, PH_CLASS

HISTOGRAM_BINS = 32


def measure(train: list[dict], test: list[dict], recordings: dict[float, int]) -> dict[str, float]:
    """The bounds of a dataset by the names that evaluation reports them under.

    Args:
      train, test: examples, see the functions below.
      recordings: of each pH level; the oracle's prior.
    """
    paired = [example for example in test if sum(example["modality_mask"]) == len(GASES)]
    measured = {
        "oracle/balanced_accuracy": oracle_bound(test, recordings),
        "oracle/pairs/balanced_accuracy": oracle_bound(paired, recordings),
    }
    for gas in GASES:
        measured[f"oracle/pairs/{gas}_alone/balanced_accuracy"] = oracle_bound(paired, recordings, gases=(gas,))
    return measured | {"baseline/histogram/balanced_accuracy": histogram_bound(train, test)}


def frame_histogram(frame: np.ndarray) -> np.ndarray:
    """Share of pixels per grey level, float [HISTOGRAM_BINS]."""
    return np.bincount(frame.ravel() >> 3, minlength=HISTOGRAM_BINS) / frame.size


def histogram_bound(train: list[dict], test: list[dict]) -> float:
    """Balanced accuracy of a logistic regression on the histograms of both frames: the score without looking.

    Args:
      train, test: examples with `label`, `modality_mask` and `histograms` [2, HISTOGRAM_BINS].
    """
    model = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", C=0.1, max_iter=2000))
    model.fit(_features(train), _labels(train))
    return float(balanced_accuracy_score(_labels(test), model.predict(_features(test))))


def oracle_bound(test: list[dict], recordings: dict[float, int], gases: Sequence[str] = GASES) -> float:
    """Balanced accuracy of the Bayes rule that knows the emissions of the recorded gases: no image says more.

    Args:
      test: examples with `label`, `modality_mask` and `emission` [2].
      recordings: of each pH level; within a class they are the prior, classes weigh the same.
      gases: what it is told of the recorded ones.
    """
    predictions = []
    for example in test:
        emission = dict(zip(GASES, example["emission"], strict=True))
        present = dict(zip(GASES, example["modality_mask"], strict=True))
        seen = {gas: emission[gas] for gas in gases if present[gas]}
        likelihood = np.zeros(len(CLASSES))
        weight = np.zeros(len(CLASSES))
        for ph, share in recordings.items():
            likelihood[PH_CLASS[ph]] += share * np.exp(emission_log_density(ph, seen))
            weight[PH_CLASS[ph]] += share
        predictions.append(int(np.argmax(likelihood / weight)))
    return float(balanced_accuracy_score(_labels(test), predictions))


def _features(examples):
    return np.stack([np.concatenate([*e["histograms"], e["modality_mask"]]) for e in examples])


def _labels(examples):
    return [e["label"] for e in examples]
