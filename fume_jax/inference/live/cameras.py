"""Opens what a camera sends: network streams, video devices, and films, also those that are still being written."""

import io
import re
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np

from fume_jax.data.faults import UnreadableFrame, check_size, max_pixels
from fume_jax.data.films import open_film
from fume_jax.data.gray import luminance
from fume_jax.data.video import FrameReader
from fume_jax.inference.live import schemes
from fume_jax.runtime.errors import UserError

# Kinds of cameras.
STREAM, DEVICE, FILM, GROWING = "stream", "device", "film", "growing"
# Format and name by which FFmpeg opens device N, by platform.
_DEVICES = {"linux": ("v4l2", "/dev/video{}"), "darwin": ("avfoundation", "{}")}
# What FFmpeg should do about latency. RTSP comes over TCP where the server offers it, so that no packet is lost.
_STREAM_OPTIONS = {"fflags": "nobuffer", "rtsp_flags": "prefer_tcp", "analyzeduration": "1000000"}
# How much of a growing file is looked at before the first frame, in bytes; FFmpeg would wait for 5 MB.
_GROWING_OPTIONS = {"probesize": "500000", "analyzeduration": "1000000"}
# Formats that state no times, to which FFmpeg gives 25 frames a second.
_TIMELESS = ("mpjpeg", "mjpeg", "h264", "hevc")
# Files whose index is written last, and files that can be read while they are written.
_COMPLETE, _FOLLOWED = (".mp4", ".m4v", ".mov"), (".ts", ".mkv")
# Seconds between two looks at whether a growing file has grown.
_GROWN_SECONDS = 0.02


class Camera(NamedTuple):
    """Names a camera: its kind, its address, and how both are told without the password."""

    kind: str
    address: str
    name: str


class Reading(NamedTuple):
    """Holds what a camera gave.

    Attributes:
      seconds: presentation time in the stream; None if it states none.
      clock: seconds since 1970 by the camera's own clock; None if it does not send it.
      values: the frame, numbers [H, W], or why there is none.
    """

    seconds: float | None
    clock: float | None
    values: np.ndarray | UnreadableFrame


def parse_camera(text: str, *, follow: bool = False) -> Camera:
    """Finds what an address names: a stream, by one of `schemes.CAMERA`, a video device by number or path, or a film.

    With `follow` a file is one that is still being written. Raises UserError if there is no such file, or this platform
    has no devices by number, an address names no server, or a file is no film or cannot be followed.
    """
    scheme = text.partition("://")[0]
    if "://" in text:
        if scheme not in schemes.CAMERA:
            expected = ", ".join(schemes.CAMERA)
            raise UserError(f"{text} is no address of a camera; expected one of {expected} before ://.")
        if scheme in schemes.SERVERS and not schemes.names_host(text, schemes.SERVERS):
            raise UserError(f"{without_password(text)} names no server; expected {scheme}://HOST[:PORT]/PATH.")
        return Camera(STREAM, text, without_password(text))
    if text.isdecimal():
        if sys.platform not in _DEVICES:
            raise UserError(f"Video device {text} cannot be opened on {sys.platform}; give a network stream or a film.")
        name = _DEVICES[sys.platform][1].format(text)
        return Camera(DEVICE, name, name)
    if re.match(r"/dev/\w", text):
        return Camera(DEVICE, text, text)
    if not Path(text).is_file():
        missing = f"{text} is a folder" if Path(text).is_dir() else f"There is no file {text}"
        raise UserError(f"{missing}. Expected a film, a video device, or an address such as rtsp://HOST.")
    if follow and Path(text).suffix.lower() in _COMPLETE:
        raise UserError(
            f"--follow: {text} cannot be read before it is complete; record {' or '.join(_FOLLOWED)} files."
        )
    if not follow and open_film(text) is None:
        raise UserError(f"{text} is no film; expected a video or a file of many frames.")
    return Camera(GROWING if follow else FILM, text, text)


def without_password(address: str) -> str:
    """Returns an address as it may be shown."""
    return re.sub(r"(://[^/?#@:]*):[^/?#]*@", r"\1@", address, count=1)


def read_camera(camera: Camera, stop: threading.Event, timeout: float) -> Iterator[Reading]:
    """Yields what a camera gives, as it gives it, until it ends or `stop` is set.

    A film is shown at its own speed; of a growing file what is there is read at once. Raises OSError (as FFmpeg's
    errors are) or UserError if the camera cannot be opened, gives nothing for `timeout` seconds, or breaks off.
    """
    if camera.kind == FILM:
        yield from _read_film(camera.address, stop)
        return
    with _open(camera, stop, timeout) as container:
        if not container.streams.video:
            raise UserError(f"{camera.name} holds no video")
        stream = container.streams.video[0]
        # Threads that decode whole frames hold some of them back.
        stream.thread_type = "SLICE"
        # Damaged frames are reported, not skipped.
        stream.codec_context.flags |= av.codec.context.Flags.output_corrupt
        stream.codec_context.options = {"max_pixels": str(max_pixels())}
        timeless, read = container.format.name in _TIMELESS, FrameReader()
        for packet in container.demux(stream):
            if stop.is_set():
                return
            start = container.start_time_realtime
            try:
                frames = packet.decode()
            except av.FFmpegError as error:
                if packet.size:
                    yield Reading(None, None, UnreadableFrame(f"not decodable ({error.strerror})"))
                continue
            for frame in frames:
                seconds = None if timeless else frame.time
                clock = None if None in (start, seconds) else start / av.time_base + seconds
                yield Reading(seconds, clock, _values(frame, packet.is_corrupt, read))


def _values(frame, is_corrupt, read):
    if is_corrupt or frame.is_corrupt:
        return UnreadableFrame("damaged or incomplete")
    try:
        check_size(frame.height, frame.width)
        return read(frame)
    except (av.FFmpegError, UnreadableFrame, ValueError) as error:
        return UnreadableFrame(str(error))


def _open(camera, stop, timeout):
    if camera.kind == GROWING:
        return av.open(_Growing(camera.address, stop), options=_GROWING_OPTIONS, metadata_errors="replace")
    options = {"timeout": (timeout, timeout), "metadata_errors": "replace"}
    if camera.kind == DEVICE:
        if sys.platform not in _DEVICES:
            raise UserError(f"video devices cannot be opened on {sys.platform}")
        return av.open(camera.address, format=_DEVICES[sys.platform][0], **options)
    return av.open(camera.address, options=_STREAM_OPTIONS, **options)


def _read_film(path, stop):
    film, begin, first = open_film(path), None, None
    for seconds, values in film.read():
        if begin is None:
            begin, first = time.monotonic(), seconds
        if stop.wait(max(0.0, begin + seconds - first - time.monotonic())):
            return
        clock = None if film.clock is None else film.clock + seconds
        yield Reading(seconds, clock, values if isinstance(values, UnreadableFrame) else luminance(values))


class _Growing(io.RawIOBase):
    """A file whose end is where its writer is: reading there waits for more, until `stop` is set."""

    def __init__(self, path, stop):
        self._file, self._stop = open(path, "rb"), stop  # noqa: SIM115 (closed by `close`)

    def readable(self):
        return True

    def seekable(self):
        return False

    def readinto(self, buffer):
        while not (count := self._file.readinto(buffer)):
            if self._stop.wait(_GROWN_SECONDS):
                return 0
        return count

    def close(self):
        self._file.close()
        super().close()
