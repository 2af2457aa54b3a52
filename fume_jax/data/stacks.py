"""Opens files of many frames with access to each: FLIR SEQ and CSQ, TIFF, and NumPy arrays."""

import dataclasses
import functools
import itertools
import logging
import math
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import tifffile

from fume_jax.data import flir, tiff
from fume_jax.data.faults import UnreadableFrame, check_size
from fume_jax.data.images import LEVELS, MAX_PIXEL_BYTES, upright
from fume_jax.runtime.errors import UserError
from fume_jax.runtime.files import check_zip

logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # it logs what is raised, and tags that it does not know

COUNTS = "counts"
_NPY, _ZIP = b"\x93NUMPY", b"PK\x03\x04"
# Arrays of an .npz file besides the frames.
_TIMES, _RATE = "times", "rate"
# Number of the tag of TIFF files that says how a page is turned.
_ORIENTATION = 274
# Bytes of arrays that are unpacked into memory; `.npy` files are read where they lie, and may be larger.
MAX_ARRAY_BYTES = 8_000_000_000
# Names of files that hold nothing else than frames of one kind.
SUFFIXES = (".seq", ".csq", ".npy", ".npz")
# What is not read, by the end of its name, and what to do instead.
UNREAD = {
    ".ats": "FLIR Research Studio exports it as SEQ, CSQ or TIFF",
    ".sfmov": "FLIR Research Studio or ExaminIR exports it as TIFF or SEQ",
    ".inc": "it is the header of an .sfmov file; FLIR Research Studio exports that as TIFF or SEQ",
    ".ptw": "FLIR Research Studio or Altair exports it as TIFF or SEQ",
    ".fcf": "FLIR Research Studio exports it as SEQ or TIFF",
    ".mat": "save the array with numpy.save('film.npy', frames), frames of [T, H, W]",
    ".h5": "save the array with numpy.save('film.npy', frames), frames of [T, H, W]",
    ".hdf5": "save the array with numpy.save('film.npy', frames), frames of [T, H, W]",
    ".raw": "it states neither size nor depth; save numpy.fromfile(path, dtype).reshape(T, H, W) with numpy.save",
    ".bin": "it states neither size nor depth; save numpy.fromfile(path, dtype).reshape(T, H, W) with numpy.save",
    ".irb": "InfraTec IRBIS exports it as TIFF",
    ".is2": "Fluke Connect exports it as TIFF",
    ".rjpeg": "rename it to .jpg",
}


@dataclasses.dataclass(frozen=True)
class Stack:
    """Holds the frames of one file in order.

    Attributes:
      path, num_frames: the file, and the number of frames, damaged ones included.
      read: reads a frame by its position, numbers [H, W] as the file has them; UnreadableFrame names file and frame.
      unit: of these numbers.
      times: seconds from the first frame, float [num_frames]; None if the file states neither times nor a rate.
      clock: when the first frame was taken, in seconds since 1970; None if the file does not say.
    """

    path: str
    num_frames: int
    read: Callable[[int], np.ndarray]
    unit: str
    times: np.ndarray | None = None
    clock: float | None = None

    @property
    def rate(self) -> float | None:
        """Frames per second in the middle of the file; None without times."""
        if self.times is None or self.num_frames < 2:
            return None
        return float(1 / max(np.median(np.diff(self.times)), 1e-6))

    def __iter__(self) -> Iterator[np.ndarray | UnreadableFrame]:
        return (self.frame(position) for position in range(self.num_frames))

    def frame(self, position: int) -> np.ndarray | UnreadableFrame:
        """Reads a frame, or returns why it cannot be read."""
        try:
            return self.read(position)
        except UnreadableFrame as error:
            return error


