"""Sweeps: runs of `python -m fume_jax.main` that differ in some keys of their configs."""

import dataclasses
import itertools
import re
import runpy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_collections
from absl import flags
from ml_collections import config_flags

from fume_jax.config import validate_config, with_local_paths
from fume_jax.runtime import cli
from fume_jax.runtime.errors import UserError, python_file
from launch.command import Needs

# Overrides that make a run take minutes on a laptop. The keys that a sweep varies override them.
SMOKE = {
    "data.path": "data/synthetic_ogi/tiny/3.0.0",
    "data.height": 64,
    "data.width": 80,
    "data.num_threads": 1,
    "train.batch_size": 4,
    "train.epochs": 2,
    "eval.batch_size": 12,
    "eval.every_epochs": 1,
    "optimizer.warmup_epochs": 0.0,
    "log.every_steps": 3,
}
# SkyPilot's rule for names, which is stricter than those of file systems and Slurm.
_NAME = re.compile(r"[A-Za-z0-9]+(?:[._-]{1,2}[A-Za-z0-9]+)*")


@dataclasses.dataclass(frozen=True)
class Sweep:
    """Description of a sweep: each entry, with each combination of the grid, with each seed, is one run."""

    config: str = "fume"  # name or path of the config of the runs
    # Overrides by name of the entry, which begins the names of its runs, as in {"fusion_add": {"model.fusion": "add"}}.
    # The key "config" names another config.
    entries: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=lambda: {"": {}})
    # Values of keys that are combined, as in {"optimizer.learning_rate": [1e-3, 3e-3]}.
    grid: Mapping[str, Sequence[Any]] = dataclasses.field(default_factory=dict)
    seeds: Sequence[int] = (0,)
    # Words for keys of the grid in the names of runs; the default is the last part of the key.
    names: Mapping[str, str] = dataclasses.field(default_factory=dict)
    # Overrides of all runs, as in {"train.epochs": 6}; those of an entry and of the grid come after them.
    shared: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        expected = [("config", self.config, str), ("shared", self.shared, Mapping)]
        expected += [("seeds", self.seeds, Sequence), ("names", self.names, Mapping)]
        for name, values, kind in (("entries", self.entries, Mapping), ("grid", self.grid, Sequence)):
            expected.append((name, values, Mapping))
            if isinstance(values, Mapping):
                expected += [(f"{name}[{key!r}]", value, kind) for key, value in values.items()]
        for name, value, kind in expected:
            if not isinstance(value, kind) or (kind is Sequence and isinstance(value, str)):
                raise TypeError(f"{name} is {value!r}; expected a {kind.__name__.lower()}")


@dataclasses.dataclass(frozen=True)
class Run:
    """One training: its name, which is that of its folder, its config and the overrides of keys."""

    name: str
    config: str
    overrides: Mapping[str, Any]

    @property
    def config_arguments(self) -> list[str]:
        """Arguments of `python -m fume_jax.main` that describe the config."""
        return [f"--config={self.config}", *(f"--config.{key}={value}" for key, value in self.overrides.items())]

    @property
    def needs(self) -> Needs:
        """The dataset, which is read at random, the folder of all runs, where it resumes, and the table of folds."""
        files = [self.overrides["data.folds"]] if self.overrides.get("data.folds") else []
        return Needs(copied=("data",), mounted=("runs",), files=files)

    def arguments(self, workdir: str | Path, platform: str | None, *, alone: bool = False) -> list[str]:
        """Returns the arguments of `python` that train the run, which fails if a given `platform` has no device.

        See `launch.command.Command`, which a run is.
        """
        further = [f"--platform={platform}"] * bool(platform) + ["--num_processes=1"] * alone
        return ["-m", "fume_jax.main", *self.config_arguments, f"--workdir={workdir}", *further]


def load_sweep(path: str | Path) -> Sweep:
    """Returns the sweep that `get_sweep()` of a Python file returns; raises UserError if there is none."""
    with python_file(path):
        found = runpy.run_path(str(path))
        sweep = found["get_sweep"]() if "get_sweep" in found else None
    if not isinstance(sweep, Sweep):
        raise UserError(f"{path} is no sweep; expected a function get_sweep() that returns a launch.plan.Sweep.")
    return sweep


def expand(sweep: Sweep, *, smoke: bool = False, settings: Mapping[str, Any] | None = None) -> list[Run]:
    """Returns the runs of a sweep. `smoke` makes them small and short; `settings` override every key of every run.

    Raises UserError if a name cannot be that of a folder, or two runs have the same name.
    """
    runs = []
    combinations = [dict(zip(sweep.grid, values, strict=True)) for values in itertools.product(*sweep.grid.values())]
    for (entry, own), combination, seed in itertools.product(sweep.entries.items(), combinations, sweep.seeds):
        overrides = {**sweep.shared, **(SMOKE if smoke else {}), **own, **combination, "seed": seed, **(settings or {})}
        config = overrides.pop("config", sweep.config)
        varied = [f"{sweep.names.get(key, key.split('.')[-1])}_{_text(value)}" for key, value in combination.items()]
        runs.append(Run("-".join([entry] * bool(entry) + varied + [f"seed_{seed}"]), config, overrides))
    names = [run.name for run in runs]
    for name in names:
        if not _NAME.fullmatch(name):
            raise UserError(f"{name!r} cannot name a run; expected letters and digits, joined by one of . _ -")
        if names.count(name) > 1:
            raise UserError(f"Two runs of the sweep are called {name}; name its entries so that they differ.")
    return runs


def _text(value):
    return f"{value:g}" if isinstance(value, float) else re.sub(r"[^A-Za-z0-9.]+", "_", str(value)).strip("_")


def load_config(run: Run) -> ml_collections.ConfigDict:
    """Returns the config that a run trains with; raises UserError, naming the run, if a key or a value is wrong."""
    # The command parses the same arguments in the same way.
    values = flags.FlagValues()
    try:
        arguments = ["", *cli.canonical_arguments(run.config_arguments)]
        holder = config_flags.DEFINE_config_file("config", flag_values=values, lock_config=True, sys_argv=arguments)
        cli.parse(values, arguments)
        config = with_local_paths(holder.value)
        validate_config(config)
    except cli.FLAG_ERRORS as error:
        raise UserError(f"run {run.name}: {cli.message(error)}") from error
    return config
