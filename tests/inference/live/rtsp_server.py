"""Serves pictures by RTSP as cameras do, 25 a second, over and over: `rtsp_server.py PORT WIDTH HEIGHT PATTERN ...`.

Each pattern, such as `co2_*.jpg`, is a stream of its own at 127.0.0.1, /0, /1 and so on. Run it by the system's Python,
whose packages have GStreamer's bindings; prints `ready`.
"""

import glob
import itertools
import sys
from pathlib import Path

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402

RATE = 25


def configure(_, media, pictures):
    """Feeds a media that a client has asked for."""
    numbers = itertools.count()

    def push(source, _):
        i = next(numbers)
        buffer = Gst.Buffer.new_wrapped(pictures[i % len(pictures)])
        buffer.pts, buffer.duration = i * Gst.SECOND // RATE, Gst.SECOND // RATE
        source.emit("push-buffer", buffer)

    media.get_element().get_child_by_name("camera").connect("need-data", push)


Gst.init(None)
server = GstRtspServer.RTSPServer()
server.set_address("127.0.0.1")
port, width, height, *patterns = sys.argv[1:]
server.set_service(port)
for position, pattern in enumerate(patterns):
    factory = GstRtspServer.RTSPMediaFactory()
    caps = f"image/jpeg,width={width},height={height},framerate={RATE}/1"
    factory.set_launch(f"( appsrc name=camera is-live=true format=time caps={caps} ! rtpjpegpay name=pay0 pt=26 )")
    factory.set_shared(True)
    factory.connect("media-configure", configure, [Path(path).read_bytes() for path in sorted(glob.glob(pattern))])
    server.get_mount_points().add_factory(f"/{position}", factory)
server.attach(None)
print("ready", flush=True)
GLib.MainLoop().run()
