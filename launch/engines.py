"""Defines the flags of the commands that launch others, and runs commands on the engine that the flags describe."""

import ast
import collections
import importlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from absl import flags

from fume_jax.runtime.errors import UserError, needs_extra
from fume_jax.runtime.preemption import StopRequest
from launch import status
from launch.command import Command

BACKEND = flags.DEFINE_enum("backend", "local", ["local", "slurm", "tpu", "cloud"], "Place where the commands run.")
DRY_RUN = flags.DEFINE_bool("dry_run", False, "Check everything and show what would be started, but start nothing.")
STATUS = flags.DEFINE_bool("status", False, "Show the table of what is done, but start nothing.")
_PARALLEL = flags.DEFINE_integer("parallel", None, "Number of commands at once; default: one a GPU.", lower_bound=1)
GPUS = flags.DEFINE_integer(
    "gpus", None, "local: number of GPUs to use, by default all. slurm: GPUs of a node, by default 1.", lower_bound=0
)
NODES = flags.DEFINE_integer("nodes", 1, "slurm: number of nodes of each command.", lower_bound=1)
_HOURS = flags.DEFINE_float("hours", 24.0, "slurm: hours after which a command saves and is requeued.", lower_bound=0.1)
_SLURM = flags.DEFINE_multi_string("slurm", [], "slurm: KEY=VALUE, an option of sbatch, such as partition=gpu.")
ACCELERATOR = flags.DEFINE_string("accelerator", "tpu-v5litepod-16", "tpu, cloud: accelerator, as SkyPilot names it.")
_SPOT = flags.DEFINE_bool("spot", True, "tpu, cloud: use machines that are cheaper and may be taken away.")
_INFRA = flags.DEFINE_string("infra", None, "tpu, cloud: cloud and region, e.g. gcp/us-west4; default: the cheapest.")
BUCKET = flags.DEFINE_string(
    "bucket", None, "tpu, cloud: bucket gs://NAME that stands in for folders of the checkout, such as data and runs."
)

# Backends whose machines have no disk in common with this one.
CLOUDS = ("tpu", "cloud")

# Backends of each flag that not all of them have.
_BACKENDS = {
    **dict.fromkeys(("parallel", "gpus"), ("local", "slurm")),
    **dict.fromkeys(("nodes", "hours", "slurm"), ("slurm",)),
    **dict.fromkeys(("accelerator", "spot", "infra", "bucket"), CLOUDS),
}


def create_backend(workdir: Path, name: str | None = None):
    """Returns the backend that the flags describe.

    `workdir` holds the folders of the commands; `name` is that of their jobs on a cluster, by default the folder's.
    """
    backend = BACKEND.value
    for flag, backends in _BACKENDS.items():
        if flags.FLAGS[flag].present and backend not in backends:
            raise UserError(f"--{flag} is for --backend={' or '.join(backends)}, not {backend}.")
    module = _module(backend)
    if backend == "local":
        return module.Local(workdir, module.divide_gpus(module.visible_gpus(GPUS.value), _PARALLEL.value))
    if backend == "slurm":
        gpus, minutes = 1 if GPUS.value is None else GPUS.value, round(60 * _HOURS.value)
        options = {key: _literal(value) for key, value in pairs("slurm", _SLURM.value).items()}
        options = ({"job_name": name} if name else {}) | options
        return module.Slurm(workdir, NODES.value, gpus, minutes, _PARALLEL.value, options)
    if not BUCKET.value:
        raise UserError(f"--backend={backend} needs --bucket, which holds the data and receives the results.")
    bucket = BUCKET.value.rstrip("/")
    return module.Cloud(workdir, name or workdir.name, bucket, ACCELERATOR.value, _INFRA.value, _SPOT.value)


def launch(backend, commands: Sequence[Command], stop: StopRequest, noun: str) -> dict[str, str]:
    """Runs the commands that are neither done nor on their way, and returns the states of all by their names.

    `noun` is what the commands are called in print. Raises UserError if the state of one cannot be read.
    """
    workdir, names = backend.workdir, [command.name for command in commands]
    before = find_states(workdir, names)
    for name in (name for name, state in before.items() if state == status.DAMAGED):
        status.read_job(workdir / name), status.read_status(workdir / name)  # raises UserError with the path
    due = {name for name in names if before[name] in status.RESUMED or status.read_job(workdir / name) is None}
    todo = [command for command in commands if command.name in due]
    print(f"{len(todo)} of {len(commands)} {noun} to do in {workdir}", flush=True)
    backend.launch(todo, [name for name, state in before.items() if state == status.RUNNING], stop)
    return find_states(workdir, names)


def find_states(workdir: Path, names: Iterable[str]) -> dict[str, str]:
    """Returns the state of every command by its name; each backend reports those of all its jobs at once."""
    jobs, states = collections.defaultdict(list), dict.fromkeys(names)
    for name in states:
        try:
            status.read_status(workdir / name)
            if job := status.read_job(workdir / name):
                jobs[job.backend].append(job)
        except (UserError, OSError):
            states[name] = status.DAMAGED
    job_states = {}
    for backend, own in jobs.items():
        job_states |= _module(backend).states(own)
    return {name: state or status.state(workdir / name, job_states) for name, state in states.items()}


def pairs(flag: str, words: Sequence[str]) -> dict[str, str]:
    """Returns words KEY=VALUE of a flag as a dict; raises UserError if one has another form."""
    if not all("=" in word for word in words):
        raise UserError(f"--{flag} is {' '.join(words)}; expected KEY=VALUE.")
    return dict(word.split("=", 1) for word in words)


def _module(backend):
    name = "cloud" if backend in CLOUDS else backend
    with needs_extra("cloud" if name == "cloud" else "launch", f"--backend={backend}"):  # extras of setup.cfg
        return importlib.import_module(f"launch.{name}")


def _literal(text):
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return text
