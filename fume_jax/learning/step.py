"""One training step and one evaluation step: pure functions of arrays, for the caller to compile."""

import functools
from collections.abc import Callable, Mapping

import flax.struct
import jax
import jax.numpy as jnp
import optax
from flax import nnx

from fume_jax.learning.flat import Flat, is_flat, like, named
from fume_jax.learning.metrics import decide, example_confusions
from fume_jax.schema import GASES

Batch = Mapping[str, jax.Array]
# A model's arrays in nested dicts, which a compiled step flattens four times faster than an `nnx.State`.
Arrays = dict

# Entries of the batch that an evaluation keeps.
EXAMPLE_KEYS = ("labels", "valid", "modality_mask", "example_index", "recording_index")


@flax.struct.dataclass
class TrainState:
    """All arrays that training changes, a pytree; `ema_params` average `params` for evaluation, or are None.

    Arrays have their names, or are one vector for each set of names, see `flatten_state`.
    """

    step: jax.Array
    params: Arrays | Flat
    batch_stats: Arrays | Flat
    opt_state: optax.OptState
    ema_params: Arrays | Flat | None = None

    @property
    def model(self) -> dict[str, Arrays]:
        """The `params` and `batch_stats` that evaluation and prediction use."""
        params = self.params if self.ema_params is None else self.ema_params
        return {"params": params, "batch_stats": self.batch_stats}


def split_model(model: nnx.Module) -> tuple[nnx.GraphDef, Arrays, Arrays]:
    """Splits a model into its structure, trained parameters and batch statistics."""
    graphdef, params, batch_stats = nnx.split(model, nnx.Param, nnx.BatchStat)
    return graphdef, nnx.to_pure_dict(params), nnx.to_pure_dict(batch_stats)


def create_train_state(model: nnx.Module, tx: optax.GradientTransformation, *, ema: bool = False) -> TrainState:
    """Creates the state of a run before its first step; with `ema` it keeps an average of the parameters."""
    _, params, batch_stats = split_model(model)
    # The state is donated, and no buffer can be donated twice, hence the copy.
    ema_params = jax.tree.map(jnp.copy, params) if ema else None
    return TrainState(jnp.zeros((), jnp.int32), params, batch_stats, tx.init(params), ema_params)


def flatten_state(state: TrainState, flatten: Callable[[Arrays], Flat] = Flat.of) -> TrainState:
    """Returns a state with one vector each for parameters, their moments, their average, and batch statistics.

    A training step then takes a few kernels for what it does to all of them alike, instead of some for each array.
    """
    # Moments are trees of the parameters' structure, wherever the optimiser keeps them.
    wholes = [jax.tree.structure(tree) for tree in (state.params, state.batch_stats) if tree]

    def is_whole(x):
        return jax.tree.structure(x) in wholes

    return jax.tree.map(lambda x: flatten(x) if is_whole(x) else x, state, is_leaf=is_whole)


def name_state(state: TrainState, unflatten: Callable[[Flat], Arrays] = Flat.tree) -> TrainState:
    """Returns a state with all arrays by name, as before `flatten_state`."""
    return jax.tree.map(lambda x: unflatten(x) if is_flat(x) else x, state, is_leaf=is_flat)


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
    """Takes one optimiser step, or none where the loss or the gradient is not finite.

    Args:
      state, batch: the state before the step, flat or by name, and a batch as in `fume_jax.schema`.
      graphdef, tx: structure of the model in training mode, and the optimiser.
      loss_fn: maps the model's outputs and the batch to `loss` and its terms.
      seed: seed of the run; with the step it decides every dropout mask.
      accumulation_steps: parts of the batch that are taken one after the other to save memory; gradients and losses are
        the means over them, batch statistics are those of each part.
      ema_decay: decay of the average of the parameters, if the state keeps one; lower in the first steps.

    Returns the state after the step, and scalar metrics: the loss and its terms, `grad_norm` before any clipping,
    `param_norm`, and `skipped`, 1.0 if the step changed nothing but the count of steps, else 0.0.
    """
    dropout_key = jax.random.fold_in(jax.random.key(seed), state.step)
    with jax.named_scope("views"):
        params, batch_stats = named(state.params), named(state.batch_stats)

    def loss_and_stats(params, batch_stats, part, key):
        model = nnx.merge(graphdef, params, batch_stats, copy=True)
        outputs = _call(model, part, rngs=nnx.Rngs(dropout=key))
        with jax.named_scope("loss"):
            terms = loss_fn(outputs, part)
        return terms["loss"], (terms, nnx.to_pure_dict(nnx.state(model, nnx.BatchStat)))

    def grads_of(batch_stats, part_and_key):
        grad_fn = jax.value_and_grad(loss_and_stats, has_aux=True)
        (_, (terms, batch_stats)), grads = grad_fn(params, batch_stats, *part_and_key)
        return batch_stats, (terms, grads)

    if accumulation_steps == 1:
        batch_stats, (terms, grads) = grads_of(batch_stats, (batch, dropout_key))
    else:
        # [B, ...] to [parts, B / parts, ...], split so that each device keeps its examples.
        parts = jax.tree.map(lambda x: jnp.moveaxis(x.reshape(-1, accumulation_steps, *x.shape[1:]), 1, 0), batch)
        keys = jax.random.split(dropout_key, accumulation_steps)
        batch_stats, by_part = jax.lax.scan(grads_of, batch_stats, (parts, keys))
        terms, grads = jax.tree.map(lambda x: x.mean(0), by_part)
    with jax.named_scope("views"):
        grads, batch_stats = like(state.params, grads), like(state.batch_stats, batch_stats)
    with jax.named_scope("optimizer"):
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics = terms | {"grad_norm": optax.tree.norm(grads), "param_norm": optax.tree.norm(params)}
        ema_params = state.ema_params
        if ema_params is not None:
            # As in TensorFlow's ExponentialMovingAverage, an average of few steps forgets its start sooner.
            decay = jnp.minimum(ema_decay, (1 + state.step) / (10 + state.step))
            ema_params = optax.incremental_update(params, ema_params, 1 - decay)
    with jax.named_scope("guard"):
        new = TrainState(state.step, params, batch_stats, opt_state, ema_params)
        finite = jnp.isfinite(metrics["loss"]) & jnp.isfinite(metrics["grad_norm"])
        kept = jax.tree.map(lambda new, old: jnp.where(finite, new, old), new, state)
    return kept.replace(step=state.step + 1), metrics | {"skipped": 1.0 - finite.astype(jnp.float32)}


