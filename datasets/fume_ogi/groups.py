"""Who belongs together: frames of one original, recording or subject, of which no two splits may have a part."""

import itertools

from datasets.fume_ogi.annotations import GROUP_COLUMNS, Frame, Row, frames
from fume_jax.data.labels.label import Fault

# From fine to coarse; each is an attribute of a frame.
LEVELS = tuple(GROUP_COLUMNS)


def group_of(frame: Frame, level: str) -> str:
    """Names the group of a frame; a frame without an id is a group of its own."""
    return getattr(frame, level) or frame.frame_path


def count_groups(rows_by_split: dict[str, list[Row]], level: str) -> int:
    """Counts the groups of all splits."""
    return len({group_of(frame, level) for _, _, frame in frames(rows_by_split)})


def choose_level(rows_by_split: dict[str, list[Row]], asked: str = "") -> str:
    """Returns the level that was asked for, or the coarsest one of which every frame has an id, or `original`."""
    return asked or next((level for level in reversed(LEVELS) if are_known(rows_by_split, level)), "original")


def are_known(rows_by_split: dict[str, list[Row]], level: str) -> bool:
    """Returns whether every frame has an id of the level."""
    return all(getattr(frame, level) for _, _, frame in frames(rows_by_split))


def group_faults(rows_by_split: dict[str, list[Row]], asked: str) -> list[Fault]:
    """Returns a fault for every frame without an id of the level that was asked for, or whose ids contradict others."""
    faults, first = [], {}
    for _, row, frame in frames(rows_by_split):
        if asked and not getattr(frame, asked):
            column = GROUP_COLUMNS[asked]
            message = f"{column} of {frame.key} is empty, by which --group_by={asked} groups; fill it in"
            faults.append(Fault("group", row.place, message))
        for fine, coarse in itertools.combinations(LEVELS, 2):
            part, whole = getattr(frame, fine), getattr(frame, coarse)
            if not (part and whole):
                continue
            other, place = first.setdefault((fine, part, coarse), (whole, row.place))
            if other != whole:
                message = f"the {fine} {part} is of the {coarse} {whole}, but of {other} in {place}"
                faults.append(Fault("group", row.place, message))
    return faults


def group_warnings(rows_by_split: dict[str, list[Row]], asked: str) -> list[Fault]:
    """Returns warnings of ids that only a part of the frames has, and of frames whose recordings nobody told."""
    found, warnings = list(frames(rows_by_split)), []
    for level in LEVELS[1:]:
        lacking = [row.place for _, row, frame in found if not getattr(frame, level)]
        if level != asked and 0 < len(lacking) < len(found):
            message = f"{GROUP_COLUMNS[level]} is empty for {len(lacking)} of {len(found)} frames, so it groups none"
            warnings.append(Fault("partly_grouped", lacking[0], f"{message}; fill it in for all"))
    originals = {frame.original for _, _, frame in found} - {""}
    if not asked and choose_level(rows_by_split) == "original" and len(originals) > 1:
        message = (
            f"the {len(originals)} originals are split one by one; fill in recording_id, or say by "
            "--group_by=original that each is a recording of its own"
        )
        warnings.append(Fault("no_recording", "all recordings", message))
    return warnings
