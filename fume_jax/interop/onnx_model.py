"""Export to ONNX by way of a model's PyTorch module. Extra `export`."""

import contextlib
import io
import itertools
import logging
import warnings
from collections.abc import Mapping

import torch
from torch import nn

from fume_jax.interop.end_to_end import EndToEnd
from fume_jax.interop.state_dict import to_state_dict
from fume_jax.interop.torch_encoders import PyramidBranch
from fume_jax.interop.torch_model import TorchFUME
from fume_jax.models import FUME
from fume_jax.models.fume import MIN_SIZE
from fume_jax.schema import GASES

# Examples in a batch that is traced: torch takes an axis of one for constant.
EXAMPLES = 2


def to_onnx(model: FUME, *, height: int, width: int, dynamic_size: bool, metadata: Mapping[str, str]) -> bytes:
    """Exports a model in evaluation mode to serialised ONNX, float32, batch norm folded into convolutions.

    Its inputs are `co2_frame`, `ch4_frame` [batch, 1, height, width] and `modality_mask` [batch, 2], its outputs those
    of `cls_logits` [batch, 3] and `co2_seg_logits`, `ch4_seg_logits` [batch, 3, height, width] that the model has. The
    batch is dynamic, and with `dynamic_size` so are height and width, from 64 pixels on. The file stores `metadata`.
    """
    batch = torch.export.Dim("batch")
    frame = {0: batch}
    if dynamic_size:
        frame |= {axis: torch.export.Dim(name, min=MIN_SIZE) for axis, name in ((2, "height"), (3, "width"))}
    inputs = {f"{gas}_frame": torch.zeros(EXAMPLES, 1, height, width) for gas in GASES}
    shapes = dict.fromkeys(inputs, frame) | {"modality_mask": {0: batch}}
    return _export(_network(model), inputs, shapes, metadata)


def to_end_to_end_onnx(
    model: FUME, *, height: int, width: int, temperature: float, rounding: float, metadata: Mapping[str, str]
) -> bytes:
    """Exports a model with resizing, scaling, argmax and softmax to serialised ONNX; see `EndToEnd`.

    Its inputs are `co2` and `ch4`, uint8 [batch, height, width] of any size each, and `modality_mask` [batch, 2].
    """
    program = EndToEnd(_network(model), height=height, width=width, temperature=temperature, rounding=rounding)
    batch = torch.export.Dim("batch")
    # Sizes unlike each other and unlike the model's, since torch takes equal ones for the same.
    inputs = {
        gas: torch.zeros(EXAMPLES, 2 * height + 2 * i + 1, 2 * width + 2 * i + 3, dtype=torch.uint8)
        for i, gas in enumerate(GASES)
    }
    shapes = {
        gas: {0: batch, 1: torch.export.Dim(f"{gas}_height"), 2: torch.export.Dim(f"{gas}_width")} for gas in GASES
    }
    return _export(program, inputs, shapes | {"modality_mask": {0: batch}}, metadata)


def _network(model):
    """Returns the PyTorch module of a model, made ready to be exported."""
    network = TorchFUME(model.options).eval()
    network.load_state_dict({key: torch.from_numpy(array) for key, array in to_state_dict(model).items()})
    _fold_batch_norm(network)
    for module in list(network.modules()):
        if isinstance(module, PyramidBranch):
            module.pool = _MatrixPool(module.pool.output_size)
    return network


def _export(program, frames, shapes, metadata):
    inputs = frames | {"modality_mask": torch.ones(EXAMPLES, len(GASES))}
    with torch.inference_mode():
        outputs = program(**inputs)
    with _quiet():
        exported = torch.onnx.export(
            program,
            kwargs=inputs,
            dynamo=True,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_shapes=shapes,
            verbose=False,
        )
    exported.model.metadata_props.update(metadata)
    return exported.model_proto.SerializeToString()


def _fold_batch_norm(network):
    """Folds every batch norm that follows a convolution into it."""
    for module in list(network.modules()):
        for (name, conv), (next_name, norm) in itertools.pairwise(list(module.named_children())):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(module, name, torch.nn.utils.fuse_conv_bn_eval(conv, norm))
                setattr(module, next_name, nn.Identity())


class _MatrixPool(nn.Module):
    """Pools as `AdaptiveAvgPool2d`, by two small matrices: ONNX has no such pooling, and torch would fix its size."""

    def __init__(self, bins):
        super().__init__()
        self.bins = bins

    def forward(self, x):
        rows, columns = (self._weights(size, x) for size in x.shape[2:])
        return rows @ x @ columns.T

    def _weights(self, size, x):
        """Returns the weight of each of `size` pixels in each bin, [bins, size]: bin i averages from floor to ceil."""
        bins = torch.arange(self.bins, device=x.device)[:, None]
        pixels = torch.arange(size, device=x.device)
        first, end = bins * size // self.bins, ((bins + 1) * size + self.bins - 1) // self.bins
        inside = ((pixels >= first) & (pixels < end)).to(x.dtype)
        return inside / inside.sum(1, keepdim=True)


@contextlib.contextmanager
def _quiet():
    """Silences the exporter, which reports on its own internals."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(action="ignore"), contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(before)
