"""Files of many frames, TIFF and NumPy arrays: the frames in order, damage, and what is refused in words."""

import io
import pickle
import struct
import time
import zipfile

import numpy as np
import pytest
import tifffile

from fume_jax.data import stacks
from fume_jax.data.faults import LIMIT, UnreadableFrame
from fume_jax.data.images import LEVELS, upright
from fume_jax.data.sources import load, open_source
from fume_jax.data.stacks import open_stack
from fume_jax.runtime.errors import UserError

RNG = np.random.default_rng(0)
DEEP = RNG.integers(0, 65536, (5, 48, 64)).astype(np.uint16)
DTYPES = {"uint8": (DEEP >> 8).astype(np.uint8), "uint16": DEEP, "float32": (DEEP / 7).astype(np.float32)}
# How TIFF files are written besides plainly.
FORMS = {
    "plain": {},
    "deflate": {"compression": "deflate"},
    "LZW": {"compression": "lzw"},
    "BigTIFF": {"bigtiff": True},
    "tiles": {"tile": (16, 16)},
    "big-endian": {"byteorder": ">"},
    "big-endian deflate": {"byteorder": ">", "compression": "deflate"},
    "strips": {"rowsperstrip": 5},
}


def write_tiff(path, frames, **options):
    tifffile.imwrite(path, frames, **{"photometric": "minisblack", "metadata": None} | options)
    return path


def assert_frames(stack, expected):
    assert stack.num_frames == len(expected) and stack.unit == LEVELS
    for frame, values in zip(stack, expected, strict=True):
        assert frame.dtype == values.dtype.newbyteorder("=") and frame.dtype.isnative
        np.testing.assert_array_equal(frame, values)


@pytest.mark.parametrize("dtype, name", [*zip(DTYPES, ["film.tif", "film.png", "film.tiff"], strict=True)])
@pytest.mark.parametrize("form", FORMS)
def test_all_frames_of_a_tiff_file_are_read_in_order(tmp_path, form, dtype, name):
    stack = open_stack(write_tiff(tmp_path / name, DTYPES[dtype], **FORMS[form]))
    assert_frames(stack, DTYPES[dtype])
    np.testing.assert_array_equal(stack.read(3), DTYPES[dtype][3])
    assert (stack.times, stack.clock) == (None, None)


