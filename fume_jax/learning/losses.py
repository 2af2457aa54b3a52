"""Focal, Dice and multi-task losses. Logits may have any float dtype; losses are float32.

Pixels of a mask that are `schema.IGNORE` count in no loss. Those that are `schema.NOT_GAS` are background or tube: the
probability of their true class is that of both together.
"""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from fume_jax.schema import BACKGROUND, GAS, GASES, IGNORE, MASK_CLASSES, NOT_GAS, TUBE

Arrays = dict[str, jax.Array]
Alpha = Sequence[float] | None  # weight of each class; None for 1


def focal_loss(logits: jax.Array, labels: jax.Array, *, alpha: Alpha = None, gamma: float = 2.0) -> jax.Array:
    """Computes the focal loss of every element, `-alpha_y (1 - p_y)^gamma log p_y` (Lin et al., arXiv:1708.02002).

    `logits` are [..., classes], `labels` int [...], the true class y. Returns float32 [...]; cross entropy at gamma 0.
    """
    loss = _focal(_select(_softmax(logits)[0], labels), gamma)
    return loss if alpha is None else loss * _select(alpha, labels)


def dice_loss(logits: jax.Array, masks: jax.Array, *, smooth: float = 1.0) -> jax.Array:
    """Computes the soft Dice loss (Milletari, Navab and Ahmadi, arXiv:1606.04797) of every example, float32 [B].

    `1 - (2 sum(p t) + s) / (sum(p) + sum(t) + s)`, averaged over classes, for `logits` [B, H, W, classes] and `masks`
    int [B, H, W]. `smooth` is `s`, in pixels; the loss of an absent class goes to 0 as its predicted share does. Where
    far more than `s` pixels of an absent class are predicted its gradient vanishes: with frames that lack a class `s`
    is to be some share of the frame.
    The sums are over the pixels of which it is known whether they are of the class.
    """
    losses = []
    for c, p in enumerate(_softmax(logits)[1]):
        t, known = masks == c, (masks != IGNORE) if c == GAS else (masks < len(MASK_CLASSES))
        intersection, predicted = (jnp.where(counted, p, 0).sum((1, 2)) for counted in (t, known))
        total = predicted + t.sum((1, 2)).astype(jnp.float32)
        losses.append(1 - (2 * intersection + smooth) / (total + smooth))
    return sum(losses) / len(losses)


def segmentation_loss(
    logits: jax.Array,
    masks: jax.Array,
    *,
    alpha: Alpha,
    gamma: float,
    focal_weight: float,
    dice_weight: float,
    dice_smooth: float = 1.0,
) -> jax.Array:
    """Sums weighted focal and Dice loss of every example: float32 [B] from [B, H, W, classes] and [B, H, W].

    The focal loss is the mean over the pixels that are not `IGNORE`; 0 if there are none.
    """
    focal = _mask_focal_loss(logits, masks, alpha, gamma) if focal_weight else 0
    dice = dice_loss(logits, masks, smooth=dice_smooth) if dice_weight else 0
    return focal_weight * focal + dice_weight * dice


def _mask_focal_loss(logits, masks, alpha, gamma):
    log_p, known = _softmax(logits)[0], masks != IGNORE
    of_class = jnp.where(masks == NOT_GAS, jnp.logaddexp(log_p[BACKGROUND], log_p[TUBE]), _select(log_p, masks))
    loss = _focal(of_class, gamma)
    if alpha is not None:
        loss *= _select(alpha, jnp.where(masks == NOT_GAS, BACKGROUND, masks))
    return jnp.where(known, loss, 0).sum((1, 2)) / jnp.maximum(known.sum((1, 2)), 1).astype(jnp.float32)


def _focal(log_p, gamma):
    # expm1 is exact near p = 1; the floor keeps the power differentiable at 0. An integer power is a few products.
    return -(jnp.maximum(-jnp.expm1(log_p), 1e-12) ** (int(gamma) if gamma == int(gamma) else gamma)) * log_p


