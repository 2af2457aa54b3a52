"""Checks of all frames of an import together, and advice on what they hold."""

import collections
from collections.abc import Mapping, Sequence

from datasets.fume_ogi.annotations import TABLE
from datasets.fume_ogi.content import read_mask
from datasets.fume_ogi.importing import Frame
from datasets.fume_ogi.merging import Imported, Stored
from fume_jax.data.faults import UnreadableFrame
from fume_jax.data.labels.label import VALUES, Fault
from fume_jax.data.labels.pixels import MaskFile
from fume_jax.data.table import as_number
from fume_jax.schema import GAS, IGNORE, TUBE


def same_frames(frames: Sequence[Frame], stored: Stored) -> list[Fault]:
    """Returns a fault for every frame whose pixels another one of its gas has, of another pH or class.

    Such are left behind where the pH in the name of a folder was corrected after an import.
    """
    own = {frame.row["mask_path"] for frame in frames}
    first, faults = {}, []
    for path, row in stored.rows.items():
        if path in stored.digests and path not in own:
            first.setdefault((row["gas_type"].lower(), stored.digests[path]), row)
    for frame in frames:
        earlier = first.setdefault((frame.row["gas_type"], frame.digest), frame.row)
        if _shown(earlier) != _shown(frame.row):
            remedy = f"remove the wrong one: from the source, or, if it was imported before, its rows from {TABLE}"
            message = f"is {_described(frame.row)}, and has the pixels of {_described(earlier)}; {remedy}"
            faults.append(Fault("same_frame", frame.place, message))
    return faults


def without_gas(frames: Sequence[Frame], stored: Stored) -> list[Fault]:
    """Returns a fault if neither a frame nor what is there holds gas; it says how gas may be coded."""
    pixels = _total(frames)
    if not frames or pixels["gas"] or any(_has_gas(stored.folder / path) for path in stored.rows):
        return []
    held = ", ".join(f"{name} {pixels[name] / pixels.total():.2%}" for name in VALUES if pixels[name])
    files = [frame.label.read_mask for frame in frames if isinstance(frame.label.read_mask, MaskFile)]
    if not files:
        remedy = "if gas has another name in the tool, say so by --labels=NAME:gas"
    elif any(file.meaning.values or file.meaning.colors for file in files):
        remedy = "say which value or colour is gas by --values or --colors"
    elif coded := [value for value, name in ((IGNORE, "ignore"), (TUBE, "tube")) if pixels[name]]:
        tube = f",{TUBE}:tube" if len(coded) > 1 else ""
        remedy = f"if the value {coded[0]} is gas, say so by --values={coded[0]}:gas{tube},0:background"
    else:
        remedy = "all of them are 0"
    message = f"the masks hold {held}; {remedy}. Frames without gas are imported together with others that show it"
    return [Fault("no_gas", "all frames", message)]


def advice(imported: Imported, *, tube_unknown: bool, of_review: bool) -> list[str]:
    """Returns lines on what a user may not have meant.

    The frames `of_review` are a choice, so that others of their recordings are absent says nothing.
    """
    frames = [frame for found in imported.frames.values() for frame in found]
    pixels, lines = _total(frames), []
    if imported.absent and not of_review:
        lines.append(
            f"{imported.absent} frames of these recordings that were imported before are not in the source; they stay: "
            f"remove their rows from {TABLE} to drop them"
        )
    if not (pixels["tube"] or tube_unknown):
        lines.append(
            "no mask holds tube: if nobody outlined the tubes, import again with --tube=unknown --replace, so that the "
            "model does not learn that tubes are background"
        )
    elif partly := _partly_drawn_tubes(frames):
        name, (drawn, count) = next(iter(partly.items()))
        lines.append(
            f"{len(partly)} recording(s) have the tube in a part of their frames, such as {name}: the tube is drawn in "
            f"{drawn} of {count} frames: in the others the model learns that tubes are background. Draw it in all that "
            "show it, or import again with --tube=unknown --replace"
        )
    if not (pixels["background"] or pixels["not_gas"]):
        lines.append("WARNING: no mask holds background: are all values, colours or names those of their classes?")
    recordings = {frame.row["recording_id"] for frame in frames}
    found = {name: phs for name, phs in _phs(imported.rows).items() if name in recordings and len(phs) > 1}
    for name, phs in list(found.items())[:1]:
        lines.append(
            f"WARNING: {len(found)} recording(s) have frames of several pHs, such as {name} "
            f"({', '.join(f'{ph:g}' for ph in sorted(phs))}). A recording is a folder, whose frames stay in one split: "
            "sort films that lie in one folder into folders of their own, and import them into a new --output"
        )
    return lines


def _total(frames) -> Mapping[str, int]:
    return sum((collections.Counter(frame.pixels) for frame in frames), collections.Counter())


def _partly_drawn_tubes(frames):
    """Returns in how many frames the tube is drawn, and how many there are, of recordings where others say it is not.

    Where pixels may be tube, nothing is said.
    """
    found = collections.defaultdict(list)
    for frame in frames:
        found[frame.row["recording_id"]].append(frame.pixels)
    drawn = {name: sum(pixels["tube"] > 0 for pixels in own) for name, own in found.items()}
    denied = {name: any(not (pixels["tube"] or pixels["not_gas"]) for pixels in own) for name, own in found.items()}
    return {name: (drawn[name], len(own)) for name, own in found.items() if drawn[name] and denied[name]}


def _has_gas(path):
    try:
        return (read_mask(path) == GAS).any()
    except (OSError, UnreadableFrame):
        return False


def _shown(row):
    return as_number(row["ph_value"]), row["class_id"]


def _described(row):
    return f"{row['frame_path']} (pH {row['ph_value']}, {row['class_name']})"


def _phs(rows):
    found = collections.defaultdict(set)
    for row in rows:
        found[row.get("recording_id", "")].add(as_number(row["ph_value"]))
    return found
