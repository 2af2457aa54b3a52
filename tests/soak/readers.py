"""What reads files from outside, each as a function of a folder that holds some, for `tests.soak.fuzz`."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np


class Reader(NamedTuple):
    """Reads what lies in a folder and returns its content as arrays, text and numbers.

    `damaged` are patterns of the files to damage. Those of an `exact` reader have checksums: with damage they are
    refused, or what is read is what was written.
    """

    read: Callable[[Path], object]
    damaged: tuple[str, ...]
    exact: bool = False


def frames(folder):
    from fume_jax.data.images import UnreadableFrame
    from fume_jax.data.sources import Pair, load

    loaded = [load(Pair(path.name, None, {"co2": path})) for path in sorted(folder.iterdir())]
    if faults := [fault for found in loaded for fault in found.faults.values()]:
        raise UnreadableFrame(faults[0])
    return [found.frames for found in loaded]


def films(folder):
    from fume_jax.data.images import UnreadableFrame
    from fume_jax.data.sources import load, open_source

    found = []
    for path in sorted(folder.iterdir()):
        source = open_source(str(path), None)
        for pair in source.pairs:
            loaded = load(pair, source.limits)
            if loaded.faults:
                raise UnreadableFrame(loaded.faults["co2"])
            found.append(loaded.values)
    return found


def masks(folder):
    from datasets.fume_ogi.content import read_mask

    return [read_mask(path) for path in sorted(folder.iterdir())]


def recordings(folder):
    from datasets.fume_ogi.plan import Options, make_plan

    return make_plan(folder, Options(allow=("empty_class",))).fingerprint(48, 64)


def videos(folder):
    from fume_jax.data.video import read_video

    return [sum(1 for _ in read_video(path)) for path in sorted(folder.iterdir())]


def dataset(folder):
    from fume_jax.data.dataset import Dataset

    found = Dataset(str(folder))
    return [example for split in found.splits for example in found.split(split)]


def run_folder(folder):
    from flax import nnx

    from fume_jax.inference.backends import open_backend

    return [np.asarray(leaf) for leaf in nnx.state(open_backend(folder).model).flat_state().leaves]


def exported(folder):
    from fume_jax.inference.backends import open_backend

    (path,) = folder.iterdir()
    backend = open_backend(path)
    size = (1, backend.card.height, backend.card.width, 1)
    shades = {f"{gas}_frame": np.full(size, 0.5, np.float32) for gas in ("co2", "ch4")}
    return backend(**shades, modality_mask=np.ones((1, 2), np.float32))


def torch_checkpoint(folder):
    from fume_jax.inference.importer import _read

    (path,) = folder.iterdir()
    return _read(str(path))


def events(folder):
    from contextlib import closing

    from fume_jax.training.tensorboard import EventLog, read_scalars

    read_scalars(folder)
    with closing(EventLog(str(folder), start_step=36)) as log:
        log.scalars(42, "train", {"loss": 1.0})
    return read_scalars(folder)["train/loss"][0][-1]


def status(folder):
    from launch import status

    job = status.read_job(folder)
    return [status.read_status(folder), job, status.state(folder, {job: None}), status.log_tail(folder, 3)]


READERS = {
    "frames: PNG": Reader(frames, ("*",), exact=True),
    "frames: JPEG, TIFF, WebP, BMP": Reader(frames, ("*",)),
    "masks": Reader(masks, ("*",), exact=True),
    "annotations: CSV": Reader(recordings, ("*.csv",)),
    "recordings: images of a dataset": Reader(recordings, ("**/*.png",), exact=True),
    "videos: H.264, MJPEG, FFV1": Reader(videos, ("*",)),
    "films: SEQ, CSQ, TIFF, .npy": Reader(films, ("*",)),
    "films: .npz": Reader(films, ("*",), exact=True),
    "prepared datasets": Reader(dataset, ("*",), exact=True),
    "run folders: JSON": Reader(run_folder, ("config.json", "metrics.json", "validation.json")),
    "run folders: checkpoints": Reader(run_folder, ("checkpoints/**/*",), exact=True),
    "weights: .npz": Reader(run_folder, ("weights.npz",), exact=True),
    "exports: .onnx": Reader(exported, ("*",), exact=True),
    "exports: .pth": Reader(exported, ("*",), exact=True),
    "exports: .stablehlo": Reader(exported, ("*",), exact=True),
    "checkpoints of PyTorch": Reader(torch_checkpoint, ("*",), exact=True),
    "event files": Reader(events, ("events/*",)),
    "status of sweeps": Reader(status, ("*",)),
}


def digest(content) -> str:
    """A digest of what a reader returned."""
    found = hashlib.sha256()

    def add(value):
        if isinstance(value, dict):
            for key in sorted(value):
                found.update(str(key).encode())
                add(value[key])
        elif isinstance(value, list | tuple):
            for item in value:
                add(item)
        elif isinstance(value, np.ndarray):
            found.update(f"{value.dtype} {value.shape}".encode() + value.tobytes())
        else:
            found.update(repr(value).encode())

    add(content)
    return found.hexdigest()
