"""The training loop."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing

import jax
import ml_collections

from fume_jax import build, guards, initialisation, settings, sharding
from fume_jax.checkpoint import save_config
from fume_jax.console import Console
from fume_jax.errors import DONE, RUN_AGAIN
from fume_jax.input_pipeline import Dataset
from fume_jax.monitoring import Monitor
from fume_jax.pace import Pace
from fume_jax.reporting import Reporter
from fume_jax.stopping import Stopped, StopRequest


def train(config: ml_collections.ConfigDict, workdir: str, stop: StopRequest) -> int:
    """Trains a model, or goes on where the run in `workdir` stopped, then scores its best checkpoint.

    The run folder holds `config.json`, `checkpoints/STEP/`, `validation.json` (the scores of every evaluation),
    `events/`, and what `assessment.assess_run` writes.

    Returns:
      `DONE`, or `RUN_AGAIN` if `stop` was requested before the last step.

    Raises:
      UserError: if the config cannot be trained as it is, `workdir` holds a run of another config or one that is being
        trained, the loss is no longer finite, or memory or disk is short.
    """
    settings.check(config)
    mesh = sharding.create_mesh()
    sharding.check_same("settings", config.to_json(sort_keys=True), "All take the same command.")
    sharding.check_batch_size("config.train.batch_size", config.train.batch_size, mesh.size, config.train.accumulation)
    dataset = Dataset(config.data.path)
    with guards.run_lock(workdir), guards.out_of_memory(**build.batch_shape(config)):
        save_config(config, workdir)
        with ExitStack() as stack:
            return _train(config, workdir, stop, mesh, dataset, stack)


def _train(config, workdir, stop, mesh, dataset, stack):
    """As `train`; what `stack` holds is closed whatever ends the run, so that what was said and saved is on disk."""
    # Model and optimiser.
    steps_per_epoch = build.steps_per_epoch(config, len(dataset.split("train")))
    total_steps = config.train.epochs * steps_per_epoch
    schedule, tx = build.optimizer(config, steps_per_epoch)
    abstract_state = build.abstract_state(config, tx, mesh)
    console = Console(quiet=config.log.quiet)
    console.say(build.description(config, mesh, total_steps))
    if dataset.leak:
        console.warn(dataset.leak)
    if jax.process_index() == 0:
        disk_bytes = build.disk_bytes(config, abstract_state) - guards.folder_size(workdir)
        guards.check_free_space(workdir, disk_bytes, "Training")

    # State, and the step that changes it. It is traced while the state is made or read, and compiled, which an error
    # would have to wait for, while the input starts.
    aside = stack.enter_context(ThreadPoolExecutor(1))
    abstract_batch = sharding.abstract_batch(**build.batch_shape(config), mesh=mesh)
    lowered = aside.submit(build.train_fn(config, tx).lower, abstract_state, abstract_batch)
    eval_steps, save_steps, keep_steps = (
        epochs * steps_per_epoch
        for epochs in (config.eval.every_epochs, config.checkpoint.every_epochs, config.checkpoint.keep_every_epochs)
    )
    checkpoints = stack.enter_context(closing(build.checkpoints(config, workdir, keep_every_steps=keep_steps)))
    start_step = checkpoints.latest_step
    state, progress = _start(config, tx, checkpoints, abstract_state, mesh, console)
    compiled = aside.submit(lambda: lowered.result().compile())
    monitor = stack.enter_context(closing(Monitor(workdir, start_step=start_step, wandb=config.log.wandb)))
    step = start_step = start_step or 0
    reporter = Reporter(config, dataset, mesh, schedule, console, monitor, start_step, steps_per_epoch)
    stack.enter_context(closing(reporter))
    batches = stack.enter_context(closing(build.training_batches(config, dataset, mesh, start_step)))
    train_fn = compiled.result()
    _check_memory(config, dataset, train_fn, console)

    # Loop.
    pace = Pace(batches, config.train.batch_size)
    while True:
        stopping = stop.agreed()
        evaluating = step > 0 and (step == total_steps or step % eval_steps == 0)
        # What is told of a step comes after its checkpoint, so that a run that goes on from there tells it again.
        saving = evaluating or stopping or step % save_steps == 0 or (keep_steps and step % keep_steps == 0)
        if saving and step > start_step:
            so_far = progress.state() | {"devices": mesh.size}
            monitor.flush()
            checkpoints.save(state, so_far)
        if step > 0 and not stopping and (evaluating or step % config.log.every_steps == 0):
            reporter.log(step, progress, pace)
        if evaluating and not stopping:
            try:
                scores = reporter.validate(step, state, stop)
            except Stopped:
                stopping = True
            else:
                checkpoints.record(step, scores)
                progress.early_stopping.update(scores)
            pace.restart()
        if stopping:
            reporter.close()
            console.tell(f"stopped after step {step} of {total_steps}; the same command goes on from there")
            return RUN_AGAIN
        if step == total_steps or progress.early_stopping.due:
            break
        batch = pace.next_batch()
        state, metrics = train_fn(state, batch)
        step += 1
        progress.add(step, metrics, batch)
        reporter.step_done(step)

    reporter.close()
    from fume_jax import assessment  # charts and distances between outlines: nothing that training waits for

    try:
        scores = assessment.assess_run(config, workdir, checkpoints=checkpoints, stop=stop)
    except Stopped:
        console.tell("stopped while scoring; the same command scores the run")
        return RUN_AGAIN
    monitor.scalars(step, "test", {name: scores["test"][name] for name in settings.headlines(config)})
    return DONE


def _start(config, tx, checkpoints, abstract_state, mesh, console):
    """State and progress where the last checkpoint stopped, or of the best one of another run, or of nothing."""
    progress = build.progress(config)
    if checkpoints.latest_step is not None:
        console.say(f"going on after step {checkpoints.latest_step}")
        state, saved = checkpoints.restore(abstract_state, checkpoints.latest_step)
        progress.restore(saved)
        if saved["devices"] != mesh.size:
            console.warn(f"so far on {saved['devices']} device(s), now on {mesh.size}: numbers may differ by rounding")
        return state, progress
    state = build.create_state_fn(config, tx, mesh)()
    if config.init_from is not None:
        state, what = initialisation.from_run(config.init_from, state, mesh)
        console.say(what)
        # The other run may have a better checkpoint by the time this one is started again.
        checkpoints.save(state, progress.state() | {"devices": mesh.size})
    return state, progress


def _check_memory(config, dataset, train_fn, console):
    """Raises UserError unless this machine has the memory for the compiled step."""
    host_bytes = build.host_bytes(config, dataset, train_fn)
    console.say(f"compiled; expects to take about {host_bytes / 1e6:,.0f} MB more of this machine's memory")
    guards.check_host_memory(host_bytes, **build.batch_shape(config))
