"""Draws tables and figures of scored runs, on one page: `fume report --runs=runs/ablations --output=report`.

Writes tables (Markdown, LaTeX, CSV), figures (SVG, PDF, PNG) and report.html, which needs no other file. See
docs/study.md.
"""

from pathlib import Path

from absl import flags

from fume_jax.runtime import cli
from fume_jax.runtime.errors import DONE, PARTLY_DONE

_RUNS = flags.DEFINE_string(
    "runs", None, "Folder of the runs, that of a sweep or of a cross-validation.", required=True
)
_MAIN = flags.DEFINE_string("main", None, "Entry that the others are compared with. Default: reference, or fume.")
_OUTPUT = flags.DEFINE_string("output", None, "Folder to write to. Default: RUNS/report.")
_DATA = flags.DEFINE_string("data", None, "Folder of the prepared dataset, if it has moved since the training.")
_SPEED = flags.DEFINE_bool("speed", True, "Measure how fast the models are on this machine.")


def main() -> int:
    """Reads the runs, and writes the report; returns the exit code."""
    # Imported after the flags are parsed, so that --help and a mistake in a flag answer at once.
    from fume_jax.runtime import files
    from fume_jax.runtime.byproducts import ByProducts
    from launch.study.gather import gather
    from launch.study.page import write_report

    runs = Path(_RUNS.value)
    output, by_products = Path(_OUTPUT.value or runs / "report"), ByProducts()
    files.check_folder(output, "Write the report elsewhere: --output=DIR.")
    study = gather(runs, _MAIN.value, timed=_SPEED.value)
    write_report(output, study, _DATA.value, by_products)
    by_products.summarize()
    notes = [*study.caveats, *study.left_out]
    print("\n".join(notes), end="\n" * bool(notes))
    print(f"Wrote {output}/report.html, with its tables and figures beside it.")
    return PARTLY_DONE if study.left_out or by_products.failures else DONE


if __name__ == "__main__":
    cli.run(main)
