"""The same model, loss and optimiser in PyTorch, eager or compiled; in mixed precision as the reference trains."""

import contextlib
import functools
import gc

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks.jax_baseline import RECIPE
from fume_jax.interop.torch_model import create_torch_model
from fume_jax.schema import GASES

HALF = {"cuda": torch.float16, "cpu": torch.bfloat16}
INPUTS = ("co2_frame", "ch4_frame", "modality_mask")
LOSS, OPTIMIZER = RECIPE["loss"], RECIPE["optimizer"]


def multi_task_loss(outputs: dict[str, torch.Tensor], batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Computes the objective of the recipe of logits [B, 3] and [B, 3, H, W], as if all pairs had both gases."""
    cls_loss = _focal_loss(outputs["cls_logits"], batch["labels"], LOSS["cls_alpha"], LOSS["cls_gamma"])
    seg_losses = [_segmentation_loss(outputs[f"{gas}_seg_logits"], batch[f"{gas}_mask"]) for gas in GASES]
    return LOSS["cls_weight"] * cls_loss + LOSS["seg_weight"] * sum(seg_losses) / len(GASES)


def _focal_loss(logits, labels, alpha, gamma):
    """Mean focal loss of [B, classes, ...] and [B, ...], with a weight `alpha` of each class."""
    cross_entropy = F.cross_entropy(logits.float(), labels, reduction="none")
    weights = torch.tensor(alpha, device=labels.device)[labels]
    return (weights * (1 - torch.exp(-cross_entropy)) ** gamma * cross_entropy).mean()


def _segmentation_loss(logits, masks):
    """Weighted focal and soft Dice loss of [B, classes, H, W] and [B, H, W]."""
    p = torch.softmax(logits.float(), 1)
    t = torch.zeros_like(p).scatter_(1, masks[:, None], 1.0)
    smooth = LOSS["seg_dice_smooth"]
    dice = 1 - (2 * (p * t).sum((2, 3)) + smooth) / (p.sum((2, 3)) + t.sum((2, 3)) + smooth)
    focal = _focal_loss(logits, masks, LOSS["seg_alpha"], LOSS["seg_gamma"])
    return LOSS["seg_focal_weight"] * focal + LOSS["seg_dice_weight"] * dice.mean()


def torch_batch(batch: dict[str, np.ndarray], device: str = "cpu") -> dict[str, torch.Tensor]:
    """Converts a batch: frames [B, 1, H, W], int64 masks and labels."""
    tensors = {name: torch.from_numpy(x.transpose(0, 3, 1, 2) if x.ndim == 4 else x) for name, x in batch.items()}
    return {name: (x.long() if x.dtype == torch.int32 else x).to(device) for name, x in tensors.items()}


class _Call:
    """A network and one batch on a device."""

    def __init__(self, batch, device, compiled, backbone):
        # Calls that are no longer used leave their memory to this one.
        torch.compiler.reset()
        gc.collect()
        torch.cuda.empty_cache()
        self._device, self._before, mode = device, torch.cuda.memory_allocated(), "default"
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
            # The fastest there is, as in JAX: TensorFloat-32, kernels by trial, compiled as one graph of kernels.
            torch.set_float32_matmul_precision("high")
            torch.backends.cudnn.benchmark = True
            mode = "reduce-overhead"
        self._compile = functools.partial(torch.compile, dynamic=False, mode=mode) if compiled else lambda fn: fn
        self._batch = torch_batch(batch, device)
        self._network = create_torch_model(RECIPE["model"]["name"], backbone=backbone).to(device)

    @property
    def memory_bytes(self) -> int:
        """Most bytes taken of the GPU since the creation; 0 on a CPU."""
        return torch.cuda.max_memory_allocated() - self._before

    def block_until_ready(self) -> None:
        """Waits for the device, as an array of JAX does."""
        if self._device == "cuda":
            torch.cuda.synchronize()


class Inference(_Call):
    """Computes the logits of one batch at every call; `half` converts parameters and frames to `HALF`."""

    def __init__(self, batch, device="cpu", *, half=False, compiled=False, backbone=None):
        super().__init__(batch, device, compiled, backbone)
        dtype = HALF[device] if half else torch.float32
        self._inputs = [self._batch[name].to(dtype) for name in INPUTS]
        self._predict_fn = self._compile(self._network.eval().to(dtype))

    def __call__(self):
        with torch.inference_mode():
            self._predict_fn(*self._inputs)
        return self


class TrainingStep(_Call):
    """Takes a training step at every call, on one batch unless another is given; `half` is mixed precision."""

    def __init__(self, batch, device="cpu", *, half=False, compiled=False, backbone=None):
        super().__init__(batch, device, compiled, backbone)
        options = {"lr": OPTIMIZER["learning_rate"], "weight_decay": OPTIMIZER["weight_decay"], "fused": True}
        self._optimizer = torch.optim.AdamW(self._network.train().parameters(), **options)
        self._scaler = torch.amp.GradScaler(device, enabled=half and device == "cuda")
        self._autocast = torch.autocast(device, HALF[device]) if half else contextlib.nullcontext()
        self._loss_fn = self._compile(self._loss)

    def _loss(self, batch):
        return multi_task_loss(self._network(*(batch[name] for name in INPUTS)), batch)

    def __call__(self, batch=None):
        self._optimizer.zero_grad()
        with self._autocast:
            loss = self._loss_fn(self._batch if batch is None else batch)
        self._scaler.scale(loss).backward()
        self._scaler.unscale_(self._optimizer)
        torch.nn.utils.clip_grad_norm_(self._network.parameters(), OPTIMIZER["clip_norm"])
        self._scaler.step(self._optimizer)
        self._scaler.update()
        return self
