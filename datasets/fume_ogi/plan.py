"""Plan of a dataset of recordings: reads and checks annotations and images, splits the rows, and pairs the frames."""

import collections
import concurrent.futures
import dataclasses
import functools
import hashlib
import json
import os
import re
from pathlib import Path

import cv2

from datasets.fume_ogi import checks, groups, splits
from datasets.fume_ogi.annotations import GROUP_COLUMNS, TABLE, Annotations, Row, frames, read_annotations
from datasets.fume_ogi.content import Content, check_content
from datasets.fume_ogi.faults import KINDS, OF_NO_ROW, summary
from datasets.fume_ogi.pairing import PAIRINGS, pair
from datasets.paired_frames import prefetch_with_bar
from fume_jax.data.films import scaled_film
from fume_jax.data.labels.label import Fault
from fume_jax.runtime.errors import UserError
from fume_jax.schema import CLASSES, GASES, SPLITS


@dataclasses.dataclass(frozen=True)
class Options:
    """Options that make a dataset of recordings; README.md explains them."""

    annotations: str = ""  # path of the CSV files; those in the source if empty
    split: str = "original"  # or "published", or fold K of N as "K/N"
    pairing: str = "random"  # or "id"
    seed: int = 0
    allow: tuple[str, ...] = ()  # kinds of faults whose rows are dropped
    group_by: str = ""  # one of groups.LEVELS, whose frames stay in one split; the coarsest that is known if empty

    @property
    def parts(self) -> int:
        """Number of parts that the groups of a class are divided into; 0 for the split of the files."""
        folds = self.split.rpartition("/")[2]
        return int(folds) if folds.isdigit() else len(SPLITS) * (self.split == "original")


@dataclasses.dataclass(frozen=True)
class Plan:
    """Pairs of every split, whose files have all been read and checked."""

    pairs: dict[str, list[Row]]
    contents: dict[str, Content]  # by the key of the frame
    read: dict[str, int]  # number of rows of each annotation file
    group_by: str  # one of groups.LEVELS
    leak: str  # a sentence about groups that splits share; empty if there are none
    dropped: list[Fault]
    warnings: list[Fault]

    @property
    def sizes(self) -> collections.Counter:
        """Number of frames of each (height, width)."""
        contents = (self.contents[frame.key] for _, _, frame in frames(self.pairs))
        return collections.Counter((content.height, content.width) for content in contents)

    @property
    def label_sources(self) -> collections.Counter:
        """Number of masks by who made them."""
        return collections.Counter(frame.label_source for _, _, frame in frames(self.pairs))

    def ranges(self, source: Path) -> dict[str, list[float]]:
        """Returns the values of each film of deep frames that become black and white, by its path."""
        films = {frame.frame_path for _, _, frame in frames(self.pairs) if frame.frame_index >= 0}
        limits = {path: scaled_film(str(source / path))[1] for path in sorted(films)}
        return {path: list(ends) for path, ends in limits.items() if ends is not None}

    def fingerprint(self, height: int, width: int) -> str:
        """Returns a digest of all that is stored at this size; only equal datasets have equal ones."""
        stored = [(height, width, self.leak, self.group_by)]
        for split, rows in self.pairs.items():
            for row in rows:
                contents = [self.contents[frame.key] for frame in row.frames]
                stored.append((split, row.ph, row.label, row.frames, contents))
        return hashlib.blake2b(json.dumps(stored, default=dataclasses.astuple).encode(), digest_size=16).hexdigest()


class FaultyRecordings(UserError):
    """Error about faults that the options do not allow, which are `refused`; `faults` are all faults."""

    def __init__(self, refused: list[Fault], faults: list[Fault], warnings: list[Fault]):
        self.faults, self.warnings = faults, warnings
        kinds = dict.fromkeys(fault.kind for fault in refused)
        what = "drop the rows at fault" if set(kinds) - set(OF_NO_ROW) else "continue nevertheless"
        super().__init__(
            f"{len(refused)} fault(s) in the recordings; nothing was prepared.\n{summary(refused)}\n"
            f"Correct them, or {what}: --allow={','.join(kinds)}"
        )


