"""Reads grey frames with their times from video files, and writes pictures as video."""

import contextlib
import dataclasses
import heapq
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from fume_jax.data import ffv1
from fume_jax.data.faults import UnreadableFrame, check_size, max_pixels
from fume_jax.data.gray import luminance
from fume_jax.data.images import is_colored
from fume_jax.runtime.errors import UserError
from fume_jax.runtime.files import replacing

# The most frames that a decoder of H.264 or HEVC holds back to return them in presentation order.
MAX_REORDER = 16
# Frames per second of a file that states no rate.
DEFAULT_RATE = 25
# A film is cut off if it ends this many frames or more before the end that its header states.
MISSING_FRAMES = 2.5
# Formats by which FFmpeg opens images, one or several.
_IMAGES = ("_pipe", "image2", "gif", "apng", "webp_anim", "tty")
# Written times are multiples of this, in seconds, as is usual in MPEG.
TIME_BASE = Fraction(1, 90_000)


@dataclasses.dataclass(frozen=True)
class Header:
    """Describes the first video stream of a file, as its header states."""

    num_frames: int | None  # unknown in some containers, such as MKV
    rate: float  # frames per second, on average
    is_colored: bool = False  # the first frame is


def is_video(path: str | Path) -> bool:
    """Returns whether a file, whatever its name, holds a video that FFmpeg knows; False for images."""
    try:
        with _open(path) as (container, _):
            return not any(name.endswith(_IMAGES) for name in container.format.name.split(","))
    except UserError:
        return False


def read_header(path: str | Path) -> Header:
    """Reads the header of a video; UserError if the file is missing or holds no video that can be decoded."""
    with _open(path) as (container, stream):
        rate = stream.average_rate or stream.guessed_rate
        num_frames = stream.frames or None
        try:
            frame = next(container.decode(stream), None)
            colored = frame is not None and is_colored(frame.to_ndarray(format="rgb24"))
        except (av.FFmpegError, ValueError):  # reported when the frames are read
            colored = False
        return Header(num_frames, float(rate or DEFAULT_RATE), colored)


def sample_video(path: str | Path, count: int) -> list[np.ndarray]:
    """Decodes about `count` frames, spread over a video, as `read_video` does; fewer where it is damaged."""
    frames, read = [], FrameReader()
    with _open(path) as (container, stream):
        duration = _stated_end(container, stream)
        for seconds in np.linspace(0, duration, count, endpoint=False):
            with contextlib.suppress(av.FFmpegError, UnreadableFrame, ValueError):
                if seconds:
                    container.seek(int(seconds / stream.time_base), stream=stream)
                if (frame := next(container.decode(stream), None)) is not None:
                    frames.append(read(frame))
    return frames


def read_video(path: str | Path) -> Iterator[tuple[float, np.ndarray | UnreadableFrame]]:
    """Decodes the first video stream of a file, in presentation order.

    Numbers are the luminance, grey levels of full range whatever the range in the file, and 16 bits of deeper video.
    Frames are turned and mirrored as the file asks players to. A frame that
    is damaged or cannot be decoded is yielded as an `UnreadableFrame` that names file and time, and reading continues.
    Frames that are predicted from it, up to the next key frame, are the decoder's guess. If a file was cut off, which
    formats with a duration in their header tell, a last `UnreadableFrame` stands for the frames that are missing.

    Yields:
      Time in seconds and frame, uint8 or uint16 [H, W], or UnreadableFrame; raises UserError as `read_header`.
    """
    waiting = []  # a heap by time: errors come before frames that the decoder still holds, and damage changes its order
    for position, (seconds, frame) in enumerate(_decode(path)):
        heapq.heappush(waiting, (seconds, position, frame))
        if len(waiting) > MAX_REORDER:
            yield heapq.heappop(waiting)[::2]
    yield from (item[::2] for item in sorted(waiting))


def read_frame(path: str | Path, position: int) -> np.ndarray:
    """Decodes a frame by its position in presentation order, from 0; raises UnreadableFrame if there is none."""
    count = 0
    for count, (_, frame) in enumerate(read_video(path), 1):
        if count > position:
            if isinstance(frame, UnreadableFrame):
                raise frame
            return frame
    raise UnreadableFrame(f"there is no frame {position}; the film has {count}, counted from 0")


