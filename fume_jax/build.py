"""The objects that a config describes."""

import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import jax
import ml_collections
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh

from fume_jax import augment, decoded, guards, input_pipeline, losses, sharding, train_step, weights
from fume_jax.checkpoint import Checkpoints, only_weights, with_sharding
from fume_jax.console import Console
from fume_jax.errors import UserError
from fume_jax.models import FUME, count_parameters
from fume_jax.models.attention import attention_maps
from fume_jax.models.batch_norm import BatchNorm
from fume_jax.optimizer import create_optimizer, create_schedule
from fume_jax.progress import EarlyStopping, Progress
from fume_jax.resident import Resident
from fume_jax.settings import DTYPES, architecture_of, check
from fume_jax.vocabulary import batch_spec

# Splits that training reads again and again.
RESIDENT = ("train", "val")


def model(config: ml_collections.ConfigDict) -> FUME:
    """The model with fresh parameters."""
    return FUME(architecture_of(config), dtype=DTYPES[config.model.dtype], rngs=nnx.Rngs(config.seed))


def abstract_model(config: ml_collections.ConfigDict) -> FUME:
    """The model without memory for its parameters: shapes and dtypes only."""
    return nnx.clone(_abstract_model(architecture_of(config), config.model.dtype))


@functools.cache
def _abstract_model(options, dtype):
    """Made once: modules are slow to trace, and all who ask change only the mode of theirs."""
    return nnx.eval_shape(lambda: FUME(options, dtype=DTYPES[dtype], rngs=nnx.Rngs(0)))


def optimizer(
    config: ml_collections.ConfigDict, steps_per_epoch: int
) -> tuple[optax.Schedule, optax.GradientTransformation]:
    """The learning rate of every step, and the optimiser that follows it."""
    options = config.optimizer
    schedule = create_schedule(
        options.schedule,
        learning_rate=options.learning_rate,
        final_learning_rate=options.final_learning_rate,
        warmup_steps=int(options.warmup_epochs * steps_per_epoch),
        total_steps=config.train.epochs * steps_per_epoch,
        decay_steps=[round(epoch * steps_per_epoch) for epoch in options.decay_epochs],
        decay_factor=options.decay_factor,
    )
    tx = create_optimizer(
        options.name,
        schedule,
        weight_decay=options.weight_decay,
        b1=options.b1,
        b2=options.b2,
        clip_norm=options.clip_norm,
    )
    return schedule, tx


def create_state_fn(
    config: ml_collections.ConfigDict, tx: optax.GradientTransformation, mesh: Mesh
) -> Callable[[], train_step.TrainState]:
    """Compiled creation of the state before the first step, a copy on every device of the mesh."""

    def create():
        return train_step.create_train_state(model(config), tx, ema=config.train.ema_decay > 0)

    # It runs once, in less time than optimising it takes. Level 0 would round some parameters otherwise.
    options = {"xla_backend_optimization_level": 1}
    return jax.jit(create, out_shardings=sharding.replicated(mesh), compiler_options=options)


def abstract_state(
    config: ml_collections.ConfigDict, tx: optax.GradientTransformation, mesh: Mesh
) -> train_step.TrainState:
    """Shapes, dtypes and shardings of what `create_state_fn` creates."""
    create = functools.partial(train_step.create_train_state, tx=tx, ema=config.train.ema_decay > 0)
    return with_sharding(jax.eval_shape(create, abstract_model(config)), sharding.replicated(mesh))


def train_fn(config: ml_collections.ConfigDict, tx: optax.GradientTransformation) -> Callable:
    """Compiled `train_step`, a function of state and batch."""
    options = {"accumulation": config.train.accumulation, "ema_decay": config.train.ema_decay}
    network = abstract_model(config)
    network.set_attributes(BatchNorm, groups=config.model.norm_groups)
    return train_step.jit_train_step(network, tx, loss_fn(config), config.seed, **options)


def loss_fn(config: ml_collections.ConfigDict) -> Callable:
    """The training objective, a function of outputs and batch."""
    return functools.partial(losses.multi_task_loss, **task_weights(config), **_loss_options(config))


