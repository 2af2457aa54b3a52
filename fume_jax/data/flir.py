"""Reads FLIR recordings, SEQ and CSQ: one FFF block after another, each with a frame.

A block has a header, a directory of records, and records: the camera's settings with the clock time, and the raw frame,
uint16 or JPEG-LS. Layout: ExifTool's FLIR.pm, https://exiftool.org/TagNames/FLIR.html.
"""

import dataclasses
import struct
from pathlib import Path
from typing import BinaryIO

import numpy as np

from fume_jax.data.faults import UnreadableFrame, check_size
from fume_jax.runtime.errors import needs_extra

MAGIC = b"FFF\0"
# Bytes of the header of a block, of an entry of its directory, and of the header of a raw frame.
_HEADER, _ENTRY, _RAW_HEADER = 64, 32, 32
# How JPEG-LS begins.
_JPEG = b"\xff\xd8"
# Types of records.
_RAW, _CAMERA = 0x01, 0x20
# Where the camera's record has the clock time (seconds since 1970, milliseconds) and frames per second.
_CLOCK, _RATE, _CAMERA_SIZE = 0x384, 0x464, 0x466
# More entries than any camera writes.
_MAX_ENTRIES = 1000
# Bytes read at once in search of the next block, at first and at most.
_CHUNK, _MAX_CHUNK = 2**12, 2**20
# Bytes of JPEG-LS in relation to those of the pixels, at most; noise takes more than its pixels do.
_MAX_GROWTH = 2


@dataclasses.dataclass(frozen=True)
class Block:
    """Describes one frame of a file: where it is, and what its records say.

    `is_lossless` says that the frame is packed as JPEG-LS, whose decoder tells what lacks: some cameras state a few
    bytes more than there are. `fault` says why there is no frame, "" if there is one. `clock` is in seconds since 1970,
    `rate` in frames per second; both None if the block does not state them.
    """

    offset: int
    start: int = 0
    size: int = 0
    is_lossless: bool = False
    height: int = 0
    width: int = 0
    clock: float | None = None
    rate: float | None = None
    fault: str = ""


def read_blocks(path: str | Path) -> list[Block]:
    """Reads the directories of a file, without its frames: a `Block` for each frame, damaged ones included."""
    blocks = []
    with open(path, "rb") as file:
        end = file.seek(0, 2)
        offset = _find(file, 0, end)
        if offset:
            blocks.append(Block(0, fault="damaged, no FFF block"))
        while offset < end:
            try:
                block, after = _read_block(file, offset, end)
            except ValueError as error:
                block, after = Block(offset, fault=str(error)), offset + len(MAGIC)
            following = _find(file, after, end)
            if block.fault or following != after:
                # The directory may be wrong about the end of the block.
                following = _find(file, offset + len(MAGIC), end)
            if not block.fault and not block.is_lossless and block.start + block.size > following:
                reason = "damaged, it reaches into the next block"
                if following == end:
                    reason = f"the file is cut off, {block.start + block.size - end:,} bytes lack"
                block = dataclasses.replace(block, fault=reason)
            blocks.append(block)
            if not block.fault and not _is_padding(file, after, following, after - offset):
                blocks.append(Block(after, fault="damaged, no FFF block"))
            offset = following
    return blocks


def read_frame(path: str | Path, position: int, block: Block) -> np.ndarray:
    """Reads the raw counts of a frame, uint16 [H, W]; raises UnreadableFrame that names its number and byte offset."""
    try:
        if block.fault:
            raise ValueError(block.fault)
        check_size(block.height, block.width)
        with open(path, "rb") as file:
            file.seek(block.start)
            return _decode(file.read(block.size), block.height, block.width)
    except (ValueError, RuntimeError, MemoryError, OSError, UnreadableFrame) as error:
        raise UnreadableFrame(f"{path}, frame {position} at byte {block.offset:,}: {error}") from error


