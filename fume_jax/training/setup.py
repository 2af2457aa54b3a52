"""Prepares training: the state, the compiled step, checkpoints, and estimates of memory and disk."""

import functools
from collections.abc import Callable
from pathlib import Path

import jax
import ml_collections
import numpy as np
import optax
from jax.sharding import Mesh

from fume_jax.config import abstract_model, create_loss_fn, create_model, validate_config
from fume_jax.data.device_cache import nbytes
from fume_jax.data.loader import Loader
from fume_jax.learning.flat import Flat
from fume_jax.learning.step import (
    TrainState,
    create_train_state,
    flatten_state,
    jit_train_step,
    name_state,
    split_model,
)
from fume_jax.models import count_parameters
from fume_jax.models.layers import BatchNorm
from fume_jax.runtime import preflight
from fume_jax.runtime.errors import UserError
from fume_jax.runtime.mesh import describe_mesh, replicated
from fume_jax.schema import batch_spec
from fume_jax.training import weights
from fume_jax.training.checkpoint import Checkpoints, only_weights, with_sharding


def create_state_fn(
    config: ml_collections.ConfigDict, tx: optax.GradientTransformation, mesh: Mesh
) -> Callable[[], TrainState]:
    """Creates a compiled function that creates the state before the first step, a copy on every device of the mesh."""

    def create():
        return create_train_state(create_model(config), tx, ema=config.train.ema_decay > 0)

    # It runs once, in less time than its optimisation takes. Level 0 would round some parameters differently.
    options = {"xla_backend_optimization_level": 1}
    return jax.jit(create, out_shardings=replicated(mesh), compiler_options=options)


def abstract_state(config: ml_collections.ConfigDict, tx: optax.GradientTransformation, mesh: Mesh) -> TrainState:
    """Returns shapes, dtypes and shardings of the state that `create_state_fn` creates."""
    create = functools.partial(create_train_state, tx=tx, ema=config.train.ema_decay > 0)
    return with_sharding(jax.eval_shape(create, abstract_model(config)), replicated(mesh))


def flat_state(state: TrainState, mesh: Mesh) -> TrainState:
    """Returns a state, or its shapes, as the compiled step takes it: `flatten_state` with copies on every device."""
    if isinstance(state.step, jax.ShapeDtypeStruct):
        return with_sharding(jax.eval_shape(flatten_state, state), replicated(mesh))

    def flatten(tree):
        flat = Flat.of(jax.tree.map(_on_host, tree), np.concatenate)
        return flat.replace(vector=_on_mesh(flat.vector, mesh))

    return flatten_state(state, flatten)


def named_state(state: TrainState, mesh: Mesh) -> TrainState:
    """Returns a state of the compiled step with all arrays by name, as checkpoints and evaluation take it."""

    def unflatten(flat):
        return jax.tree.map(lambda x: _on_mesh(x, mesh), flat.replace(vector=_on_host(flat.vector)).tree())

    return name_state(state, unflatten)


# By way of the host: a program with an output for every array would take long to compile.
def _on_host(array):
    return np.array(array.addressable_data(0))  # a copy, since the next step overwrites the memory


def _on_mesh(array, mesh):
    return jax.make_array_from_callback(array.shape, replicated(mesh), array.__getitem__)


def create_train_fn(config: ml_collections.ConfigDict, tx: optax.GradientTransformation) -> Callable:
    """Creates the compiled `train_step`, a function of state and batch; `flat_state` makes the fastest state."""
    network = abstract_model(config)
    network.set_attributes(BatchNorm, splits=config.model.batch_norm_splits)
    steps, ema_decay = config.train.gradient_accumulation_steps, config.train.ema_decay
    loss_fn = create_loss_fn(config)
    return jit_train_step(network, tx, loss_fn, config.seed, accumulation_steps=steps, ema_decay=ema_decay)


def open_checkpoints(config: ml_collections.ConfigDict, workdir: str, **options) -> Checkpoints:
    """Opens the checkpoints of a run, with the best one by the metric of its config."""
    return Checkpoints(workdir, metric=config.checkpoint.best_metric, **options)


def load_best_model(
    config: ml_collections.ConfigDict, workdir: str, mesh: Mesh, checkpoints: Checkpoints | None = None
) -> tuple[dict, int]:
    """Loads a dict of `params` and `batch_stats`, and their step, onto a mesh.

    They are those of the run's best checkpoint, or of a folder of weights. `checkpoints` are those of the run, if open
    already. Raises UserError if the run has no checkpoint yet, or its config lacks a key.
    """
    validate_config(config)
    _, params, batch_stats = split_model(abstract_model(config))
    abstract = with_sharding({"params": params, "batch_stats": batch_stats}, replicated(mesh))
    if only_weights(workdir):
        return weights.load_weights(workdir, abstract)
    opened = checkpoints
    if opened is None and (Path(workdir) / "checkpoints").is_dir():
        opened = open_checkpoints(config, workdir, read_only=True)
    step = opened and opened.best_step
    if step is None:
        raise UserError(f"{workdir} has no checkpoint yet; train it first with fume train.")
    model = opened.restore_model(abstract, step)
    if checkpoints is None:
        opened.close()
    return model, step


def describe_run(config: ml_collections.ConfigDict, mesh: Mesh, total_steps: int) -> str:
    """Describes model, devices and data of a run in one line."""
    return (
        f"{describe_mesh(mesh)}, {config.model.name} of {count_parameters(abstract_model(config)):,} parameters, "
        f"batch {config.train.batch_size} ({config.train.batch_size // mesh.size} a device), {total_steps} steps on "
        f"{config.data.path}" + f", fold {config.data.fold} of {config.data.folds}" * (config.data.folds is not None)
    )


def estimate_disk_bytes(config: ml_collections.ConfigDict, abstract_state: TrainState) -> int:
    """Estimates the size of a run: its checkpoints, one more during replacement, events and images."""
    kept = config.checkpoint.keep_every_epochs and config.train.epochs // config.checkpoint.keep_every_epochs
    images = config.log.images * config.train.epochs // config.eval.every_epochs
    return (3 + kept) * nbytes(abstract_state) + int(2e5) * images + int(2e7)


def estimate_host_bytes(config: ml_collections.ConfigDict, loader: Loader, compiled_step: jax.stages.Compiled) -> int:
    """Estimates the memory that training will take on this machine besides that already in use.

    It is that of batches, and on a CPU that of the step and of a device cache. Each worker process is an interpreter
    with its own libraries, and holds as many batches as this one.
    """
    per_process = config.train.batch_size // jax.process_count()
    batch = nbytes(batch_spec(per_process, config.data.height, config.data.width))
    waiting = (config.data.prefetch + 2) * batch * max(1, config.data.num_workers)
    workers = config.data.num_workers * int(5e8)
    on_devices = preflight.step_memory(compiled_step) + (loader.cache_bytes if loader.cache == "device" else 0)
    return waiting + workers + (on_devices * jax.local_device_count() if jax.default_backend() == "cpu" else 0)
