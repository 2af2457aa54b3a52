"""The peer of a comparison: the same model, loss and optimiser in PyTorch, eager or compiled.

Mixed precision is as the reference trains: autocast with a scaled loss in float16 on CUDA, bfloat16 on CPU.
"""

import contextlib
import gc
import shutil

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks import ours
from fume_jax.interop.torch_model import create_torch_model
from fume_jax.schema import GASES

# Of mixed precision on each device.
HALF = {"cuda": torch.float16, "cpu": torch.bfloat16}


def multi_task_loss(outputs: dict[str, torch.Tensor], batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """The objective that `benchmarks.ours.loss_fn` computes, of logits [B, 3] and [B, 3, H, W]."""
    valid = batch["valid"].float()
    alpha = outputs["cls_logits"].new_tensor(ours.ALPHA, dtype=torch.float32)
    cls_losses = focal_loss(outputs["cls_logits"], batch["labels"]) * alpha[batch["labels"]]
    seg_losses, present = [], []
    for i, gas in enumerate(GASES):
        weights = valid * batch["modality_mask"][:, i]
        seg_losses.append(_mean(segmentation_loss(outputs[f"{gas}_seg_logits"], batch[f"{gas}_mask"]), weights))
        present.append(weights.amax())
    return _mean(cls_losses, valid) + _mean(torch.stack(seg_losses), torch.stack(present))


def focal_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Of every element, [B, ...] from [B, classes, ...] and [B, ...]."""
    cross_entropy = F.cross_entropy(logits.float(), labels, reduction="none")
    return (1 - torch.exp(-cross_entropy)) ** ours.GAMMA * cross_entropy


def segmentation_loss(logits: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Half focal and half soft Dice loss of every example, [B] from [B, classes, H, W] and [B, H, W]."""
    p = torch.softmax(logits.float(), 1)
    t = torch.zeros_like(p).scatter_(1, masks[:, None], 1.0)
    dice = 1 - (2 * (p * t).sum((2, 3)) + 1) / (p.sum((2, 3)) + t.sum((2, 3)) + 1)
    return 0.5 * focal_loss(logits, masks).mean((1, 2)) + 0.5 * dice.mean(1)


def _mean(values, weights):
    return (values * weights).sum() / weights.sum().clamp(min=1)


def torch_batch(batch: dict[str, np.ndarray], device: str = "cpu") -> dict[str, torch.Tensor]:
    """A batch of ours as PyTorch takes it: frames [B, 1, H, W], int64 masks and labels."""
    tensors = {}
    for name, array in batch.items():
        array = array.transpose(0, 3, 1, 2) if array.ndim == 4 else array
        tensors[name] = torch.from_numpy(array.astype(np.int64) if array.dtype == np.int32 else array).to(device)
    return tensors


def can_compile() -> bool:
    """Whether `torch.compile` finds what it needs: on CPU a compiler for C++."""
    return torch.cuda.is_available() or any(map(shutil.which, ("g++", "clang++")))


def release() -> None:
    """Leaves memory that is no longer used to others, and forgets what was compiled."""
    torch.compiler.reset()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def prepare_cuda() -> bool:
    """Whether there is a CUDA device; it is set to its fastest, as JAX is: TensorFloat-32, and kernels by trial."""
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.benchmark = True
    return torch.cuda.is_available()


class _Peer:
    """What inference and training have in common."""

    def __init__(self, batch, device, channels_last):
        self._device = device
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
            self._before = torch.cuda.memory_allocated()
        torch.manual_seed(0)
        self._batch = torch_batch(batch, device)
        self.network = create_torch_model("fume").to(device)
        if channels_last:
            self.network.to(memory_format=torch.channels_last)

    @property
    def memory_bytes(self):
        """Most that was taken of the device since this was made, if nothing else was; None on a CPU."""
        return torch.cuda.max_memory_allocated() - self._before if self._device == "cuda" else None

    def block_until_ready(self):
        """Waits for the device, as an array of JAX does."""
        if self._device == "cuda":
            torch.cuda.synchronize()

    def _compile(self, function):
        # For these shapes; on CUDA as one graph of kernels, without the host in between.
        return torch.compile(function, dynamic=False, mode="reduce-overhead" if self._device == "cuda" else "default")


class Inference(_Peer):
    """Logits of one batch, at every call; with `half` parameters and frames are of `HALF`."""

    def __init__(self, batch, device="cpu", *, half=False, compiled=False, channels_last=False):
        super().__init__(batch, device, channels_last)
        dtype = HALF[device] if half else torch.float32
        self.network.eval().to(dtype)
        names = ("co2_frame", "ch4_frame", "modality_mask")
        self._inputs = [self._batch[name].to(dtype) for name in names]
        self._predict = self._compile(self.network) if compiled else self.network

    def __call__(self):
        with torch.inference_mode():
            self._predict(*self._inputs)
        return self


class TrainingStep(_Peer):
    """A training step on one batch, at every call; `amp` is mixed precision."""

    def __init__(self, batch, device="cpu", *, amp=False, compiled=False, channels_last=False):
        super().__init__(batch, device, channels_last)
        self.network.train()
        self._optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=ours.LEARNING_RATE, weight_decay=ours.WEIGHT_DECAY, fused=True
        )
        self._scaler = torch.amp.GradScaler(device, enabled=amp and device == "cuda")
        self._autocast = torch.autocast(device, HALF[device]) if amp else contextlib.nullcontext()
        self._loss_fn = self._compile(self._loss) if compiled else self._loss

    def _loss(self, batch):
        outputs = self.network(batch["co2_frame"], batch["ch4_frame"], batch["modality_mask"])
        return multi_task_loss(outputs, batch)

    def __call__(self):
        self._optimizer.zero_grad()
        with self._autocast:
            self.loss = self._loss_fn(self._batch)
        self._scaler.scale(self.loss).backward()
        self._scaler.unscale_(self._optimizer)
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), ours.CLIP_NORM)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        return self
