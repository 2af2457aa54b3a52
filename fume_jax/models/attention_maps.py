"""Maps of the attention that positions of a feature map receive."""

import jax
from flax import nnx

from fume_jax.models.fume import FUME
from fume_jax.models.fusion import AttentionFusion
from fume_jax.schema import GASES


def attention_maps(
    model: FUME, co2_frame: jax.Array, ch4_frame: jax.Array, modality_mask: jax.Array
) -> dict[str, jax.Array]:
    """Computes how much attention each position receives, in units of an even spread; {} for a model without attention.

    `model` is in evaluation mode and takes the arrays. Maps are named `{query}_to_{context}`, such as `co2_to_ch4`:
    float32 [B, h, w] at the size of the coarse features, the mean over all positions of the query; 1 is an even spread.
    They have no meaning where a gas is absent.
    """
    if not isinstance(getattr(model, "fusion", None), AttentionFusion):
        return {}
    forward = nnx.capture(model, nnx.Intermediate, method_outputs=nnx.Intermediate)
    captured = forward(co2_frame, ch4_frame, modality_mask)[1]["fusion"]["attend"].get_value()[0][-1]
    names = [f"{gas}_to_{gas}" for gas in GASES] + ["co2_to_ch4", "ch4_to_co2"][: len(captured) - len(GASES)]
    return {name: w.mean((1, 2)) * (w.shape[-1] * w.shape[-2]) for name, w in zip(names, captured, strict=True)}
