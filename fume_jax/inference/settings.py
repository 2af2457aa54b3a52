"""Settings of a prediction, which `recording.json` holds: what was predicted and by which model."""

import dataclasses
import json
from collections.abc import Mapping

from fume_jax.data.recording_list import AUTO, Recording
from fume_jax.data.sources import Source, open_source
from fume_jax.inference.card import ModelCard
from fume_jax.runtime.errors import UserError
from fume_jax.schema import GASES

# Labels of a recording: they are handed on, and no prediction depends on them.
LABELS = ("ph", "class_name", "subject")
# Attributes of a card by which models are told apart.
MODEL = ("model", "step", "config_hash", "digest")
# Seconds that were found for the offset `AUTO`.
FOUND = "found_offset"


def to_settings(recording: Recording, card: ModelCard, rate: float | None) -> dict:
    """Returns the settings, JSON values, of the prediction of a recording; `rate` is as in `open_source`."""
    model = {name: getattr(card, name) for name in MODEL}
    return json.loads(json.dumps(dataclasses.asdict(recording) | model | {"rate": rate}))


def open_predicted(settings: Mapping) -> Source:
    """Opens the frames of a prediction by its settings: they have the names and times of its tables.

    Raises UserError as `open_source` does, or if the settings do not say where the frames are.
    """
    paths = [settings.get(gas) for gas in GASES]
    offset = settings.get(FOUND, settings.get("offset"))
    if not any(paths) or (offset == AUTO and all(paths)):
        raise UserError("its recording.json, of an earlier version, does not say where its frames are; predict it anew")
    limits = settings["range"]
    return open_source(
        *paths,
        range=limits if isinstance(limits, str) else tuple(limits),
        rate=settings["rate"],
        offset=None if offset == AUTO else offset,
        start=settings["start"],
        stop=settings["stop"],
    )