def task_weights(config: ml_collections.ConfigDict) -> dict[str, float]:
    """Weights of the two tasks in the loss."""
    return {name: config.loss[name] for name in ("cls_weight", "seg_weight")}


def _loss_options(config):
    options = {name: value for name, value in config.loss.items() if name not in task_weights(config)}
    return {name: tuple(value) if name.endswith("alpha") else value for name, value in options.items()}


def progress(config: ml_collections.ConfigDict) -> Progress:
    """Of a run before its first step."""
    return Progress(EarlyStopping(**config.early_stopping), config.train.max_skipped_updates)


def checkpoints(config: ml_collections.ConfigDict, workdir: str, **options) -> Checkpoints:
    """The checkpoints of a run, the best of which is chosen as the config says."""
    return Checkpoints(workdir, metric=config.checkpoint.best_metric, **options)


def hparams(config: ml_collections.ConfigDict) -> dict[str, bool | str | float | int | tuple]:
    """What runs are compared by; TensorBoard shows the first of them in the order of the alphabet."""
    options = architecture_of(config)
    return {
        "model": config.model.name,
        **{name: getattr(options, name) for name in ("encoder", "fusion", "gas", "tasks")},
        **{name: config.model[name] for name in ("dtype", "norm_groups")},
        **{name: config.data[name] for name in ("height", "width", "sampling", "modality_dropout")},
        **{f"loss.{name}": value for name, value in config.loss.items()},
        "optimizer": config.optimizer.name,
        **{name: config.optimizer[name] for name in ("learning_rate", "schedule", "warmup_epochs", "weight_decay")},
        **{name: config.train[name] for name in ("batch_size", "epochs", "ema_decay")},
        "seed": config.seed,
    }


def batch_shape(config: ml_collections.ConfigDict) -> dict[str, int]:
    """Pairs of a training batch, and pixels of their frames."""
    return {"batch_size": config.train.batch_size, **_size(config)}


def eval_batch_shape(config: ml_collections.ConfigDict) -> dict:
    """As `batch_shape`, of a batch in evaluation, and the key that sets how many pairs it has."""
    shape = batch_shape(config) | {"batch_size": config.eval.batch_size}
    return shape | {"keys": ("config.eval.batch_size",)}


def disk_bytes(config: ml_collections.ConfigDict, abstract_state: train_step.TrainState) -> int:
    """About what a run writes: its checkpoints, one more while it replaces another, and events and pictures."""
    kept = config.checkpoint.keep_every_epochs and config.train.epochs // config.checkpoint.keep_every_epochs
    pictures = config.log.pictures * config.train.epochs // config.eval.every_epochs
    return (3 + kept) * _nbytes(abstract_state) + int(2e5) * pictures + int(2e7)


def host_bytes(
    config: ml_collections.ConfigDict, dataset: input_pipeline.Dataset, compiled_step: jax.stages.Compiled
) -> int:
    """About what training takes of this machine's memory besides what is loaded.

    That is batches, and on a CPU the step and a dataset that is kept on the device. Each worker process is an
    interpreter with libraries of its own, and holds as many batches as this one.
    """
    per_process = config.train.batch_size // jax.process_count()
    batch = _nbytes(batch_spec(per_process, config.data.height, config.data.width))
    ahead = (config.data.prefetch + 2) * batch * max(1, config.data.num_workers)
    workers = config.data.num_workers * int(5e8)
    on_devices = guards.step_memory(compiled_step)
    if cache(config, dataset) == "device":
        on_devices += resident_bytes(config, dataset)
    return ahead + workers + (on_devices * jax.local_device_count() if jax.default_backend() == "cpu" else 0)


def _nbytes(tree):
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))


def description(config: ml_collections.ConfigDict, mesh: Mesh, total_steps: int) -> str:
    """What is trained, on what, in one line."""
    return (
        f"{sharding.described(mesh)}, {config.model.name} of {count_parameters(abstract_model(config)):,} parameters, "
        f"batch {config.train.batch_size} ({config.train.batch_size // mesh.size} a device), {total_steps} steps on "
        f"{config.data.path}"
    )


