"""Recordings of FLIR cameras, SEQ and CSQ: frames, times, and damage of every kind."""

import struct
import time
from pathlib import Path

import numpy as np
import pytest

from fume_jax.data import flir
from fume_jax.data.faults import LIMIT, UnreadableFrame
from fume_jax.data.stacks import COUNTS, open_stack
from fume_jax.runtime.errors import UserError
from tests.camera import CAMERA, CLOCK, ENTRY, HEADER, RATE, RAW_HEADER, block, write_sequence

REAL = Path(__file__).parents[2].parent / "shared" / "data" / "camera"
real = pytest.mark.skipif(not REAL.is_dir(), reason="the files of real cameras are not part of the project")

HEIGHT, WIDTH = 24, 32
FRAMES = np.random.default_rng(0).integers(0, 65536, (6, HEIGHT, WIDTH)).astype(np.uint16)
# Bytes of a block of SEQ, and where in it the directory, the camera's record, and the pixels begin.
CAMERA_AT = HEADER + 2 * ENTRY
RAW_AT = CAMERA_AT + CAMERA
PIXELS_AT = RAW_AT + RAW_HEADER
BLOCK = PIXELS_AT + 2 * HEIGHT * WIDTH
START = 1_700_000_000.25


def read(path):
    """The frames of a file, or the words why there is none."""
    return [str(frame) if isinstance(frame, UnreadableFrame) else frame for frame in open_stack(path)]


def damaged(path, at, values, **options):
    """A file of six frames whose bytes from `at` on are these."""
    data = bytearray(write_sequence(path, FRAMES, start=START, **options).read_bytes())
    data[at : at + len(values)] = values
    path.write_bytes(data)
    return path


def assert_only(found, numbers, message=""):
    """Frames of these numbers are faults that say so, the others are as written."""
    assert len(found) == len(FRAMES)
    for i, frame in enumerate(found):
        if i in numbers:
            assert isinstance(frame, str) and f"frame {i} at byte " in frame and message in frame
        else:
            np.testing.assert_array_equal(frame, FRAMES[i])


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("lossless", [False, True])
def test_what_is_written_is_read(tmp_path, lossless, order):
    path = write_sequence(tmp_path / "a", FRAMES, start=START, rate=25, lossless=lossless, order=order)
    stack = open_stack(path)
    assert (stack.num_frames, stack.unit, stack.clock) == (6, COUNTS, START)
    assert all(frame.dtype == np.uint16 for frame in stack)
    np.testing.assert_array_equal(list(stack), FRAMES)
    np.testing.assert_array_equal(stack.read(4), FRAMES[4])


def test_clock_times_count_to_the_millisecond(tmp_path):
    clocks = [START, START + 0.001, START + 0.5, START + 61.007]
    data = b"".join(block(frame, clock=clock) for frame, clock in zip(FRAMES, clocks, strict=False))
    (tmp_path / "a.seq").write_bytes(data)
    stack = open_stack(tmp_path / "a.seq")
    assert stack.times.tolist() == [0, 0.001, 0.5, 61.007]
    assert [b.clock for b in flir.read_blocks(tmp_path / "a.seq")] == clocks


@pytest.mark.parametrize("clocks", [[None] * 4, [START] * 4, [START, START + 1, START + 1], [START, 1, 2, 3]])
def test_times_are_those_of_the_rate_where_clocks_lack_stand_still_or_go_back(tmp_path, clocks):
    blocks = [block(frame, clock=clock, rate=50) for frame, clock in zip(FRAMES, clocks, strict=False)]
    (tmp_path / "a.seq").write_bytes(b"".join(blocks))
    stack = open_stack(tmp_path / "a.seq")
    assert stack.times == pytest.approx(np.arange(len(clocks)) / 50)
    assert stack.rate == pytest.approx(50)
    assert stack.clock == clocks[0]


def test_without_clock_and_rate_there_are_no_times(tmp_path):
    stack = open_stack(write_sequence(tmp_path / "a.seq", FRAMES, rate=0))
    assert (stack.times, stack.clock, stack.rate) == (None, None, None)


def test_a_frame_without_clock_lies_between_its_neighbours(tmp_path):
    clocks = [None, START, None, START + 0.3, START + 0.4, None]
    blocks = [block(frame, clock=clock, rate=10) for frame, clock in zip(FRAMES, clocks, strict=True)]
    (tmp_path / "a.seq").write_bytes(b"".join(blocks))
    stack = open_stack(tmp_path / "a.seq")
    assert stack.times == pytest.approx([0, 0.1, 0.25, 0.4, 0.5, 0.6])
    assert stack.clock == pytest.approx(START - 0.1)  # of the first frame, whose own is not known


