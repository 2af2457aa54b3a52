"""What a model is made of: a few options, and the models of the literature as presets of them."""

import dataclasses

from fume_jax.models.backbones import BACKBONES
from fume_jax.schema import GASES

# Of the features of two streams, one per gas; `early`: the frames are the channels of one input; `none`: every frame by
# itself through the same weights.
FUSIONS = ("cross_attention", "self_attention", "add", "concat", "early", "none")
GAS_CHOICES = (*GASES, "both")
TASKS = ("both", "segmentation", "classification")


@dataclasses.dataclass(frozen=True)
class Architecture:
    """Options of `fume_jax.models.FUME`.

    `backbone` is the encoder, which both gases share or of which each has its own. `gas` is what the model reads, the
    other gas being treated as absent. `hidden` are the layers of the classification head, `gas_embedding` the width of
    what tells it which gas it sees, 0 for none.
    """

    backbone: str = "fast_scnn"
    share_encoder: bool = True
    fusion: str = "cross_attention"
    gas: str = "both"
    tasks: str = "both"
    hidden: tuple[int, ...] = (256, 128)
    gas_embedding: int = 0

    def __post_init__(self):
        known_values = {"backbone": BACKBONES, "fusion": FUSIONS, "gas": GAS_CHOICES, "tasks": TASKS}
        for key, known in known_values.items():
            if getattr(self, key) not in known:
                raise ValueError(f"{key} is {getattr(self, key)!r}; expected one of {', '.join(known)}")
        if not self.share_encoder and not self.has_streams:
            raise ValueError(f"fusion {self.fusion!r} has one encoder; share_encoder must be True")
        if self.fusion == "early" and self.gas == "ch4" and self.segments:
            raise ValueError("early fusion segments CO2; gas must be 'co2' or 'both'")
        if self.gas_embedding and not (self.fusion == "none" and self.classifies):
            raise ValueError("a gas embedding goes with the classification of single frames: fusion must be 'none'")

    @property
    def has_streams(self) -> bool:
        """Whether each gas has a stream of features of its own, which are fused."""
        return self.fusion not in ("early", "none")

    @property
    def gases(self) -> tuple[str, ...]:
        """What the model reads."""
        return GASES if self.gas == "both" else (self.gas,)

    @property
    def segments(self) -> bool:
        return self.tasks != "classification"

    @property
    def classifies(self) -> bool:
        return self.tasks != "segmentation"

    @property
    def segmented(self) -> tuple[str, ...]:
        """Gases that segmentation logits come back for."""
        if not self.segments:
            return ()
        # The one mask of a pair that enters as one picture is that of CO2.
        return ("co2",) if self.fusion == "early" else self.gases


PRESETS = {
    "fume": Architecture(),
    "fume_separate": Architecture(share_encoder=False),
    "fume_concat": Architecture(fusion="concat", hidden=(256,)),
    "segmentation_only": Architecture(fusion="none", gas="co2", tasks="segmentation"),
    "classification_only": Architecture(fusion="none", gas="co2", tasks="classification"),
    "gas_aware": Architecture(fusion="none", gas="co2", tasks="classification", gas_embedding=64),
    "early_fusion": Architecture(fusion="early", hidden=(256,)),
    "multi_task": Architecture(fusion="none", gas="co2", hidden=(256,)),
}


def architecture(
    name: str,
    *,
    backbone: str | None = None,
    share_encoder: bool | None = None,
    fusion: str | None = None,
    gas: str | None = None,
    tasks: str | None = None,
) -> Architecture:
    """The preset of that name, with the options that are not None put in their place.

    Args:
      name: one of `PRESETS`.
      backbone: of the encoder, one of `BACKBONES`.
      share_encoder: one encoder for both gases, or one each.
      fusion: one of `FUSIONS`.
      gas: that the model reads, one of `GAS_CHOICES`.
      tasks: one of `TASKS`.

    Raises:
      ValueError: if there is no such preset or option, or the options contradict each other.
    """
    if name not in PRESETS:
        raise ValueError(f"There is no model named {name!r}; choose one of: {', '.join(PRESETS)}.")
    options = {"backbone": backbone, "share_encoder": share_encoder, "fusion": fusion, "gas": gas, "tasks": tasks}
    return dataclasses.replace(PRESETS[name], **{key: value for key, value in options.items() if value is not None})
