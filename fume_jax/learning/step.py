"""One training step and one evaluation step: pure functions of arrays, to be compiled by whoever calls them."""

import functools
from collections.abc import Callable, Mapping

import flax.struct
import jax
import jax.numpy as jnp
import optax
from flax import nnx

from fume_jax.learning.metrics import example_confusions
from fume_jax.schema import GASES

Batch = Mapping[str, jax.Array]
# A model's arrays in nested dicts: a call of a compiled step takes these apart four times faster than `nnx.State`.
Arrays = dict

# What an evaluation keeps of the batch itself.
EXAMPLE_KEYS = ("labels", "valid", "modality_mask", "example_index", "recording_index")


@flax.struct.dataclass
class TrainState:
    """Everything on the devices that training changes; a pytree of arrays.

    `ema_params` are a moving average of `params`, which evaluation uses in their place, or None.
    """

    step: jax.Array
    params: Arrays
    batch_stats: Arrays
    opt_state: optax.OptState
    ema_params: Arrays | None = None

    @property
    def model(self) -> dict[str, Arrays]:
        """`params` and `batch_stats` that evaluation and prediction use."""
        params = self.params if self.ema_params is None else self.ema_params
        return {"params": params, "batch_stats": self.batch_stats}


def split_model(model: nnx.Module) -> tuple[nnx.GraphDef, Arrays, Arrays]:
    """Splits a model into its structure, trained parameters and batch statistics."""
    graphdef, params, batch_stats = nnx.split(model, nnx.Param, nnx.BatchStat)
    return graphdef, nnx.to_pure_dict(params), nnx.to_pure_dict(batch_stats)


def create_train_state(model: nnx.Module, tx: optax.GradientTransformation, *, ema: bool = False) -> TrainState:
    """State of a run before its first step; with `ema`, one that keeps an average of the parameters."""
    _, params, batch_stats = split_model(model)
    # A copy, since the state is donated and no buffer can be donated twice.
    ema_params = jax.tree.map(jnp.copy, params) if ema else None
    return TrainState(jnp.zeros((), jnp.int32), params, batch_stats, tx.init(params), ema_params)


