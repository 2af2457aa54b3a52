"""Runs a sweep: `python -m launch.sweep --sweep=launch/sweeps/ablations.py`.

The same command resumes a sweep that was stopped: it trains the runs that are not done. See launch/README.md.
"""

from pathlib import Path

from absl import flags

from fume_jax.runtime import cli
from launch import engines

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

    from launch import plan, trainings

    # This process only reads configs and leaves the accelerators to the runs.
    jax.config.update("jax_platforms", "cpu")
    runs = plan.expand(plan.load_sweep(_SWEEP.value), smoke=_SMOKE.value, settings=engines.pairs("set", _SET.value))
    workdir = Path(_WORKDIR.value or f"runs/{Path(_SWEEP.value).stem}{'_smoke' * _SMOKE.value}")
    if engines.STATUS.value:
        return trainings.show(workdir, runs)
    return trainings.start(workdir, runs, {run.name: plan.load_config(run) for run in runs})


if __name__ == "__main__":
    cli.run(main)
