"""Labels of CVAT: "CVAT for images 1.1", "CVAT for video 1.1" and "Segmentation mask 1.1", unpacked.

The formats are those of docs.cvat.ai, under "Dataset management". XML holds polygons, boxes, ellipses, and masks as run
lengths by rows in a box. CVAT turns images upright by their EXIF orientation, so coordinates are of the upright
picture. Shapes of a higher `z_order` lie over others, later ones over earlier ones of the same. A pixel is inside if
its centre is; CVAT's own export of masks differs from that by pixels at the border of polygons.
"""

import functools
import xml.parsers.expat
from collections.abc import Iterable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from fume_jax.data.labels import cvat_masks, cvat_video
from fume_jax.data.labels.collector import Collector
from fume_jax.data.labels.cvat_shapes import AREAS, in_order, read_shape, whole_number
from fume_jax.data.labels.finding import find_image, folder_of, list_files, split_of
from fume_jax.data.labels.label import NAMES, Labels, Meaning
from fume_jax.data.labels.shapes import encode_cvat, paint, regions
from fume_jax.runtime.errors import UserError
from fume_jax.runtime.files import replacing
from fume_jax.schema import BACKGROUND


def read(source: Path, meaning: Meaning, *, empty_is_background: bool = False) -> Labels:
    """Reads an XML file of CVAT, or what a folder and the folders in it hold: XML files and folders of masks.

    The recording is the folder in the name of an image, or the film. The split is the subset of a project.

    CVAT lists every image of a task, with shapes or without, so it cannot say whether one without shapes shows nothing
    or is not labelled. Such images are left out; `empty_is_background` takes them as background. A note counts them
    either way. Of films, `cvat_video` says which frames are read.
    """
    collector = Collector(source, meaning)
    found = 0
    for path in list_files(collector.source, (".xml",)):
        try:
            root = _parse(path)
        except UserError as error:
            collector.fault("unreadable_file", path, str(error))
            continue
        if root.tag != "annotations" or root.find("meta") is None:
            collector.count("XML files that are none of CVAT, left out", path)
            continue
        found += 1
        if root.find("track") is not None:
            cvat_video.read_tracks(collector, path, root, empty_is_background)
        else:
            _read_images(collector, path, root, empty_is_background)
    folders = cvat_masks.find_folders(collector.source)
    for folder in folders:
        cvat_masks.read_folder(collector, folder)
    if not found and not folders:
        expected = "annotations.xml of CVAT, or labelmap.txt with SegmentationClass/"
        collector.fault("layout", collector.source, f"holds no labels of CVAT: {expected}")
    return collector.result()


def _parse(path):
    """Parses XML that defines no entities: a few of them could fill the memory. Raises UserError if it is damaged."""
    data = path.read_bytes()

    def refuse(*_):
        raise UserError(f"{path} has a DOCTYPE, which CVAT does not write and which could fill the memory.")

    parser = xml.parsers.expat.ParserCreate()
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(data, True)
        return ElementTree.fromstring(data)
    except (xml.parsers.expat.ExpatError, ElementTree.ParseError, ValueError, LookupError) as error:
        raise UserError(f"{path} is damaged: {error}.") from error


def _read_images(collector, path, root, empty_is_background):
    for element in root.iter("image"):
        name = element.get("name", "").replace("\\", "/")
        place = f"{collector.place(path)}, image {name}"
        if not any(child.tag in AREAS for child in element):
            taken = "taken as background" if empty_is_background else "left out"
            collector.count(f"images without regions, which may show nothing or not be labelled, {taken}", place)
            if not empty_is_background:
                continue
        stated = tuple(whole_number(element.get(key)) or 0 for key in ("height", "width"))
        image, frame = _find_frame(collector, path, root, name, element.get("subset", ""))
        if image is None:
            collector.missing(name, place, (path.parent, path.parent.parent))
            continue
        size = collector.film_size(image, frame, place, stated) if frame >= 0 else collector.size(image, place, stated)
        if size is None:
            continue
        shapes = [read_shape(collector, child, child.get("label"), place, size) for child in element]
        layers = in_order(shapes)
        recording, frame_name = (image.stem, name) if frame >= 0 else (folder_of(name), image.stem)
        split = split_of(element.get("subset", ""))
        collector.add(image, frame, frame_name, recording, split, functools.partial(paint, layers, *size))


def _find_frame(collector, path, root, name, subset):
    """Returns the file of a frame and its position, -1 of an image; None if there is none.

    Of films, CVAT names frames `frame_000000` and so on, by their position.
    """
    bases = (path.parent, path.parent.parent)
    if image := find_image(name, bases, [subset] if subset else []):
        return image, -1
    position = whole_number(name.removeprefix("frame_"))
    film = None if position is None else cvat_video.find_film(path, root)
    return (film, position) if film else (None, -1)


def write(path: Path, entries: Iterable[tuple[str, np.ndarray]]) -> None:
    """Writes masks, uint8 [H, W] by the names of their images, as "CVAT for images 1.1"; `read` gives every bit back.

    Every value in a mask is one mask of CVAT, labelled by its name in `label.VALUES`, but for background, of which
    there is one only where there is nothing else: it says that the frame was labelled. The task in CVAT needs these
    labels.
    """
    root = ElementTree.Element("annotations")
    _text(root, "version", "1.1")
    task = ElementTree.SubElement(ElementTree.SubElement(root, "meta"), "task")
    _text(task, "mode", "annotation")
    labels = ElementTree.SubElement(task, "labels")
    for name in NAMES.values():
        label = ElementTree.SubElement(labels, "label")
        _text(label, "name", name)
        _text(label, "type", "mask")
    for id, (name, mask) in enumerate(entries):
        height, width = (str(length) for length in mask.shape)
        image = ElementTree.SubElement(root, "image", id=str(id), name=name, width=width, height=height)
        for value, region in (regions(mask) or {BACKGROUND: mask == BACKGROUND}).items():
            runs, box = encode_cvat(region)
            texts = dict(zip(("left", "top", "width", "height"), map(str, box), strict=True))
            fixed = {"label": NAMES[value], "source": "manual", "occluded": "0", "rle": ", ".join(map(str, runs))}
            ElementTree.SubElement(image, "mask", {**fixed, **texts, "z_order": "0"})
    ElementTree.indent(root)
    with replacing(path) as part:
        ElementTree.ElementTree(root).write(part, encoding="utf-8", xml_declaration=True)


def _text(parent, tag, text):
    ElementTree.SubElement(parent, tag).text = text
