"""Where the attention of a model looks."""

import jax
from flax import nnx

from fume_jax.models.fume import FUME
from fume_jax.models.fusion import AttentionFusion
from fume_jax.schema import GASES


def attention_maps(
    model: FUME, co2_frame: jax.Array, ch4_frame: jax.Array, modality_mask: jax.Array
) -> dict[str, jax.Array]:
    """How much attention each position receives, relative to all positions alike; empty for a model without attention.

    Args:
      model: in evaluation mode.
      co2_frame, ch4_frame, modality_mask: as the model takes them.

    Returns:
      By `{query}_to_{looked at}`, such as `co2_to_ch4`: float32 [B, h, w] at the size of the coarse features, the mean
      over all positions of the query; 1 is what an even spread gives. Without meaning where a gas is absent.
    """
    if not isinstance(getattr(model, "fusion", None), AttentionFusion):
        return {}
    forward = nnx.capture(model, nnx.Intermediate, method_outputs=nnx.Intermediate)
    _, captured = forward(co2_frame, ch4_frame, modality_mask)
    captured = captured["fusion"]
    weights = {f"{gas}_to_{gas}": captured[f"{gas}_attention"]["weights"].get_value()[0] for gas in GASES}
    if model.fusion.cross:
        # One module for both ways, called for CO2 first.
        both_ways = captured["cross_attention"]["weights"].get_value()
        weights |= dict(zip(("co2_to_ch4", "ch4_to_co2"), both_ways, strict=True))
    return {name: w.mean((1, 2)) * (w.shape[-1] * w.shape[-2]) for name, w in weights.items()}
