"""From annotation files to checked pairs of every split: read, check, split, look for leaks, pair."""

import collections
import concurrent.futures
import dataclasses
import functools
import hashlib
import json
import os
import re
from collections.abc import Iterable
from pathlib import Path

import cv2

from datasets.fume_ogi import splits
from datasets.fume_ogi.annotations import Annotations, Row, read_annotations
from datasets.fume_ogi.content import Content, check_content
from datasets.fume_ogi.faults import KINDS, Fault, summary
from datasets.fume_ogi.pairing import PAIRINGS, pair
from datasets.shards import prefetch_with_bar
from fume_jax.runtime.errors import UserError
from fume_jax.schema import CLASSES, GASES, SPLITS


@dataclasses.dataclass(frozen=True)
class Options:
    """How recordings become a dataset; see README.md for what each option means."""

    annotations: str = ""  # pattern of the CSV files; SOURCE/{split}_annotations.csv if empty
    split: str = "original"  # or "published", or fold K of N as "K/N"
    pairing: str = "random"  # or "id"
    seed: int = 0
    allow: tuple[str, ...] = ()  # kinds of faults whose rows are dropped


@dataclasses.dataclass(frozen=True)
class Plan:
    """The pairs of every split, all files of which have been read and found sound."""

    pairs: dict[str, list[Row]]
    contents: dict[str, Content]  # by the path of the frame
    read: dict[str, int]  # rows of each annotation file
    leak: str  # in words; empty if no original is in two splits
    dropped: list[Fault]
    warnings: list[Fault]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of most frames."""
        return self.sizes.most_common(1)[0][0]

    @property
    def sizes(self) -> collections.Counter:
        """How many frames have each height and width."""
        frames = (frame for rows in self.pairs.values() for row in rows for frame in row.frames)
        found = (self.contents[frame.frame_path] for frame in frames)
        return collections.Counter((content.height, content.width) for content in found)

    def fingerprint(self, height: int, width: int) -> str:
        """Of everything that is stored at this size: equal for equal datasets only."""
        told = [(height, width, self.leak)]
        for split, rows in self.pairs.items():
            for row in rows:
                contents = [dataclasses.astuple(self.contents[frame.frame_path]) for frame in row.frames]
                told.append((split, row.ph, row.label, [dataclasses.astuple(frame) for frame in row.frames], contents))
        return hashlib.blake2b(json.dumps(told).encode(), digest_size=16).hexdigest()


class FaultyRecordings(UserError):
    """Recordings that cannot be used as they are: `faults` are all there are, `refused` those not allowed."""

    def __init__(self, refused: list[Fault], faults: list[Fault], warnings: list[Fault]):
        self.refused, self.faults, self.warnings = refused, faults, warnings
        kinds = ",".join(dict.fromkeys(fault.kind for fault in refused))
        super().__init__(
            f"{len(refused)} fault(s) in the recordings; nothing was prepared.\n{summary(refused)}\n"
            f"Mend them, or go on without the rows at fault: --allow={kinds}"
        )


@functools.cache
def make_plan(source: Path, options: Options) -> Plan:
    """Reads and checks all annotations and images below `source`.

    Raises:
      FaultyRecordings: if there are faults of other kinds than `options.allow`.
      UserError: if there are no annotations, or the options do not go with them.
    """
    _check_options(options)
    annotations = read_annotations(options.annotations or str(source / "{split}_annotations.csv"))
    _check_split(options, annotations)
    contents, content_faults = _check_contents(source, annotations.rows)
    faults = annotations.faults + content_faults
    sound = _without(annotations.rows, faults)
    by_split, leak = _split(sound, annotations, options)
    leaks = _duplicate_frames(by_split, contents)
    by_split = _without(by_split, leaks)
    faults += leaks + _empty_classes(by_split)
    refused = [fault for fault in faults if fault.kind not in options.allow]
    warnings = annotations.warnings + _frames_used_twice(by_split)
    if refused:
        raise FaultyRecordings(refused, faults, warnings)
    if empty := [split for split, rows in by_split.items() if not rows]:
        raise UserError(f"No row is left for {', '.join(empty)}; with few originals, --split=K/N shares them better.")
    if not annotations.paired:
        key = PAIRINGS[options.pairing]
        by_split = {split: pair(rows, key, options.seed) for split, rows in by_split.items()}
    return Plan(by_split, contents, annotations.read, leak, faults, warnings)


def statistics(pairs: dict[str, list[Row]]) -> list[dict]:
    """Examples of every split, class and pH: how many, how many have each gas, and how many both."""
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


def _check_options(options):
    if not re.fullmatch(r"original|published|\d+/\d+", options.split):
        raise UserError(f"--split is {options.split!r}; expected original, published, or fold K of N such as 0/5.")
    if options.pairing not in PAIRINGS:
        raise UserError(f"--pairing is {options.pairing!r}; expected one of {', '.join(PAIRINGS)}.")
    if unknown := set(options.allow) - set(KINDS):
        raise UserError(f"--allow knows no kind {', '.join(sorted(unknown))}; expected of {', '.join(KINDS)}.")


def _check_split(options, annotations: Annotations):
    """Refuses a split or pairing that these annotations cannot have."""
    split, whole = options.split, set(annotations.rows) == set(SPLITS)
    if split == "published" and not whole:
        raise UserError("--split=published takes the split of the files; it needs one each of train, val and test.")
    if annotations.paired and options.pairing != "random":
        raise UserError(
            f"--pairing={options.pairing} needs the single-gas files; paired files stay as they are paired."
        )
    if not annotations.paired or split == "published":
        return
    reason = "A pair ties two originals together, so paired files are used in the split they come in"
    if split != "original" or not whole:
        raise UserError(f"{reason}, all three of them: --split={split} needs the single-gas files.")
    if not annotations.have_ids:
        raise UserError(
            f"{reason}, and these do not say which originals they pair (no {{gas}}_original_sample_id), so whether "
            "that split leaks is unknown. Take it nevertheless with --split=published, or use the single-gas files."
        )
    shared, count = splits.shared_originals(annotations.rows)
    if shared:
        raise UserError(
            f"{reason}, and that leaks: {shared} of {count} originals are in more than one split. Take it nevertheless "
            "with --split=published, or use the single-gas files."
        )


def _check_contents(source, rows_by_split):
    """Content of every readable frame, by path, and the faults of the others."""
    rows = [row for rows in rows_by_split.values() for row in rows]
    contents, faults = {}, []
    cv2.setNumThreads(1)  # one image a thread
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        check = functools.partial(check_content, source)
        for row, (found, wrong) in zip(
            rows, prefetch_with_bar(pool, check, rows, desc="check", unit="row"), strict=True
        ):
            contents |= {frame.frame_path: content for frame, content in zip(row.frames, found, strict=True)}
            faults += wrong
    return contents, faults


def _without(rows_by_split, faults):
    places = {fault.place for fault in faults}
    return {split: [row for row in rows if row.place not in places] for split, rows in rows_by_split.items()}


def _split(rows_by_split, annotations, options):
    """Rows of each split, and in words whether, or how, it leaks."""
    if options.split == "published" or annotations.paired:
        if not annotations.have_ids:
            unknown = "The files do not say which original a frame is of: whether the splits leak is unknown."
            return rows_by_split, unknown
        shared, count = splits.shared_originals(rows_by_split)
        words = f"The splits leak: {shared} of {count} originals are in more than one, so a score may be memory."
        return rows_by_split, words if shared else ""
    rows = [row for rows in rows_by_split.values() for row in rows]
    if options.split == "original":
        return splits.by_original(rows, options.seed), ""
    number, folds = map(int, options.split.split("/"))
    return splits.fold(rows, number, folds, options.seed), ""


def _duplicate_frames(by_split, contents):
    """Rows of a later split whose pixels an earlier one has."""
    first, faults = {}, []
    for split, rows in by_split.items():
        for row in rows:
            for frame in row.frames:
                earlier, place = first.setdefault(contents[frame.frame_path].frame_digest, (split, row.place))
                if earlier != split:
                    message = f"{frame.frame_path} ({split}) has the pixels of {place} ({earlier})"
                    faults.append(Fault("duplicate_frame", row.place, message))
    return faults


def _empty_classes(by_split: dict[str, Iterable[Row]]):
    missing = {split: set(range(len(CLASSES))) - {row.label for row in rows} for split, rows in by_split.items()}
    return [
        Fault("empty_class", f"split {split}", f"has no {CLASSES[label]} frame")
        for split, labels in missing.items()
        for label in sorted(labels)
    ]


def _frames_used_twice(by_split):
    faults = []
    for rows in by_split.values():
        first = {}
        for row in rows:
            for frame in row.frames:
                place = first.setdefault(frame.frame_path, row.place)
                if place != row.place:
                    faults.append(Fault("frame_used_twice", row.place, f"{frame.frame_path} as in {place}"))
    return faults