def augmentation(config: ml_collections.ConfigDict) -> Sequence[Callable]:
    """What changes a training example, in order."""
    options = config.augment
    degradations = (
        augment.GaussianNoise(**options.gaussian_noise),
        augment.GaussianBlur(**options.gaussian_blur),
        augment.MotionBlur(**options.motion_blur),
    )
    operations = (
        augment.HorizontalFlip(**options.flip),
        augment.ShiftScaleRotate(**options.shift_scale_rotate),
        augment.Elastic(**options.elastic),
        augment.OneOf(**options.one_of, operations=degradations),
        augment.BrightnessContrast(**options.brightness_contrast),
        augment.Gamma(**options.gamma),
        augment.ModalityDropout(config.data.modality_dropout),
    )
    return tuple(operation for operation in operations if operation.probability > 0)


def cache(config: ml_collections.ConfigDict, dataset: input_pipeline.Dataset) -> str:
    """Where decoded examples are kept, `config.data.cache`, and if that is `auto` what it comes to here."""
    if config.data.cache != "auto":
        return config.data.cache
    # All processes have to say the same, whatever devices they have.
    memory = sharding.put_together({"": np.array([guards.device_memory()])})[""].min()
    return "device" if resident_bytes(config, dataset) < memory / 2 else "none"


def resident_bytes(config: ml_collections.ConfigDict, dataset: input_pipeline.Dataset) -> int:
    """What a device holds of the dataset if it is kept there: the splits that training reads again and again."""
    return decoded.decoded_bytes(sum(len(dataset.split(split)) for split in RESIDENT), **_size(config))


def _decoding(config, dataset, split):
    """Chunks of a split, which take a while and are said to."""
    console, count = Console(quiet=config.log.quiet), len(dataset.split(split))
    console.say(f"decoding the {count:,} pairs of {split}")
    with console.bar(total=count, unit="pair", desc=f"decoding {split}") as bar:
        for arrays in dataset.chunks(split, **_size(config), num_threads=config.data.num_threads):
            yield arrays
            bar.update(len(arrays["label"]))


def _keep(config, dataset, mesh, splits):
    """Has splits lie where the config says, but for those that do already."""
    where = cache(config, dataset)
    if where == "device":
        guards.check_device_memory(resident_bytes(config, dataset))
        for split in splits:
            spec = decoded.decoded_spec(len(dataset.split(split)), **_size(config))
            dataset.resident[split] = Resident(spec, _decoding(config, dataset, split), mesh)
    elif where == "disk":
        for split in splits:
            chunks = functools.partial(_decoding, config, dataset, split)
            dataset.keep_decoded(split, **_size(config), chunks=chunks)


def training_batches(
    config: ml_collections.ConfigDict, dataset: input_pipeline.Dataset, mesh: Mesh, start_step: int
) -> Iterator[dict[str, jax.Array]]:
    """Endless training batches on the devices of the mesh, from `start_step` on.

    Decodes what `config.data.cache` says is to be kept, which evaluation then reads too.
    """
    _keep(config, dataset, mesh, RESIDENT)
    batches = input_pipeline.training_batches(
        dataset,
        split="train",
        batch_size=config.train.batch_size,
        **_size(config),
        sampling=config.data.sampling,
        augmentation=augmentation(config),
        seed=config.seed,
        start_step=start_step,
        reading=_reading(config.data),
        pixels="train" not in dataset.resident,
    )
    return _on_devices(dataset, "train", batches, mesh)


def evaluation_batches(
    config: ml_collections.ConfigDict, dataset: input_pipeline.Dataset, mesh: Mesh, split: str
) -> Iterator[dict[str, jax.Array]]:
    """One pass over a split on the devices of the mesh, in batches rounded up to what they can share.

    Without training before it, nothing is worth keeping: a split that lies decoded nowhere is decoded on the way.
    """
    batches = input_pipeline.evaluation_batches(
        dataset,
        split=split,
        batch_size=_shareable(config.eval.batch_size, mesh),
        **_size(config),
        reading=_reading(config.data),
        pixels=split not in dataset.resident,
    )
    return _on_devices(dataset, split, batches, mesh)


def _on_devices(dataset, split, batches, mesh):
    if split in dataset.resident:
        return dataset.resident[split].batches(batches)
    return sharding.to_devices(batches, mesh)