def open_stack(path: str | Path) -> Stack | None:
    """Opens a file by what it holds; None if it is no such file, or a TIFF file of one page.

    Raises UserError for a file that is damaged beyond its frames, and for formats of cameras that are not read.
    """
    with open(path, "rb") as file:
        start = file.read(8)
    if start[:4] == flir.MAGIC:
        return _open_flir(str(path))
    if start[:4] in tiff.MAGIC:
        return _open_tiff(str(path))
    if start[:6] == _NPY:
        try:
            return _of_array(str(path), np.load(path, mmap_mode="r", allow_pickle=False))
        except UserError:
            raise
        except Exception as error:  # of many types, by the damage
            raise UserError(f"{path} is damaged, or holds Python objects ({error}).") from error
    if start[:4] == _ZIP and zipfile.is_zipfile(path):
        return _open_npz(str(path))
    suffix = Path(path).suffix.lower()
    if remedy := UNREAD.get(suffix):
        raise UserError(f"{path}: files of this format are not read; {remedy}.")
    if suffix in SUFFIXES:
        raise UserError(f"{path} is damaged, or no {suffix[1:].upper()} file.")
    return None


def _open_flir(path):
    blocks = flir.read_blocks(path)
    clocks = [block.clock for block in blocks]
    rate = next((block.rate for block in blocks if block.rate), None)
    times = _times(clocks, rate)
    # The first frames may be damaged, and have no clock time.
    known = next((i for i, clock in enumerate(clocks) if clock is not None), None)
    clock = None if known is None else clocks[known] - (0.0 if times is None else float(times[known]))
    return Stack(path, len(blocks), functools.partial(_flir_frame, path, blocks), COUNTS, times, clock)


def _flir_frame(path, blocks, position):
    if not 0 <= position < len(blocks):
        raise UnreadableFrame(f"{path}: there is no frame {position}; the file has {len(blocks)}, counted from 0")
    return flir.read_frame(path, position, blocks[position])


def _times(clocks, rate):
    """Returns seconds from the first frame by the clock of each, or by the rate where clocks lack or stand still."""
    known = [clock for clock in clocks if clock is not None]
    if len(known) > 1 and all(a < b for a, b in itertools.pairwise(known)):
        positions = [i for i, clock in enumerate(clocks) if clock is not None]
        times = np.interp(np.arange(len(clocks)), positions, known)
        # Damaged frames at the ends go on at the rate.
        step = 1 / rate if rate else np.median(np.diff(known))
        for outside in (range(positions[0]), range(positions[-1] + 1, len(clocks))):
            for i in outside:
                nearest = positions[0] if i < positions[0] else positions[-1]
                times[i] = clocks[nearest] + (i - nearest) * step
        return (times - times[0]).round(6)
    return np.arange(len(clocks)) / rate if rate else None


def _open_tiff(path):
    try:
        file = tifffile.TiffFile(path)
        pages, is_whole = _pages(file)
        imagej = file.imagej_metadata or {}
        # ImageJ describes one page, after which the frames of all lie.
        if len(pages) == 1 and imagej.get("images", 1) > 1:
            pages = _virtual_pages(pages[0].aspage(), imagej["images"], path)
    except UserError:
        raise
    except Exception:  # of many types, by the damage; the reader of images says which
        return None
    if len(pages) < 2:
        file.close()
        return None
    if not is_whole:
        pages.append(None)
    lock = threading.Lock()  # a file is read at one place at a time

    def read(position):
        if isinstance(pages, np.ndarray):
            return _checked(pages[position])
        if pages[position] is None:
            raise UnreadableFrame("what follows cannot be read: the file is cut off, or its directory is damaged")
        page = pages[position].aspage()
        size = page.imagelength, page.imagewidth
        check_size(*size)
        if page.nbytes > MAX_PIXEL_BYTES * max(1, math.prod(size)):
            raise UnreadableFrame(f"damaged, it claims {page.nbytes:,} bytes for {size[1]}x{size[0]} pixels")
        with lock:
            values = _as_seen(page, page.asarray())
        if not values.size or values.shape[:2] != size or values.shape[2:] not in ((), (1,), (3,), (4,)):
            raise UnreadableFrame(f"damaged, or no picture: it holds {values.shape}, expected grey or RGB pixels")
        return upright(_native(values), page.tags.valueof(_ORIENTATION, 1))

    interval = imagej.get("finterval")
    rate = 1 / interval if isinstance(interval, int | float) and 0 < interval < np.inf else None
    return Stack(path, len(pages), _reader(path, read), LEVELS, _regular(len(pages), rate))


