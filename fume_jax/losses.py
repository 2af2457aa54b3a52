"""Focal, Dice and multi-task losses. Logits may have any float dtype; losses are float32."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from fume_jax.vocabulary import GASES


def focal_loss(
    logits: jax.Array, labels: jax.Array, *, alpha: Sequence[float] | None = None, gamma: float = 2.0
) -> jax.Array:
    """Focal loss of every element, `-alpha_y (1 - p_y)^gamma log p_y` (Lin et al., arXiv:1708.02002).

    Args:
      logits: [..., classes].
      labels: int [...], index of the true class.
      alpha: weight of each class; 1 if None.
      gamma: 0 gives the cross entropy.

    Returns:
      float32 [...].
    """
    log_p = jax.nn.log_softmax(logits.astype(jnp.float32))
    # Selecting by comparison is a fused pass on every backend; a gather of the true class is not.
    log_p = jnp.where(_is_class(labels, log_p.shape[-1]), log_p, 0).sum(-1)
    # 1 - p, exact near p = 1; the floor keeps its power differentiable at 0.
    loss = -(jnp.maximum(-jnp.expm1(log_p), 1e-12) ** gamma) * log_p
    return loss if alpha is None else loss * jnp.asarray(alpha, jnp.float32)[labels]


def dice_loss(logits: jax.Array, masks: jax.Array, *, smooth: float = 1.0) -> jax.Array:
    """Soft Dice loss of every example, `1 - (2 sum(p t) + s) / (sum(p) + sum(t) + s)` averaged over classes.

    After Milletari, Navab and Ahmadi (arXiv:1606.04797).

    Args:
      logits: [B, H, W, classes].
      masks: int [B, H, W].
      smooth: `s`, in pixels; the loss of an absent class goes to 0 as its predicted share does.

    Returns:
      float32 [B].
    """
    p = jax.nn.softmax(logits.astype(jnp.float32))
    t = _is_class(masks, p.shape[-1])
    intersection = jnp.where(t, p, 0).sum((1, 2))
    total = p.sum((1, 2)) + t.sum((1, 2))
    return (1 - (2 * intersection + smooth) / (total + smooth)).mean(-1)


def segmentation_loss(logits: jax.Array, masks: jax.Array, *, gamma: float = 2.0) -> jax.Array:
    """Half focal, half Dice loss of every example: float32 [B] from [B, H, W, classes] and [B, H, W]."""
    return 0.5 * focal_loss(logits, masks, gamma=gamma).mean((1, 2)) + 0.5 * dice_loss(logits, masks)


def multi_task_loss(
    outputs: dict[str, jax.Array],
    batch: dict[str, jax.Array],
    *,
    alpha: Sequence[float] | None = (1.0, 8.0, 1.2),
    gamma: float = 2.0,
    cls_weight: float = 1.0,
    seg_weight: float = 1.0,
) -> dict[str, jax.Array]:
    """The training objective over the valid examples of a batch; each task only if the model has a head for it.

    `loss = cls_weight * cls_loss + seg_weight * seg_loss`, where `seg_loss` is the mean over the gases present in the
    batch, and a gas's loss is the mean over the examples that have it.

    Args:
      outputs: what the model returned.
      batch: see `fume_jax.vocabulary`; frames are not read.
      alpha: class weights of the classification loss.
      gamma: of both focal losses.
      cls_weight, seg_weight: of the two tasks.

    Returns:
      `loss` and its terms, float32 scalars. A term with no example is 0.
    """
    valid = batch["valid"].astype(jnp.float32)
    terms = {}
    total = jnp.zeros((), jnp.float32)
    if "cls_logits" in outputs:
        losses = focal_loss(outputs["cls_logits"], batch["labels"], alpha=alpha, gamma=gamma)
        terms["cls_loss"] = _mean(losses, valid)
        total += cls_weight * terms["cls_loss"]
    gases = [gas for gas in GASES if f"{gas}_seg_logits" in outputs]
    if gases:
        present = jnp.stack([valid * batch["modality_mask"][:, GASES.index(gas)] for gas in gases])
        for gas, weights in zip(gases, present, strict=True):
            losses = segmentation_loss(outputs[f"{gas}_seg_logits"], batch[f"{gas}_mask"], gamma=gamma)
            terms[f"{gas}_seg_loss"] = _mean(losses, weights)
        by_gas = jnp.stack([terms[f"{gas}_seg_loss"] for gas in gases])
        terms["seg_loss"] = _mean(by_gas, present.max(axis=1))
        total += seg_weight * terms["seg_loss"]
    return {"loss": total, **terms}


def _is_class(labels, classes):
    return labels[..., None] == jnp.arange(classes)


def _mean(values, weights):
    """Weighted mean; 0 if nothing has weight, and then without gradient."""
    total = weights.sum()
    return (jnp.where(weights > 0, values, 0) * weights).sum() / jnp.maximum(total, 1)
