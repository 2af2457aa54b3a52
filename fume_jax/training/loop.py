"""Runs the training loop."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing

import jax
import ml_collections

from fume_jax.config import (
    create_optimizer,
    data_options,
    eval_batch_shape,
    headline_metrics,
    open_dataset,
    train_batch_shape,
    validate_config,
)
from fume_jax.data.loader import Loader
from fume_jax.runtime import preflight
from fume_jax.runtime.byproducts import ByProducts
from fume_jax.runtime.console import Console
from fume_jax.runtime.errors import DONE, PARTLY_DONE, RUN_AGAIN, UserError
from fume_jax.runtime.mesh import abstract_batch, assert_equal, check_batch_size, create_mesh
from fume_jax.runtime.preemption import Stopped, StopRequest
from fume_jax.training import setup
from fume_jax.training.checkpoint import load_config, save_config, save_dataset
from fume_jax.training.finetune import init_from_run
from fume_jax.training.logger import Logger, Throughput
from fume_jax.training.loop_state import LoopState
from fume_jax.training.tensorboard import EventLog


def train(config: ml_collections.ConfigDict, workdir: str, stop: StopRequest) -> int:
    """Trains a model, or resumes the run in `workdir`, then scores its best checkpoint.

    The run folder holds `config.json`, `dataset.json`, `checkpoints/STEP/`, `validation.json` (the scores of every
    evaluation), `events/`, and the files of `evaluation.report.write_report`. Returns `DONE`, `PARTLY_DONE` if a
    picture or a table of examples could not be made, or `RUN_AGAIN` if `stop` was requested before the end.

    Raises:
      UserError: if the config is invalid, `workdir` holds a run of another config or one that another process trains,
        the loss is no longer finite, or memory or disk is too small.
    """
    validate_config(config)
    mesh = create_mesh()
    assert_equal("settings", config.to_json(sort_keys=True), "All take the same command.")
    accumulation_steps = config.train.gradient_accumulation_steps
    check_batch_size("config.train.batch_size", config.train.batch_size, mesh.size, accumulation_steps)
    dataset = open_dataset(config)
    for shape in (train_batch_shape(config), eval_batch_shape(config)):
        preflight.check_batch_memory(**shape)
    with preflight.run_lock(workdir), preflight.out_of_memory(**train_batch_shape(config)):
        save_config(config, workdir)
        save_dataset(dataset, workdir)
        with ExitStack() as stack:
            return _train(config, workdir, stop, mesh, dataset, stack)


def _train(config, workdir, stop, mesh, dataset, stack):
    """Trains as `train` does; `stack` closes all files however the run ends, so that every log is on disk."""
    # Model and optimiser.
    epoch_steps, total_steps = _count_steps(config, dataset)
    schedule, tx = create_optimizer(config, epoch_steps)
    abstract_state = setup.abstract_state(config, tx, mesh)
    console = Console(quiet=config.log.quiet)
    console.info(setup.describe_run(config, mesh, total_steps))
    if dataset.leak:
        console.warn(dataset.leak)
    if jax.process_index() == 0:
        disk_bytes = setup.estimate_disk_bytes(config, abstract_state) - preflight.folder_size(workdir)
        preflight.check_free_space(workdir, disk_bytes, "Training")

    # State and training step. The step is traced while the state is created or restored. It is compiled only while the
    # input starts, since an error before that would wait for the compilation.
    executor = stack.enter_context(ThreadPoolExecutor(1))
    batch_spec = abstract_batch(**train_batch_shape(config), mesh=mesh)
    lowered = executor.submit(
        setup.create_train_fn(config, tx).lower, setup.flat_state(abstract_state, mesh), batch_spec
    )
    eval_steps = config.eval.every_epochs * epoch_steps
    save_steps = config.checkpoint.every_epochs * epoch_steps
    keep_steps = config.checkpoint.keep_every_epochs * epoch_steps
    checkpoints = stack.enter_context(closing(setup.open_checkpoints(config, workdir, keep_every_steps=keep_steps)))
    start_step = checkpoints.latest_step
    state, loop_state = _start(config, tx, checkpoints, abstract_state, mesh, console)
    state = setup.flat_state(state, mesh)
    compiled = executor.submit(lambda: lowered.result().compile())
    log_options = {"start_step": start_step, "wandb": config.log.wandb, "warn": console.warn}
    events = stack.enter_context(closing(EventLog(workdir, **log_options)))
    step = start_step = start_step or 0
    loader = Loader(dataset, data_options(config), mesh, console)
    logger = Logger(config, loader, mesh, schedule, console, events, start_step, epoch_steps)
    stack.enter_context(closing(logger))
    batches = stack.enter_context(closing(loader.train(start_step)))
    train_fn = compiled.result()
    host_bytes = setup.estimate_host_bytes(config, loader, train_fn)
    console.info(f"compiled; will take about {host_bytes / 1e6:,.0f} MB more of this machine's memory")
    preflight.warn_of_host_memory(host_bytes, console)

    # Loop.
    throughput = Throughput(batches, config.train.batch_size)
    while True:
        stopping = stop.agreed()
        # A run of an earlier version may be further than its dataset, prepared anew, now asks for.
        ended = step >= total_steps
        # What a run starts from is scored too, so that its best checkpoint is never worse on the validation split.
        started = step == 0 and config.init_from is not None and not checkpoints.has_scores(0)
        evaluating = started or (step > 0 and (ended or step % eval_steps == 0))
        # A step is logged after its checkpoint, so that a run that resumes there logs it again.
        saving = evaluating or stopping or step % save_steps == 0 or (keep_steps and step % keep_steps == 0)
        by_name = setup.named_state(state, mesh) if saving else None
        if saving and step > start_step:
            saved_loop = loop_state.to_json() | {"devices": mesh.size}
            events.flush()
            checkpoints.save(by_name, saved_loop)
        if step > 0 and not stopping and (evaluating or step % config.log.every_steps == 0):
            logger.log(step, loop_state, throughput)
        if evaluating and not stopping:
            try:
                scores = logger.validate(step, by_name, stop)
            except Stopped:
                stopping = True
            else:
                checkpoints.record(step, scores)
                loop_state.early_stopping.update(scores)
            throughput.restart()
        if stopping:
            logger.close()
            console.print(f"stopped after step {step} of {total_steps}; the same command resumes the run")
            return RUN_AGAIN
        if ended or loop_state.early_stopping.due:
            break
        batch = throughput.next_batch()
        state, metrics = train_fn(state, batch)
        step += 1
        loop_state.add(step, metrics, batch)
        logger.step_done(step)

    logger.close()
    events.flush()
    return _score(config, workdir, checkpoints, stop, console, events, step)


def _count_steps(config, dataset):
    """Returns the steps of an epoch and of the run; UserError if they are too many."""
    epoch_steps = -(-len(dataset.split("train")) // config.train.batch_size)
    total_steps = config.train.epochs * epoch_steps
    if total_steps >= 2**31:  # steps are counted as int32
        raise UserError(
            f"config.train.epochs is {config.train.epochs}, {total_steps:,} steps; expected less than 2**31."
        )
    return epoch_steps, total_steps


def _score(config, workdir, checkpoints, stop, console, events, step):
    """Scores the best checkpoint, and logs the scores at the last step; returns the exit code."""
    from fume_jax.training.scoring import score_run  # slow to import, which the first step need not wait for

    by_products = ByProducts(console.print)
    try:
        scores = score_run(config, workdir, checkpoints=checkpoints, stop=stop, by_products=by_products)
    except Stopped:
        console.print("stopped while scoring; the same command scores the run")
        return RUN_AGAIN
    events.scalars(step, "test", {name: scores["test"][name] for name in headline_metrics(config)})
    return PARTLY_DONE if by_products.failures else DONE


def _start(config, tx, checkpoints, abstract_state, mesh, console):
    """Returns state and loop state: of the latest checkpoint, from the best one of another run, or fresh."""
    loop_state = LoopState.create(config)
    if checkpoints.latest_step is not None:
        console.info(f"resuming after step {checkpoints.latest_step}")
        state, saved = checkpoints.restore(abstract_state, checkpoints.latest_step)
        loop_state.restore(saved)
        if saved["devices"] != mesh.size:
            console.warn(f"so far on {saved['devices']} device(s), now on {mesh.size}: numbers may differ by rounding")
        return state, loop_state
    state = setup.create_state_fn(config, tx, mesh)()
    if config.init_from is not None:
        state, summary = init_from_run(config.init_from, state, mesh)
        console.info(summary)
        before, now = (x.model.gas_margin for x in (load_config(config.init_from), config))
        if before != now:
            console.warn(
                f"config.model.gas_margin is {now:g}, and {before:g} in {config.init_from}: the less, the more gas is "
                f"found, also where there is none. --config.model.gas_margin={before:g} keeps it."
            )
        # Saved, since the other run may have another best checkpoint when this one resumes.
        checkpoints.save(state, loop_state.to_json() | {"devices": mesh.size})
    return state, loop_state
