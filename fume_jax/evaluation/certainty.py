"""What a prediction needs to know of how sure it is: calibration and limits of confidence, and how training looks."""

from collections.abc import Mapping

import numpy as np

from fume_jax.data.dataset import Dataset
from fume_jax.data.transforms import resize_frame
from fume_jax.evaluation.evaluator import Results
from fume_jax.learning.calibration import confidence_at, expected_calibration_error, fit_temperature, soften
from fume_jax.learning.likeness import measure_look, summarize_looks
from fume_jax.learning.metrics import kept_metrics
from fume_jax.learning.recording_class import pool_recordings
from fume_jax.schema import GASES

# The most pairs of training frames that are measured, spread evenly over the split.
MEASURED = 300


def calibrate(results: Mapping[str, Results], scores: Mapping[str, dict[str, float]], fitted_on: str) -> None:
    """Adds to the scores of one split what is fitted on it, and to those of all what that makes of them.

    Fitted are `temperature`, and the least confidences `abstain_below` of pairs and `recording/abstain_below` of whole
    recordings, see `confidence_at`. Of every split follow the calibrated calibration error and the metrics of the pairs
    and the recordings that are kept, see `kept_metrics`. Nothing is added if the split was not scored or the model does
    not classify.
    """
    if not len(results.get(fitted_on, {}).get("probabilities", ())):
        return
    own = results[fitted_on]
    temperature = fit_temperature(own["probabilities"], own["labels"])
    softened = {name: soften(found["probabilities"], temperature) for name, found in results.items()}
    pooled = {name: _pool(softened[name], found) for name, found in results.items()}
    limits = confidence_at(softened[fitted_on]), confidence_at(pooled[fitted_on][0])
    scores[fitted_on] |= {"temperature": temperature, "abstain_below": limits[0], "recording/abstain_below": limits[1]}
    for name, found in results.items():
        labels = found["labels"]
        error = expected_calibration_error(softened[name], labels)
        kept = kept_metrics(softened[name], labels, limits[0])
        of_recordings = kept_metrics(*pooled[name], limits[1])
        scores[name] |= {"calibrated/expected_calibration_error": error} | kept
        scores[name] |= {f"recording/{key}": value for key, value in of_recordings.items()}


def _pool(probabilities, found):
    return pool_recordings(probabilities, found["labels"], found["recording_index"])[:2]


def measure_training_frames(dataset: Dataset, height: int, width: int) -> dict:
    """Measures frames of the training split in the size of the model: a few numbers, JSON values.

    Returns `size`, height and width of the dataset's frames, and by gas what `summarize_looks` does.
    """
    examples, looks, size = dataset.split("train"), {gas: [] for gas in GASES}, None
    for i in np.unique(np.linspace(0, len(examples) - 1, min(MEASURED, len(examples))).astype(int)):
        example = examples[int(i)]
        size = example["co2_frame"].shape[:2]
        for gas, present in zip(GASES, example["modality_mask"], strict=True):
            if present:
                looks[gas].append(measure_look(resize_frame(example[f"{gas}_frame"], height, width)))
    return {"size": list(size)} | {gas: summarize_looks(own) for gas, own in looks.items() if own}
