"""Checksums of FFV1, which FFmpeg compares but reports in its log alone (RFC 9043, section 4.9)."""

import zlib

# FFV1 takes the bits of a byte from the highest, zlib from the lowest.
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
# A slice ends with its size, 3 bytes, its error status, 1 byte, and the checksum, 4 bytes.
_FOOTER = 8
# The checksum starts with this number, and is the same after an intact slice: in version 3, and in version 4.
_STARTS = (0, 0x79408C7A)


def is_damaged(packet: bytes) -> bool:
    """Returns whether the checksum of a slice is wrong; False for streams without checksums."""
    slices, end = [], len(packet)
    while end >= _FOOTER:
        start = end - _FOOTER - int.from_bytes(packet[end - _FOOTER : end - _FOOTER + 3])
        if start < 0:
            break
        slices.append(packet[start:end].translate(_REVERSED))
        end = start
    has_checksums = end == 0
    return has_checksums and not any(all(_is_intact(data, start) for data in slices) for start in _STARTS)


def _is_intact(data, start):
    start = int(f"{start:032b}"[::-1], 2) ^ 0xFFFFFFFF  # zlib keeps the complement
    return zlib.crc32(data, start) == start
