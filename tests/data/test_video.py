"""Videos: grey levels and times that are read, damage that is told of, what is written."""

import gc
import itertools
import re
import struct
import types

import av
import cv2
import numpy as np
import pytest

from fume_jax.data import video
from fume_jax.data.faults import LIMIT, UnreadableFrame
from fume_jax.data.gray import to_gray
from fume_jax.data.video import VideoWriter, read_header
from fume_jax.runtime.errors import UserError
from tests.videos import HEIGHT, WIDTH, encode, flat, flip, noise

RAMP = np.tile(np.rint(np.linspace(0, 255, WIDTH)).astype(np.uint8), (HEIGHT, 1))


def read_video(path):
    """Times and grey levels, uint8 [H, W, 1], each frame by its own range."""
    for time, frame in video.read_video(path):
        yield time, frame if isinstance(frame, UnreadableFrame) else to_gray(frame)


def levels(path):
    """Time in ms and median level of every frame, None if unreadable."""
    return [
        (round(1000 * time), None if isinstance(frame, UnreadableFrame) else int(np.median(frame)))
        for time, frame in read_video(path)
    ]


@pytest.mark.parametrize(
    "name, codec, pix_fmt, within, options",
    [
        pytest.param("limited.mp4", "libx264", "yuv420p", 2, {"crf": "1"}, id="limited range"),
        pytest.param("full.mp4", "libx264", "yuvj420p", 1, {"crf": "1"}, id="full range"),
        pytest.param("ramp.avi", "mjpeg", "yuvj420p", 4, {"qscale": "1"}, id="motion JPEG"),
        pytest.param("rgb.mkv", "libx264rgb", "rgb24", 0, {"qp": "0"}, id="RGB"),
        pytest.param("raw.avi", "rawvideo", "bgr24", 0, {}, id="uncompressed"),
        pytest.param("grey.mkv", "ffv1", "gray", 0, {}, id="lossless grey"),
    ],
)
def test_a_ramp_comes_back_in_full_range(tmp_path, name, codec, pix_fmt, within, options):
    path = encode(tmp_path / name, [RAMP] * 3, codec, pix_fmt, **options)
    read = list(read_video(path))
    assert [time for time, _ in read] == pytest.approx([0, 0.04, 0.08])
    for _, frame in read:
        assert frame.dtype == np.uint8 and frame.shape == (HEIGHT, WIDTH, 1)
        np.testing.assert_allclose(frame[..., 0].astype(int), RAMP, atol=within)


@pytest.mark.parametrize(
    "codec, pix_fmt, options",
    [("ffv1", "gray16le", {}), ("ffv1", "gray12le", {}), ("libx264", "yuv420p10le", {"qp": "0"})],
)
def test_deeper_video_is_scaled_by_the_range_of_each_frame(tmp_path, codec, pix_fmt, options):
    ramp = RAMP.astype(np.uint16)
    path = encode(tmp_path / "deep.mkv", [20000 + 50 * ramp, 5000 + 100 * ramp], codec, pix_fmt, **options)
    for _, frame in read_video(path):
        # A step of 10 bits is 1.3 levels of the flatter ramp.
        np.testing.assert_allclose(frame[..., 0].astype(int), RAMP, atol=0 if pix_fmt == "gray16le" else 2)


@pytest.mark.parametrize("name", ["b.avi", "b.mp4", "b.mkv"])
def test_frames_come_in_the_order_in_which_they_are_shown(tmp_path, name):
    frames = [flat(20 * i) for i in range(12)]
    path = encode(tmp_path / name, frames, "libx264", "yuv420p", bf="3", b_strategy="0")
    read = levels(path)
    assert [time for time, _ in read] == list(range(0, 480, 40))
    np.testing.assert_allclose([level for _, level in read], range(0, 240, 20), atol=3)


