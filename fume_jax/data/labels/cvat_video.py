"""Labels of films in CVAT: "CVAT for video 1.1", tracks of shapes by the frames of the film.

In its export CVAT writes the shape of a track at every frame, interpolated ones as `keyframe="0"`, until one that is
`outside`; masks are not interpolated. Between two shapes of a track that are further apart, as in files by hand or of
other programs, its shape is not known. It is not interpolated here: frames in such a gap are left out, whatever other
tracks show there.
"""

import functools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple
from xml.etree.ElementTree import Element

from fume_jax.data.labels.collector import Collector
from fume_jax.data.labels.cvat_shapes import in_order, read_shape, whole_number
from fume_jax.data.labels.finding import find_image, split_of
from fume_jax.data.labels.shapes import paint


class _Track(NamedTuple):
    element: Element
    place: str
    shapes: Mapping[int, Element]  # by frame


def find_film(path: Path, root: Element) -> Path | None:
    """Returns the film that a file names, beside it or in the folder above it; None if there is none."""
    name = Path((root.findtext("meta//source") or "").replace("\\", "/")).name
    paths = (base / folder / name for base in (path.parent, path.parent.parent) for folder in ("", "images", "videos"))
    return next((film for film in paths if os.path.isfile(film)), None) if name else None


def read_tracks(collector: Collector, path: Path, root: Element, empty_is_background: bool) -> None:
    """Reads the tracks of a file.

    Frames are those of the film in `<source>`, beside the file or in the folder above it, or else the images
    `frame_000000` and so on that CVAT exports. Frames without a shape of any track are not labelled, and left out.
    Where only ends of tracks are, the file cannot say whether nothing is to be seen or nobody looked: they are left
    out, or background with `empty_is_background`.
    """
    file = collector.place(path)
    elements = root.findall("track")
    if len({element.get("task_id") for element in elements}) > 1:
        collector.fault("layout", file, "holds tracks of several tasks; export each task by itself")
        return
    tracks = [_track(collector, element, f"{file}, track {element.get('id')}") for element in elements]
    frames = sorted({frame for track in tracks for frame in track.shapes})
    step = whole_number((root.findtext("meta//frame_filter") or "").removeprefix("step=")) or 1
    stop = whole_number(root.findtext("meta//stop_frame"))
    stop = max(frames, default=0) if stop is None else stop
    if gaps := [gap for track in tracks for gap in _gaps(track.shapes, step, stop)]:
        told = "gaps of tracks, with no shape and no end, whose frames are not known and left out"
        collector.count(told, f"{file}, frame {gaps[0].start}", len(gaps))
    known = [frame for frame in frames if not any(frame in gap for gap in gaps)]
    shown = {frame: [track for track in tracks if _is_shown(track, frame)] for frame in known}
    if ends := [frame for frame, found in shown.items() if not found]:
        taken = "taken as background" if empty_is_background else "left out"
        collector.count(
            f"frames of films where tracks end and nothing else is, {taken}", f"{file}, frame {ends[0]}", len(ends)
        )
    kept = {frame: found for frame, found in shown.items() if found or empty_is_background}
    _add_frames(collector, path, root, kept, split_of(elements[0].get("subset", "")))


def _track(collector, element, place):
    """Returns a track; shapes without a frame, and a second one of a frame, become faults."""
    shapes = {}
    for shape in element:
        frame = whole_number(shape.get("frame"))
        if frame is None or frame in shapes:
            problem = "has a shape without frame" if frame is None else f"has two shapes in frame {frame}"
            collector.fault("layout", place, problem)
        else:
            shapes[frame] = shape
    return _Track(element, place, dict(sorted(shapes.items())))


def _is_shown(track, frame):
    return frame in track.shapes and track.shapes[frame].get("outside") != "1"


def _gaps(shapes, step, stop):
    """Yields ranges of the frames after a shape that is not outside and before the next one, or the end of the film.

    For a shape in the frame before the last one, CVAT writes no end.
    """
    following = [*list(shapes)[1:], stop + 1]
    for (frame, shape), after in zip(shapes.items(), following, strict=True) if shapes else ():
        is_end = after == stop + 1 and frame + step >= stop
        if shape.get("outside") != "1" and not is_end and after > frame + step:
            yield range(frame + 1, after)


def _add_frames(collector, path, root, shown, split):
    film, file = find_film(path, root), collector.place(path)
    size = tuple(whole_number(root.findtext(f"meta//original_size/{key}")) for key in ("height", "width"))
    stated = size if all(size) else None
    for frame, tracks in shown.items():
        name, place = f"frame_{frame:06d}", f"{file}, frame {frame}"
        image = film or find_image(name, (path.parent,))
        if image is None:
            wanted = root.findtext("meta//source") or "that the file names as <source>"
            collector.fault(
                "missing_file", place, f"there is no film {wanted} beside the file, and no images/{name}.png"
            )
            return
        size = collector.film_size(film, frame, place, stated) if film else collector.size(image, place, stated)
        if size is None:
            continue
        shapes = [
            read_shape(collector, track.shapes[frame], track.element.get("label"), track.place, size)
            for track in tracks
        ]
        layers = in_order(shapes)
        index, recording = (frame, film.stem) if film else (-1, "")
        collector.add(image, index, name, recording, split, functools.partial(paint, layers, *size))