def _pages(file):
    """Returns the pages of a TIFF file, and whether the last directory says that none follows.

    Previews and masks are no frames. Directories of a damaged file may follow each other in a circle.
    """
    pages, seen = [], set()
    for page in file.pages:
        if page.offset in seen:
            return pages, False
        seen.add(page.offset)
        if not page.aspage().subfiletype & 0b101:
            pages.append(page)
    file.filehandle.seek(file.pages.next_page_offset)
    return pages, not any(file.filehandle.read(file.tiff.offsetsize))


def _as_seen(page, values):
    """Returns pixels as the reader of images does: colours last, those of a palette, and white as the highest."""
    if page.planarconfig == tifffile.PLANARCONFIG.SEPARATE and values.ndim == 3:
        values = np.moveaxis(values, 0, -1)
    if page.photometric == tifffile.PHOTOMETRIC.PALETTE and page.colormap is not None:
        values = (page.colormap >> 8).astype(np.uint8).T[values]
    if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE and values.dtype in (np.uint8, np.bool_):
        values = ~values
    return values


def _virtual_pages(page, count, path):
    dtype = page.dtype.newbyteorder(page.parent.byteorder)
    try:
        return np.memmap(path, dtype, "r", page.dataoffsets[0], (count, *page.shape))
    except ValueError as error:
        raise UserError(f"{path} is cut off: it has fewer bytes than its {count} frames take.") from error


def _open_npz(path):
    try:
        check_zip(path, MAX_ARRAY_BYTES)
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: np.asarray(array) for name, array in file.items()}
        times, rate = (arrays.pop(name, np.array([])).astype(np.float64).ravel() for name in (_TIMES, _RATE))
    except UserError:
        raise
    except Exception as error:  # of many types, by the damage
        raise UserError(f"{path} is damaged, or holds Python objects ({error}).") from error
    if len(arrays) != 1:
        raise UserError(f"{path} holds the arrays {', '.join(arrays) or 'none'}; expected one of frames, [T, H, W].")
    (array,) = arrays.values()
    if len(rate) and not (len(rate) == 1 and 0 < rate[0] < np.inf):
        raise UserError(f"{path}: rate is {rate.tolist()}; expected a number above 0, of frames per second.")
    return _of_array(path, array, times if len(times) else None, float(rate[0]) if len(rate) else None)


def _of_array(path, array, times=None, rate=None):
    array = array[None] if array.ndim == 2 else array
    if array.ndim != 3 or array.dtype.kind not in "buif" or not array.size:
        raise UserError(
            f"{path} holds {array.dtype} {array.shape}; expected numbers [T, H, W], a frame after the other."
        )
    if times is not None and not (len(times) == len(array) and np.isfinite(times).all() and (np.diff(times) > 0).all()):
        raise UserError(f"{path}: times has {len(times)} numbers; expected {len(array)} that rise, in seconds.")
    times = _regular(len(array), rate) if times is None else times - times[0]
    return Stack(path, len(array), _reader(path, lambda i: _checked(array[i])), LEVELS, times)


def _checked(frame):
    check_size(*frame.shape[:2])
    return np.array(_native(frame))  # of a file that is mapped to memory


def _native(values):
    """Returns numbers in the byte order of this machine, in which they have the dtype that they are known by."""
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def _regular(count, rate):
    return np.arange(count) / rate if rate else None


def _reader(path, read):
    """Returns `read` with errors that name file and frame."""

    def checked(position):
        try:
            if position < 0:
                raise IndexError("frames are counted from 0")
            return read(position)
        except Exception as error:  # of many types, by the damage
            raise UnreadableFrame(f"{path}, frame {position}: {error}") from error

    return checked