@functools.cache
def make_plan(source: Path, options: Options) -> Plan:
    """Reads and checks all annotations and images below `source`, and makes pairs as the options say.

    Raises FaultyRecordings if there are faults of kinds that `options.allow` does not hold, and another UserError if
    there are no annotations or they do not fit the options.
    """
    check_options(options)
    single = source / TABLE
    by_split = source / "{split}_annotations.csv"
    annotations = read_annotations(options.annotations or str(single if single.is_file() else by_split), source)
    level = groups.choose_level(annotations.rows, options.group_by)
    _check_split(options, annotations, level)
    contents, content_faults = _check_contents(source, annotations.rows)
    faults = annotations.faults + groups.group_faults(annotations.rows, options.group_by)
    faults += content_faults + checks.contradicting_colors(annotations.rows, contents)
    faults += checks.contradicting_frames(annotations.rows, contents)
    sound = _without(annotations.rows, faults)
    by_split, leak = _split(sound, annotations, options, level)
    leaks = checks.duplicate_frames(by_split, contents)
    by_split = _without(by_split, leaks)
    faults += leaks + _empty_classes(by_split, level, 0 if annotations.paired else options.parts)
    faults += checks.without_gas(by_split, contents)
    warnings = annotations.warnings + groups.group_warnings(annotations.rows, options.group_by)
    warnings += checks.near_duplicates(by_split, contents, level) + checks.frames_used_twice(by_split)
    warnings += checks.ignored_without_gas(by_split, contents) + checks.noted_frames(by_split, contents)
    if refused := [fault for fault in faults if fault.kind not in options.allow]:
        raise FaultyRecordings(refused, faults, warnings)
    if empty := [split for split, rows in by_split.items() if not rows]:
        raise UserError(f"No row is left for {', '.join(empty)}; with few {level}s, --split=K/N shares them better.")
    if not annotations.paired:
        key = PAIRINGS[options.pairing]
        by_split = {split: pair(rows, key, options.seed) for split, rows in by_split.items()}
    return Plan(by_split, contents, annotations.read, level, leak, faults, warnings)


def statistics(pairs: dict[str, list[Row]]) -> list[dict]:
    """Counts, for every split, class and pH, all examples, those that have each gas, and those that have both."""
    counts = collections.defaultdict(collections.Counter)
    for split, rows in pairs.items():
        for row in rows:
            count = counts[SPLITS.index(split), row.label, -row.ph]
            count.update(["examples", *(frame.gas for frame in row.frames)])
            count["both"] += len(row.frames) == len(GASES)
    columns = ("examples", *GASES, "both")
    return [
        {"split": SPLITS[split], "class": CLASSES[label], "ph": -ph} | {column: count[column] for column in columns}
        for (split, label, ph), count in sorted(counts.items())
    ]


def check_options(options):
    if not re.fullmatch(r"original|published|\d+/\d+", options.split):
        raise UserError(f"--split is {options.split!r}; expected original, published, or fold K of N such as 0/5.")
    if options.pairing not in PAIRINGS:
        raise UserError(f"--pairing is {options.pairing!r}; expected one of {', '.join(PAIRINGS)}.")
    if options.group_by not in ("", *groups.LEVELS):
        raise UserError(f"--group_by is {options.group_by!r}; expected one of {', '.join(groups.LEVELS)}.")
    if unknown := set(options.allow) - set(KINDS):
        raise UserError(f"--allow knows no kind {', '.join(sorted(unknown))}; expected of {', '.join(KINDS)}.")


