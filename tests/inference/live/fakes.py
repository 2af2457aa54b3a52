"""A camera over HTTP that tests drive frame by frame, and models and streams to watch it with."""

import contextlib
import http.server
import threading
import time

import cv2
import numpy as np

from fume_jax.inference.live.cameras import parse_camera
from fume_jax.inference.live.retry import Backoff
from fume_jax.inference.live.streams import Stream
from tests.inference.test_predictor import Known

SIZE = (64, 80)


def columns(count, size=SIZE):
    """A frame on which `Known` finds so many columns of gas, out of 80."""
    frame = np.full(size, 100, np.uint8)
    frame[:, : count * size[1] // 80] = 255
    return frame


def noise(seed, size=SIZE):
    return np.random.default_rng(seed).integers(0, 256, size, np.uint8)


def until(condition, seconds=10.0):
    """Waits for something to become true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.01)


class HttpCamera:
    """Sends MJPEG at `url` to whoever asks, at `rate` frames a second; `frame(i)` draws the i-th, None sends nothing.

    `pause` and `go_on` close and open its port, as a camera does that loses its power.
    """

    def __init__(self, frame, rate=50):
        self.frame, self.rate, self._port = frame, rate, 0
        self.sent, self._on, self._server = 0, threading.Event(), None
        self.go_on()

    @property
    def url(self):
        return f"http://127.0.0.1:{self._port}/"

    def go_on(self):
        camera, self._on = self, threading.Event()
        on = self._on

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
                self.end_headers()
                with contextlib.suppress(OSError):
                    while not on.wait(1 / camera.rate):
                        if (frame := camera.frame(camera.sent)) is not None:
                            self.wfile.write(as_part(frame))
                        camera.sent += 1

            def log_message(self, *_):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", self._port), Handler)
        self._server.daemon_threads = True
        self._port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def pause(self):
        self._on.set()
        self._server.shutdown()
        self._server.server_close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.pause()


def as_part(frame):
    """A frame as HTTP sends it; bytes are sent as they are, in place of a JPEG."""
    data = frame if isinstance(frame, bytes) else cv2.imencode(".jpg", frame)[1].tobytes()
    return b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(data) + data + b"\r\n"


class Slow(Known):
    """Takes some seconds for each prediction, and keeps the number of columns of gas that it saw."""

    def __init__(self, seconds, **options):
        super().__init__(**options)
        self.seconds = seconds

    def __call__(self, **inputs):
        time.sleep(self.seconds)
        return super().__call__(**inputs)


def make_stream(address, gas="co2", told=None, arrived=None, **options):
    """A stream that tries again soon, and the lines that it tells."""
    told = [] if told is None else told
    options = {"timeout": 2.0, "backoff": Backoff(0.05, 0.2)} | options
    camera = parse_camera(str(address), follow=options.pop("follow", False))
    return Stream(gas, camera, arrived=arrived or threading.Condition(), tell=told.append, **options), told