@pytest.mark.parametrize("bigtiff", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_stack_as_tifffile_writes_it_by_default_is_read(tmp_path, dtype, bigtiff):
    tifffile.imwrite(tmp_path / "a.tif", DTYPES[dtype], photometric="minisblack", bigtiff=bigtiff)
    assert_frames(open_stack(tmp_path / "a.tif"), DTYPES[dtype])


def one_directory(path, frames, *lines):
    """A file as ImageJ writes it: the directory of one page, after which the frames of all lie."""
    text = "\n".join(["ImageJ=1.54f", f"images={len(frames)}", *lines, ""]).encode() + b"\0"
    entries = {256: frames.shape[2], 257: frames.shape[1], 258: 16, 259: 1, 262: 1, 277: 1, 278: frames.shape[1]}
    start = 8 + 2 + 12 * (len(entries) + 3) + 4
    rows = [(tag, 4, 1, value) for tag, value in entries.items()]
    rows += [(270, 2, len(text), start), (273, 4, 1, start + len(text)), (279, 4, 1, 2 * frames[0].size)]
    directory = b"".join(struct.pack(">HHII", *row) for row in sorted(rows))
    header = b"MM\0*" + struct.pack(">IH", 8, len(rows)) + directory + bytes(4)
    path.write_bytes(header + text + frames.astype(">u2").tobytes())
    return path


@pytest.mark.parametrize(
    "lines, rate", [([], None), (["finterval=0.04", "hyperstack=true"], 25), (["finterval=0"], None)]
)
def test_a_stack_of_imagej_with_one_directory_is_read(tmp_path, lines, rate):
    stack = open_stack(one_directory(tmp_path / "a.tif", DEEP, f"frames={len(DEEP)}", *lines))
    assert_frames(stack, DEEP)
    assert stack.rate == (None if rate is None else pytest.approx(rate))
    assert rate is None or stack.times == pytest.approx([0, 0.04, 0.08, 0.12, 0.16])


@pytest.mark.parametrize("interval", ["a while", "-1", "nan", "inf", "0"])
def test_an_interval_that_is_none_does_not_count(tmp_path, interval):
    stack = open_stack(one_directory(tmp_path / "a.tif", DEEP, f"finterval={interval}"))
    assert_frames(stack, DEEP)
    assert stack.times is None


def test_a_hyperstack_of_imagej_has_the_times_of_its_interval(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", DEEP, imagej=True, metadata={"axes": "TYX", "finterval": 0.5})
    stack = open_stack(tmp_path / "a.tif")
    assert_frames(stack, DEEP)
    assert stack.times.tolist() == [0, 0.5, 1, 1.5, 2]


def test_a_stack_of_imagej_that_is_cut_off_is_refused(tmp_path):
    path = one_directory(tmp_path / "a.tif", DEEP)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(UserError, match="is cut off: it has fewer bytes than its 5 frames take"):
        open_stack(path)


def test_previews_are_no_frames(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for frame in DEEP:
            file.write(frame, photometric="minisblack", metadata=None)
            file.write(frame[::4, ::4], photometric="minisblack", metadata=None, subfiletype=1)
    assert_frames(open_stack(tmp_path / "a.tif"), DEEP)


def test_a_page_and_a_preview_are_an_image(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(DEEP[0], photometric="minisblack", metadata=None)
        file.write(DEEP[0, ::4, ::4], photometric="minisblack", metadata=None, subfiletype=1)
    assert open_stack(tmp_path / "a.tif") is None
    (pair,) = open_source(str(tmp_path / "a.tif"), None).pairs
    np.testing.assert_array_equal(load(pair).values["co2"], DEEP[0])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pages_are_turned_as_their_orientation_says(tmp_path, orientation):
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as file:
        for frame in DEEP:
            tag = (274, "H", 1, orientation, True)
            file.write(frame, photometric="minisblack", metadata=None, extratags=[tag], contiguous=False)
    with tifffile.TiffFile(path) as file:
        assert {page.tags[274].value for page in file.pages} == {orientation}
    assert_frames(open_stack(path), np.stack([upright(frame, orientation) for frame in DEEP]))
    if orientation == 6:  # the first row of the file is the right side
        np.testing.assert_array_equal(open_stack(path).read(0)[:, -1], DEEP[0, 0])


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_pages_of_colours_become_grey(tmp_path, planar):
    red = np.zeros((3, 8, 10, 3), np.uint8)
    red[..., 0] = [[[200]], [[100]], [[50]]]
    stored = red if planar == "contig" else np.moveaxis(red, -1, 1)
    path = write_tiff(tmp_path / "a.tif", stored, photometric="rgb", planarconfig=planar)
    assert_frames(open_stack(path), red)
    levels = [load(pair).frames["co2"] for pair in open_source(str(path), None).pairs]
    assert [np.unique(frame).tolist() for frame in levels] == [[60], [30], [15]]  # 0.299 of it


def test_pages_of_a_palette_and_of_inverted_levels_are_as_they_are_seen(tmp_path):
    indices = (np.arange(2 * 4 * 5).reshape(2, 4, 5) % 3).astype(np.uint8)
    palette = np.zeros((3, 256), np.uint16)
    palette[:, :3] = np.array([[0, 0, 0], [255, 0, 0], [10, 20, 30]]).T * 257
    path = write_tiff(tmp_path / "p.tif", indices, photometric="palette", colormap=palette)
    assert_frames(open_stack(path), (palette >> 8).astype(np.uint8).T[indices])
    path = write_tiff(tmp_path / "w.tif", DTYPES["uint8"], photometric="miniswhite")
    assert_frames(open_stack(path), 255 - DTYPES["uint8"])


@pytest.mark.parametrize("compression", ["deflate", "lzw"])
def test_a_damaged_page_is_named_and_the_others_are_read(tmp_path, compression):
    path = write_tiff(tmp_path / "a.tif", DEEP, compression=compression)
    with tifffile.TiffFile(path) as file:
        at, size = file.pages[2].dataoffsets[0], file.pages[2].databytecounts[0]
    data = bytearray(path.read_bytes())
    data[at + size // 2 : at + size // 2 + 300] = b"\xff" * 300
    path.write_bytes(data)
    found = list(open_stack(path))
    if compression == "deflate":  # which has a checksum
        assert isinstance(found[2], UnreadableFrame) and f"{path}, frame 2: " in str(found[2])
    for i in (0, 1, 3, 4):
        np.testing.assert_array_equal(found[i], DEEP[i])


@pytest.mark.parametrize("form", ["plain", "deflate", "LZW", "tiles", "strips"])
def test_frames_that_a_cut_file_lacks_are_named(tmp_path, form):
    path = write_tiff(tmp_path / "a.tif", DEEP, **FORMS[form])
    with tifffile.TiffFile(path) as file:
        last = file.pages[4]
        end = last.dataoffsets[-1] + last.databytecounts[-1]
    path.write_bytes(path.read_bytes()[: end - 60])
    if (stack := open_stack(path)) is None:
        # The directories of all pages but the first lay at the end: the file is an image, and a damaged one.
        (pair,) = open_source(str(path), None).pairs
        assert "damaged" in load(pair).faults["co2"]
        return
    found = list(stack)
    assert [isinstance(frame, UnreadableFrame) for frame in found] == [False] * 4 + [True]
    assert f"{path}, frame 4: " in str(found[4])


@pytest.mark.parametrize("target", ["itself", "the page before", "the first", "beyond the file"])
def test_what_a_damaged_directory_hides_is_told(tmp_path, target):
    path = write_tiff(tmp_path / "a.tif", DEEP)
    with tifffile.TiffFile(path) as file:
        offsets = [page.offset for page in file.pages]
    data = bytearray(path.read_bytes())
    (count,) = struct.unpack_from("<H", data, offsets[2])
    to = {"itself": offsets[2], "the page before": offsets[1], "the first": offsets[0], "beyond the file": 2**31}
    struct.pack_into("<I", data, offsets[2] + 2 + 12 * count, to[target])
    path.write_bytes(data)
    *found, rest = open_stack(path)
    np.testing.assert_array_equal(found, DEEP[:3])
    assert f"{path}, frame 3: what follows cannot be read" in str(rest)


def test_pages_above_the_limit_are_refused(tmp_path, monkeypatch):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for height in (20, 21, 20):
            file.write(np.zeros((height, 50), np.uint16), photometric="minisblack", metadata=None)
    monkeypatch.setenv(LIMIT, "0.001")
    found = list(open_stack(tmp_path / "a.tif"))
    assert [isinstance(frame, UnreadableFrame) for frame in found] == [False, True, False]
    assert "frame 1: 50x21 is more than 0.001 megapixels" in str(found[1])


ARRAYS = {
    "uint16": DEEP,
    "big-endian": DEEP.astype(">u2"),
    "uint8": DTYPES["uint8"],
    "float32": DTYPES["float32"],
    "float16": DTYPES["float32"].astype(np.float16),
    "int64": DEEP.astype(np.int64) - 10**6,
    "bool": DEEP > 30_000,
    "Fortran order": np.asfortranarray(DEEP),
}


@pytest.mark.parametrize("ending", ["npy", "npz", "dat"])
@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_are_films(tmp_path, name, ending):
    path = tmp_path / f"a.{ending}"
    with path.open("wb") as file:
        (np.savez_compressed if ending == "npz" else np.save)(file, ARRAYS[name])
    stack = open_stack(path)
    assert_frames(stack, ARRAYS[name])
    assert stack.times is None


def test_an_array_of_one_frame_is_one(tmp_path):
    np.save(tmp_path / "a.npy", DEEP[0])
    assert_frames(open_stack(tmp_path / "a.npy"), DEEP[:1])


def test_frames_of_an_array_are_read_where_they_lie(tmp_path, monkeypatch):
    monkeypatch.setattr(stacks, "MAX_ARRAY_BYTES", 10**9)
    path = tmp_path / "a.npy"
    count = 4000  # 2.6 GB, sparse
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<u2", "fortran_order": False, "shape": (count, 512, 640)})
    with path.open("wb") as file:
        file.write(header.getvalue())
        file.truncate(len(header.getvalue()) + count * 512 * 640 * 2)
        file.seek(-2, 2)
        file.write(b"\x39\x30")
    start = time.monotonic()
    stack = open_stack(path)
    frame = stack.read(count - 1)
    assert (stack.num_frames, frame.shape, frame[-1, -1], frame.sum()) == (count, (512, 640), 12345, 12345)
    assert not isinstance(frame, np.memmap) and frame.flags.owndata
    assert time.monotonic() - start < 2


def test_an_npz_file_may_have_times_or_a_rate(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, co2=DEEP, times=[3, 3.5, 4, 5, 7])
    assert open_stack(path).times.tolist() == [0, 0.5, 1, 2, 4]
    np.savez(path, frames=DEEP, rate=20)
    stack = open_stack(path)
    assert stack.times == pytest.approx([0, 0.05, 0.1, 0.15, 0.2]) and stack.rate == pytest.approx(20)
    np.savez(path, DEEP, times=[0, 1, 2, 3, 9], rate=20)
    assert open_stack(path).times.tolist() == [0, 1, 2, 3, 9]
    np.savez(path, DEEP[0], times=[8.0])
    assert_frames(open_stack(path), DEEP[:1])


@pytest.mark.parametrize(
    "arrays, message",
    [
        ({"co2": DEEP, "ch4": DEEP}, "holds the arrays co2, ch4; expected one of frames"),
        ({"times": np.arange(5)}, "holds the arrays none; expected one of frames"),
        ({"a": DEEP, "times": np.arange(4)}, "times has 4 numbers; expected 5 that rise"),
        ({"a": DEEP, "times": [0, 1, 1, 2, 3]}, "expected 5 that rise"),
        ({"a": DEEP, "times": [4, 3, 2, 1, 0]}, "expected 5 that rise"),
        ({"a": DEEP, "times": [0, 1, np.nan, 3, 4]}, "expected 5 that rise"),
        ({"a": DEEP, "times": [0, 1, 2, 3, np.inf]}, "expected 5 that rise"),
        ({"a": DEEP, "times": list("abcde")}, "is damaged"),
        ({"a": np.float64(3), "times": [1]}, r"holds float64 \(\); expected numbers \[T, H, W\]"),
        ({"a": DEEP, "rate": 0}, "rate is .*; expected a number above 0"),
        ({"a": DEEP, "rate": -5}, "rate is .*; expected a number above 0"),
        ({"a": DEEP, "rate": [1, 2]}, "rate is .*; expected a number above 0"),
        ({"a": DEEP, "rate": np.nan}, "rate is .*; expected a number above 0"),
        ({"a": np.zeros((2, 3, 4, 5))}, r"\(2, 3, 4, 5\); expected numbers \[T, H, W\]"),
        ({"a": np.array(["words"])}, "expected numbers"),
    ],
)
def test_an_npz_file_that_is_no_film_says_what_is_expected(tmp_path, arrays, message):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(UserError, match=message) as refused:
        open_stack(tmp_path / "a.npz")
    assert str(tmp_path / "a.npz") in str(refused.value)


@pytest.mark.parametrize(
    "array",
    [
        *(np.zeros(shape) for shape in ((5,), (2, 3, 4, 3), (0, 4, 4), (2, 0, 4))),
        *(np.zeros((2, 3, 4), dtype) for dtype in (complex, "S3", "M8[s]", [("a", "u2")])),
    ],
)
def test_arrays_of_other_shapes_and_kinds_are_refused(tmp_path, array):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(UserError, match=r"a\.npy (holds .*expected numbers \[T, H, W\]|is damaged)"):
        open_stack(tmp_path / "a.npy")


class Bomb:
    def __reduce__(self):
        return exec, ("raise SystemExit('a pickle was run')",)


@pytest.mark.parametrize("save", [np.save, np.savez])
def test_pickles_are_refused_unread(tmp_path, save):
    path = tmp_path / ("a.npy" if save is np.save else "a.npz")
    save(path, np.array([Bomb()], object))
    with pytest.raises(UserError, match="or holds Python objects"):
        open_stack(path)


def test_a_pickle_by_the_name_of_an_array_is_refused_unread(tmp_path):
    (tmp_path / "a.npy").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(UserError, match="is damaged, or no NPY file"):
        open_stack(tmp_path / "a.npy")


def test_an_npz_file_that_would_fill_the_memory_is_refused(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "a.npz", np.zeros((40, 500, 500), np.uint16))
    assert (tmp_path / "a.npz").stat().st_size < 100_000
    assert open_stack(tmp_path / "a.npz").num_frames == 40
    monkeypatch.setattr(stacks, "MAX_ARRAY_BYTES", 10**7)
    with pytest.raises(UserError, match=r"would take .* GB unpacked; expected at most"):
        open_stack(tmp_path / "a.npz")


def header_of(shape, body=b""):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<u2", "fortran_order": False, "shape": shape})
    return header.getvalue() + body


@pytest.mark.parametrize("shape", [(10**9, 10**4, 10**4), (10**6, 512, 640), (3, 48, 64), (-1, 48, 64), (2**40,) * 3])
def test_an_array_that_is_larger_than_its_file_is_refused(tmp_path, shape):
    (tmp_path / "a.npy").write_bytes(header_of(shape, bytes(1000)))
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as file:
        file.writestr("a.npy", header_of(shape, bytes(1000)))
    for name in ("a.npy", "a.npz"):
        with pytest.raises(UserError, match="is damaged"):
            open_stack(tmp_path / name)


def test_a_zip_file_of_other_things_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as file:
        file.writestr("notes.txt", "words")
    with pytest.raises(UserError, match=r"a\.npz holds .*; expected numbers \[T, H, W\]"):
        open_stack(tmp_path / "a.npz")


UNREAD = {
    "a.ats": "exports it as SEQ, CSQ or TIFF",
    "a.sfmov": "exports it as TIFF or SEQ",
    "A.MAT": r"numpy\.save\('film.npy', frames\)",
    "a.raw": "states neither size nor depth",
}


@pytest.mark.parametrize("name", UNREAD)
def test_formats_that_are_not_read_say_what_to_do(tmp_path, name):
    (tmp_path / name).write_bytes(RNG.bytes(999))
    for opened in (open_stack, lambda path: open_source(str(path), None)):
        with pytest.raises(UserError, match=rf"{name}: files of this format are not read; .*{UNREAD[name]}"):
            opened(tmp_path / name)


@pytest.mark.parametrize("content", [b"", b"no film at all", b"PK\3\4 but no zip file"])
@pytest.mark.parametrize("name", ["a.seq", "a.CSQ", "a.npy", "a.npz"])
def test_a_file_that_only_has_the_name_of_a_film_is_refused(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=rf"{name} is damaged, or no {name[2:].upper()} file"):
        open_stack(tmp_path / name)


def test_what_a_file_holds_counts_and_not_its_name(tmp_path):
    np.save(tmp_path / "a.npy", DEEP)
    assert_frames(open_stack((tmp_path / "a.npy").rename(tmp_path / "a.raw")), DEEP)
    (tmp_path / "a.png").write_bytes(b"no film")
    assert open_stack(tmp_path / "a.png") is None


SMALL = DEEP[:3, :12, :16]


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", ["plain.tif", "deflate.tif", "lzw.tif", "tiles.tif", "imagej.tif", "a.npy", "a.npz"])
def test_any_damage_ends_in_frames_or_in_words(tmp_path, name, seed):
    path = tmp_path / name
    if name == "imagej.tif":
        tifffile.imwrite(path, SMALL, imagej=True, metadata={"finterval": 0.1})
    elif name.endswith("tif"):
        write_tiff(path, SMALL, **FORMS.get(path.stem, FORMS["LZW"]))
    else:
        (np.savez_compressed if name == "a.npz" else np.save)(path, SMALL)
    sound, random = path.read_bytes(), np.random.default_rng(seed)
    for _ in range(15):
        data = bytearray(sound)
        for at in random.integers(0, random.choice([200, len(data)]), 3):
            length = int(random.choice([1, 4, 50]))
            data[at : at + length] = random.choice([random.bytes(length), bytes(length), b"", b"\xff" * length])
        path.write_bytes(data)
        start = time.monotonic()
        try:
            stack = open_stack(path)
            for frame in stack or ():
                if not isinstance(frame, UnreadableFrame):
                    assert 2 <= frame.ndim <= 4 and frame.size and frame.dtype.kind in "buif"
        except UserError as error:
            assert str(path) in str(error)
        assert time.monotonic() - start < 5
