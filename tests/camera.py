"""Files as cameras write them, made of arrays: FLIR SEQ and CSQ."""

import struct
from pathlib import Path

import numpy as np

HEADER, ENTRY, RAW_HEADER, CAMERA = 64, 32, 32, 2428
CLOCK, RATE = 0x384, 0x464


def block(frame, *, clock=None, rate=30, lossless=False, order="<"):
    """One FFF block of a frame, uint16 [H, W]: a directory of two records, the camera's and the frame."""
    height, width = frame.shape
    camera = bytearray(CAMERA)
    struct.pack_into(f"{order}H", camera, 0, 2)
    struct.pack_into(f"{order}H", camera, RATE, rate)
    if clock is not None:
        struct.pack_into(f"{order}IIh", camera, CLOCK, int(clock), round(clock % 1 * 1000), 0)
    pixels = frame.astype("<u2").tobytes()
    if lossless:
        import imagecodecs

        pixels = imagecodecs.jpegls_encode(frame)
    raw = struct.pack(f"{order}HHH", 2, width, height).ljust(RAW_HEADER, b"\0") + pixels
    start = HEADER + 2 * ENTRY
    directory = b""
    for kind, record, offset in ((0x20, camera, start), (0x01, raw, start + CAMERA)):
        directory += struct.pack(f"{order}HHIIII", kind, 0, 0, 0, offset, len(record)).ljust(ENTRY, b"\0")
    header = b"FFF\0".ljust(0x14, b"\0") + struct.pack(f"{order}III", 100, HEADER, 2)
    return header.ljust(HEADER, b"\0") + directory + bytes(camera) + raw


def write_sequence(path, frames, *, start=None, rate=30, **options):
    """Writes frames, uint16 [T, H, W], as SEQ, or as CSQ with `lossless`; `start` is the clock time of the first."""
    with Path(path).open("wb") as file:
        for i, frame in enumerate(frames):
            clock = None if start is None else start + i / rate
            file.write(block(np.asarray(frame, np.uint16), clock=clock, rate=rate, **options))
    return path
