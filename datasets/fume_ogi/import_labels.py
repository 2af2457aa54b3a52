"""Imports labels of annotation tools: `fume import --from=FORMAT --source=DIR --output=DIR`.

Writes frames, masks and `annotations.csv` in the layout that `python -m datasets.fume_ogi` prepares, see README.md. A
folder that is imported into the same output again, such as frames that were corrected, is merged.
"""

import contextlib
import re
from pathlib import Path

from absl import flags

from fume_jax.data import flags as data_flags
from fume_jax.runtime import cli
from fume_jax.runtime.errors import DONE, NOTHING_DONE, PARTLY_DONE, UserError

FORMATS = ("folders", "labelme", "coco", "cvat", "yolo")
# Formats in which an image without annotation may be one without gas, or one that nobody labelled.
_WITH_EMPTY = ("coco", "cvat")
_FROM = flags.DEFINE_enum(
    "from", None, FORMATS, "Format of the labels; folders: images and masks, also of mmsegmentation and nnU-Net."
)
_SOURCE = flags.DEFINE_string("source", None, "Folder, or file, of the labels, as the tool exported them.")
_OUTPUT = flags.DEFINE_string("output", None, "Folder that receives frames, masks and annotations.csv.")
_VALUES = flags.DEFINE_list(
    "values", [], "Classes of the values in mask images, such as 255:gas,128:tube,0:background; ignore for unknown."
)
_COLORS = flags.DEFINE_list(
    "colors", [], "Classes of the colours in mask images, such as #ff8800:gas,#000000:background."
)
_LABELS = flags.DEFINE_list("labels", [], "Classes of the names in the tool, such as plume:gas,nozzle:tube.")
_NEAREST = flags.DEFINE_bool(
    "nearest", False, "Take the nearest value or colour of mask images that were resized or compressed with loss."
)
_EMPTY = flags.DEFINE_bool(
    "empty_is_background", False, "coco, cvat: images without annotation are frames without gas, not unlabelled ones."
)
_RECORDINGS = flags.DEFINE_string(
    "recordings",
    None,
    "Table with the columns recording, or id as in lists of fume predict, and gas, ph, class_name, subject. Default: "
    "recordings.csv in the source.",
)
_GAS = flags.DEFINE_string("gas", "", "Gas of all frames, where neither the table nor names say it.")
_PH = flags.DEFINE_string("ph", "", "pH of all frames, where neither the table nor names say it.")
_CLASS_NAME = flags.DEFINE_string(
    "class_name", "", "Class of all frames, such as Healthy; for a pH without a usual one."
)
_SUBJECT = flags.DEFINE_string("subject", "", "Animal or donor of all frames.")
_REVIEW = flags.DEFINE_string(
    "review",
    None,
    "Folder of fume review whose frames were corrected. Default: the source, or the folder that it is in.",
)
_TUBE = flags.DEFINE_enum(
    "tube", "known", ["known", "unknown"], "unknown: nobody outlined the tubes, so what is no gas may be tube."
)
_REPLACE = flags.DEFINE_bool("replace", False, "Replace labels of a person that are there and differ.")
_CONFIRM = flags.DEFINE_bool("confirm", False, "Take predicted masks that nobody changed for those of a person.")
_REPORT = flags.DEFINE_string("report", "fume_import_faults.csv", "CSV file that receives every fault and conflict.")
flags.mark_flags_as_required(["from", "source", "output"])
flags.adopt_module_key_flags(data_flags)


def main() -> int:
    """Imports as the flags say; returns the exit code."""
    from datasets.fume_ogi.importing import check_labels
    from datasets.fume_ogi.recordings import Describer

    data_flags.apply()
    if _EMPTY.value and _FROM.value not in _WITH_EMPTY:
        raise UserError(f"--empty_is_background is for --from={' or '.join(_WITH_EMPTY)}, not {_FROM.value}.")
    source, output = Path(_SOURCE.value), Path(_OUTPUT.value)
    if not source.exists():
        raise UserError(f"There is no file or folder {source}, given by --source.")
    folder = source if source.is_dir() else source.parent
    _check_folders(source, folder, output)
    stated = {"gas": _GAS.value, "ph": _PH.value, "class_name": _CLASS_NAME.value, "subject": _SUBJECT.value}
    describer = Describer(folder, _RECORDINGS.value and Path(_RECORDINGS.value), stated)
    found = _read(_FROM.value, source)
    reviewed = _reviewed(folder, describer.notes)
    others = [] if found.labels else _other_formats(source)
    for note in (*describer.notes, *found.notes, *others):
        print(f"note: {note}")
    tube_unknown = _TUBE.value == "unknown"
    frames, faults = check_labels(
        found.labels, describer, reviewed=reviewed, confirm=_CONFIRM.value, tube_unknown=tube_unknown
    )
    for note in describer.unused():
        print(f"note: {note}")
    if not (frames or found.faults or faults):
        print(f"{source} holds no labelled frame.")
        return NOTHING_DONE
    of_review = any(label.image.stem in reviewed for label in found.labels)
    return _merge(frames, [*found.faults, *faults], output, tube_unknown, of_review)


