"""One training step and one evaluation step: pure functions of arrays, to be compiled by whoever calls them."""

import functools
from collections.abc import Callable, Mapping

import flax.struct
import jax
import jax.numpy as jnp
import optax
from flax import nnx

from fume_jax.metrics import confusion_counts

Batch = Mapping[str, jax.Array]


@flax.struct.dataclass
class TrainState:
    """Everything that training changes; a pytree of arrays."""

    step: jax.Array
    params: nnx.State
    batch_stats: nnx.State
    opt_state: optax.OptState


def split_model(model: nnx.Module) -> tuple[nnx.GraphDef, nnx.State, nnx.State]:
    """Splits a model into its structure, trained parameters and batch statistics."""
    return nnx.split(model, nnx.Param, nnx.BatchStat)


def create_train_state(model: nnx.Module, tx: optax.GradientTransformation) -> TrainState:
    """State of a run before its first step."""
    _, params, batch_stats = split_model(model)
    return TrainState(jnp.zeros((), jnp.int32), params, batch_stats, tx.init(params))


def train_step(
    state: TrainState,
    batch: Batch,
    *,
    graphdef: nnx.GraphDef,
    tx: optax.GradientTransformation,
    loss_fn: Callable[[dict[str, jax.Array], Batch], dict[str, jax.Array]],
    seed: int,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """Takes one optimiser step.

    Args:
      state: before the step.
      batch: see `fume_jax.vocabulary`.
      graphdef: of the model in training mode.
      tx: optimiser.
      loss_fn: maps the model's outputs and the batch to `loss` and its terms.
      seed: of the run; with the step it decides every dropout mask.

    Returns:
      The state after the step, and scalar metrics: the loss and its terms, and `grad_norm` before any clipping.
    """
    dropout_key = jax.random.fold_in(jax.random.key(seed), state.step)
    modality_mask = _counted_gases(batch)

    def loss_and_stats(params):
        model = nnx.merge(graphdef, params, state.batch_stats, copy=True)
        rngs = nnx.Rngs(dropout=dropout_key)
        outputs = model(batch["co2_frame"], batch["ch4_frame"], modality_mask, rngs=rngs)
        terms = loss_fn(outputs, batch)
        return terms["loss"], (terms, nnx.state(model, nnx.BatchStat))

    (_, (terms, batch_stats)), grads = jax.value_and_grad(loss_and_stats, has_aux=True)(state.params)
    updates, opt_state = tx.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    metrics = terms | {"grad_norm": optax.tree.norm(grads)}
    return TrainState(state.step + 1, params, batch_stats, opt_state), metrics


def predict_step(
    params: nnx.State, batch_stats: nnx.State, batch: Batch, *, graphdef: nnx.GraphDef
) -> dict[str, jax.Array]:
    """Logits of a batch under running statistics; `graphdef` is that of the model in evaluation mode."""
    model = nnx.merge(graphdef, params, batch_stats)
    return model(batch["co2_frame"], batch["ch4_frame"], _counted_gases(batch))


def eval_step(
    params: nnx.State,
    batch_stats: nnx.State,
    batch: Batch,
    *,
    graphdef: nnx.GraphDef,
    loss_fn: Callable[[dict[str, jax.Array], Batch], dict[str, jax.Array]],
) -> dict[str, jax.Array]:
    """What one batch adds to an evaluation: counts to be summed over batches.

    Returns:
      The entries of `fume_jax.metrics.confusion_counts`; each loss term times the number of valid examples, and that
      number as `examples`.
    """
    outputs = predict_step(params, batch_stats, batch, graphdef=graphdef)
    examples = batch["valid"].sum()
    losses = {name: value * examples for name, value in loss_fn(outputs, batch).items()}
    return confusion_counts(outputs, batch) | losses | {"examples": examples}


def jit_train_step(
    model: nnx.Module, tx: optax.GradientTransformation, loss_fn: Callable, seed: int
) -> Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]:
    """Compiles `train_step` for a model, which is put in training mode; the state is donated."""
    model.train()
    graphdef, _, _ = split_model(model)
    step = functools.partial(train_step, graphdef=graphdef, tx=tx, loss_fn=loss_fn, seed=seed)
    return jax.jit(step, donate_argnums=0)


def _counted_gases(batch):
    """The modality mask with the gases of padded examples taken out, so that batch statistics never see them."""
    return batch["modality_mask"] * batch["valid"][:, None]
