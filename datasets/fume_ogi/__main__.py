"""Prepares annotated recordings for training: `python -m datasets.fume_ogi --source=DIR --data_dir=data`."""

import contextlib
import io
from pathlib import Path

from absl import flags

from fume_jax.runtime import cli
from fume_jax.runtime.errors import UserError

_SOURCE = flags.DEFINE_string("source", None, "Folder that the paths in the CSV files are relative to.")
_ANNOTATIONS = flags.DEFINE_string(
    "annotations", None, "CSV files, {split} standing for train, val and test; SOURCE/{split}_annotations.csv if unset."
)
_DATA_DIR = flags.DEFINE_string("data_dir", "data", "Folder of prepared datasets.")
_NAME = flags.DEFINE_string(
    "name", None, "Of the dataset in it, to which its size is added; after split, pairing and seed if unset."
)
_SPLIT = flags.DEFINE_string(
    "split", "original", "original: by original_sample_id; K/N: fold K of N by it; published: the files' own, may leak."
)
_PAIRING = flags.DEFINE_string("pairing", "random", "random: within pH and class; id: equal original and copy only.")
_SEED = flags.DEFINE_integer("seed", 0, "Of split and pairing.", lower_bound=0)
_ALLOW = flags.DEFINE_list("allow", [], "Kinds of faults whose rows are dropped, separated by commas.")
_WRITE_PAIRS = flags.DEFINE_string("write_pairs", None, "Folder to write the pairs of each split to, as CSV files.")
_HEIGHT = flags.DEFINE_integer("height", None, "To store frames at, pixels, if not that of most.", lower_bound=1)
_WIDTH = flags.DEFINE_integer("width", None, "To store frames at, pixels, if not that of most.", lower_bound=1)
_REPORT = flags.DEFINE_string("report", "fume_ogi_faults.csv", "File that lists every fault, if there is any.")
flags.mark_flag_as_required("source")


def main() -> None:
    # After the flags are parsed, so that --help answers at once.
    from datasets.fume_ogi.faults import summary, write_report
    from datasets.fume_ogi.plan import FaultyRecordings, Options, make_plan, statistics

    source = Path(_SOURCE.value)
    if not source.is_dir():
        raise UserError(f"There is no folder {source}, given by --source.")
    allow = tuple(sorted(set(_ALLOW.value)))
    options = Options(_ANNOTATIONS.value or "", _SPLIT.value, _PAIRING.value, _SEED.value, allow)
    try:
        plan = make_plan(source, options)
    except FaultyRecordings as error:
        write_report(Path(_REPORT.value), error.faults + error.warnings)
        raise UserError(f"{error}\nEvery fault is in {_REPORT.value}.") from error
    for path, rows in plan.read.items():
        print(f"{path}: {rows} rows")
    if plan.dropped or plan.warnings or Path(_REPORT.value).exists():  # an earlier report would mislead
        write_report(Path(_REPORT.value), plan.dropped + plan.warnings)
    if plan.dropped or plan.warnings:
        places = len({fault.place for fault in plan.dropped if fault.kind != "empty_class"})  # which is of no row
        print(f"{places} row(s) dropped, {len(plan.warnings)} warning(s), listed in {_REPORT.value}:")
        print(summary(plan.dropped + plan.warnings))
    _print_table(statistics(plan.pairs))
    if plan.leak:
        print(f"WARNING: {plan.leak}")
    _build(source, options, plan)
    if _WRITE_PAIRS.value:
        _write_pairs(Path(_WRITE_PAIRS.value), plan.pairs)


def _build(source, options, plan):
    import tensorflow_datasets as tfds

    from datasets.fume_ogi.fume_ogi import FumeOgi, FumeOgiConfig

    height, width = _HEIGHT.value or plan.size[0], _WIDTH.value or plan.size[1]
    for (h, w), count in plan.sizes.items():
        if (h, w) != (height, width):
            print(f"{count} frame(s) of {w}x{h} are resized to {width}x{height}.")
    tfds.disable_progress_bar()  # the builder has its own
    name = f"{_NAME.value or _name(options)}_{width}x{height}"
    config = FumeOgiConfig(name=name, height=height, width=width, options=options)
    # TFDS speaks of downloading on standard output, whatever the dataset.
    with contextlib.redirect_stdout(io.StringIO()):
        builder = FumeOgi(config=config, data_dir=_DATA_DIR.value, file_format="array_record")
        there = (builder.data_path / "dataset_info.json").is_file()
        builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=source))
    if builder.info.metadata["fingerprint"] != plan.fingerprint(height, width):
        raise UserError(
            f"{builder.data_dir} holds a dataset made of other recordings, of another size or with other options. "
            "Remove it, or give this one another --name."
        )
    print(f"The dataset {'is there already, unchanged' if there else 'is ready'}. Train on it with")
    print(f"  --config.data.path={builder.data_dir}")


def _name(options):
    """What tells a dataset from others of the same recordings."""
    name = options.split if "/" not in options.split else "fold{}of{}".format(*options.split.split("/"))
    if options.pairing != "random":
        name += f"_paired_by_{options.pairing}"
    return name + (f"_seed{options.seed}" if options.seed else "")


def _print_table(rows):
    """Rows of equal keys under their names, words left and numbers right."""
    for line in (dict(zip(rows[0], rows[0], strict=True)), *rows):
        print("  " + "".join(f"{line[k]:<14}" if isinstance(rows[0][k], str) else f"{line[k]:>10}" for k in line))


def _write_pairs(folder, pairs):
    from datasets.fume_ogi.annotations import write_pairs

    folder.mkdir(parents=True, exist_ok=True)
    for split, rows in pairs.items():
        write_pairs(folder / f"{split}_annotations.csv", rows)
    print(f"Wrote the pairs to {folder}; --annotations='{folder}/{{split}}_annotations.csv' reads them.")


if __name__ == "__main__":
    cli.run(main)
