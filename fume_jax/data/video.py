"""Video files: reading grey frames with their times, writing pictures."""

import contextlib
import dataclasses
import heapq
import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from fume_jax.data.images import UnreadableFrame, to_gray
from fume_jax.runtime.errors import UserError

# So many frames at most does a decoder hold back, of H.264 or HEVC, to give them in the order in which they are shown.
MAX_REORDER = 16
# Frames a second where nothing tells.
DEFAULT_RATE = 25
# Times that are written are multiples of this, in seconds, as is usual in MPEG.
TIME_BASE = Fraction(1, 90_000)


@dataclasses.dataclass(frozen=True)
class Header:
    """What a video file says of its first video stream."""

    num_frames: int | None  # unknown in some containers, such as MKV
    rate: float  # on average, frames a second
    height: int  # pixels
    width: int


def read_header(path: str | Path) -> Header:
    """Reads what a file says of its video.

    Raises:
      UserError: if there is no such file, or no video in it that can be decoded.
    """
    with _open(path) as (_, stream):
        rate = stream.average_rate or stream.guessed_rate
        return Header(stream.frames or None, float(rate or DEFAULT_RATE), stream.height, stream.width)


def read_video(path: str | Path) -> Iterator[tuple[float, np.ndarray | UnreadableFrame]]:
    """Decodes the first video stream of a file, in the order in which frames are shown.

    Grey levels are the luminance, of full range whatever the range in the file; deeper video than 8 bits is scaled by
    the range of each frame, as in `to_gray`. A frame that cannot be decoded, or that the decoder says is damaged, comes
    as an `UnreadableFrame` that names file and time, and reading goes on. Frames that are predicted from it, up to the
    next key frame, come as the decoder guesses them.

    Yields:
      Time in seconds and frame, uint8 [H, W, 1], or UnreadableFrame.

    Raises:
      UserError: as `read_header`.
    """
    waiting = []  # a heap by time: failures come before what the decoder still holds, and damage confuses its order
    for position, (seconds, frame) in enumerate(_decode(path)):
        heapq.heappush(waiting, (seconds, position, frame))
        if len(waiting) > MAX_REORDER:
            seconds, _, frame = heapq.heappop(waiting)
            yield seconds, frame
    for seconds, _, frame in sorted(waiting):
        yield seconds, frame


class VideoWriter:
    """Writes RGB pictures as an MP4 file (H.264) that browsers show.

    A context manager. The file has its name only once it is complete: until the context ends it is `PATH.part`, which
    an error in the context removes. Without any picture there will be no file.
    """

    def __init__(self, path: str | Path, rate: float = DEFAULT_RATE):
        """Will write to `path`; `rate`, frames a second on average, guides the encoder."""
        self._path = Path(path)
        self._part = self._path.with_name(f"{self._path.name}.part")
        self._rate = Fraction(rate).limit_denominator(1001)
        self._container = self._stream = None
        self._last = -1

    def write(self, picture: np.ndarray, seconds: float) -> None:
        """Adds a picture.

        Args:
          picture: uint8 [H, W, 3]. Odd sizes grow by a pixel; all are resized to the size of the first one.
          seconds: when it is shown, not negative. One that is not after the picture before follows it at once.
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
        if self._container is None:
            return
        try:
            with self._container:
                if error is None:
                    self._container.mux(self._stream.encode())
            if error is None:
                os.replace(self._part, self._path)
        finally:
            self._part.unlink(missing_ok=True)

    def _start(self, height, width):
        self._path.parent.mkdir(parents=True, exist_ok=True)
        # The index in front, so that a browser shows the beginning before it has the end.
        self._container = av.open(f"file:{self._part}", "w", format="mp4", container_options={"movflags": "faststart"})
        self._stream = self._container.add_stream(
            "libx264", self._rate, {"crf": "20"}, width=width, height=height, pix_fmt="yuv420p", time_base=TIME_BASE
        )
        # Else players guess the colours from the size.
        context = self._stream.codec_context
        context.colorspace = context.color_primaries = context.color_trc = av.video.reformatter.ColorPrimaries.BT709
        context.color_range = av.video.reformatter.ColorRange.MPEG


@contextlib.contextmanager
def _open(path):
    """Container and first video stream of a file, or a UserError."""
    if not Path(path).is_file():
        raise UserError(f"There is no file {path}.")
    try:
        # A plain name could be taken for a protocol's, and metadata may be in any encoding.
        container = av.open(f"file:{path}", metadata_errors="replace")
    except av.FFmpegError as error:
        raise UserError(
            f"{path} is no video that can be read ({error.strerror}). Expected an intact file, such as MP4, AVI or MKV."
        ) from error
    with container:
        if not container.streams.video:
            raise UserError(f"{path} holds no video stream.")
        stream = container.streams.video[0]
        if stream.codec_context is None:
            raise UserError(f"{path} is of a codec that cannot be decoded; convert it, for example to H.264.")
        # Times that a container does not tell are counted below; FFmpeg makes wrong ones up for B-frames in AVI.
        container.flags &= ~av.container.Flags.gen_pts.value
        # Damaged frames are told of, not left out.
        stream.codec_context.flags |= av.codec.context.Flags.output_corrupt
        yield container, stream


def _decode(path):
    """(Seconds, frame or UnreadableFrame) as they come out of the decoder."""
    with _open(path) as (container, stream):
        rate = stream.average_rate or DEFAULT_RATE
        position, latest = 0, 0.0
        # Broadcast formats count from anywhere.
        broadcast = container.format.flags & av.format.Flags.ts_discont.value
        start = (container.start_time or 0) / av.time_base if broadcast else 0.0
        incomplete = set()  # times of packets that some decoders fill up without a word

        def seconds(ticks):
            return position / float(rate) if ticks is None else float(ticks * stream.time_base) - start

        def unreadable(time, why):
            return time, UnreadableFrame(f"{path} at {time:.3f} s: {why}")

        for packet, error in _packets(container, stream):
            if error is not None:
                yield unreadable(latest, f"nothing can be read from here on ({error.strerror})")
            try:
                frames = stream.codec_context.decode(packet)
            except av.FFmpegError as error:
                yield unreadable(seconds(packet.pts), f"not decodable ({error.strerror})")
                position += 1
                continue
            if packet.is_corrupt:
                incomplete.add(packet.pts)
            for frame in frames:
                latest = seconds(frame.pts)
                try:
                    damaged = frame.is_corrupt or frame.pts in incomplete
                    yield unreadable(latest, "damaged or incomplete") if damaged else (latest, _grey(frame))
                except (av.FFmpegError, UnreadableFrame, ValueError) as error:
                    yield unreadable(latest, str(error))
                incomplete.discard(frame.pts)
                position += 1


def _packets(container, stream):
    """Packets and None, or the error after which the file cannot be read on; the last one flushes the decoder."""
    try:
        for packet in container.demux(stream):
            yield packet, None
    except av.FFmpegError as error:
        yield av.Packet(), error


def _grey(frame):
    """Grey levels uint8 [H, W, 1] of a decoded frame."""
    bits = frame.format.components[0].bits
    # FFmpeg stretches limited range in the first two; floats it would clip.
    name = "gray" if bits <= 8 else "gray16le" if bits <= 16 else frame.format.name
    return to_gray(frame.to_ndarray(format=name, threads=1))
