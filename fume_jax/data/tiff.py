"""Reads what TIFF files say about their pages, also of pixels that Pillow cannot decode, and checks their checksums."""

import dataclasses
import io
import zlib

import numpy as np
from PIL import TiffImagePlugin

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# Numbers of tags, and the compressions that use zlib (TIFF 6.0; Adobe Photoshop TIFF Technical Notes).
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _SAMPLE_FORMAT = 256, 257, 258, 259, 339
_KIND, _OLD_KIND = 254, 255
_OFFSETS, _COUNTS = (273, 324), (279, 325)  # of strips, and of tiles
_DEFLATE = (8, 32946)


@dataclasses.dataclass(frozen=True)
class Page:
    """Describes a page; `blocks` are the (offset, size) of its parts if they have checksums."""

    height: int
    width: int
    is_deep: bool  # samples of more than 8 bits, or signed ones
    blocks: list[tuple[int, int]]


def read_pages(data: bytes) -> list[Page]:
    """Reads the directories of a file, without those of previews and masks; errors are those of Pillow."""
    file = io.BytesIO(data)
    directory = TiffImagePlugin.ImageFileDirectory_v2(data[: 16 if b"+" in data[2:4] else 8])
    pages, seen, offset = [], set(), directory.next
    while offset and offset not in seen:
        seen.add(offset)
        file.seek(offset)
        directory.load(file)
        if not directory.get(_KIND, 0) & 0b101 and directory.get(_OLD_KIND, 1) != 2:
            pages.append(_page(directory))
        offset = directory.next
    return pages


def check_checksums(data: bytes, page: Page) -> None:
    """Raises zlib.error if a part of the page is damaged; libtiff stops before the checksum."""
    for offset, size in page.blocks:
        stream = zlib.decompressobj()
        rest = data[offset : offset + size]
        while rest and not stream.eof:
            stream.decompress(rest, 2**20)
            rest = stream.unconsumed_tail


def _page(directory):
    is_deep = np.max(directory.get(_BITS, 1)) > 8 or np.max(directory.get(_SAMPLE_FORMAT, 1)) > 1
    blocks = []
    if directory.get(_COMPRESSION) in _DEFLATE:
        offsets, counts = ([x for tag in tags for x in directory.get(tag, ())] for tags in (_OFFSETS, _COUNTS))
        blocks = list(zip(offsets, counts, strict=False))
    return Page(int(directory[_HEIGHT]), int(directory[_WIDTH]), bool(is_deep), blocks)