@pytest.mark.parametrize(
    "name, codec, count", [("a.mp4", "libx264", 3), ("a.mkv", "libx264", None), ("a.wmv", "wmv2", None)]
)
def test_a_header_tells_the_rate_and_the_number_of_frames_if_the_container_does(tmp_path, name, codec, count):
    header = read_header(encode(tmp_path / name, [RAMP] * 3, codec, "yuv420p"))
    assert (header.num_frames, header.rate) == (count, 25)


@pytest.mark.parametrize("name, codec, where", [("a.avi", "mjpeg", 0), ("a.mp4", "libx264", 0.3)])
def test_a_damaged_frame_is_told_with_its_time_and_those_around_it_are_read(tmp_path, name, codec, where):
    frames = [np.maximum(flat(20 * i), noise(i, 30)) for i in range(8)]
    pix_fmt = {"mjpeg": "yuvj420p", "libx264": "yuv420p"}[codec]
    path = encode(tmp_path / name, frames, codec, pix_fmt, g="1")
    whole = levels(path)
    assert len({level for _, level in whole}) == 8
    flip(path, 4, where)
    assert levels(path) == [*whole[:4], (160, None), *whole[5:]]
    (message,) = (str(frame) for _, frame in read_video(path) if isinstance(frame, UnreadableFrame))
    assert re.fullmatch(rf"{re.escape(str(path))} at 0.160 s: (damaged or incomplete|not decodable .*)", message)


def test_times_stay_in_order_where_damage_confuses_the_decoder(tmp_path):
    frames = [flat(20 * i) for i in range(12)]
    for i, frame in enumerate(frames):
        frame[10:30, 4 * i : 4 * i + 10] = 200
        frame[30:] += noise(i, 30)[30:]
    options = {"g": "4", "keyint_min": "4"}
    path = encode(tmp_path / "a.mp4", frames, "libx264", "yuv420p", **options)
    whole = levels(path)
    flip(path, 4, 0, most=30)  # a key frame
    read = levels(path)
    assert read == sorted(read)
    assert read[:5] == [*whole[:4], (160, None)] and read[-4:] == whole[-4:]


def test_frames_that_lack_their_key_frame_are_told(tmp_path):
    frames = [np.maximum(flat(20 * i), noise(i, 30)) for i in range(8)]
    path = encode(tmp_path / "a.mp4", frames, "libx264", "yuv420p", g="4", keyint_min="4")
    whole = levels(path)
    flip(path, 0, 0, most=30)
    assert levels(path) == [(0, None), (40, None), (80, None), (120, None), *whole[4:]]


def test_where_a_file_cannot_be_read_on_what_came_before_is_kept(tmp_path, monkeypatch):
    path = encode(tmp_path / "a.mp4", [flat(20 * i) for i in range(8)], "libx264", "yuv420p", bf="2")
    whole = levels(path)
    packets = video._packets

    class Failing:
        def __init__(self, container):
            self.container = container

        def demux(self):
            yield from itertools.islice(self.container.demux(), 6)
            raise av.error.OSError(5, "Input/output error")

    monkeypatch.setattr(video, "_packets", lambda container, stream: packets(Failing(container), stream))
    read = [(time, frame) for time, frame in read_video(path) if not isinstance(frame, UnreadableFrame)]
    (message,) = (str(frame) for _, frame in read_video(path) if isinstance(frame, UnreadableFrame))
    assert len(read) == 6 and {round(1000 * time) for time, _ in read} <= {time for time, _ in whole}
    assert message.endswith("nothing can be read from here on (Input/output error)")


@pytest.mark.parametrize("seed", range(6))
def test_bytes_that_are_wrong_anywhere_never_end_in_an_exception(tmp_path, seed):
    path = encode(tmp_path / "a.mkv", [noise(i) for i in range(6)], "libx264", "yuv420p", bf="2")
    data = bytearray(path.read_bytes())
    random = np.random.default_rng(seed)
    for start in random.integers(1000, len(data), 5):
        data[start : start + 40] = random.bytes(len(data[start : start + 40]))
    path.write_bytes(data)
    times = [time for time, _ in read_video(path)]
    assert 1 <= len(times) <= 8 and times == sorted(times)


