"""Options of a model, and the models of the literature as presets of them."""

import dataclasses

from fume_jax.models.backbones import BACKBONES
from fume_jax.schema import GASES

# The first four fuse the features of two streams, one per gas. `early` makes the frames the channels of one input;
# `none` takes every frame by itself through the same weights.
FUSIONS = ("cross_attention", "self_attention", "add", "concat", "early", "none")
GAS_CHOICES = (*GASES, "both")
TASKS = ("both", "segmentation", "classification")


@dataclasses.dataclass(frozen=True)
class Architecture:
    """Options of `fume_jax.models.FUME`.

    `gas` is the gas that the model reads; the other one is treated as absent. `gas_margin` is that of `GasMargin`.
    `hidden` are the widths of the hidden layers of the classification head, `gas_embedding` is the width of its
    embedding of the gas, 0 for none.
    """

    backbone: str = "fast_scnn"
    share_encoder: bool = True
    fusion: str = "cross_attention"
    gas: str = "both"
    tasks: str = "both"
    gas_margin: float = 0.0
    hidden: tuple[int, ...] = (256, 128)
    gas_embedding: int = 0

    def __post_init__(self):
        for key, known in {"backbone": BACKBONES, "fusion": FUSIONS, "gas": GAS_CHOICES, "tasks": TASKS}.items():
            if getattr(self, key) not in known:
                raise ValueError(f"{key} is {getattr(self, key)!r}; expected one of {', '.join(known)}")
        if not self.share_encoder and not self.has_streams:
            raise ValueError(f"fusion {self.fusion!r} has one encoder; share_encoder must be True")
        if self.fusion == "early" and self.gas == "ch4" and self.segments:
            raise ValueError("early fusion segments CO2; gas must be 'co2' or 'both'")
        if self.gas_embedding and not (self.fusion == "none" and self.classifies):
            raise ValueError("a gas embedding needs the classification of single frames: fusion must be 'none'")

    @property
    def has_streams(self) -> bool:
        """True if each gas has a stream of features of its own, which are fused."""
        return self.fusion not in ("early", "none")

    @property
    def gases(self) -> tuple[str, ...]:
        """Gases that the model reads."""
        return GASES if self.gas == "both" else (self.gas,)

    @property
    def segments(self) -> bool:
        return self.tasks != "classification"

    @property
    def classifies(self) -> bool:
        return self.tasks != "segmentation"

    @property
    def segmented(self) -> tuple[str, ...]:
        """Gases that the model returns segmentation logits of."""
        if not self.segments:
            return ()
        # A pair that enters as one image has one mask, that of CO2.
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


def architecture(name: str, **options: str | bool | float | None) -> Architecture:
    """Returns the preset `name`, its fields replaced by those `options` that are not None.

    Raises ValueError if there is no such preset or value, or the options contradict each other.
    """
    if name not in PRESETS:
        raise ValueError(f"There is no model named {name!r}; choose one of: {', '.join(PRESETS)}.")
    return dataclasses.replace(PRESETS[name], **{key: value for key, value in options.items() if value is not None})