def predict_step(params: Arrays, batch_stats: Arrays, batch: Batch, *, graphdef: nnx.GraphDef) -> dict[str, jax.Array]:
    """Computes the logits of a batch under running statistics; `graphdef` is that of the model in evaluation mode."""
    return _call(nnx.merge(graphdef, params, batch_stats), batch)


def flip_step(params: Arrays, batch_stats: Arrays, batch: Batch, *, predict_fn: Callable) -> dict[str, jax.Array]:
    """Averages the probabilities of `predict_fn` over each pair of frames and its mirror image; returns their logs."""
    mirrored = {name: jnp.flip(batch[name], axis=2) for name in ("co2_frame", "ch4_frame")}
    as_is, flipped = (predict_fn(params, batch_stats, frames) for frames in (batch, {**batch, **mirrored}))
    flipped = {name: x if x.ndim == 2 else jnp.flip(x, axis=2) for name, x in flipped.items()}
    return {
        name: jnp.logaddexp(jax.nn.log_softmax(x), jax.nn.log_softmax(flipped[name])) - jnp.log(2)
        for name, x in as_is.items()
    }


def eval_step(
    params: Arrays, batch_stats: Arrays, batch: Batch, *, predict_fn: Callable, losses_fn: Callable, masks: bool = False
) -> dict[str, jax.Array]:
    """Computes all that an evaluation needs of every example of one batch, small enough to fetch.

    `predict_fn` maps the arrays of a model and a batch to logits, and `losses_fn` maps logits and batch to losses of
    every example, such as `fume_jax.learning.losses.example_losses`.

    Returns arrays [B, ...]: those of `decision_results`, the losses, and `probabilities` float32 [B, 3] if the model
    classifies.
    """
    outputs = predict_fn(params, batch_stats, batch)
    results = decision_results(decide(outputs), batch, masks=masks) | losses_fn(outputs, batch)
    if "cls_logits" in outputs:
        results["probabilities"] = jax.nn.softmax(outputs["cls_logits"])
    return results


def decision_results(decisions: Arrays, batch: Batch, *, masks: bool) -> dict[str, jax.Array]:
    """Compares what was decided on a batch, see `learning.metrics.decide`, with the truth.

    Returns arrays [B, ...]: `EXAMPLE_KEYS` of the batch, `learning.metrics.example_confusions`, and with `masks`, which
    are not small, `{gas}_prediction` and `{gas}_mask` uint8 [B, H, W] of the gases that are segmented.
    """
    results = {key: batch[key] for key in EXAMPLE_KEYS} | example_confusions(decisions, batch)
    if masks:
        for gas in GASES:
            if f"{gas}_seg" in decisions:
                results[f"{gas}_prediction"] = decisions[f"{gas}_seg"].astype(jnp.uint8)
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


def _call(model, batch, **options):
    # Padded examples have no gas, so that batch statistics never count them.
    modality_mask = batch["modality_mask"] * batch["valid"][:, None].astype(jnp.float32)
    return model(batch["co2_frame"], batch["ch4_frame"], modality_mask, **options)
