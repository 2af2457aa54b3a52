"""Runs a sweep: `python -m launch.sweep --sweep=launch/sweeps/ablations.py`.

The same command goes on with a sweep that was stopped: it runs what is not done. See launch/README.md.
"""

import ast
import collections
import importlib
from pathlib import Path

from absl import flags

from fume_jax.runtime import cli
from fume_jax.runtime.errors import DONE, NOTHING_DONE, PARTLY_DONE, RUN_AGAIN, UserError, needs_extra
from fume_jax.runtime.preemption import StopRequest
from launch import status, table

_SWEEP = flags.DEFINE_string("sweep", None, "Python file with get_sweep(), such as those of launch/sweeps.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the sweep; default runs/ and the name of the file.")
_BACKEND = flags.DEFINE_enum("backend", "local", ["local", "slurm", "tpu", "cloud"], "Where to run.")
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Only check everything and show what would run.")
_STATUS = flags.DEFINE_bool("status", False, "Only show how the runs go.")
_SMOKE = flags.DEFINE_bool("smoke", False, "Small and short runs, on the dataset `tiny`, in a folder of their own.")
_SET = flags.DEFINE_multi_string("set", [], "KEY=VALUE for all runs, as in data.path=DIR; can be repeated.")
_PARALLEL = flags.DEFINE_integer("parallel", None, "Runs at once; default one for each GPU.", lower_bound=1)
_GPUS = flags.DEFINE_integer(
    "gpus", None, "local: GPUs to divide, default all; slurm: GPUs of a node, default 1.", lower_bound=0
)
_NODES = flags.DEFINE_integer("nodes", 1, "slurm: nodes of a run.", lower_bound=1)
_HOURS = flags.DEFINE_float(
    "hours", 24.0, "slurm: after which a run saves and goes back into the queue.", lower_bound=0.1
)
_SLURM = flags.DEFINE_multi_string("slurm", [], "KEY=VALUE, more options of sbatch, as in partition=gpu.")
_ACCELERATOR = flags.DEFINE_string("accelerator", "tpu-v5litepod-16", "tpu, cloud: SkyPilot's name, or H100:8.")
_SPOT = flags.DEFINE_bool("spot", True, "tpu, cloud: machines that are cheaper and may be taken away.")
_INFRA = flags.DEFINE_string("infra", None, "tpu, cloud: where, as in gcp/us-west4; default where it is cheapest.")
_BUCKET = flags.DEFINE_string("bucket", None, "tpu, cloud: gs://NAME, which has data/ and receives runs/.")
flags.mark_flag_as_required("sweep")

# The file of each backend, and the extra of setup.cfg that it needs.
_ENGINES = {
    "local": ("local", "launch"),
    "slurm": ("slurm", "launch"),
    "tpu": ("cloud", "cloud"),
    "cloud": ("cloud", "cloud"),
}
# Flags that not every backend has.
_BACKENDS = {
    "parallel": ("local", "slurm"),
    "gpus": ("local", "slurm"),
    **dict.fromkeys(("nodes", "hours", "slurm"), ("slurm",)),
    **dict.fromkeys(("accelerator", "spot", "infra", "bucket"), ("tpu", "cloud")),
}


def main() -> int:
    """Launches a sweep, or shows it; returns the exit code."""
    # After the flags are parsed, so that --help and a mistake in a flag answer at once.
    import jax

    from fume_jax.runtime.mesh import check_batch_size
    from fume_jax.runtime.preflight import run_lock
    from fume_jax.training.checkpoint import save_config
    from launch import plan

    # This process only reads configs: accelerators are for the runs.
    jax.config.update("jax_platforms", "cpu")
    runs = plan.expand(plan.load_sweep(_SWEEP.value), smoke=_SMOKE.value, settings=_pairs("set", _SET.value))
    workdir = Path(_WORKDIR.value or f"runs/{Path(_SWEEP.value).stem}{'_smoke' * _SMOKE.value}")

    def states():
        return _states(workdir, [run.name for run in runs])

    if _STATUS.value:
        print(table.status_table(workdir, states()))
        return DONE
    configs = {run.name: plan.load_config(run) for run in runs}
    engine = _engine(workdir)
    for name, config in configs.items():
        parts = config.train.gradient_accumulation_steps
        check_batch_size(f"run {name}: train.batch_size", config.train.batch_size, engine.devices, parts)
    if _DRY_RUN.value:
        print(engine.preview(runs))
        return DONE
    with run_lock(workdir, ".sweep.lock", "launching"), StopRequest() as stop:
        for name, config in configs.items():
            save_config(config, workdir / name)  # refuses a folder that holds a run of another config
        before = states()
        again = (status.STOPPED, status.FAILED)
        todo = [run for run in runs if before[run.name] in again or status.read_job(workdir / run.name) is None]
        print(f"{len(todo)} of {len(runs)} runs to do in {workdir}", flush=True)
        engine.launch(todo, [name for name, state in before.items() if state == status.RUNNING], stop)
        after = states()
    print(table.status_table(workdir, after))
    return _exit_code(after.values(), stop.requested)


def _engine(workdir):
    """The backend as the flags describe it."""
    for name, backends in _BACKENDS.items():
        if flags.FLAGS[name].present and _BACKEND.value not in backends:
            raise UserError(f"--{name} is for --backend={' or '.join(backends)}, not {_BACKEND.value}.")
    module = _module(_BACKEND.value)
    if _BACKEND.value == "local":
        return module.Local(workdir, module.divide_gpus(module.visible_gpus(_GPUS.value), _PARALLEL.value))
    if _BACKEND.value == "slurm":
        gpus, minutes = 1 if _GPUS.value is None else _GPUS.value, round(60 * _HOURS.value)
        options = {key: _literal(value) for key, value in _pairs("slurm", _SLURM.value).items()}
        return module.Slurm(workdir, _NODES.value, gpus, minutes, _PARALLEL.value, options)
    if not _BUCKET.value:
        raise UserError(f"--backend={_BACKEND.value} needs --bucket, where machines find data and leave runs.")
    return module.Cloud(workdir, _BUCKET.value.rstrip("/"), _ACCELERATOR.value, _INFRA.value, _SPOT.value)


def _module(backend):
    name, extra = _ENGINES[backend]
    with needs_extra(extra, f"--backend={backend}"):
        return importlib.import_module(f"launch.{name}")


def _states(workdir, names):
    """The state of every run by its name; every engine that was given some of them is asked once."""
    jobs = collections.defaultdict(list)
    for name in names:
        job = status.read_job(workdir / name)
        if job is not None:
            jobs[job.backend].append(job)
    said = {}
    for backend, those in jobs.items():
        said |= _module(backend).states(those)
    return {name: status.state(workdir / name, said) for name in names}


def _pairs(flag, words):
    if not all("=" in word for word in words):
        raise UserError(f"--{flag} is {' '.join(words)}; expected KEY=VALUE.")
    return dict(word.split("=", 1) for word in words)


def _literal(text):
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return text


def _exit_code(states, stopped):
    states = set(states)
    if status.FAILED in states and not stopped:
        return PARTLY_DONE if states - {status.FAILED} else NOTHING_DONE
    return RUN_AGAIN if stopped or status.STOPPED in states else DONE


if __name__ == "__main__":
    cli.run(main)