@pytest.mark.parametrize(
    "name, codec, pix_fmt",
    [
        ("a.avi", "mjpeg", "yuvj420p"),
        ("a.mkv", "mjpeg", "yuvj420p"),
        ("a.mkv", "ffv1", "gray"),
        ("a.webm", "libvpx-vp9", "yuv420p"),
        ("a.mxf", "mpeg2video", "yuv420p"),
        ("a.flv", "libx264", "yuv420p"),
        ("a.ts", "libx264", "yuv420p"),
        ("a.wmv", "wmv2", "yuv420p"),
    ],
)
@pytest.mark.parametrize("share", [0.5, 0.8])
def test_a_film_that_was_cut_off_is_read_up_to_there_and_said_to_be_cut(tmp_path, name, codec, pix_fmt, share):
    path = encode(tmp_path / name, [noise(i) for i in range(30)], codec, pix_fmt)
    whole = [frame for _, frame in read_video(path)]
    assert len(whole) == 30 and not any(isinstance(frame, UnreadableFrame) for frame in whole)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    *read, last = [frame for _, frame in read_video(path)]
    assert isinstance(last, UnreadableFrame) and str(last).startswith(f"{path} at ")
    assert re.search("cut off, its header states 1.2|damaged or incomplete", str(last))
    read = [frame for frame in read if not isinstance(frame, UnreadableFrame)]
    assert abs(len(read) - 30 * share) <= 6
    for frame, expected in zip(read, whole, strict=False):
        np.testing.assert_array_equal(frame, expected)


def test_a_film_whose_index_comes_first_is_said_to_be_cut(tmp_path):
    with VideoWriter(tmp_path / "a.mp4") as writer:
        for i in range(40):
            writer.write(np.repeat(noise(i)[..., None], 3, -1), i / 25)
    data = (tmp_path / "a.mp4").read_bytes()
    assert not any(isinstance(frame, UnreadableFrame) for _, frame in read_video(tmp_path / "a.mp4"))
    (tmp_path / "a.mp4").write_bytes(data[: int(0.6 * len(data))])
    frames = [frame for _, frame in read_video(tmp_path / "a.mp4")]
    assert 15 < sum(not isinstance(frame, UnreadableFrame) for frame in frames) < 30
    assert "cut off, its header states 1.600 s" in str(frames[-1])


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4", "a.avi", "a.flv"])
def test_a_pause_at_the_end_or_a_late_start_is_no_cut(tmp_path, name):
    path = encode(
        tmp_path / name, [flat(10 * i) for i in range(8)], "libx264", "yuv420p", times=[*range(100, 107), 400]
    )
    assert not any(isinstance(frame, UnreadableFrame) for _, frame in read_video(path))


@pytest.mark.parametrize("options", [{}, {"level": "3", "slices": "4"}, {"level": "4", "strict": "-2"}])
def test_a_wrong_checksum_of_ffv1_is_told(tmp_path, options):
    path = encode(tmp_path / "a.mkv", [noise(i, 40) for i in range(4)], "ffv1", "gray", **options)
    assert not any(isinstance(frame, UnreadableFrame) for _, frame in read_video(path))
    flip(path, 2, 0.6, most=1)
    told = [isinstance(frame, UnreadableFrame) for _, frame in read_video(path)]
    assert told == [False, False, True, False]


def test_ffv1_without_checksums_is_read(tmp_path):
    for level, more in (("1", {}), ("3", {"slicecrc": "0"})):
        path = encode(tmp_path / f"{level}.mkv", [noise(i, 40) for i in range(4)], "ffv1", "gray", level=level, **more)
        assert not any(isinstance(frame, UnreadableFrame) for _, frame in read_video(path))