def _read_block(file, offset, end):
    """Returns the block at an offset, and the offset after it."""
    header = _read(file, offset, _HEADER)
    order = _header_order(header)
    start, count = struct.unpack_from(f"{order}II", header, 0x18)
    if not 0 < count <= _MAX_ENTRIES or offset + start >= end:
        raise ValueError("damaged, its directory is no directory")
    directory = _read(file, offset + start, count * _ENTRY)
    block, after = Block(offset, fault="holds no frame"), offset + start + count * _ENTRY
    for kind, where, size in struct.iter_unpack(f"{order}H10xII12x", directory):
        after = max(after, offset + where + size if kind else 0)
        if kind == _RAW:
            block = dataclasses.replace(block, **_raw(file, offset + where, size))
        elif kind == _CAMERA and size >= _CAMERA_SIZE:
            block = dataclasses.replace(block, **_camera(file, offset + where))
    return block, after


def _raw(file: BinaryIO, offset, size):
    header = _read(file, offset, _RAW_HEADER + len(_JPEG))
    width, height = struct.unpack_from(f"{_order(header)}HH", header, 2)
    start, size = offset + _RAW_HEADER, max(0, size - _RAW_HEADER)
    is_lossless, pixels = header[_RAW_HEADER:] == _JPEG, 2 * height * width
    if not pixels or (size < pixels and not is_lossless):
        raise ValueError(f"damaged, its frame of {width}x{height} has {size:,} bytes")
    # The rest of a record is padding.
    size = min(size, _MAX_GROWTH * pixels + _CHUNK) if is_lossless else pixels
    return {"start": start, "size": size, "is_lossless": is_lossless, "height": height, "width": width, "fault": ""}


def _camera(file, offset):
    record = _read(file, offset, _CAMERA_SIZE)
    order = _order(record)
    seconds, milliseconds = struct.unpack_from(f"{order}II", record, _CLOCK)
    (rate,) = struct.unpack_from(f"{order}H", record, _RATE)
    clock = seconds + (milliseconds & 0xFFFF) / 1000 if seconds else None
    return {"clock": clock, "rate": float(rate) or None}


def _read(file, offset, size):
    file.seek(offset)
    data = file.read(size)
    if len(data) < size:
        raise ValueError("the file is cut off, or this block is damaged: its records are not in the file")
    return data


def _header_order(header):
    """Returns the byte order of the header of a block, which its version tells: it is near 100. None if it is none."""
    versions = {order: struct.unpack_from(f"{order}I", header, 0x14)[0] for order in "<>"}
    found = [order for order, version in versions.items() if 100 <= version < 200]
    return found[0] if header[: len(MAGIC)] == MAGIC and found else None


def _order(record):
    """Returns the byte order of a record, which begins with the number 2."""
    if record[:2] not in (b"\0\2", b"\2\0"):
        raise ValueError("damaged, a record has no byte order")
    return ">" if record[:2] == b"\0\2" else "<"


def _decode(data, height, width):
    if data[: len(_JPEG)] == _JPEG:
        with needs_extra("camera", "Reading CSQ files, which hold JPEG-LS,"):
            import imagecodecs
        # JPEG-LS has a size of its own, which may be any; it is refused if it is not that of the frame.
        values = imagecodecs.jpegls_decode(data, out=np.empty((height, width), np.uint16))
    elif len(data) >= 2 * height * width:
        values = np.frombuffer(data, "<u2", height * width)
    else:
        raise ValueError(f"the file is cut off, it has {len(data):,} of {2 * height * width:,} bytes")
    return values.reshape(height, width).astype(np.uint16, copy=False)


def _find(file, offset, end) -> int:
    """Returns the offset of the next header of a block from `offset` on, `end` if there is none.

    Pixels may be the first bytes of a header by chance. Of a header that is cut off, these count.
    """
    size = _CHUNK
    while offset < end:
        file.seek(offset)
        chunk = file.read(size + _HEADER)
        found = chunk.find(MAGIC)
        while 0 <= found < size:
            header = chunk[found : found + _HEADER]
            if len(header) < _HEADER or _header_order(header):
                return offset + found
            found = chunk.find(MAGIC, found + 1)
        offset, size = offset + size, min(2 * size, _MAX_CHUNK)
    return end


def _is_padding(file, start, stop, size) -> bool:
    """Returns whether the bytes after a block of this size are no block that was damaged: few, or all the same."""
    if stop - start < max(_HEADER, size // 4):
        return True
    file.seek(start)
    return stop - start < size and len(set(file.read(stop - start))) == 1
