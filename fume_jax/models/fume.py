"""FUME: Fused Unified Multi-gas Emission Network (arXiv:2601.08205), its ablations and its baselines: one module."""

import jax
import jax.numpy as jnp
from flax import nnx

from fume_jax.models.architecture import Architecture
from fume_jax.models.backbones import BACKBONES
from fume_jax.models.fusion import AttentionFusion, ConvFusion
from fume_jax.models.heads import ClassificationHead, GasMargin, SegmentationHead
from fume_jax.models.layers import CallAlike
from fume_jax.schema import GASES

MIN_SIZE = 64


class FUME(nnx.Module):
    """Segments the plume in each frame of a CO2/CH4 pair and classifies the pair's pH state.

    The frames are encoded (by one encoder or one per gas), fused for classification, and segmented each from its own
    stream; `options` says which of this a model has. `train()` and `eval()` choose between batch and running
    statistics, and switch dropout. Computation is in `dtype`, float32 or bfloat16; parameters and statistics float32.
    """

    def __init__(self, options: Architecture, *, dtype=jnp.float32, rngs: nnx.Rngs):
        self.options = options
        self.call_alike = CallAlike()
        self.gas_margin = GasMargin(options.gas_margin)
        backbone = BACKBONES[options.backbone]
        channels = backbone.channels
        if options.share_encoder:
            self.encoder = backbone(len(GASES) if options.fusion == "early" else 1, dtype=dtype, rngs=rngs)
        else:
            self.co2_encoder = backbone(1, dtype=dtype, rngs=rngs)
            self.ch4_encoder = backbone(1, dtype=dtype, rngs=rngs)
        if options.has_streams and options.classifies:
            if options.fusion in ("cross_attention", "self_attention"):
                cross = options.fusion == "cross_attention"
                self.fusion = AttentionFusion(channels[1], cross=cross, dtype=dtype, rngs=rngs)
            else:
                self.fusion = ConvFusion(channels[1], mean=options.fusion == "add", dtype=dtype, rngs=rngs)
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
        """Computes the logits of a batch of pairs; raises ValueError if the shapes do not fit together.

        Args:
          co2_frame, ch4_frame: float32 [B, H, W, 1] in [-1, 1]; H and W at least 64. An absent frame counts as zeros,
            whatever finite values it holds.
          modality_mask: float32 [B, 2], 1.0 where the gas is present; all 0.0 for a padded example.
          rngs: keys for dropout, needed in training mode only.

        Returns:
          Those of `cls_logits` [B, 3] and `co2_seg_logits`, `ch4_seg_logits` [B, H, W, 3] that the model has, all
          float32. A gas that the model reads has segmentation logits where it is absent too, without meaning.
        """
        _check_inputs(co2_frame, ch4_frame, modality_mask)
        present = {gas: modality_mask[:, i] * float(gas in self.options.gases) for i, gas in enumerate(GASES)}
        frames = {"co2": co2_frame, "ch4": ch4_frame}
        frames = {gas: frame * present[gas][:, None, None, None] for gas, frame in frames.items()}
        if self.options.fusion == "early":
            # The pair is one image, which is present if either gas is.
            frames = {"co2": jnp.concatenate([frames[gas] for gas in GASES], axis=-1)}
            present = {"co2": jnp.maximum(present["co2"], present["ch4"])}
        elif self.options.fusion == "none":
            frames = {gas: frames[gas] for gas in self.options.gases}
        with jax.named_scope("encoder"):
            streams = self._encode(frames, present)
        outputs = {}
        with jax.named_scope("heads"):
            if self.options.classifies:
                outputs["cls_logits"] = self._classify(streams, present, rngs)
            outputs |= self._segment(streams, present, co2_frame.shape[1:3], rngs)
        return outputs

    def _encode(self, frames, present):
        """Computes fine and coarse features by gas."""
        if not self.options.share_encoder:
            return {gas: getattr(self, f"{gas}_encoder")(frame, present[gas]) for gas, frame in frames.items()}
        # One pass over all gases. The gas axis lies inside the batch axis, so that each device keeps its examples.
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
        logits = []
        for gas, features in high.items():
            embedding = self.gas_embedding(jnp.asarray(GASES.index(gas))) if self.options.gas_embedding else None
            logits.append(self.cls_head(features, embedding, rngs=rngs))
        logits, weights = jnp.stack(logits, axis=1), jnp.stack([present[gas] for gas in high], axis=1)
        # An example without any gas has the logits of frames of zeros.
        weights = jnp.where(weights.sum(1, keepdims=True) > 0, weights, 1)
        return (logits * weights[..., None]).sum(1) / weights.sum(1, keepdims=True)

    def _segment(self, streams, present, size, rngs):
        if not (gases := self.options.segmented):
            return {}
        heads = [getattr(self, f"{gas}_seg_head") if self.options.has_streams else self.seg_head for gas in gases]
        low, high = zip(*(streams[gas] for gas in gases), strict=True)
        logits = self.call_alike(heads, low, high, [present[gas] for gas in gases], size=size, rngs=rngs)
        return {f"{gas}_seg_logits": x for gas, x in zip(gases, map(self.gas_margin, logits), strict=True)}


def _check_inputs(co2_frame, ch4_frame, modality_mask):
    shape = co2_frame.shape
    if ch4_frame.shape != shape or len(shape) != 4 or shape[-1] != 1:
        raise ValueError(f"Expected two frames of one shape [B, H, W, 1], got {shape} and {ch4_frame.shape}.")
    if modality_mask.shape != (shape[0], 2):
        raise ValueError(f"Expected modality_mask of shape ({shape[0]}, 2), got {modality_mask.shape}.")
    if min(shape[1:3]) < MIN_SIZE:
        raise ValueError(f"Frames must be at least {MIN_SIZE} pixels high and wide, got {shape[1]}x{shape[2]}.")