@pytest.mark.parametrize(
    "matrix, expected",
    [
        ((1, 0, 0, 1), lambda x: x),
        ((0, 1, -1, 0), lambda x: np.rot90(x, -1)),
        ((-1, 0, 0, -1), lambda x: np.rot90(x, 2)),
        ((0, -1, 1, 0), np.rot90),
        ((-1, 0, 0, 1), np.fliplr),
        ((1, 0, 0, -1), np.flipud),
        ((0, 1, 1, 0), np.transpose),
        ((0, -1, -1, 0), lambda x: np.rot90(x, 2).T),
    ],
)
def test_films_are_upright_as_players_show_them(tmp_path, matrix, expected):
    picture = cv2.GaussianBlur(noise(0), (9, 9), 0)
    path = encode(tmp_path / "a.mp4", [picture] * 2, "libx264", "yuv420p", crf="1")
    (_, plain), *_ = read_video(path)
    set_matrix(path, matrix)
    for _, frame in read_video(path):
        np.testing.assert_array_equal(frame[..., 0], expected(plain[..., 0]))


def test_a_stream_that_is_turned_on_its_way_is_upright_all_along():
    read, picture = video.FrameReader(), noise(0)

    def frame(rotation, a, b, c, d):
        decoded = av.VideoFrame.from_ndarray(picture, "gray")
        matrix = [value << 16 for value in (a, b, 0, c, d, 0, 0, 0, 1)]
        parts = {"rotation": rotation, "side_data": {"DISPLAYMATRIX": struct.pack("<9i", *matrix)}}
        return types.SimpleNamespace(format=decoded.format, to_ndarray=decoded.to_ndarray, **parts)

    np.testing.assert_array_equal(read(frame(0, 1, 0, 0, 1)), picture)
    np.testing.assert_array_equal(read(frame(-90, 0, 1, -1, 0)), np.rot90(picture, -1))
    np.testing.assert_array_equal(read(frame(0, 1, 0, 0, 1)), picture)


def test_frames_that_were_read_leave_memory_without_the_garbage_collector(tmp_path):
    path = encode(tmp_path / "film.mp4", [flat(level) for level in range(0, 200, 4)])

    def frames():
        return sum(type(x) is av.VideoFrame for x in gc.get_objects())

    gc.collect()
    gc.disable()
    try:
        before = frames()
        assert sum(1 for _ in read_video(path)) == 50
        assert frames() - before <= 2  # the first one
    finally:
        gc.enable()


