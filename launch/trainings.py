"""Starts the trainings of a sweep on the engine that the flags describe."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import ml_collections

from fume_jax.runtime.errors import DONE, NOTHING_DONE, PARTLY_DONE, RUN_AGAIN
from fume_jax.runtime.mesh import check_batch_size
from fume_jax.runtime.preemption import StopRequest
from fume_jax.runtime.preflight import run_lock
from fume_jax.training.checkpoint import save_config
from launch import engines, status, table
from launch.plan import Run


def show(workdir: Path, runs: Sequence[Run]) -> int:
    """Prints the table of runs; returns the exit code."""
    text, damaged = table.status_table(workdir, engines.find_states(workdir, [run.name for run in runs]))
    print(text)
    return PARTLY_DONE if damaged else DONE


def start(
    workdir: Path,
    runs: Sequence[Run],
    configs: Mapping[str, ml_collections.ConfigDict],
    *,
    prepare: Callable[[], None] = lambda: None,
) -> int:
    """Trains the runs that are not done, and prints the table of all; or shows what would be done with `--dry_run`.

    `configs` are those of the runs by their names. `prepare` is called before anything is written to the folder.
    Returns the exit code. Raises UserError if a batch cannot be shared by the devices, another process trains there, or
    the folder of a run holds one of another config.
    """
    backend = engines.create_backend(workdir)
    for name, config in configs.items():
        parts = config.train.gradient_accumulation_steps
        check_batch_size(f"run {name}: train.batch_size", config.train.batch_size, backend.devices, parts)
    if engines.DRY_RUN.value:
        print(backend.preview(runs))
        return DONE
    with run_lock(workdir, ".sweep.lock", "launching"), StopRequest() as stop:
        prepare()
        for name, config in configs.items():
            save_config(config, workdir / name)  # raises UserError if the folder holds a run of another config
        states = engines.launch(backend, runs, stop, "runs")
    print(table.status_table(workdir, states)[0])
    return _exit_code(states.values(), stop.requested)


def _exit_code(states, stopped):
    states = set(states)
    if status.FAILED in states and not stopped:
        return PARTLY_DONE if states - {status.FAILED} else NOTHING_DONE
    return RUN_AGAIN if stopped or status.STOPPED in states else DONE
