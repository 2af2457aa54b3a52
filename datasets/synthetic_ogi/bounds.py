"""How hard a rendered dataset is: what must be beaten, and what cannot be."""

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from datasets.synthetic_ogi.simulator import emission_log_density
from fume_jax.vocabulary import CLASSES, GASES, PH_CLASS

HISTOGRAM_BINS = 32


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


def oracle_bound(test: list[dict], ph_shares: dict[float, float]) -> float:
    """Balanced accuracy of the Bayes rule that knows the emissions of the recorded gases: no image says more.

    Args:
      test: examples with `label`, `modality_mask` and `emission` [2].
      ph_shares: share of each pH level in the dataset; within a class it is the prior, classes weigh the same.
    """
    predictions = []
    for example in test:
        emission = dict(zip(GASES, example["emission"], strict=True))
        seen = {gas: emission[gas] for gas, m in zip(GASES, example["modality_mask"], strict=True) if m}
        likelihood = np.zeros(len(CLASSES))
        weight = np.zeros(len(CLASSES))
        for ph, share in ph_shares.items():
            likelihood[PH_CLASS[ph]] += share * np.exp(emission_log_density(ph, seen))
            weight[PH_CLASS[ph]] += share
        predictions.append(int(np.argmax(likelihood / weight)))
    return float(balanced_accuracy_score(_labels(test), predictions))


def _features(examples):
    return np.stack([np.concatenate([*e["histograms"], e["modality_mask"]]) for e in examples])


def _labels(examples):
    return [e["label"] for e in examples]