def set_matrix(path, matrix):
    """Writes a, b, c and d into the track header, as cameras do that know how they are held."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4
    at += 4 + (32 if data[at] else 20) + 16
    a, b, c, d = (value << 16 for value in matrix)
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)


def test_films_above_the_limit_are_refused(tmp_path, monkeypatch):
    path = encode(tmp_path / "a.mp4", [RAMP] * 3, "libx264", "yuv420p")
    monkeypatch.setenv(LIMIT, "0.003")
    with pytest.raises(UserError, match=rf"a.mp4: 64x48 is more than 0.003 megapixels; .*{LIMIT}"):
        read_header(path)


def test_dropped_frames_leave_a_gap_in_time(tmp_path):
    path = encode(tmp_path / "a.mkv", [flat(i) for i in range(4)], "ffv1", "gray", times=[0, 1, 4, 5])
    assert levels(path) == [(0, 0), (40, 1), (160, 2), (200, 3)]


@pytest.mark.parametrize("name, codec", [("a.ts", "libx264"), ("a.mpg", "mpeg2video"), ("a.mp4", "libx264")])
def test_time_starts_with_the_video_whatever_clock_its_format_has(tmp_path, name, codec):
    path = encode(tmp_path / name, [flat(level) for level in (20, 60, 100, 140)], codec, "yuv420p")
    assert [time for time, _ in levels(path)] == [0, 40, 80, 120]


def test_a_name_like_a_protocol_and_words_in_another_encoding_do_no_harm(tmp_path, monkeypatch):
    path = encode(tmp_path / "a:b%d.avi", [flat(9)])
    path.write_bytes(path.read_bytes().replace(b"Lavf", b"\xe9avf"))
    monkeypatch.chdir(tmp_path)
    assert levels(path.name) == [(0, 9)]


def test_what_is_no_video_is_refused_in_plain_words(tmp_path):
    mp4 = encode(tmp_path / "whole.mp4", [RAMP] * 3, "libx264", "yuv420p")
    subtitles = b"1\n00:00:01,000 --> 00:00:02,000\nwords\n\n" * 9
    for name, content, message in [
        ("text.mp4", b"no video at all", "no video that can be read"),
        ("empty.mp4", b"", "no video that can be read"),
        ("no_index.mp4", mp4.read_bytes()[:-200], "no video that can be read"),
        ("subtitles.avi", subtitles, "holds no video stream"),
        ("nowhere.mp4", None, "There is no file"),
    ]:
        if content is not None:
            (tmp_path / name).write_bytes(content)
        for read in (read_header, lambda path: next(read_video(path))):
            with pytest.raises(UserError, match=rf"{name}\b.*{message}|{message}.*{name}"):
                read(tmp_path / name)


@pytest.mark.parametrize("height, width", [(48, 64), (47, 63)])
def test_what_is_written_is_read_with_its_times(tmp_path, height, width):
    path, times = tmp_path / "new" / "overlay.mp4", [0.5, 0.54, 0.58, 0.9, 0.94]
    picture = np.repeat(RAMP[:height, :width, None], 3, axis=2)
    with VideoWriter(path, rate=25) as writer:
        for time in times:
            writer.write(picture, time)
        assert not path.exists()
    assert [p.name for p in path.parent.iterdir()] == ["overlay.mp4"]
    read = list(read_video(path))
    assert [time for time, _ in read] == pytest.approx(times, abs=1e-4)
    for _, frame in read:
        assert frame.shape == (48, 64, 1)  # even
        np.testing.assert_allclose(frame[:height, :width, 0].astype(int), picture[..., 0], atol=6)
        np.testing.assert_allclose(frame[-1, :width, 0].astype(int), picture[-1, :, 0], atol=6)


def test_browsers_show_what_is_written_in_its_colours(tmp_path):
    path = tmp_path / "overlay.mp4"
    colours = np.repeat(np.array([[[255, 140, 0]], [[60, 220, 120]]], np.uint8), 32, axis=0).repeat(64, axis=1)
    with VideoWriter(path) as writer:
        writer.write(colours, 0)
    with av.open(str(path)) as file:
        assert (file.streams.video[0].codec_context.name, file.streams.video[0].pix_fmt) == ("h264", "yuv420p")
        decoded = next(file.decode(video=0)).to_ndarray(format="rgb24")
    np.testing.assert_allclose(decoded[[10, 50], 30].astype(int), colours[[10, 50], 30], atol=6)
    content = path.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")  # plays while it loads


def test_times_that_stand_still_or_go_back_and_other_sizes_are_written(tmp_path):
    with VideoWriter(tmp_path / "a.mp4") as writer:
        for size, time in [(64, 0), (32, 0.04), (65, 0.04), (64, 0.02), (64, 0.08)]:
            picture = np.zeros((size, size, 3), np.uint8)
            picture[size // 2 :] = 200
            writer.write(picture, time)
    read = list(read_video(tmp_path / "a.mp4"))
    assert [time for time, _ in read] == pytest.approx([0, 0.04, 0.04, 0.04, 0.08], abs=1e-4)
    for _, frame in read:
        assert frame.shape == (64, 64, 1)
        np.testing.assert_allclose(frame[[10, 50], 32, 0].astype(int), [0, 200], atol=6)


def test_an_unfinished_video_never_has_its_name(tmp_path):
    path = tmp_path / "overlay.mp4"
    path.write_bytes(b"earlier")
    with pytest.raises(ValueError, match="in between"), VideoWriter(path) as writer:
        for i in range(60):  # more than the encoder holds
            writer.write(np.zeros((48, 64, 3), np.uint8), i / 25)
        assert path.with_name("overlay.mp4.part").exists()
        raise ValueError("in between")
    with VideoWriter(tmp_path / "no_picture.mp4"):
        pass
    assert [p.name for p in tmp_path.iterdir()] == ["overlay.mp4"] and path.read_bytes() == b"earlier"