def _read(format, source):
    import importlib

    reader = importlib.import_module(f"fume_jax.data.labels.{format}")
    options = {"empty_is_background": _EMPTY.value} if format in _WITH_EMPTY else {}
    return reader.read(source, _meaning(), **options)


def _other_formats(source):
    """Returns a note for each format but the one that was asked for in which the source holds labelled frames."""
    notes = []
    for format in FORMATS:
        with contextlib.suppress(UserError):
            if format != _FROM.value and (labels := _read(format, source).labels):
                notes.append(f"--from={format} finds {len(labels)} labelled frames in {source}, {_FROM.value} none")
    return notes


def _merge(frames, faults, output, tube_unknown, of_review):
    """Merges frames with those of the output unless there are faults; returns the exit code."""
    from datasets.fume_ogi import import_checks, merging

    stored = merging.read_stored(output)
    outcomes, taken = merging.compare(frames, stored, tube_unknown=tube_unknown)
    faults = [*faults, *taken, *import_checks.same_frames(frames, stored)]
    # Labels at fault may be those of the gas.
    if faults := faults or import_checks.without_gas(frames, stored):
        raise UserError(f"{len(faults)} fault(s); nothing was imported.\n{_report(faults)}")
    imported = merging.merge(outcomes, stored, tube_unknown=tube_unknown, replace=_REPLACE.value)
    print(merging.summary(imported, output))
    for line in import_checks.advice(imported, tube_unknown=tube_unknown, of_review=of_review):
        print(line)
    if imported.conflicts:
        print(_report(imported.conflicts))
    elif Path(_REPORT.value).is_file():  # that of an earlier run would mislead
        _report([])
    print(merging.next_command(output))
    return PARTLY_DONE if imported.conflicts else DONE


def _check_folders(source, folder, output):
    """Raises UserError if the source is packed, or one of the folders lies in the other."""
    from fume_jax.data.labels.finding import list_files

    files = list_files(source)
    if files and all(file.suffix.lower() == ".zip" for file in files):
        raise UserError(f"{files[0]} is packed; unpack it, and give its folder by --source.")
    inner, outer = folder.resolve(), output.resolve()
    if inner.is_relative_to(outer) or (source.is_dir() and outer.is_relative_to(inner)):
        raise UserError(
            f"--output={output} and the folder of --source={source} lie one in the other, so a later import would read "
            "what this one writes; choose an --output beside it."
        )


def _reviewed(folder, notes):
    """Returns the frames that a review chose, by the stems of their images; adds a note that it was found."""
    from fume_jax.data.labels.manifest import MANIFEST, read_manifest

    folders = [Path(_REVIEW.value)] if _REVIEW.value else [folder, folder.resolve().parent]
    path = next((path for path in (folder / MANIFEST for folder in folders) if path.is_file()), None)
    if path is None:
        if _REVIEW.value:
            raise UserError(f"There is no {folders[0] / MANIFEST}, which fume review writes.")
        return {}
    rows = read_manifest(path)
    notes.append(f"{path}: {len(rows)} frames of a review")
    return {Path(row.image).stem: row for row in rows}


def _meaning():
    """Returns what the flags say of values, colours and names."""
    from fume_jax.data.labels.label import VALUES, Meaning

    values = {int(key): value for key, value in _pairs(_VALUES, r"\d+", "255:gas,0:background").items()}
    colors = _pairs(_COLORS, r"#[0-9a-f]{6}", "#ff8800:gas").items()
    colors = {tuple(bytes.fromhex(key[1:])): value for key, value in colors}
    names = {key.lower(): value for key, value in _pairs(_LABELS, r".+", "plume:gas").items()}
    return Meaning(values, colors, VALUES | names, _NEAREST.value)


def _pairs(flag, form, example):
    """Returns the classes in a flag KEY:CLASS,..., as values of masks by their keys."""
    from fume_jax.data.labels.label import VALUES

    found = {}
    for word in flag.value:
        key, _, name = word.rpartition(":")
        if not re.fullmatch(form, key, re.IGNORECASE) or name.lower() not in VALUES:
            expected = f"expected such as {example}, with the classes {', '.join(VALUES)}"
            raise UserError(f"--{flag.name}={','.join(flag.value)}: {word!r} is not clear; {expected}.")
        if found.setdefault(key.lower(), VALUES[name.lower()]) != VALUES[name.lower()]:
            raise UserError(f"--{flag.name} gives {key} two classes.")
    return found


def _report(faults):
    """Writes the report; returns a summary of the faults, all of them if the report fails."""
    from datasets.fume_ogi.faults import IMPORT_KINDS, summary, write_report

    try:
        write_report(Path(_REPORT.value), faults)
    except OSError as error:
        return f"{summary(faults, len(faults), IMPORT_KINDS)}\n{_REPORT.value} could not be written: {error.strerror}."
    return f"{summary(faults, kinds=IMPORT_KINDS)}\nEvery one is in {_REPORT.value}."


if __name__ == "__main__":
    cli.run(main)