class VideoWriter:
    """Writes RGB pictures as an MP4 file (H.264) that browsers play; a context manager.

    The file is `PATH.part` until the context ends, and an error in the context removes it. Without any picture there is
    no file.
    """

    def __init__(self, path: str | Path, rate: float = DEFAULT_RATE, preset: str = "medium"):
        """Prepares to write to `path`; `rate`, frames per second on average, guides the encoder.

        `preset` is one of x264: a faster one makes larger files.
        """
        self._path, self._rate, self._preset = Path(path), Fraction(rate).limit_denominator(1001), preset
        self._stack = contextlib.ExitStack()
        self._container = self._stream = None
        self._last = -1

    def write(self, picture: np.ndarray, seconds: float) -> None:
        """Adds a picture, uint8 [H, W, 3], with its presentation time, not negative.

        Odd sizes grow by a pixel; all are resized to the size of the first one. A time not after the previous one
        becomes the next possible one.
        """
        height, width, _ = picture.shape
        picture = np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        if self._container is None:
            self._start(*picture.shape[:2])
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
        frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709", threads=1)  # PyAV resizes as it encodes
        self._last = max(round(seconds / TIME_BASE), self._last + 1)
        frame.pts, frame.time_base = self._last, TIME_BASE
        self._container.mux(self._stream.encode(frame))

    def __enter__(self) -> "VideoWriter":
        return self

    def __exit__(self, kind, error, traceback) -> None:
        self._stack.__exit__(kind, error, traceback)

    def _start(self, height, width):
        self._path.parent.mkdir(parents=True, exist_ok=True)
        part = self._stack.enter_context(replacing(self._path))
        # The index comes first, so that a browser can start to play before it has the whole file.
        container = av.open(f"file:{part}", "w", format="mp4", container_options={"movflags": "faststart"})
        self._container = self._stack.enter_context(container)
        options, size = {"crf": "20", "preset": self._preset}, {"width": width, "height": height}
        self._stream = self._container.add_stream(
            "libx264", self._rate, options, **size, pix_fmt="yuv420p", time_base=TIME_BASE
        )
        # Without these, players guess the colour space from the size.
        context = self._stream.codec_context
        context.colorspace = context.color_primaries = context.color_trc = av.video.reformatter.ColorPrimaries.BT709
        context.color_range = av.video.reformatter.ColorRange.MPEG
        self._stack.push(self._flush)

    def _flush(self, kind, error, traceback):
        if error is None:
            self._container.mux(self._stream.encode())


@contextlib.contextmanager
def _open(path):
    """Opens a file and yields its container and first video stream; raises UserError if it cannot."""
    if not Path(path).is_file():
        raise UserError(f"There is no file {path}.")
    try:
        # FFmpeg could take a plain name for a protocol, and metadata may be in any encoding.
        container = av.open(f"file:{path}", metadata_errors="replace")
    except av.FFmpegError as error:
        expected = "Expected an intact file, such as MP4, AVI or MKV."
        raise UserError(f"{path} is no video that can be read ({error.strerror}). {expected}") from error
    with container:
        if not container.streams.video:
            raise UserError(f"{path} holds no video stream.")
        stream = container.streams.video[0]
        if stream.codec_context is None:
            raise UserError(f"{path} has a codec that cannot be decoded; convert it, for example to H.264.")
        # `_decode` counts missing times itself; FFmpeg generates wrong ones for B-frames in AVI.
        container.flags &= ~av.container.Flags.gen_pts.value
        # Damaged frames are reported, not skipped.
        stream.codec_context.flags |= av.codec.context.Flags.output_corrupt
        try:
            check_size(stream.height, stream.width)
        except UnreadableFrame as error:
            raise UserError(f"{path}: {error}.") from error
        stream.codec_context.options = {"max_pixels": str(max_pixels())}  # the size may change within a file
        yield container, stream