def example_losses(
    outputs: Arrays,
    batch: Arrays,
    *,
    cls_alpha: Alpha,
    cls_gamma: float,
    seg_alpha: Alpha,
    seg_gamma: float,
    seg_focal_weight: float,
    seg_dice_weight: float,
    seg_dice_smooth: float = 1.0,
) -> Arrays:
    """Computes the losses of every example, each task only if the model has a head for it.

    `outputs` are those of the model; `batch` is described in `fume_jax.schema`, and its frames are not read. `*_alpha`
    and `*_gamma` are class weights and exponent of each task's focal loss, and `seg_dice_smooth` is in pixels. Returns
    `cls_loss` and `{gas}_seg_loss`, float32 [B] each; without meaning where the example is padding or lacks the gas.
    """
    losses = {}
    if "cls_logits" in outputs:
        losses["cls_loss"] = focal_loss(outputs["cls_logits"], batch["labels"], alpha=cls_alpha, gamma=cls_gamma)
    options = {"alpha": seg_alpha, "gamma": seg_gamma, "focal_weight": seg_focal_weight, "dice_weight": seg_dice_weight}
    options["dice_smooth"] = seg_dice_smooth
    for gas in GASES:
        if f"{gas}_seg_logits" in outputs:
            logits, masks = outputs[f"{gas}_seg_logits"], batch[f"{gas}_mask"]
            losses[f"{gas}_seg_loss"] = segmentation_loss(logits, masks, **options)
    return losses


def mean_losses(
    losses: Arrays, valid: jax.Array, modality_mask: jax.Array, *, cls_weight: float, seg_weight: float
) -> Arrays:
    """Computes the objective over some examples from the losses of each, as `example_losses` returns them.

    `loss = cls_weight * cls_loss + seg_weight * seg_loss`, where `seg_loss` is the mean over the gases present among
    the examples, and a gas's loss is the mean over the examples that have it. `losses` are float [B] each, `valid` is
    bool [B], `modality_mask` float [B, 2]. Returns `loss` and its terms, float32 scalars; a term without example is 0.
    """
    terms, total = {}, jnp.zeros((), jnp.float32)
    valid = jnp.asarray(valid, jnp.float32)
    if "cls_loss" in losses:
        terms["cls_loss"] = _mean(losses["cls_loss"], valid)
        total += cls_weight * terms["cls_loss"]
    weights = {f"{gas}_seg_loss": valid * modality_mask[:, i] for i, gas in enumerate(GASES)}
    weights = {name: weight for name, weight in weights.items() if name in losses}
    if weights:
        terms |= {name: _mean(losses[name], weight) for name, weight in weights.items()}
        present = jnp.stack([weight.max() for weight in weights.values()])
        terms["seg_loss"] = _mean(jnp.stack([terms[name] for name in weights]), present)
        total += seg_weight * terms["seg_loss"]
    return {"loss": total, **terms}


def multi_task_loss(
    outputs: Arrays, batch: Arrays, *, losses_fn: Callable[..., Arrays], cls_weight: float, seg_weight: float
) -> Arrays:
    """Computes the training objective over the valid examples of a batch: `mean_losses` of those of `losses_fn`."""
    losses = losses_fn(outputs, batch)
    return mean_losses(losses, batch["valid"], batch["modality_mask"], cls_weight=cls_weight, seg_weight=seg_weight)


def objective_by_example(
    losses: dict[str, np.ndarray], modality_mask: np.ndarray, *, cls_weight: float, seg_weight: float
) -> np.ndarray:
    """Computes the objective of each example by itself, float32 [N] on the host; NaN where an example has no loss.

    `losses` are float [N] each, as `example_losses` returns them, without padding; `modality_mask` is float [N, 2].
    """

    def objective(losses, modality_mask):
        one = {name: value[None] for name, value in losses.items()}
        return mean_losses(one, jnp.ones(1), modality_mask[None], cls_weight=cls_weight, seg_weight=seg_weight)["loss"]

    segmented = np.array([f"{gas}_seg_loss" in losses for gas in GASES])
    scored = ("cls_loss" in losses) | ((modality_mask > 0) & segmented).any(1)
    return np.where(scored, np.asarray(jax.vmap(objective)(losses, modality_mask)), np.nan)


def _softmax(logits):
    """Returns log-probabilities and probabilities, two lists with a float32 [...] for each class.

    Operations on one class at a time fuse; a reduction over an axis of three does not, nor does a gather from it.
    """
    logits = logits.astype(jnp.float32)
    planes = [logits[..., c] for c in range(logits.shape[-1])]
    top = jax.lax.stop_gradient(functools.reduce(jnp.maximum, planes))
    exps = [jnp.exp(plane - top) for plane in planes]
    total = sum(exps)
    return [plane - top - jnp.log(total) for plane in planes], [e / total for e in exps]


def _select(values, labels):
    """Selects from `values`, one for each class, that of the true class, for every element of `labels`.

    Other labels select the last one.
    """
    *values, selected = values
    for c, value in reversed(list(enumerate(values))):
        selected = jnp.where(labels == c, value, selected)
    return selected


def _mean(values, weights):
    """Computes a weighted mean; 0 without gradient if nothing has weight."""
    return (jnp.where(weights > 0, values, 0) * weights).sum() / jnp.maximum(weights.sum(), 1)
