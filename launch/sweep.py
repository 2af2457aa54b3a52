"""Runs a sweep: `python -m launch.sweep --sweep=launch/sweeps/ablations.py`.

The same command resumes a sweep that was stopped: it trains the runs that are not done. See launch/README.md.
"""

from pathlib import Path

from absl import flags

from fume_jax.runtime import cli
from fume_jax.runtime.errors import DONE, NOTHING_DONE, PARTLY_DONE, RUN_AGAIN
from fume_jax.runtime.preemption import StopRequest
from launch import engines, status, table

_SWEEP = flags.DEFINE_string("sweep", None, "Python file with a function get_sweep(), such as those in launch/sweeps.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the sweep. Default: runs/ and the name of the sweep's file.")
_SMOKE = flags.DEFINE_bool("smoke", False, "Make the runs small and short, on the dataset `tiny`, in another folder.")
_SET = flags.DEFINE_multi_string("set", [], "KEY=VALUE that overrides a key of all runs, such as data.path=DIR.")
flags.mark_flag_as_required("sweep")
flags.adopt_module_key_flags(engines)


def main() -> int:
    """Launches a sweep, or shows it; returns the exit code."""
    # Imported after the flags are parsed, so that --help and a mistake in a flag answer at once.
    import jax

    from fume_jax.runtime.mesh import check_batch_size
    from fume_jax.runtime.preflight import run_lock
    from fume_jax.training.checkpoint import save_config
    from launch import plan

    # This process only reads configs and leaves the accelerators to the runs.
    jax.config.update("jax_platforms", "cpu")
    runs = plan.expand(plan.load_sweep(_SWEEP.value), smoke=_SMOKE.value, settings=engines.pairs("set", _SET.value))
    workdir = Path(_WORKDIR.value or f"runs/{Path(_SWEEP.value).stem}{'_smoke' * _SMOKE.value}")

    if engines.STATUS.value:
        text, damaged = table.status_table(workdir, engines.find_states(workdir, [run.name for run in runs]))
        print(text)
        return PARTLY_DONE if damaged else DONE
    configs = {run.name: plan.load_config(run) for run in runs}
    backend = engines.create_backend(workdir)
    for name, config in configs.items():
        parts = config.train.gradient_accumulation_steps
        check_batch_size(f"run {name}: train.batch_size", config.train.batch_size, backend.devices, parts)
    if engines.DRY_RUN.value:
        print(backend.preview(runs))
        return DONE
    with run_lock(workdir, ".sweep.lock", "launching"), StopRequest() as stop:
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


if __name__ == "__main__":
    cli.run(main)
