"""FUME: Fused Unified Multi-gas Emission Network (arXiv:2601.08205), its ablations and its baselines: one module."""

import jax
import jax.numpy as jnp
from flax import nnx

from fume_jax.models.architecture import Architecture
from fume_jax.models.backbones import BACKBONES
from fume_jax.models.fusion import AttentionFusion, ConvFusion
from fume_jax.models.heads import ClassificationHead, SegmentationHead
from fume_jax.schema import GASES

MIN_SIZE = 64


class FUME(nnx.Module):
    """Segments the plume in each frame of a CO2/CH4 pair and classifies the pair's pH state.

    The frames are encoded (by one encoder or one per gas), fused for classification, and segmented each from its own
    stream; `options` says what of this a model has. `train()` and `eval()` choose between batch and running
    statistics, and switch dropout.
    """

    def __init__(self, options: Architecture, *, dtype=jnp.float32, rngs: nnx.Rngs):
        """`dtype` (float32 or bfloat16) is that of the computation; parameters and statistics are float32."""
        self.options = options
        backbone = BACKBONES[options.backbone]
        channels = backbone.channels
        if options.share_encoder:
            self.encoder = backbone(len(GASES) if options.fusion == "early" else 1, dtype=dtype, rngs=rngs)
        else:
            self.co2_encoder = backbone(1, dtype=dtype, rngs=rngs)
            self.ch4_encoder = backbone(1, dtype=dtype, rngs=rngs)
        if options.has_streams and options.classifies:
            self.fusion = _fusion(options.fusion, channels[1], dtype=dtype, rngs=rngs)
        if options.segments and options.has_streams:
            self.co2_seg_head = SegmentationHead(channels, dtype=dtype, rngs=rngs)
            self.ch4_seg_head = SegmentationHead(channels, dtype=dtype, rngs=rngs)
        elif options.segments:
            self.seg_head = SegmentationHead(channels, dtype=dtype, rngs=rngs)
        if options.classifies:
            features = channels[1] + options.gas_embedding
            self.cls_head = ClassificationHead(features, options.hidden, dtype=dtype, rngs=rngs)
        if options.gas_embedding:
            self.gas_embedding = nnx.Embed(len(GASES), options.gas_embedding, dtype=dtype, rngs=rngs)

    def __call__(
        self, co2_frame: jax.Array, ch4_frame: jax.Array, modality_mask: jax.Array, *, rngs: nnx.Rngs | None = None
    ) -> dict[str, jax.Array]:
        """Logits of a batch of pairs.

        Args:
          co2_frame, ch4_frame: float32 [B, H, W, 1] in [-1, 1]; H and W at least 64. An absent one
            counts as zeros, whatever finite values it holds.
          modality_mask: float32 [B, 2], 1.0 where the gas is present. A padded example has none.
          rngs: keys for dropout, needed in training mode only.

        Returns:
          What the model has of `cls_logits` [B, 3] and `co2_seg_logits`, `ch4_seg_logits` [B, H, W, 3], all float32;
          an absent gas that the model reads has segmentation logits too, without meaning.

        Raises:
          ValueError: if a frame is smaller than 64 pixels or the shapes do not fit together.
        """
        check_inputs(co2_frame, ch4_frame, modality_mask)
        present = {gas: modality_mask[:, i] * (gas in self.options.gases) for i, gas in enumerate(GASES)}
        frames = {"co2": co2_frame * _column(present["co2"]), "ch4": ch4_frame * _column(present["ch4"])}
        if self.options.fusion == "early":
            # The pair is one picture, which is there if either gas is.
            frames = {"co2": jnp.concatenate([frames[gas] for gas in GASES], axis=-1)}
            present = {"co2": jnp.maximum(present["co2"], present["ch4"])}
        elif self.options.fusion == "none":
            frames = {gas: frames[gas] for gas in self.options.gases}
        streams = self._encode(frames, present)
        outputs = {}
        if self.options.classifies:
            outputs["cls_logits"] = self._classify(streams, present, rngs)
        for gas in self.options.segmented:
            head = getattr(self, f"{gas}_seg_head") if self.options.has_streams else self.seg_head
            outputs[f"{gas}_seg_logits"] = head(*streams[gas], present[gas], size=co2_frame.shape[1:3], rngs=rngs)
        return outputs

    def _encode(self, frames, present):
        """Fine and coarse features of each gas."""
        if not self.options.share_encoder:
            return {gas: getattr(self, f"{gas}_encoder")(frame, present[gas]) for gas, frame in frames.items()}
        # One pass over all gases. The gas axis goes inside the batch axis, so that each device keeps its examples.
        stacked = jnp.stack(list(frames.values()), axis=1)
        counted = jnp.stack([present[gas] for gas in frames], axis=1)
        low, high = self.encoder(stacked.reshape(-1, *stacked.shape[2:]), counted.reshape(-1))
        low, high = (x.reshape(-1, len(frames), *x.shape[1:]) for x in (low, high))
        return {gas: (low[:, i], high[:, i]) for i, gas in enumerate(frames)}

    def _classify(self, streams, present, rngs):
        high = {gas: features for gas, (_, features) in streams.items()}
        if self.options.has_streams:
            modality_mask = jnp.stack([present[gas] for gas in GASES], axis=1)
            return self.cls_head(self.fusion(high["co2"], high["ch4"], modality_mask), rngs=rngs)
        logits = jnp.stack([self.cls_head(x, self._embedding(gas), rngs=rngs) for gas, x in high.items()], axis=1)
        weights = jnp.stack([present[gas] for gas in high], axis=1)
        # Where nothing is present, what zero frames say.
        weights = jnp.where(weights.sum(1, keepdims=True) > 0, weights, 1)
        return (logits * weights[..., None]).sum(1) / weights.sum(1, keepdims=True)

    def _embedding(self, gas):
        return self.gas_embedding(jnp.asarray(GASES.index(gas))) if self.options.gas_embedding else None


def check_inputs(co2_frame: jax.Array, ch4_frame: jax.Array, modality_mask: jax.Array) -> None:
    """Raises ValueError unless the three arrays have the shapes of one batch."""
    shape = co2_frame.shape
    if ch4_frame.shape != shape or len(shape) != 4 or shape[-1] != 1:
        raise ValueError(f"Expected two frames of one shape [B, H, W, 1], got {shape} and {ch4_frame.shape}.")
    if modality_mask.shape != (shape[0], 2):
        raise ValueError(f"Expected modality_mask of shape ({shape[0]}, 2), got {modality_mask.shape}.")
    if min(shape[1:3]) < MIN_SIZE:
        raise ValueError(f"Frames must be at least {MIN_SIZE} pixels high and wide, got {shape[1]}x{shape[2]}.")


def _fusion(kind, channels, *, dtype, rngs):
    if kind in ("cross_attention", "self_attention"):
        return AttentionFusion(channels, cross=kind == "cross_attention", dtype=dtype, rngs=rngs)
    return ConvFusion(channels, mean=kind == "add", dtype=dtype, rngs=rngs)


def _column(present):
    return present[:, None, None, None]
