"""Describes a trained model; exported files hold this description."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

from fume_jax.runtime.errors import UserError
from fume_jax.schema import CLASSES, MASK_CLASSES

# Attributes of a card that are fitted on the validation split, by the metrics that hold them.
CALIBRATION = {
    "temperature": "temperature",
    "abstain_below": "abstain_below",
    "recording/abstain_below": "recording_abstain_below",
}


@dataclasses.dataclass(frozen=True)
class ModelCard:
    """Describes a model to its users.

    The model reads `gases` and segments `segmented`. Frames are scaled to `height` x `width` pixels, and their grey
    levels by `normalisation`. `metrics` are those of `metrics.json` at this step, empty if it was not evaluated.
    The logits of classes are divided by `temperature`, which was fitted on the validation split, and calibrates their
    probabilities; exported programs return the logits themselves. Where the largest of these probabilities is less than
    `abstain_below`, or that of a recording than `recording_abstain_below`, the class had better not be used; None if
    no such limit was chosen. `training_frames` summarizes the frames of training, see
    `fume_jax.evaluation.certainty.measure_training_frames`; None if they were not measured. `digest` is a SHA-256 of
    the parameters, or of the file that holds them; empty while a card is in no model, and in files of earlier versions.
    """

    model: str
    step: int
    height: int
    width: int
    gases: tuple[str, ...]
    segmented: tuple[str, ...]
    classifies: bool
    config: dict
    config_hash: str
    metrics: dict
    version: str
    classes: tuple[str, ...] = CLASSES
    mask_classes: tuple[str, ...] = MASK_CLASSES
    normalisation: str = "(grey / 255 - 0.5) / 0.5, grey levels 0 to 255; 0 everywhere for an absent gas"
    temperature: float = 1.0
    abstain_below: float | None = None
    recording_abstain_below: float | None = None
    training_frames: dict | None = None
    digest: str = dataclasses.field(default="", compare=False)

    def to_json(self, digest: str = "") -> str:
        return json.dumps(dataclasses.asdict(self) | {"digest": digest})

    @classmethod
    def from_json(cls, text: str) -> "ModelCard":
        """Reads the card that `to_json` wrote; UserError if it is one of another version."""
        try:
            values = json.loads(text)
            card = cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})
            if (card.classes, card.mask_classes) != (CLASSES, MASK_CLASSES):
                raise ValueError(f"its classes are {card.classes} and {card.mask_classes}")
            return card
        except (TypeError, ValueError) as error:
            raise UserError(f"The card in the file is one of another version: {error}. Export it anew.") from error

    def check(self, path: Path, digest: str) -> None:
        """Raises UserError if the parameters of the file have another digest than when it was written."""
        if self.digest not in ("", digest):
            raise UserError(f"{path}: the parameters are not those that were exported: damaged, or changed by hand.")


def without_scores(metrics: Mapping) -> dict:
    """Returns the metrics that do not depend on masks: the calibration of classes, and the frames of training."""
    kept = {"step", "training_frames", *(f"val/{key}" for key in CALIBRATION)}
    return {name: value for name, value in metrics.items() if name in kept}


def read_calibration(metrics: Mapping, split: str) -> dict[str, float]:
    """Returns those attributes of `CALIBRATION` that the metrics of a split hold."""
    found = {name: metrics.get(f"{split}/{key}") for key, name in CALIBRATION.items()}
    return {name: value for name, value in found.items() if value is not None}
