"""Bounds of a rendered dataset: a score that a model must exceed, and scores that no model can exceed."""

from collections.abc import Sequence

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from datasets.synthetic_ogi.emission import emission_log_density
from fume_jax.schema import CLASSES, GASES, PH_CLASS

HISTOGRAM_BINS = 32


def summary(example: dict) -> dict:
    """Returns label, modality mask and emission of an example, and `histograms` [2, HISTOGRAM_BINS] of its frames."""
    frames = [example[f"{gas}_frame"] for gas in GASES]
    # Share of pixels in each bin of eight grey levels.
    histograms = [np.bincount(frame.ravel() >> 3, minlength=HISTOGRAM_BINS) / frame.size for frame in frames]
    return {key: example[key] for key in ("label", "modality_mask", "emission")} | {"histograms": histograms}


def measure(train: list[dict], test: list[dict], recordings: dict[float, int]) -> dict[str, float]:
    """Returns all bounds by their names in reports, from summaries; `recordings` of each pH are the oracle's prior."""
    paired = [example for example in test if sum(example["modality_mask"]) == len(GASES)]
    alone = {f"oracle/pairs/{gas}_alone": oracle_bound(paired, recordings, gases=(gas,)) for gas in GASES}
    oracles = {"oracle": oracle_bound(test, recordings), "oracle/pairs": oracle_bound(paired, recordings)} | alone
    measured = oracles | {"baseline/histogram": histogram_bound(train, test)}
    return {f"{name}/balanced_accuracy": value for name, value in measured.items()}


def histogram_bound(train: list[dict], test: list[dict]) -> float:
    """Returns the balanced accuracy of a logistic regression on histograms of both frames, which sees no shapes."""
    model = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", C=0.1, max_iter=2000))
    model.fit(_features(train), _labels(train))
    return float(balanced_accuracy_score(_labels(test), model.predict(_features(test))))


def oracle_bound(test: list[dict], recordings: dict[float, int], gases: Sequence[str] = GASES) -> float:
    """Returns the balanced accuracy of the Bayes rule on the emissions of recorded gases: no image says more.

    `recordings` is the prior of pH levels within a class; classes weigh the same. `gases` limits the emissions that the
    rule knows. Where nothing is emitted it knows none, and takes the first class.
    """
    predictions = []
    for example in test:
        known = zip(GASES, example["emission"], example["modality_mask"], strict=True)
        emission = {gas: rate for gas, rate, present in known if present and rate and gas in gases}
        likelihood, weight = np.zeros((2, len(CLASSES)))
        for ph, share in recordings.items():
            likelihood[PH_CLASS[ph]] += share * np.exp(emission_log_density(ph, emission))
            weight[PH_CLASS[ph]] += share
        predictions.append(int(np.argmax(likelihood / weight)))
    return float(balanced_accuracy_score(_labels(test), predictions))


def _features(examples):
    return np.stack([np.concatenate([*e["histograms"], e["modality_mask"]]) for e in examples])


def _labels(examples):
    return [e["label"] for e in examples]