DAMAGE = {
    "the mark of the header": (0, b"\0\0\0\0"),
    "the version in the header": (0x14, b"\xff" * 4),
    "all of the header": (0, b"\x55" * HEADER),
    "header, directory and camera": (0, b"\x55" * 1000),
    "an offset of the directory beyond the file": (0x18, struct.pack("<I", 2**31)),
    "a million entries": (0x1C, struct.pack("<I", 10**6)),
    "the most entries": (0x1C, struct.pack("<I", 2**32 - 1)),
    "no entries": (0x1C, bytes(4)),
    "the directory": (HEADER, b"\xaa" * 2 * ENTRY),
    "an offset of the frame beyond the file": (HEADER + ENTRY + 12, struct.pack("<I", 2**32 - 1)),
    "an offset of the frame in another block": (HEADER + ENTRY + 12, struct.pack("<I", BLOCK + RAW_AT + 100)),
    "a frame of too few bytes": (HEADER + ENTRY + 16, struct.pack("<I", 100)),
    "the byte order of the frame": (RAW_AT, b"\x77\x77"),
    "a frame without width": (RAW_AT + 2, b"\0\0"),
    "a frame that is too wide": (RAW_AT + 2, b"\xff\xff"),
}


@pytest.mark.parametrize("number", [0, 2, 5])
@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_block_is_named_and_the_others_are_read(tmp_path, name, number):
    at, values = DAMAGE[name]
    if number == 0 and at == 0:
        number = 1  # a file that does not begin as one is none
    path = damaged(tmp_path / "a.seq", number * BLOCK + at, values)
    assert_only(read(path), [number], f"{path}, frame {number} at byte {number * BLOCK:,}: ")
    times = open_stack(path).times
    if number in (1, 2):
        assert times == pytest.approx(np.arange(6) / 30, abs=0.0011)


@pytest.mark.parametrize("lossless", [False, True])
@pytest.mark.parametrize("size", [2 * BLOCK, 3 * BLOCK + 1, 2**32 - 1])
def test_a_frame_that_states_too_many_bytes_hides_no_other(tmp_path, size, lossless):
    at = BLOCK if not lossless else flir.read_blocks(write_sequence(tmp_path / "a", FRAMES, lossless=True))[1].offset
    values = struct.pack("<I", size)
    assert_only(read(damaged(tmp_path / "a", at + HEADER + ENTRY + 16, values, lossless=lossless)), [])


