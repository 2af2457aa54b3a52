"""What a sweep is: runs of `python -m fume_jax.main` that differ in some keys of their configs."""

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

from fume_jax.config import validate_config
from fume_jax.runtime import cli
from fume_jax.runtime.errors import UserError

# What makes a run one of minutes on a laptop. What a sweep varies comes after it.
SMOKE = {
    "data.path": "data/synthetic_ogi/tiny/2.0.0",
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
# SkyPilot's rule, the strictest of those of file systems, Slurm and SkyPilot.
_NAME = re.compile(r"[A-Za-z0-9]+(?:[._-]{1,2}[A-Za-z0-9]+)*")


@dataclasses.dataclass(frozen=True)
class Sweep:
    """Every entry, with every combination of the grid, with every seed, is one run.

    Attributes:
      config: config of the runs, by name or path.
      entries: overrides of keys by name of the entry, as in `{"fusion_add": {"model.fusion": "add"}}`; among them
        `config` names another config. Such names begin the names of runs.
      grid: values to combine by key, as in `{"optimizer.learning_rate": [1e-3, 3e-3]}`.
      seeds: values of the key `seed`.
      names: what keys of the grid are called in the names of runs; by default the last part of the key.
    """

    config: str = "fume"
    entries: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=lambda: {"": {}})
    grid: Mapping[str, Sequence[Any]] = dataclasses.field(default_factory=dict)
    seeds: Sequence[int] = (0,)
    names: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Run:
    """One training: its name, which is that of its folder, its config file and what is overridden of that."""

    name: str
    config: str
    overrides: Mapping[str, Any]

    @property
    def config_arguments(self) -> list[str]:
        """What says the config to `python -m fume_jax.main`."""
        return [f"--config={self.config}", *(f"--config.{key}={value}" for key, value in self.overrides.items())]

    def arguments(self, workdir: str | Path, platform: str | None) -> list[str]:
        """What `python` is given to train the run; without the accelerator of a platform that is named it fails."""
        required = [f"--platform={platform}"] if platform else []
        return ["-m", "fume_jax.main", *self.config_arguments, f"--workdir={workdir}", *required]


def load_sweep(path: str | Path) -> Sweep:
    """What `get_sweep()` of a Python file returns.

    Raises:
      UserError: if the file has no such function or it returns something else.
      OSError: if it cannot be read.
    """
    found = runpy.run_path(str(path))
    sweep = found["get_sweep"]() if "get_sweep" in found else None
    if not isinstance(sweep, Sweep):
        raise UserError(f"{path} is no sweep; expected a function get_sweep() that returns a launch.plan.Sweep.")
    return sweep


def expand(sweep: Sweep, *, smoke: bool = False, settings: Mapping[str, Any] | None = None) -> list[Run]:
    """The runs of a sweep.

    Args:
      sweep: what to vary.
      smoke: small and short runs, see `SMOKE`.
      settings: overrides of every run, which win over the sweep's own.

    Raises:
      UserError: if names cannot be those of folders, or two runs have the same.
    """
    runs = []
    combinations = [dict(zip(sweep.grid, values, strict=True)) for values in itertools.product(*sweep.grid.values())]
    for (entry, own), combination, seed in itertools.product(sweep.entries.items(), combinations, sweep.seeds):
        overrides = {**(SMOKE if smoke else {}), **own, **combination, "seed": seed, **(settings or {})}
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
    return re.sub(r"[^A-Za-z0-9.]+", "_", str(value)).strip("_") if not isinstance(value, float) else f"{value:g}"


def load_config(run: Run) -> ml_collections.ConfigDict:
    """The config that the run would train by, checked.

    Raises:
      UserError: naming the run and what is wrong with its keys or their values.
    """
    # Parsed as the command does, from the same words.
    values, arguments = flags.FlagValues(), ["", *cli.canonical_arguments(run.config_arguments)]
    holder = config_flags.DEFINE_config_file("config", flag_values=values, lock_config=True, sys_argv=arguments)
    try:
        values(arguments)
        validate_config(holder.value)
    except cli.MISTAKES as error:
        raise UserError(f"run {run.name}: {cli.message(error)}") from error
    return holder.value
