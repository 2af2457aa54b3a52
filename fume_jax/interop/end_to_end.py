"""A model with all that is done before and after it, as a PyTorch module to be exported. Extra `export`."""

import torch
import torch.nn.functional as F
from torch import nn

from fume_jax.interop.torch_model import TorchFUME
from fume_jax.schema import GASES


class EndToEnd(nn.Module):
    """Takes frames as cameras record them and gives masks of their size, and probabilities.

    Frames are resized as by `fume_jax.data.transforms.resize_frame`, with `rounding` as its `ROUNDING`, and masks are
    what `fume_jax.Predictor` makes of the logits. The logits of classes are divided by `temperature`.
    """

    def __init__(self, network: TorchFUME, *, height: int, width: int, temperature: float, rounding: float):
        super().__init__()
        self.network, self.size = network, (height, width)
        self.temperature, self.rounding = temperature, rounding

    def forward(self, co2, ch4, modality_mask):
        """Maps uint8 [B, H, W], each gas of a size of its own, and modality_mask float32 [B, 2] to a dict.

        It has `probabilities` [B, 3] and `{gas}_mask`, uint8 [B, H, W] and 0 where the gas is absent, as far as the
        model has them, and its logits as `TorchFUME` returns them.
        """
        frames = {"co2": co2, "ch4": ch4}
        prepared = {f"{gas}_frame": self._prepare(frame) for gas, frame in frames.items()}
        logits = self.network(**prepared, modality_mask=modality_mask)
        found = {}
        if "cls_logits" in logits:
            found["probabilities"] = torch.softmax(logits["cls_logits"] / self.temperature, -1)
        for i, gas in enumerate(GASES):
            if f"{gas}_seg_logits" in logits:
                size = frames[gas].shape[1:]
                enlarged = F.interpolate(logits[f"{gas}_seg_logits"], size, mode="bilinear", align_corners=False)
                present = modality_mask[:, i, None, None] > 0
                found[f"{gas}_mask"] = (enlarged.argmax(1) * present).to(torch.uint8)
        return found | logits

    def _prepare(self, frame):
        """Resizes uint8 [B, H, W] by a matrix for each axis, and scales grey levels to [-1, 1]: [B, 1, h, w]."""
        sizes = list(zip(frame.shape[1:], self.size, strict=True))
        # Tensors, as the exported program must not depend on the sizes of one example.
        shrinks = torch.stack([torch.full((), size) >= new_size for size, new_size in sizes]).all()
        rows, columns = (torch.where(shrinks, _shares(*pair), _nearness(*pair)) for pair in sizes)
        grey = torch.floor(rows @ frame.to(torch.float32) @ columns.T + self.rounding)
        return ((grey / 255 - 0.5) / 0.5)[:, None]


def _shares(size, new_size):
    """Returns the share that each of `size` pixels has in each of `new_size` larger ones, float32 [new_size, size].

    Pixels are `new_size` long and larger ones `size`, so that all edges are integers.
    """
    new, old = torch.arange(new_size)[:, None], torch.arange(size)
    end = torch.minimum((new + 1) * size, (old + 1) * new_size)
    begin = torch.maximum(new * size, old * new_size)
    return (end - begin).clamp(min=0).to(torch.float32) / size


def _nearness(size, new_size):
    """Returns the weights of `size` pixels in the linear interpolation of `new_size`, float32 [new_size, size].

    Pixels are `2 * new_size` long, so that all centres are integers. Beyond the outer centres the outer pixel counts.
    """
    new, old = torch.arange(new_size)[:, None], torch.arange(size)
    place = ((2 * new + 1) * size - new_size).clamp(min=0)
    place = torch.minimum(place, torch.full((), 2 * new_size) * (size - 1))
    distance = (place - old * 2 * new_size).abs()
    return (2 * new_size - distance).clamp(min=0).to(torch.float32) / (2 * new_size)
