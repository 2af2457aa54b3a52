"""What training starts from: the state, the compiled step, checkpoints, and how much memory and disk a run takes."""

import functools
from collections.abc import Callable
from pathlib import Path

import jax
import ml_collections
import optax
from jax.sharding import Mesh

from fume_jax.config import abstract_model, create_loss_fn, create_model, get_architecture, validate_config
from fume_jax.data.loader import Loader
from fume_jax.learning.step import TrainState, create_train_state, jit_train_step, split_model
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
    """Compiles the creation of the state before the first step, a copy on every device of the mesh."""

    def create():
        return create_train_state(create_model(config), tx, ema=config.train.ema_decay > 0)

    # It runs once, in less time than optimising it takes. Level 0 would round some parameters otherwise.
    options = {"xla_backend_optimization_level": 1}
    return jax.jit(create, out_shardings=replicated(mesh), compiler_options=options)


def abstract_state(config: ml_collections.ConfigDict, tx: optax.GradientTransformation, mesh: Mesh) -> TrainState:
    """Returns shapes, dtypes and shardings of what `create_state_fn` creates."""
    create = functools.partial(create_train_state, tx=tx, ema=config.train.ema_decay > 0)
    return with_sharding(jax.eval_shape(create, abstract_model(config)), replicated(mesh))


def create_train_fn(config: ml_collections.ConfigDict, tx: optax.GradientTransformation) -> Callable:
    """Creates the compiled `train_step`, a function of state and batch."""
    network = abstract_model(config)
    network.set_attributes(BatchNorm, splits=config.model.batch_norm_splits)
    return jit_train_step(
        network,
        tx,
        create_loss_fn(config),
        config.seed,
        accumulation_steps=config.train.gradient_accumulation_steps,
        ema_decay=config.train.ema_decay,
    )


def open_checkpoints(config: ml_collections.ConfigDict, workdir: str, **options) -> Checkpoints:
    """Opens the checkpoints of a run, the best of which is chosen as the config says."""
    return Checkpoints(workdir, metric=config.checkpoint.best_metric, **options)


def load_best_model(
    config: ml_collections.ConfigDict, workdir: str, mesh: Mesh, checkpoints: Checkpoints | None = None
) -> tuple[dict, int]:
    """Loads `params` and `batch_stats` of a run's best checkpoint, or of a folder of weights, on the mesh.

    Args:
      config: of the run.
      workdir: its folder.
      mesh: of all devices.
      checkpoints: its checkpoints, if they are open already.

    Returns:
      The two in a dict, and their step.

    Raises:
      UserError: if the run has no checkpoint yet, or its config is one of another version.
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


def hparams(config: ml_collections.ConfigDict) -> dict[str, bool | str | float | int | tuple]:
    """Returns what runs are compared by; TensorBoard shows the first of them in the order of the alphabet."""
    options = get_architecture(config)
    return {
        "model": config.model.name,
        **{name: getattr(options, name) for name in ("backbone", "share_encoder", "fusion", "gas", "tasks")},
        **{name: config.model[name] for name in ("dtype", "batch_norm_splits")},
        **{name: config.data[name] for name in ("height", "width", "sampling")},
        "modality_dropout": config.augment.modality_dropout,
        **{f"loss.{name}": value for name, value in config.loss.items()},
        "optimizer": config.optimizer.name,
        **{name: config.optimizer[name] for name in ("learning_rate", "schedule", "warmup_epochs", "weight_decay")},
        **{name: config.train[name] for name in ("batch_size", "epochs", "ema_decay")},
        "seed": config.seed,
    }


def describe_run(config: ml_collections.ConfigDict, mesh: Mesh, total_steps: int) -> str:
    """Describes in one line which model is trained, on which devices and data."""
    return (
        f"{describe_mesh(mesh)}, {config.model.name} of {count_parameters(abstract_model(config)):,} parameters, "
        f"batch {config.train.batch_size} ({config.train.batch_size // mesh.size} a device), {total_steps} steps on "
        f"{config.data.path}"
    )


def estimate_disk_bytes(config: ml_collections.ConfigDict, abstract_state: TrainState) -> int:
    """Estimates what a run writes: its checkpoints, one more while it replaces another, events and images."""
    kept = config.checkpoint.keep_every_epochs and config.train.epochs // config.checkpoint.keep_every_epochs
    images = config.log.images * config.train.epochs // config.eval.every_epochs
    return (3 + kept) * _nbytes(abstract_state) + int(2e5) * images + int(2e7)


def estimate_host_bytes(config: ml_collections.ConfigDict, loader: Loader, compiled_step: jax.stages.Compiled) -> int:
    """Estimates what training takes of this machine's memory besides what is loaded.

    That is batches, and on a CPU the step and a dataset that is cached on the device. Each worker process is an
    interpreter with libraries of its own, and holds as many batches as this one.
    """
    per_process = config.train.batch_size // jax.process_count()
    batch = _nbytes(batch_spec(per_process, config.data.height, config.data.width))
    waiting = (config.data.prefetch + 2) * batch * max(1, config.data.num_workers)
    workers = config.data.num_workers * int(5e8)
    on_devices = preflight.step_memory(compiled_step) + (loader.cache_bytes if loader.cache == "device" else 0)
    return waiting + workers + (on_devices * jax.local_device_count() if jax.default_backend() == "cpu" else 0)


def _nbytes(tree):
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))