def _check_split(options, annotations: Annotations, level):
    """Raises UserError unless the annotations allow the split and the pairing of the options."""
    split, whole = options.split, set(annotations.rows) == set(SPLITS)
    if split == "published" and not whole:
        raise UserError("--split=published takes the split of the files; it needs one each of train, val and test.")
    if annotations.paired and options.pairing != "random":
        raise UserError(
            f"--pairing={options.pairing} needs the single-gas files; paired files stay as they are paired."
        )
    if not annotations.paired or split == "published":
        return
    reason = f"A pair ties two {level}s together, so paired files are used in the split they come in"
    if split != "original" or not whole:
        raise UserError(f"{reason}, all three of them: --split={split} needs the single-gas files.")
    if not groups.are_known(annotations.rows, level):
        raise UserError(
            f"{reason}, and these do not say which {level}s they pair (no {{gas}}_{GROUP_COLUMNS[level]}), so whether "
            "that split leaks is unknown. Take it nevertheless with --split=published, or use the single-gas files."
        )
    shared, count = splits.shared_groups(annotations.rows, level)
    if shared:
        raise UserError(
            f"{reason}, and that leaks: {shared} of {count} {level}s are in more than one split. Take it nevertheless "
            "with --split=published, or use the single-gas files."
        )


def _check_contents(source, rows_by_split):
    """Returns the contents of frames by path, and the faults of their files."""
    rows = [row for rows in rows_by_split.values() for row in rows]
    contents, faults = {}, []
    cv2.setNumThreads(1)  # each thread of the pool decodes an image
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        checked = prefetch_with_bar(pool, functools.partial(check_content, source), rows, desc="check", unit="row")
        for row, (found, row_faults) in zip(rows, checked, strict=True):
            contents |= {frame.key: content for frame, content in zip(row.frames, found, strict=True)}
            faults += row_faults
    return contents, faults


def _without(rows_by_split, faults):
    places = {fault.place for fault in faults}
    return {split: [row for row in rows if row.place not in places] for split, rows in rows_by_split.items()}


def _split(rows_by_split, annotations, options, level):
    """Returns the rows of each split, and a sentence about a leak; the sentence is empty if there is none."""
    if options.split == "published" or annotations.paired:
        if not groups.are_known(rows_by_split, level):
            unknown = f"The files do not say which {level} a frame is of: whether the splits leak is unknown."
            return rows_by_split, unknown
        shared, count = splits.shared_groups(rows_by_split, level)
        leak = f"The splits leak: {shared} of {count} {level}s are in more than one, so a score may be memory."
        return rows_by_split, leak if shared else ""
    rows = [row for rows in rows_by_split.values() for row in rows]
    if options.split == "original":
        return splits.by_group(rows, level, options.seed), ""
    number, folds = map(int, options.split.split("/"))
    return splits.fold(rows, level, number, folds, options.seed), ""


def _empty_classes(by_split, level, parts):
    """Returns a fault for every class that a split has not; why not, unless the split is given, without `parts`."""
    found = collections.defaultdict(set)
    for split, row, _ in frames(by_split):
        found[row.label].add(split)
    reason = f"; {_too_few_groups(by_split, level, parts)}" if parts else ""
    return [
        Fault("empty_class", f"split {split}", f"has no {name} frame{reason}")
        for split in by_split
        for label, name in enumerate(CLASSES)
        if split not in found[label]
    ]


def _too_few_groups(by_split, level, parts):
    """Says how many groups there are of each class, and what to do; a finer level is named only if it has enough."""

    def count(level):
        found = {(row.label, groups.group_of(frame, level)) for _, row, frame in frames(by_split)}
        return [sum(own == label for own, _ in found) for label in range(len(CLASSES))]

    finer = [
        f"--group_by={fine}"
        for fine in reversed(groups.LEVELS[: groups.LEVELS.index(level)])
        if groups.are_known(by_split, fine) and min(count(fine)) >= parts
    ]
    counts = ", ".join(f"{number} of {name}" for number, name in zip(count(level), CLASSES, strict=True))
    leaks = f", by which frames of one {level} get into several splits and a score may be memory"
    divide = f", or divide by {' or '.join(finer)}{leaks}" if finer else ""
    return (
        f"there are {level}s: {counts}, and each part of a split needs one: add {level}s{divide}. "
        "A model of masks alone needs no classes, see docs/labels.md"
    )