def evaluation_steps(config: ml_collections.ConfigDict, dataset: input_pipeline.Dataset, mesh: Mesh, split: str) -> int:
    """How many batches `evaluation_batches` has."""
    return -(-len(dataset.split(split)) // _shareable(config.eval.batch_size, mesh))


def _shareable(batch_size, mesh):
    """Rounded up to what the devices can share evenly."""
    return -(-batch_size // mesh.size) * mesh.size


def chosen_batch(
    config: ml_collections.ConfigDict,
    dataset: input_pipeline.Dataset,
    mesh: Mesh,
    split: str,
    indices: Sequence[int],
) -> dict[str, jax.Array]:
    """The examples of a split at those indices, and padding, as a batch on the devices of the mesh.

    Every process reads all of them.
    """
    batch = input_pipeline.chosen_batch(
        dataset,
        indices,
        split=split,
        batch_size=_shareable(len(indices), mesh),
        **_size(config),
    )
    return sharding.from_all(batch, mesh)


def _size(config):
    return {"height": config.data.height, "width": config.data.width}


def _reading(options):
    return input_pipeline.Reading(
        options.num_threads, options.num_workers, options.prefetch, float(options.timeout_seconds)
    )


def eval_and_predict_fns(
    config: ml_collections.ConfigDict, mesh: Mesh, *, flips: bool = False, masks: bool = False
) -> tuple[Callable, Callable]:
    """Compiled `eval_step` and `predict_step`, functions of (params, batch_stats, batch), sharded like the batch.

    With `flips` both average over each frame and its mirror image; with `masks` the first returns predicted masks too.
    """
    graphdef = _evaluated_graphdef(config)
    predict_step = functools.partial(train_step.predict_step, graphdef=graphdef)
    if flips:
        predict_step = functools.partial(train_step.flip_step, predict_fn=predict_step)
    losses_fn = functools.partial(losses.example_losses, **_loss_options(config))
    eval_step = functools.partial(train_step.eval_step, predict_fn=predict_step, losses_fn=losses_fn, masks=masks)
    shardings = sharding.batch_sharding(mesh)
    return jax.jit(eval_step, out_shardings=shardings), jax.jit(predict_step, out_shardings=shardings)


def attention_fn(config: ml_collections.ConfigDict, mesh: Mesh) -> Callable:
    """Compiled `attention_maps`, a function of (params, batch_stats, batch), sharded like the batch."""
    graphdef = _evaluated_graphdef(config)

    def maps(params, batch_stats, batch):
        network = nnx.merge(graphdef, params, batch_stats)
        return attention_maps(network, batch["co2_frame"], batch["ch4_frame"], batch["modality_mask"])

    return jax.jit(maps, out_shardings=sharding.batch_sharding(mesh))


def _evaluated_graphdef(config):
    network = abstract_model(config)
    network.eval()
    graphdef, _, _ = train_step.split_model(network)
    return graphdef


def best_model(
    config: ml_collections.ConfigDict, workdir: str, mesh: Mesh, opened: Checkpoints | None = None
) -> tuple[dict, int]:
    """`params` and `batch_stats` of a run's best checkpoint, or of a folder of weights, on the mesh, and their step.

    Args:
      config: of the run.
      workdir: its folder.
      mesh: of all devices.
      opened: its checkpoints, if they are open already.

    Raises:
      UserError: if the run has no checkpoint yet, or its config is one of another version.
    """
    check(config)
    _, params, batch_stats = train_step.split_model(abstract_model(config))
    abstract = with_sharding({"params": params, "batch_stats": batch_stats}, sharding.replicated(mesh))
    if only_weights(workdir):
        return weights.load_weights(workdir, abstract)
    found = opened
    if found is None and (Path(workdir) / "checkpoints").is_dir():
        found = checkpoints(config, workdir, read_only=True)
    step = found and found.best_step
    if step is None:
        raise UserError(f"{workdir} has no checkpoint yet; train it first with python -m fume_jax.main.")
    restored = found.restore_model(abstract, step)
    if opened is None:
        found.close()
    return restored, step


def steps_per_epoch(config: ml_collections.ConfigDict, examples: int) -> int:
    """Batches that hold about as many examples as the training split."""
    return int(np.ceil(examples / config.train.batch_size))
