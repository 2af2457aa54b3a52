"""Runs a sweep: `python -m launch.sweep --sweep=launch/sweeps/ablations.py`.

The same command resumes a sweep that was stopped: it trains the runs that are not done. See launch/README.md.
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

_SWEEP = flags.DEFINE_string("sweep", None, "Python file with a function get_sweep(), such as those in launch/sweeps.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the sweep. Default: runs/ and the name of the sweep's file.")
_BACKEND = flags.DEFINE_enum("backend", "local", ["local", "slurm", "tpu", "cloud"], "Place where the runs train.")
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Check all runs and show what would be started, but start nothing.")
_STATUS = flags.DEFINE_bool("status", False, "Show the table of runs, but start nothing.")
_SMOKE = flags.DEFINE_bool("smoke", False, "Make the runs small and short, on the dataset `tiny`, in another folder.")
_SET = flags.DEFINE_multi_string("set", [], "KEY=VALUE that overrides a key of all runs, such as data.path=DIR.")
_PARALLEL = flags.DEFINE_integer("parallel", None, "Number of runs at once; default: one for each GPU.", lower_bound=1)
_GPUS = flags.DEFINE_integer(
    "gpus", None, "local: number of GPUs to use, by default all. slurm: GPUs of a node, by default 1.", lower_bound=0
)
_NODES = flags.DEFINE_integer("nodes", 1, "slurm: number of nodes of each run.", lower_bound=1)
_HOURS = flags.DEFINE_float("hours", 24.0, "slurm: hours after which a run saves and is requeued.", lower_bound=0.1)
_SLURM = flags.DEFINE_multi_string("slurm", [], "slurm: KEY=VALUE, an option of sbatch, such as partition=gpu.")
_ACCELERATOR = flags.DEFINE_string("accelerator", "tpu-v5litepod-16", "tpu, cloud: accelerator, as SkyPilot names it.")
_SPOT = flags.DEFINE_bool("spot", True, "tpu, cloud: use machines that are cheaper and may be taken away.")
_INFRA = flags.DEFINE_string("infra", None, "tpu, cloud: cloud and region, e.g. gcp/us-west4; default: the cheapest.")
_BUCKET = flags.DEFINE_string("bucket", None, "tpu, cloud: bucket gs://NAME that holds data/ and receives runs/.")
flags.mark_flag_as_required("sweep")

# Backends of each flag that not all of them have.
_BACKENDS = {
    **dict.fromkeys(("parallel", "gpus"), ("local", "slurm")),
    **dict.fromkeys(("nodes", "hours", "slurm"), ("slurm",)),
    **dict.fromkeys(("accelerator", "spot", "infra", "bucket"), ("tpu", "cloud")),
}


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
    runs = plan.expand(plan.load_sweep(_SWEEP.value), smoke=_SMOKE.value, settings=_pairs("set", _SET.value))
    workdir = Path(_WORKDIR.value or f"runs/{Path(_SWEEP.value).stem}{'_smoke' * _SMOKE.value}")

    if _STATUS.value:
        text, damaged = table.status_table(workdir, _states(workdir, runs))
        print(text)
        return PARTLY_DONE if damaged else DONE
    configs = {run.name: plan.load_config(run) for run in runs}
    backend = _create_backend(workdir)
    for name, config in configs.items():
        parts = config.train.gradient_accumulation_steps
        check_batch_size(f"run {name}: train.batch_size", config.train.batch_size, backend.devices, parts)
    if _DRY_RUN.value:
        print(backend.preview(runs))
        return DONE
    with run_lock(workdir, ".sweep.lock", "launching"), StopRequest() as stop:
        for name, config in configs.items():
            save_config(config, workdir / name)  # raises UserError if the folder holds a run of another config
        before = _states(workdir, runs)
        for name in (name for name, state in before.items() if state == status.DAMAGED):
            status.read_job(workdir / name), status.read_status(workdir / name)  # raises UserError with the path
        again = (status.STOPPED, status.FAILED)
        todo = [run for run in runs if before[run.name] in again or status.read_job(workdir / run.name) is None]
        print(f"{len(todo)} of {len(runs)} runs to do in {workdir}", flush=True)
        backend.launch(todo, [name for name, state in before.items() if state == status.RUNNING], stop)
        after = _states(workdir, runs)
    print(table.status_table(workdir, after)[0])
    return _exit_code(after.values(), stop.requested)


def _create_backend(workdir):
    """Returns the backend that the flags describe."""
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
        raise UserError(f"--backend={_BACKEND.value} needs --bucket, which holds the data and receives the runs.")
    return module.Cloud(workdir, _BUCKET.value.rstrip("/"), _ACCELERATOR.value, _INFRA.value, _SPOT.value)


def _module(backend):
    name = "cloud" if backend == "tpu" else backend
    with needs_extra("cloud" if name == "cloud" else "launch", f"--backend={backend}"):  # extras of setup.cfg
        return importlib.import_module(f"launch.{name}")


def _states(workdir, runs):
    """Returns the state of every run by its name; each backend reports those of all its jobs at once."""
    jobs, states = collections.defaultdict(list), {}
    for run in runs:
        try:
            status.read_status(workdir / run.name)
            if job := status.read_job(workdir / run.name):
                jobs[job.backend].append(job)
        except (UserError, OSError):
            states[run.name] = status.DAMAGED
    job_states = {}
    for backend, own in jobs.items():
        job_states |= _module(backend).states(own)
    return {run.name: states.get(run.name) or status.state(workdir / run.name, job_states) for run in runs}


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
