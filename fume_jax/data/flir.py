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
# Types of records.
_RAW, _CAMERA = 0x01, 0x20
# Where the camera's record has the clock time (seconds since 1970, milliseconds) and frames per second.
_CLOCK, _RATE, _CAMERA_SIZE = 0x384, 0x464, 0x466
# More entries than any camera writes.
_MAX_ENTRIES = 1000
# Bytes read at once in search of the next block.
_CHUNK = 2**20


@dataclasses.dataclass(frozen=True)
class Block:
    """Describes one frame of a file: where it is, and what its records say.

    `fault` says why there is no frame, "" if there is one. `clock` is in seconds since 1970, `rate` in frames per
    second; both None if the block does not state them.
    """

    offset: int
    start: int = 0
    size: int = 0
    height: int = 0
    width: int = 0
    clock: float | None = None
    rate: float | None = None
    fault: str = ""


def is_sequence(path: str | Path) -> bool:
    """Returns whether a file begins as SEQ and CSQ files do."""
    with open(path, "rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def read_blocks(path: str | Path) -> list[Block]:
    """Reads the directories of a file, without its frames: a `Block` for each frame, damaged ones included."""
    blocks = []
    with open(path, "rb") as file:
        end = file.seek(0, 2)
        offset = 0
        while offset < end:
            try:
                block, after = _read_block(file, offset, end)
            except (struct.error, ValueError) as error:
                block, after = Block(offset, fault=str(error)), offset + 1
            blocks.append(block)
            # A block may be padded; after damage the next sound one counts.
            offset = _find(file, after if not block.fault else max(after, offset + 1), end)
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
    except (ValueError, RuntimeError, UnreadableFrame) as error:
        raise UnreadableFrame(f"{path}, frame {position} at byte {block.offset:,}: {error}") from error


def _read_block(file, offset, end):
    """Returns the block at an offset, and the offset after it."""
    file.seek(offset)
    header = file.read(_HEADER)
    if header[: len(MAGIC)] != MAGIC:
        raise ValueError("damaged, no FFF block")
    # The version, which is near 100, tells the byte order.
    order = ">" if 100 <= struct.unpack_from(">I", header, 0x14)[0] < 200 else "<"
    start, count = struct.unpack_from(f"{order}II", header, 0x18)
    if count > _MAX_ENTRIES:
        raise ValueError("damaged, its directory is no directory")
    file.seek(offset + start)
    directory = file.read(count * _ENTRY)
    entries = [struct.unpack_from(f"{order}H10xII", directory, i * _ENTRY) for i in range(count)]
    block, after = Block(offset, fault="holds no frame"), offset + _HEADER
    for kind, where, size in entries:
        after = max(after, offset + where + size if kind else 0)
        if kind == _RAW:
            block = dataclasses.replace(block, **_raw(file, offset + where, size))
        elif kind == _CAMERA and size >= _CAMERA_SIZE:
            block = dataclasses.replace(block, **_camera(file, offset + where))
    if not block.fault and block.start + block.size > end and block.size == 2 * block.height * block.width:
        block = dataclasses.replace(block, fault=f"the file is cut off, {block.start + block.size - end:,} bytes lack")
    return block, after


def _raw(file: BinaryIO, offset, size):
    file.seek(offset)
    header = file.read(_RAW_HEADER)
    width, height = struct.unpack_from(f"{_order(header)}HH", header, 2)
    if not width or not height or size <= _RAW_HEADER:
        raise ValueError("damaged, its frame has no size")
    return {"start": offset + _RAW_HEADER, "size": size - _RAW_HEADER, "height": height, "width": width, "fault": ""}


def _camera(file, offset):
    file.seek(offset)
    record = file.read(_CAMERA_SIZE)
    order = _order(record)
    seconds, milliseconds = struct.unpack_from(f"{order}II", record, _CLOCK)
    (rate,) = struct.unpack_from(f"{order}H", record, _RATE)
    clock = seconds + (milliseconds & 0xFFFF) / 1000 if seconds else None
    return {"clock": clock, "rate": float(rate) or None}


def _order(record):
    """Returns the byte order of a record, which begins with the number 2."""
    if record[:2] not in (b"\0\2", b"\2\0"):
        raise ValueError("damaged, a record has no byte order")
    return ">" if record[:2] == b"\0\2" else "<"


def _decode(data, height, width):
    if data[:2] == b"\xff\xd8":
        with needs_extra("camera", "Reading CSQ files, which hold JPEG-LS,"):
            import imagecodecs
        values = imagecodecs.jpegls_decode(data)
    elif len(data) >= 2 * height * width:
        values = np.frombuffer(data, "<u2", height * width)
    else:
        raise ValueError(f"the file is cut off, it has {len(data):,} of {2 * height * width:,} bytes")
    if values.size != height * width:
        raise ValueError(f"holds {values.size:,} pixels, and {width}x{height} in its header")
    return values.reshape(height, width).astype(np.uint16, copy=False)


def _find(file, offset, end) -> int:
    """Returns the offset of the next block from `offset` on, `end` if there is none."""
    while offset < end:
        file.seek(offset)
        chunk = file.read(_CHUNK)
        found = chunk.find(MAGIC)
        if found >= 0:
            return offset + found
        offset += max(1, len(chunk) - len(MAGIC) + 1)
    return end
