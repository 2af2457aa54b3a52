"""Compares scored runs on the same test examples: `python -m launch.compare --runs=runs/ablations --main=reference`.

Runs that differ in seed or fold alone are one entry; each entry is compared with the main one. Prints Markdown and
writes CSV. See launch/README.md.
"""

import dataclasses
from pathlib import Path

from absl import flags

from fume_jax.runtime import cli
from fume_jax.runtime.errors import DONE, PARTLY_DONE, UserError

# Metrics that are printed, of those that the models have.
SHOWN = ("iou_gas", "balanced_accuracy", "recording/balanced_accuracy")
_RUNS = flags.DEFINE_string(
    "runs", None, "Folder of the runs, that of a sweep or of a cross-validation.", required=True
)
_MAIN = flags.DEFINE_string("main", None, "Name of the entry that the others are compared with.", required=True)
_METRICS = flags.DEFINE_list("metrics", None, f"Metrics to print; the CSV has all. Default: {', '.join(SHOWN)}.")
_OUTPUT = flags.DEFINE_string("output", None, "Folder of comparison.csv and classes.csv. Default: RUNS.")


def main() -> int:
    """Compares the entries of a folder, prints tables and writes them; returns the exit code."""
    # Imported after the flags are parsed, so that --help and a mistake in a flag answer at once.
    from launch import comparison, scored

    folder, output = Path(_RUNS.value), Path(_OUTPUT.value or _RUNS.value)
    reference, others, notes = comparison.load(folder, _MAIN.value)
    has = comparison.known_metrics(reference)
    if unknown := [name for name in _METRICS.value or () if name not in has]:
        raise UserError(f"--metrics has {', '.join(unknown)}; expected some of {', '.join(has)}.")
    chosen = _METRICS.value or [name for name in SHOWN if name in has]
    metric_rows = comparison.compare_metrics(reference, others)
    class_rows = comparison.compare_classes(reference, others)
    print(comparison.markdown(reference, metric_rows, class_rows, chosen))
    print("\n" + "\n".join(comparison.caveats(reference, others, class_rows) + notes), end="\n" if notes else "")
    output.mkdir(parents=True, exist_ok=True)
    for name, rows in (("comparison", metric_rows), ("classes", class_rows)):
        scored.write_rows(output / f"{name}.csv", [dataclasses.asdict(row) for row in rows])
    print(f"\nWrote {output}/comparison.csv and {output}/classes.csv.")
    return PARTLY_DONE if notes else DONE


if __name__ == "__main__":
    cli.run(main)