def test_damage_to_lossless_pixels_is_named(tmp_path):
    path = write_sequence(tmp_path / "a.csq", FRAMES, start=START, lossless=True)
    third = flir.read_blocks(path)[3]
    for at, values in ((2, b"\0" * 30), (third.size // 2, b"\xff" * 200), (third.size - 100, b"\xff\xd9" * 50)):
        assert_only(read(damaged(path, third.start + at, values, lossless=True)), [3], f"byte {third.offset:,}: ")


def test_lossless_pixels_of_another_size_are_refused_before_they_take_memory(tmp_path):
    path = write_sequence(tmp_path / "a.csq", FRAMES, lossless=True)
    first = flir.read_blocks(path)[0]
    data = path.read_bytes()
    at = data.index(b"\xff\xf7", first.start)  # marker, length, precision, height, width: ITU-T T.87, C.2.2
    assert struct.unpack_from(">HH", data, at + 5) == (HEIGHT, WIDTH)
    found = read(damaged(path, at + 5, b"\xff\xff\xff\xff", lossless=True))
    assert_only(found, [0])


@pytest.mark.parametrize("lossless", [False, True])
@pytest.mark.parametrize("into", ["pixels", "camera", "directory", "header", "mark"])
def test_of_a_file_that_is_cut_what_is_there_is_read(tmp_path, lossless, into):
    path = write_sequence(tmp_path / "a.seq", FRAMES, start=START, lossless=lossless)
    last = flir.read_blocks(path)[-1].offset
    kept = {"pixels": PIXELS_AT + 700, "camera": CAMERA_AT + 99, "directory": HEADER + 40, "header": 40, "mark": 4}
    path.write_bytes(path.read_bytes()[: last + kept[into]])
    found = read(path)
    assert_only(found, [5], f"frame 5 at byte {last:,}: ")
    assert "cut off" in found[5] or lossless


@pytest.mark.parametrize("padding", [b"\0", b"\0" * 7, b"\0" * 512, b"\xff" * 512, b"words "])
def test_padding_between_blocks_is_no_frame(tmp_path, padding):
    blocks = [block(frame, clock=START + i) for i, frame in enumerate(FRAMES)]
    (tmp_path / "a.seq").write_bytes(padding.join(blocks) + padding)
    assert_only(read(tmp_path / "a.seq"), [])


def test_a_hole_in_a_file_is_a_frame_that_lacks(tmp_path):
    path = damaged(tmp_path / "a.seq", 2 * BLOCK, bytes(BLOCK))
    assert_only(read(path), [2], "damaged, no FFF block")


def test_pixels_that_look_like_a_header_are_pixels(tmp_path):
    frames = FRAMES.copy()
    marks = np.frombuffer(b"FFF\0", np.uint16)
    frames[1, 3, 4:6] = frames[2, -1, -2:] = frames[5, -1, -2:] = marks
    path = write_sequence(tmp_path / "a.seq", frames)
    np.testing.assert_array_equal(read(path), frames)
    with path.open("r+b") as file:  # so that the block is searched for the next one
        file.seek(BLOCK + HEADER)
        file.write(bytes(2 * ENTRY))
    found = read(path)
    assert len(found) == 6 and [isinstance(frame, str) for frame in found] == [False, True, *[False] * 4]


def test_what_comes_before_the_first_block_is_told(tmp_path):
    path = write_sequence(tmp_path / "a.seq", FRAMES)
    path.write_bytes(b"garbage" * 20 + path.read_bytes())
    blocks = flir.read_blocks(path)
    assert [b.offset for b in blocks] == [0, *(140 + BLOCK * i for i in range(6))]
    with pytest.raises(UnreadableFrame, match="frame 0 at byte 0: damaged, no FFF block"):
        flir.read_frame(path, 0, blocks[0])
    np.testing.assert_array_equal(flir.read_frame(path, 1, blocks[1]), FRAMES[0])
    with pytest.raises(UserError, match=r"a\.seq is damaged, or no SEQ file"):
        open_stack(path)


def test_a_block_without_a_frame_is_named(tmp_path):
    path = damaged(tmp_path / "a.seq", BLOCK + HEADER + ENTRY, b"\x2a\0")
    assert_only(read(path), [1], "holds no frame")


def test_frames_above_the_limit_are_refused(tmp_path, monkeypatch):
    path = write_sequence(tmp_path / "a.seq", [np.zeros((20, 50), int), np.zeros((21, 50), int)])
    monkeypatch.setenv(LIMIT, "0.001")
    first, second = read(path)
    assert first.shape == (20, 50)
    assert "frame 1 at byte" in second and "50x21 is more than 0.001 megapixels" in second


@pytest.mark.parametrize("lossless", [False, True])
def test_any_damage_ends_in_frames_or_in_words(tmp_path, lossless):
    sound = write_sequence(tmp_path / "sound", FRAMES[:4], start=START, lossless=lossless).read_bytes()
    random, path = np.random.default_rng(7), tmp_path / "a.seq"
    refused = 0
    for _ in range(150):
        data = bytearray(sound)
        for at in random.integers(0, len(data), random.integers(1, 6)):
            kind, length = random.integers(4), int(random.choice([1, 4, 64, 3000]))
            at = int(at if random.random() < 0.5 else at % HEADER + len(data) // 4 * random.integers(4))
            if kind == 0:
                data[at : at + length] = random.bytes(length)
            elif kind == 1:
                data[at : at + length] = bytes(length)
            elif kind == 2:
                del data[at : at + length]
            else:
                data[at:at] = random.bytes(length)
        path.write_bytes(data)
        start = time.monotonic()
        try:
            found = read(path)
        except UserError:
            refused += 1
        else:
            assert len(found) >= 1
            for i, frame in enumerate(found):
                if isinstance(frame, str):
                    assert f"frame {i} at byte" in frame
                else:
                    assert frame.dtype == np.uint16 and frame.ndim == 2
        assert time.monotonic() - start < 2
    assert refused < 100


def test_a_file_of_many_marks_takes_no_long_time(tmp_path):
    path = write_sequence(tmp_path / "a.seq", FRAMES[:1])
    with path.open("ab") as file:
        file.write(b"FFF\0" * 100_000)
    start = time.monotonic()
    read(path)
    assert time.monotonic() - start < 5


def test_a_clock_is_where_the_description_of_the_format_has_it():
    data = block(FRAMES[0], clock=START, rate=60)
    assert struct.unpack_from("<II", data, CAMERA_AT + CLOCK) == (1_700_000_000, 250)
    assert struct.unpack_from("<H", data, CAMERA_AT + RATE) == (60,)


@real
def test_a_real_sequence_has_the_values_that_other_readers_find():
    stack = open_stack(REAL / "Thermimage_SampleSEQ.seq")
    expected = [(17220, 20817, 17870, 17870.48), (17222, 20640, 17818, 17844.74)]
    assert_values(stack, expected, (480, 640))
    assert stack.times == pytest.approx([0, 3.967], abs=1e-6)


@real
def test_a_real_lossless_sequence_has_the_values_that_other_readers_find():
    stack = open_stack(REAL / "Thermimage_SampleCSQ.csq")
    assert stack.num_frames == 8 and stack.rate == pytest.approx(30, rel=0.03)
    frames = [stack.read(0), stack.read(7)]
    assert_values(frames, [(13721, 16295, 14245, 14504.61), (13713, 16302, 14291, 14509.03)], (768, 1024))


def assert_values(frames, expected, shape):
    for frame, (low, high, first, mean) in zip(frames, expected, strict=True):
        assert frame.shape == shape
        assert (frame.min(), frame.max(), frame[0, 0]) == (low, high, first)
        assert frame.mean() == pytest.approx(mean, abs=0.006)
