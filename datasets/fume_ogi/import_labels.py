"""Imports labels of annotation tools: `fume import --from=FORMAT --source=DIR --output=DIR`.

Writes frames, masks and `annotations.csv` in the layout that `python -m datasets.fume_ogi` prepares, see README.md. A
folder that is imported into the same output again, such as frames that were corrected, is merged.
"""

from pathlib import Path

from absl import flags

from fume_jax.data import flags as data_flags
from fume_jax.runtime import cli
from fume_jax.runtime.errors import DONE, NOTHING_DONE, PARTLY_DONE, UserError

FORMATS = ("folders", "labelme", "coco", "cvat", "yolo")
# Formats in which an image without annotation may be one without gas, or one that nobody labelled.
_WITH_EMPTY = ("coco", "cvat")
_FROM = flags.DEFINE_enum("from", None, FORMATS, "Format of the labels; folders are those of images and masks.")
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
    "recordings", None, "Table with the columns recording, gas, ph, subject. Default: recordings.csv in the source."
)
_GAS = flags.DEFINE_string("gas", "", "Gas of all frames, where neither the table nor names say it.")
_PH = flags.DEFINE_string("ph", "", "pH of all frames, where neither the table nor names say it.")
_SUBJECT = flags.DEFINE_string("subject", "", "Animal or donor of all frames.")
_REVIEW = flags.DEFINE_string(
    "review", None, "Folder of fume review whose frames were corrected, where that is not the source."
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
    import importlib

    from datasets.fume_ogi import importing
    from datasets.fume_ogi.recordings import Describer

    data_flags.apply()
    if _EMPTY.value and _FROM.value not in _WITH_EMPTY:
        raise UserError(f"--empty_is_background is for --from={' or '.join(_WITH_EMPTY)}, not {_FROM.value}.")
    source, output = Path(_SOURCE.value), Path(_OUTPUT.value)
    if not source.exists():
        raise UserError(f"There is no file or folder {source}, given by --source.")
    if source.suffix.lower() == ".zip":
        raise UserError(f"{source} is packed; unpack it, and give its folder by --source.")
    folder = source if source.is_dir() else source.parent
    if output.resolve() == folder.resolve():
        raise UserError("--output is the folder of --source; choose another one, so that nothing there is replaced.")
    stated = {"gas": _GAS.value, "ph": _PH.value, "subject": _SUBJECT.value}
    describer = Describer(folder, _RECORDINGS.value and Path(_RECORDINGS.value), stated)
    reader = importlib.import_module(f"fume_jax.data.labels.{_FROM.value}")
    options = {"empty_is_background": _EMPTY.value} if _FROM.value in _WITH_EMPTY else {}
    found = reader.read(source, _meaning(), **options)
    for note in (*describer.notes, *found.notes):
        print(f"note: {note}")
    reviewed = _reviewed(folder)
    tube_unknown = _TUBE.value == "unknown"
    frames, faults = importing.check_labels(
        found.labels, describer, reviewed=reviewed, confirm=_CONFIRM.value, tube_unknown=tube_unknown
    )
    faults = [*found.faults, *faults]
    if faults:
        raise UserError(f"{len(faults)} fault(s); nothing was imported.\n{_report(faults)}")
    if not frames:
        print(f"{source} holds no labelled frame.")
        return NOTHING_DONE
    imported = importing.merge(frames, output, tube_unknown=tube_unknown, replace=_REPLACE.value)
    print(importing.summary(imported, output))
    if imported.conflicts:
        print(_report(imported.conflicts))
    print(f"Prepare them with\n  python -m datasets.fume_ogi --source={output} --data_dir=data")
    return PARTLY_DONE if imported.conflicts and not _REPLACE.value else DONE


def _reviewed(folder):
    """Returns the frames that a review chose, by the stems of their images."""
    from fume_jax.data.labels.manifest import MANIFEST, read_manifest

    path = (Path(_REVIEW.value) if _REVIEW.value else folder) / MANIFEST
    if not path.is_file():
        if _REVIEW.value:
            raise UserError(f"There is no {path}, which fume review writes.")
        return {}
    return {Path(row.image).stem: row for row in read_manifest(path)}


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
    import re

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
