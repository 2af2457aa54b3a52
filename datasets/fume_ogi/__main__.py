"""Prepares annotated recordings for training: `python -m datasets.fume_ogi --source=DIR --data_dir=data`."""

import contextlib
import io
from pathlib import Path

from absl import flags

from fume_jax.runtime import cli
from fume_jax.runtime.errors import UserError

_SOURCE = flags.DEFINE_string("source", None, "Folder of the recordings; paths in the CSV files are relative to it.")
_ANNOTATIONS = flags.DEFINE_string(
    "annotations", None, "Path of the CSV files, {split} stands for train, val and test. Default: those in SOURCE."
)
_DATA_DIR = flags.DEFINE_string("data_dir", "data", "Folder that receives the prepared dataset.")
_NAME = flags.DEFINE_string("name", None, "Name of the dataset, before the frame size. Default: named by the options.")
_SPLIT = flags.DEFINE_string(
    "split",
    "original",
    "Split of the frames. original keeps all copies of an original in one split; K/N is fold K of N of such splits; "
    "published takes the split of the files, which may leak.",
)
_PAIRING = flags.DEFINE_string(
    "pairing", "random", "Frames that may be paired. random: those of equal pH and class. id: the same copies only."
)
_SEED = flags.DEFINE_integer("seed", 0, "Seed of the split and of the pairing.", lower_bound=0)
_ALLOW = flags.DEFINE_list("allow", [], "Kinds of faults, separated by commas, whose rows are dropped.")
_WRITE_PAIRS = flags.DEFINE_string("write_pairs", None, "Folder that receives the pairs of each split as CSV files.")
_HEIGHT = flags.DEFINE_integer("height", None, "Frame height in pixels; default: that of most frames.", lower_bound=1)
_WIDTH = flags.DEFINE_integer("width", None, "Frame width in pixels; default: that of most frames.", lower_bound=1)
_REPORT = flags.DEFINE_string("report", "fume_ogi_faults.csv", "CSV file that receives every fault and warning.")
flags.mark_flag_as_required("source")


def main() -> None:
    # Imported after the flags are parsed, so that --help answers at once.
    from datasets.fume_ogi.annotations import write_pairs
    from datasets.fume_ogi.faults import summary, write_report
    from datasets.fume_ogi.plan import FaultyRecordings, Options, make_plan, statistics

    source, report = Path(_SOURCE.value), Path(_REPORT.value)
    if not source.is_dir():
        raise UserError(f"There is no folder {source}, given by --source.")
    allow = tuple(sorted(set(_ALLOW.value)))
    options = Options(_ANNOTATIONS.value or "", _SPLIT.value, _PAIRING.value, _SEED.value, allow)
    try:
        plan = make_plan(source, options)
    except FaultyRecordings as error:
        write_report(report, error.faults + error.warnings)
        raise UserError(f"{error}\nEvery fault is in {report}.") from error
    for path, rows in plan.read.items():
        print(f"{path}: {rows} rows")
    faults = plan.dropped + plan.warnings
    if faults or report.exists():  # the report of an earlier run would mislead
        write_report(report, faults)
    if faults:
        rows = len({fault.place for fault in plan.dropped if fault.kind != "empty_class"})  # a fault without a row
        print(f"{rows} row(s) dropped, {len(plan.warnings)} warning(s), listed in {report}:\n{summary(faults)}")
    _print_table(statistics(plan.pairs))
    if plan.leak:
        print(f"WARNING: {plan.leak}")
    _build(source, options, plan)
    if _WRITE_PAIRS.value:
        folder = Path(_WRITE_PAIRS.value)
        folder.mkdir(parents=True, exist_ok=True)
        for split, rows in plan.pairs.items():
            write_pairs(folder / f"{split}_annotations.csv", rows)
        print(f"Wrote the pairs to {folder}; --annotations='{folder}/{{split}}_annotations.csv' reads them.")


def _build(source, options, plan):
    import tensorflow_datasets as tfds

    from datasets.fume_ogi.fume_ogi import FumeOgi, FumeOgiConfig

    most = plan.sizes.most_common(1)[0][0]
    height, width = _HEIGHT.value or most[0], _WIDTH.value or most[1]
    for (h, w), count in plan.sizes.items():
        if (h, w) != (height, width):
            print(f"{count} frame(s) of {w}x{h} are resized to {width}x{height}.")
    tfds.disable_progress_bar()  # the builder has its own
    split = "fold" + options.split.replace("/", "of") if "/" in options.split else options.split
    paired = f"_paired_by_{options.pairing}" if options.pairing != "random" else ""
    name = _NAME.value or split + paired + (f"_seed{options.seed}" if options.seed else "")
    config = FumeOgiConfig(name=f"{name}_{width}x{height}", height=height, width=width, options=options)
    # TFDS reports a download on standard output, even where there is none.
    with contextlib.redirect_stdout(io.StringIO()):
        builder = FumeOgi(config=config, data_dir=_DATA_DIR.value, file_format="array_record")
        existed = (builder.data_path / "dataset_info.json").is_file()
        builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=source))
    if builder.info.metadata["fingerprint"] != plan.fingerprint(height, width):
        raise UserError(
            f"{builder.data_dir} holds a dataset made of other recordings, of another size or with other options. "
            "Remove it, or give this one another --name."
        )
    print(f"The dataset {'is there already, unchanged' if existed else 'is ready'}. Train on it with")
    print(f"  --config.data.path={builder.data_dir}")


def _print_table(rows):
    """Prints dicts of equal keys as a table with a header, words to the left and numbers to the right."""
    for line in (dict(zip(rows[0], rows[0], strict=True)), *rows):
        print("  " + "".join(f"{line[k]:<14}" if isinstance(rows[0][k], str) else f"{line[k]:>10}" for k in line))


if __name__ == "__main__":
    cli.run(main)