def _decode(path):
    """Yields (seconds, frame or UnreadableFrame) in the order of the decoder."""
    with _open(path) as (container, stream):
        rate = float(stream.average_rate or DEFAULT_RATE)
        position, latest = 0, 0.0
        # Broadcast formats start at any time.
        broadcast = container.format.flags & av.format.Flags.ts_discont.value
        start = (container.start_time or 0) / av.time_base if broadcast else 0.0
        read, incomplete = FrameReader(), set()  # times of packets that some decoders complete without reporting it

        def seconds(ticks):
            return position / rate if ticks is None else float(ticks * stream.time_base) - start

        def unreadable(time, why):
            return time, UnreadableFrame(f"{path} at {time:.3f} s: {why}")

        end = 0.0  # of what the file holds of all streams, in seconds
        for packet, error in _packets(container, stream):
            if error is not None:
                yield unreadable(latest, f"nothing can be read from here on ({error.strerror})")
            shown = [ticks for ticks in (packet.pts, packet.dts) if ticks is not None]
            if shown:
                end = max(end, float((max(shown) + (packet.duration or 0)) * packet.time_base))
            if packet.size and packet.stream_index != stream.index:
                continue
            try:
                frames = stream.codec_context.decode(packet)
            except av.FFmpegError as error:
                yield unreadable(seconds(packet.pts), f"not decodable ({error.strerror})")
                position += 1
                continue
            if packet.is_corrupt or (stream.codec_context.name == "ffv1" and ffv1.is_damaged(bytes(packet))):
                incomplete.add(packet.pts)
            for frame in frames:
                latest = seconds(frame.pts)
                try:
                    damaged = frame.is_corrupt or frame.pts in incomplete
                    yield unreadable(latest, "damaged or incomplete") if damaged else (latest, read(frame))
                except (av.FFmpegError, UnreadableFrame, ValueError, MemoryError) as error:
                    yield unreadable(latest, str(error) or "there is not enough memory")
                incomplete.discard(frame.pts)
                position += 1
        stated = 0.0 if broadcast else _stated_end(container, stream)
        if end < stated - MISSING_FRAMES / rate:
            yield unreadable(latest + 1 / rate, f"the file is cut off, its header states {stated:.3f} s")


def _stated_end(container, stream):
    """Returns the end of a file in seconds as its header states it, 0 if it does not."""
    duration = float((container.duration or 0) / av.time_base)
    # FFmpeg shortens the duration of AVI to the size of the file, but not the number of frames.
    frames = float(stream.frames / stream.average_rate) if stream.average_rate else 0.0
    return max(duration, frames)


def _packets(container, stream):
    """Yields (packet, None) of all streams, then (flushing packet, error) if the rest of the file cannot be read."""
    try:
        for packet in container.demux():
            if packet.size or packet.stream_index == stream.index:
                yield packet, None
    except av.FFmpegError as error:
        yield av.Packet(), error


class FrameReader:
    """Returns the luminance of the decoded frames of a stream, [H, W], as players turn them.

    PyAV keeps a frame whose side data was read until the garbage collector runs, which may be gigabytes later. So the
    matrix by which players turn frames is read of the first frame, and again where its rotation is another.
    """

    def __init__(self):
        self._rotation = self._matrix = None

    def __call__(self, frame: av.VideoFrame) -> np.ndarray:
        bits = frame.format.components[0].bits
        # FFmpeg stretches limited range to these two formats; it would clip floats.
        name = "gray" if bits <= 8 else "gray16le" if bits <= 16 else frame.format.name
        values = luminance(frame.to_ndarray(format=name, threads=1))
        if frame.rotation != self._rotation:
            matrix = frame.side_data.get("DISPLAYMATRIX")
            self._rotation, self._matrix = frame.rotation, None if matrix is None else bytes(matrix)
        return values if self._matrix is None else _turn(values, np.frombuffer(self._matrix, np.int32))


def _turn(image, matrix):
    """Turns and mirrors an image by the nearest of the eight ways that keep its sides upright or level.

    `matrix` has nine numbers, of which 0, 1, 3 and 4 are a, b, c and d: the pixel (x, y) is shown at (a x + c y, b x +
    d y), see ISO/IEC 14496-12, 6.2.2.
    """
    a, b, _, c, d = matrix[:5].tolist()
    if abs(a) + abs(d) < abs(b) + abs(c):
        image, a, d = image.swapaxes(0, 1), c, b
    return np.ascontiguousarray(image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])