def train_step(
    state: TrainState,
    batch: Batch,
    *,
    graphdef: nnx.GraphDef,
    tx: optax.GradientTransformation,
    loss_fn: Callable[[dict[str, jax.Array], Batch], dict[str, jax.Array]],
    seed: int,
    accumulation_steps: int = 1,
    ema_decay: float = 0.0,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """Takes one optimiser step, or, where the loss or the gradient is not finite, none.

    Args:
      state: before the step.
      batch: see `fume_jax.schema`.
      graphdef: of the model in training mode.
      tx: optimiser.
      loss_fn: maps the model's outputs and the batch to `loss` and its terms.
      seed: of the run; with the step it decides every dropout mask.
      accumulation_steps: parts of the batch that are taken one after the other, for want of memory; gradients and
        losses are their means, batch statistics those of each part.
      ema_decay: of the average of the parameters, if the state keeps one; lower in the first steps.

    Returns:
      The state after the step, and scalar metrics: the loss and its terms, `grad_norm` before any clipping,
      `param_norm`, and `skipped`, 1.0 if the step changed nothing but the count of steps, else 0.0.
    """
    dropout_key = jax.random.fold_in(jax.random.key(seed), state.step)

    def loss_and_stats(params, batch_stats, part, key):
        model = nnx.merge(graphdef, params, batch_stats, copy=True)
        rngs = nnx.Rngs(dropout=key)
        outputs = model(part["co2_frame"], part["ch4_frame"], _counted_gases(part), rngs=rngs)
        terms = loss_fn(outputs, part)
        return terms["loss"], (terms, nnx.to_pure_dict(nnx.state(model, nnx.BatchStat)))

    def grads_of(batch_stats, part_and_key):
        grad_fn = jax.value_and_grad(loss_and_stats, has_aux=True)
        (_, (terms, batch_stats)), grads = grad_fn(state.params, batch_stats, *part_and_key)
        return batch_stats, (terms, grads)

    if accumulation_steps == 1:
        batch_stats, (terms, grads) = grads_of(state.batch_stats, (batch, dropout_key))
    else:
        parts = _parts(batch, accumulation_steps), jax.random.split(dropout_key, accumulation_steps)
        batch_stats, of_parts = jax.lax.scan(grads_of, state.batch_stats, parts)
        terms, grads = jax.tree.map(lambda x: x.mean(0), of_parts)
    updates, opt_state = tx.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    metrics = terms | {"grad_norm": optax.tree.norm(grads), "param_norm": optax.tree.norm(params)}
    ema_params = state.ema_params
    if ema_params is not None:
        # As in TensorFlow's ExponentialMovingAverage: an average of few steps forgets where it started sooner.
        decay = jnp.minimum(ema_decay, (1 + state.step) / (10 + state.step))
        ema_params = optax.incremental_update(params, ema_params, 1 - decay)
    new = TrainState(state.step, params, batch_stats, opt_state, ema_params)
    finite = jnp.isfinite(metrics["loss"]) & jnp.isfinite(metrics["grad_norm"])
    kept = jax.tree.map(lambda new, old: jnp.where(finite, new, old), new, state)
    return kept.replace(step=state.step + 1), metrics | {"skipped": 1.0 - finite}


def predict_step(params: Arrays, batch_stats: Arrays, batch: Batch, *, graphdef: nnx.GraphDef) -> dict[str, jax.Array]:
    """Logits of a batch under running statistics; `graphdef` is that of the model in evaluation mode."""
    model = nnx.merge(graphdef, params, batch_stats)
    return model(batch["co2_frame"], batch["ch4_frame"], _counted_gases(batch))


def flip_step(params: Arrays, batch_stats: Arrays, batch: Batch, *, predict_fn: Callable) -> dict[str, jax.Array]:
    """As `predict_fn`, but logs of the mean probabilities over each pair of frames and its mirror image."""
    mirrored = {name: jnp.flip(batch[name], axis=2) for name in ("co2_frame", "ch4_frame")}
    as_is, flipped = (predict_fn(params, batch_stats, frames) for frames in (batch, {**batch, **mirrored}))
    flipped = {name: x if x.ndim == 2 else jnp.flip(x, axis=2) for name, x in flipped.items()}
    return {
        name: jnp.logaddexp(jax.nn.log_softmax(x), jax.nn.log_softmax(flipped[name])) - jnp.log(2)
        for name, x in as_is.items()
    }


def eval_step(
    params: Arrays,
    batch_stats: Arrays,
    batch: Batch,
    *,
    predict_fn: Callable[[Arrays, Arrays, Batch], dict[str, jax.Array]],
    losses_fn: Callable[[dict[str, jax.Array], Batch], dict[str, jax.Array]],
    masks: bool = False,
) -> dict[str, jax.Array]:
    """What an evaluation needs of every example of one batch, small enough to fetch.

    Args:
      params, batch_stats: of the model.
      batch: see `fume_jax.schema`.
      predict_fn: maps the three to logits.
      losses_fn: maps logits and batch to losses of every example, such as `fume_jax.learning.losses.example_losses`.
      masks: return masks too, which are not small.

    Returns:
      Arrays [B, ...]: `EXAMPLE_KEYS` of the batch; what `learning.metrics.example_confusions` counts; the losses;
      `probabilities` float32 [B, 3] if the model classifies; with `masks` `{gas}_prediction` and `{gas}_mask`
      uint8 [B, H, W] of the gases that are segmented.
    """
    outputs = predict_fn(params, batch_stats, batch)
    results = {key: batch[key] for key in EXAMPLE_KEYS} | example_confusions(outputs, batch) | losses_fn(outputs, batch)
    if "cls_logits" in outputs:
        results["probabilities"] = jax.nn.softmax(outputs["cls_logits"])
    if masks:
        for gas in GASES:
            if f"{gas}_seg_logits" in outputs:
                results[f"{gas}_prediction"] = outputs[f"{gas}_seg_logits"].argmax(-1).astype(jnp.uint8)
                results[f"{gas}_mask"] = batch[f"{gas}_mask"].astype(jnp.uint8)
    return results


def jit_train_step(
    model: nnx.Module, tx: optax.GradientTransformation, loss_fn: Callable, seed: int, **options
) -> Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]:
    """Compiles `train_step` for a model, which is put in training mode; the state is donated."""
    model.train()
    graphdef, _, _ = split_model(model)
    step = functools.partial(train_step, graphdef=graphdef, tx=tx, loss_fn=loss_fn, seed=seed, **options)
    return jax.jit(step, donate_argnums=0)


def _parts(batch, count):
    """[B, ...] to [count, B / count, ...], dealt out so that each device keeps its examples."""
    return jax.tree.map(lambda x: jnp.moveaxis(x.reshape(-1, count, *x.shape[1:]), 1, 0), batch)


def _counted_gases(batch):
    """The modality mask with the gases of padded examples taken out, so that batch statistics never see them."""
    return batch["modality_mask"] * batch["valid"][:, None]
