"""Prepares annotated recordings for training: `python -m datasets.fume_ogi --source=DIR --data_dir=data`."""

import contextlib
import io
from pathlib import Path

from absl import flags

from fume_jax.data import flags as data_flags
from fume_jax.runtime import cli
from fume_jax.runtime.errors import DONE, PARTLY_DONE, UserError

_SOURCE = flags.DEFINE_string("source", None, "Folder of the recordings; paths in the CSV files are relative to it.")
_ANNOTATIONS = flags.DEFINE_string(
    "annotations", None, "Path of the CSV files, {split} stands for train, val and test. Default: those in SOURCE."
)
_DATA_DIR = flags.DEFINE_string("data_dir", "data", "Folder that receives the prepared dataset.")
_NAME = flags.DEFINE_string(
    "name", None, "Name of the dataset, such as barn, which is stored as barn_640x480. Default: named by the options."
)
_SPLIT = flags.DEFINE_string(
    "split",
    "original",
    "Split of the frames into train, val and test. original: by chance, every group (--group_by) in one split. K/N, "
    "such as 0/5: the same for fold K of N of a cross-validation. published: as the files say, which may leak.",
)
_GROUP_BY = flags.DEFINE_string(
    "group_by",
    None,
    "Frames that stay in one split: those of an original, a recording or a subject, as original_sample_id, "
    "recording_id or subject_id say. Default: the coarsest that every row has.",
)
_PAIRING = flags.DEFINE_string(
    "pairing",
    "random",
    "CO2 and CH4 frames that make a pair. random: any two of equal pH and class. id: the same original and copy.",
)
_SEED = flags.DEFINE_integer("seed", 0, "Seed of the split and of the pairing.", lower_bound=0)
_ALLOW = flags.DEFINE_list(
    "allow", [], "Kinds of faults whose rows are dropped, separated by commas, such as missing_file,size."
)
_WRITE_PAIRS = flags.DEFINE_string("write_pairs", None, "Folder that receives the pairs of each split as CSV files.")
_HEIGHT = flags.DEFINE_integer(
    "height", None, "Height of the stored frames in pixels. Default: that of most frames.", lower_bound=1
)
_WIDTH = flags.DEFINE_integer(
    "width", None, "Width of the stored frames in pixels. Default: that of most frames.", lower_bound=1
)
_REPORT = flags.DEFINE_string("report", "fume_ogi_faults.csv", "CSV file that receives every fault and warning.")
flags.mark_flag_as_required("source")
flags.adopt_module_key_flags(data_flags)


def main() -> int:
    # Imported after the flags are parsed, so that --help answers at once.
    from datasets.fume_ogi.plan import Options, check_options
    from datasets.paired_frames import preparing

    data_flags.apply()
    source = Path(_SOURCE.value)
    if not source.is_dir():
        raise UserError(f"There is no folder {source}, given by --source.")
    allow = tuple(sorted(set(_ALLOW.value)))
    options = Options(_ANNOTATIONS.value or "", _SPLIT.value, _PAIRING.value, _SEED.value, allow, _GROUP_BY.value or "")
    check_options(options)
    name = _NAME.value if _NAME.value is not None else _default_name(options)
    with preparing(_DATA_DIR.value, "fume_ogi", name):
        return _prepare(source, options, name)


def _default_name(options):
    split = "fold" + options.split.replace("/", "of") if "/" in options.split else options.split
    grouped = f"_by_{options.group_by}" if options.group_by else ""
    paired = f"_paired_by_{options.pairing}" if options.pairing != "random" else ""
    return split + grouped + paired + (f"_seed{options.seed}" if options.seed else "")


def _prepare(source, options, name):
    """Checks, prepares and writes everything; returns the exit code."""
    from datasets.fume_ogi.annotations import write_pairs
    from datasets.fume_ogi.faults import OF_NO_ROW, summary
    from datasets.fume_ogi.groups import count_groups
    from datasets.fume_ogi.plan import FaultyRecordings, make_plan, statistics

    report, done = Path(_REPORT.value), DONE
    try:
        plan = make_plan(source, options)
    except FaultyRecordings as error:
        _, where, listed = _report(report, error.faults + error.warnings)
        raise UserError(f"{error}\n{where}{listed}") from error
    for path, rows in plan.read.items():
        print(f"{path}: {rows} rows")
    faults = plan.dropped + plan.warnings
    if faults or report.is_file():  # the report of an earlier run would mislead
        done, where, listed = _report(report, faults)
        rows = len({fault.place for fault in plan.dropped if fault.kind not in OF_NO_ROW})
        listed = listed or f"\n{summary(faults)}"
    if faults:
        print(f"{rows} row(s) dropped, {len(plan.warnings)} warning(s). {where}{listed}")
    print(f"Frames are grouped by {plan.group_by}: {count_groups(plan.pairs, plan.group_by)} groups.")
    sources = plan.label_sources
    if sources["prediction"]:
        print(f"{sources['prediction']} of {sources.total()} masks are predictions that nobody corrected.")
    _print_table(statistics(plan.pairs))
    if plan.leak:
        print(f"WARNING: {plan.leak}")
    _build(source, options, plan, name)
    if _WRITE_PAIRS.value:
        folder = Path(_WRITE_PAIRS.value)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for split, rows in plan.pairs.items():
                write_pairs(folder / f"{split}_annotations.csv", rows)
        except OSError as error:
            print(f"WARNING: the pairs could not be written to {folder}: {error.strerror}.")
            return PARTLY_DONE
        print(f"Wrote the pairs to {folder}; --annotations='{folder}/{{split}}_annotations.csv' reads them.")
    return done


def _report(path, faults):
    """Writes the report of faults; returns the exit code, where the faults are, and all of them if it fails."""
    from datasets.fume_ogi.faults import summary, write_report

    try:
        write_report(path, faults)
    except OSError as error:
        every = f" All of them:\n{summary(faults, len(faults))}"
        return PARTLY_DONE, f"WARNING: {path} could not be written: {error.strerror}.", every
    return DONE, f"Every fault is in {path}.", ""


def _build(source, options, plan, name):
    import tensorflow_datasets as tfds

    from datasets.fume_ogi.fume_ogi import FumeOgi, FumeOgiConfig

    most = plan.sizes.most_common(1)[0][0]
    height, width = _HEIGHT.value or most[0], _WIDTH.value or most[1]
    for (h, w), count in plan.sizes.items():
        if (h, w) != (height, width):
            print(f"{count} frame(s) of {w}x{h} are resized to {width}x{height}.")
    tfds.disable_progress_bar()  # the builder has its own
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
