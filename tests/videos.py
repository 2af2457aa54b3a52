"""Small videos to read, and damage to them."""

import av
import numpy as np

HEIGHT, WIDTH = 48, 64


def encode(path, frames, codec="mjpeg", pix_fmt="yuvj420p", times=None, **options):
    """Writes grey frames [H, W], shown at the given multiples of 40 ms."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream(codec, 25, options, width=WIDTH, height=HEIGHT, pix_fmt=pix_fmt)
        for i, grey in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(grey, "gray" if grey.dtype == np.uint8 else "gray16le")
            frame = frame.reformat(format=pix_fmt)
            frame.pts = i if times is None else times[i]
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return path


def flat(level):
    return np.full((HEIGHT, WIDTH), level, np.uint8)


def noise(seed, levels=256):
    return np.random.default_rng(seed).integers(0, levels, (HEIGHT, WIDTH)).astype(np.uint8)


def flip(path, packet, where, most=10**6):
    """Damages the bytes of a packet from that part of it on, `most` of them at most."""
    with av.open(str(path)) as file:
        place = [(p.pos, p.size) for p in file.demux(video=0) if p.size][packet]
    data = bytearray(path.read_bytes())
    for i in list(range(place[0] + int(where * place[1]), sum(place)))[:most]:
        data[i] ^= 0xFF
    path.write_bytes(data)
    return path
