"""FUME: Fused Unified Multi-gas Emission Network (arXiv:2601.08205)."""

import jax
import jax.numpy as jnp
from flax import nnx

from fume_jax.models.fast_scnn import HIGH_CHANNELS, FastSCNN
from fume_jax.models.fusion import CrossModalFusion
from fume_jax.models.heads import ClassificationHead, SegmentationHead

MIN_SIZE = 64


class FUME(nnx.Module):
    """Segments the plume in each frame of a CO2/CH4 pair and classifies the pair's pH state.

    The frames are encoded (by one encoder or one per gas), fused for classification, and segmented each from its own
    stream. `train()` and `eval()` choose between batch and running statistics, and switch dropout.
    """

    def __init__(self, *, shared_encoder: bool = True, dtype=jnp.float32, rngs: nnx.Rngs):
        """`dtype` (float32 or bfloat16) is that of the computation; parameters and statistics are float32."""
        self.shared_encoder = shared_encoder
        if shared_encoder:
            self.encoder = FastSCNN(dtype=dtype, rngs=rngs)
        else:
            self.co2_encoder = FastSCNN(dtype=dtype, rngs=rngs)
            self.ch4_encoder = FastSCNN(dtype=dtype, rngs=rngs)
        self.fusion = CrossModalFusion(HIGH_CHANNELS, dtype=dtype, rngs=rngs)
        self.co2_seg_head = SegmentationHead(dtype=dtype, rngs=rngs)
        self.ch4_seg_head = SegmentationHead(dtype=dtype, rngs=rngs)
        self.cls_head = ClassificationHead(HIGH_CHANNELS, (256, 128), dtype=dtype, rngs=rngs)

    def __call__(
        self, co2_frame: jax.Array, ch4_frame: jax.Array, modality_mask: jax.Array, *, rngs: nnx.Rngs | None = None
    ) -> dict[str, jax.Array]:
        """Logits of a batch of pairs.

        Args:
          co2_frame, ch4_frame: float32 [B, H, W, 1] in [-1, 1], 0.0 where the gas is absent; H and W at least 64.
          modality_mask: float32 [B, 2], 1.0 where the gas is present. A padded example has none.
          rngs: keys for dropout, needed in training mode only.

        Returns:
          `cls_logits` [B, 3] and `co2_seg_logits`, `ch4_seg_logits` [B, H, W, 3], all float32; an absent gas has
          segmentation logits too, without meaning.

        Raises:
          ValueError: if a frame is smaller than 64 pixels or the shapes do not fit together.
        """
        check_inputs(co2_frame, ch4_frame, modality_mask)
        size = co2_frame.shape[1:3]
        (co2_low, co2_high), (ch4_low, ch4_high) = self._encode(co2_frame, ch4_frame, modality_mask)
        fused = self.fusion(co2_high, ch4_high, modality_mask)
        return {
            "cls_logits": self.cls_head(fused, rngs=rngs),
            "co2_seg_logits": self.co2_seg_head(co2_low, co2_high, modality_mask[:, 0], size=size, rngs=rngs),
            "ch4_seg_logits": self.ch4_seg_head(ch4_low, ch4_high, modality_mask[:, 1], size=size, rngs=rngs),
        }

    def _encode(self, co2_frame, ch4_frame, modality_mask):
        if not self.shared_encoder:
            return (
                self.co2_encoder(co2_frame, modality_mask[:, 0]),
                self.ch4_encoder(ch4_frame, modality_mask[:, 1]),
            )
        # One pass over both gases. The gas axis goes inside the batch axis, so that each device keeps its examples.
        frames = jnp.stack([co2_frame, ch4_frame], axis=1).reshape(-1, *co2_frame.shape[1:])
        low, high = (x.reshape(-1, 2, *x.shape[1:]) for x in self.encoder(frames, modality_mask.reshape(-1)))
        return (low[:, 0], high[:, 0]), (low[:, 1], high[:, 1])


def check_inputs(co2_frame: jax.Array, ch4_frame: jax.Array, modality_mask: jax.Array) -> None:
    """Raises ValueError unless the three arrays have the shapes of one batch."""
    shape = co2_frame.shape
    if ch4_frame.shape != shape or len(shape) != 4 or shape[-1] != 1:
        raise ValueError(f"Expected two frames of one shape [B, H, W, 1], got {shape} and {ch4_frame.shape}.")
    if modality_mask.shape != (shape[0], 2):
        raise ValueError(f"Expected modality_mask of shape ({shape[0]}, 2), got {modality_mask.shape}.")
    if min(shape[1:3]) < MIN_SIZE:
        raise ValueError(f"Frames must be at least {MIN_SIZE} pixels high and wide, got {shape[1]}x{shape[2]}.")
