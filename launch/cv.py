"""Cross-validates models: `python -m launch.cv --config=fume --data=DATASET --folds=5 --seeds=3 --output=DIR`.

Each fold and seed is a training; fold K tests, the next one validates, the others train. The same command goes on with
what is not done, and prints the scores of all folds together. See launch/README.md.
"""

import dataclasses
import re
from pathlib import Path

from absl import flags

from fume_jax.runtime import cli
from fume_jax.runtime.errors import RUN_AGAIN, UserError
from launch import engines

_CONFIG = flags.DEFINE_string("config", None, "Name or path of the config. Default: fume.")
_SWEEP = flags.DEFINE_string("sweep", None, "Python file of a sweep instead, whose entries are all cross-validated.")
_DATA = flags.DEFINE_string("data", None, "Folder of the prepared dataset. Default: that of the config.")
_FOLDS = flags.DEFINE_integer("folds", None, "Number of folds. Default: 5, or those of --splits.", lower_bound=3)
_SEEDS = flags.DEFINE_integer(
    "seeds", 1, "Number of trainings of each fold, which differ in their seed.", lower_bound=1
)
_SEED = flags.DEFINE_integer("seed", 0, "Seed by which recordings are divided among the folds.", lower_bound=0)
_SPLITS = flags.DEFINE_string("splits", None, "Table of folds to use: recording_index, fold. Default: they are cut.")
_OUTPUT = flags.DEFINE_string("output", None, "Folder of the folds, the runs and their scores.", required=True)
_SET = flags.DEFINE_multi_string("set", [], "KEY=VALUE that overrides a key of all runs, such as train.epochs=12.")
flags.adopt_module_key_flags(engines)

# Files of the output folder.
FOLDS, SCORES, EXAMPLES = "folds.csv", "scores.csv", "out_of_fold.csv"


def main() -> int:
    """Trains and scores all folds, or shows them; returns the exit code."""
    # Imported after the flags are parsed, so that --help and a mistake in a flag answer at once.
    import jax

    from fume_jax.data.folds import read_folds, write_folds
    from launch import plan, trainings

    # This process only reads configs and leaves the accelerators to the runs.
    jax.config.update("jax_platforms", "cpu")
    sweep, output = _sweep(plan), Path(_OUTPUT.value)
    path = output / FOLDS
    if engines.STATUS.value:
        fold_of = read_folds(path)
        runs = _runs(plan, sweep, path, fold_of)
        code = trainings.show(output, runs)
        _show_scores(output, runs, fold_of)
        return code
    fold_of = _folds(plan, sweep, path)
    runs = _runs(plan, sweep, path, fold_of)
    configs = {run.name: plan.load_config(run) for run in runs}
    if engines.BACKEND.value in engines.CLOUDS and not engines.DRY_RUN.value and not path.is_file():
        output.mkdir(parents=True, exist_ok=True)
        write_folds(path, fold_of)
        print(f"Wrote {path}. Copy it to the bucket; then the same command submits the runs.")
        return RUN_AGAIN
    code = trainings.start(output, runs, configs, prepare=lambda: write_folds(path, fold_of))
    if not engines.DRY_RUN.value:
        _show_scores(output, runs, fold_of)
    return code


def _sweep(plan):
    """Returns the sweep that the flags name, or one of a single config."""
    if _SWEEP.value and _CONFIG.value:
        raise UserError("There are --config and --sweep; expected one of them.")
    if _SWEEP.value:
        return plan.load_sweep(_SWEEP.value)
    path, colon, preset = (_CONFIG.value or cli.find_config("fume")).partition(":")
    # A machine of a cloud has the config elsewhere, but under the same name.
    name = Path(path).stem if Path(path).parent == cli.CONFIGS else path
    entry = re.sub(r"[^A-Za-z0-9.]+", "_", Path(path).stem + colon + preset).strip("_")
    return plan.Sweep(config=name + colon + preset, entries={entry: {}})


def _runs(plan, sweep, path, fold_of):
    """Returns the runs: every one of the sweep for each fold and seed."""
    grid = {**sweep.grid, "data.fold": range(max(fold_of.values()) + 1)}
    names = {**sweep.names, "data.fold": "fold"}
    sweep = dataclasses.replace(sweep, grid=grid, names=names, seeds=range(_SEEDS.value))
    return plan.expand(sweep, settings=_settings() | {"data.folds": str(path)})


def _settings():
    return ({"data.path": _DATA.value} if _DATA.value else {}) | engines.pairs("set", _SET.value)


def _folds(plan, sweep, path):
    """Returns the fold of every recording, cut or read; UserError if those of the output folder are others."""
    from fume_jax.data.dataset import Dataset
    from fume_jax.data.folds import check_folds, cut_folds, read_folds, stored_values

    given = read_folds(_SPLITS.value) if _SPLITS.value else {}
    paths = {plan.load_config(run).data.path for run in plan.expand(sweep, settings=_settings())}
    if len(paths) > 1:
        raise UserError(f"The sweep has the datasets {', '.join(sorted(paths))}; name one by --data.")
    dataset = Dataset(paths.pop())
    values = stored_values(dataset)
    recordings, labels = values["recording_index"], values["label"]
    fold_of = given or cut_folds(recordings, labels, _FOLDS.value or 5, _SEED.value)
    check_folds(fold_of, recordings, dataset.name)
    if _FOLDS.value not in (None, max(fold_of.values()) + 1):
        raise UserError(f"--folds is {_FOLDS.value}; {_SPLITS.value} has {max(fold_of.values()) + 1} folds.")
    if path.is_file() and read_folds(path) != fold_of:
        raise UserError(f"{path} has other folds. Use another --output, or those folds: --splits={path}.")
    _tell_missing(fold_of, recordings, labels)
    return fold_of


def _tell_missing(fold_of, recordings, labels):
    """Prints the classes that a fold lacks; UserError if a class is in too few folds to be trained in each."""
    from fume_jax.data.folds import missing_classes

    count, missing = max(fold_of.values()) + 1, missing_classes(fold_of, recordings, labels)
    for fold, names in missing.items():
        print(f"Fold {fold} has no recording of {', '.join(names)}: its own test scores leave that out.")
    for fold in range(count):
        others = [other for other in range(count) if other not in (fold, (fold + 1) % count)]
        if untrained := set.intersection(*(set(missing.get(other, ())) for other in others)):
            raise UserError(
                f"The trainings of fold {fold} have no recording of {', '.join(sorted(untrained))}: a class needs "
                "recordings in at least three folds. Frames that are paired at random tie recordings together: prepare "
                "them with --pairing=id."
            )


def _show_scores(output, runs, fold_of):
    """Prints and writes the scores of the seeds whose folds are all scored, and says which are not."""
    from launch import cv_scores, scored

    found, _ = scored.read_runs(output, [run.name for run in runs])
    pooled, notes = scored.pool(found, folds=max(fold_of.values()) + 1)
    rows = [row for own in pooled for row in cv_scores.score_rows(own) if row["metric"] in scored.SHOWN]
    if rows:
        scored.write_rows(output / SCORES, rows)
        cv_scores.write_examples(output / EXAMPLES, output, pooled)
        print(f"\n{cv_scores.scores_table(pooled, rows)}\nWrote {output / SCORES} and {output / EXAMPLES}.")
    print("\n".join(notes), end="\n" * bool(notes))


if __name__ == "__main__":
    cli.run(main)
