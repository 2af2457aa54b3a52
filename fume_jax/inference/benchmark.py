"""Compares the formats of one model on this machine: speed, size, and the gas that is found."""

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fume_jax.evaluation.tables import aligned
from fume_jax.inference.backends import Backend, backend_class, open_backend
from fume_jax.inference.exporter import write_quantized
from fume_jax.inference.formats import FORMATS
from fume_jax.inference.jax_backends import JaxBackend
from fume_jax.inference.predictor import prepare_pair, stack
from fume_jax.inference.quality import measure_quality, read_examples
from fume_jax.runtime.errors import DONE, PARTLY_DONE, UserError
from fume_jax.schema import GASES

# What can be compared: the run itself, files, and files in 8 bits.
INT8 = {"onnx-int8": "onnx", "openvino-int8": "openvino"}
VARIANTS = ("jax", *(name for name in FORMATS if FORMATS[name].suffix), *INT8)
# Pairs of the test split whose gas is looked for; pairs of a batch beside single ones.
PAIRS, BATCH = 100, 8


class Row(NamedTuple):
    """Holds what was measured of a format; `gas_iou` is None without a dataset."""

    name: str
    milliseconds: float
    pairs_per_second: float
    megabytes: float
    gas_iou: float | None


def benchmark(
    workdir: str | Path, variants: Sequence[str], files: Sequence[Path], *, data: str | None, turns: int
) -> int:
    """Writes a run in the formats named, times them and other files in turns, and prints a table.

    Args:
      workdir: run folder, or that of the pretrained model.
      variants: some of `VARIANTS`.
      files: exported files to compare with them.
      data: prepared dataset for gas IoU, on the test split, and for files in 8 bits; that of the run if None.
      turns: how often each is timed.

    Returns `PARTLY_DONE` if a format could not be written or opened here, which is printed.
    """
    model, backends, code = JaxBackend(workdir), {}, DONE
    found = data or model.card.config["data"]["path"]
    with tempfile.TemporaryDirectory() as folder:
        makers = {name: _maker(name, Path(folder), model, data) for name in variants}
        makers |= {str(path): lambda path=path: (open_backend(path), path) for path in files}
        for name, make in makers.items():
            try:
                backends[name] = make()
            except UserError as error:
                print(f"left out: {name}: {error}", flush=True)
                code = PARTLY_DONE
        examples = read_examples(model.card, found, "test", PAIRS) if os.path.isdir(found) else []
        seconds = time_in_turns({name: backend for name, (backend, _) in backends.items()}, turns)
        rows = []
        for name, (backend, path) in backends.items():
            iou = measure_quality(backend, examples).gas_iou if examples else None
            rows.append(Row(name, seconds[name, 1] * 1e3, BATCH / seconds[name, BATCH], _megabytes(path), iou))
    card = model.card
    print(f"{card.model}, {card.width}x{card.height}, {os.cpu_count()} CPU cores, medians of {turns} turns")
    print(aligned([("", "ms, one pair", f"pairs/s by {BATCH}", "MB", "gas IoU"), *map(_cells, rows)]))
    measured = f"gas IoU on {len(examples)} pairs of the test split of {found}"
    print(measured if examples else f"no gas IoU: no {found}; --data=DIR names another")
    return code


def _maker(name, folder, model, data) -> Callable[[], tuple[Backend, Path]]:
    """Returns a function that writes and opens a variant, and says where it is."""

    def make():
        if name == "jax":
            return model, None
        format = INT8.get(name, name)
        path = folder / f"{name}{FORMATS[format].suffix}"
        if name in INT8:
            print(f"{name}: {write_quantized(format, path, model, data)}", flush=True)
        else:
            backend_class(format).write(path, model.model, model.card)
        return open_backend(path), path

    return make


def time_in_turns(backends: dict[str, Backend], turns: int) -> dict[tuple[str, int], float]:
    """Returns the median seconds of a call with 1 and with `BATCH` pairs, by name and number of pairs.

    All are timed once before any is timed again, so that what else the machine does meets all of them.
    """
    seconds = {(name, count): [] for name in backends for count in (1, BATCH)}
    for turn in range(turns + 1):
        for name, count in seconds:
            inputs = _random_batch(backends[name].card, count)
            start = time.perf_counter()
            backends[name](**inputs)
            if turn:  # the first call may compile
                seconds[name, count].append(time.perf_counter() - start)
    return {key: float(np.median(values)) for key, values in seconds.items()}


def _random_batch(card, count):
    frame = np.random.default_rng(0).integers(0, 256, (card.height, card.width, 1), np.uint8)
    return stack([prepare_pair(dict.fromkeys(GASES, frame), card.height, card.width)] * count)


def _megabytes(path):
    """Returns the size of a file, and of the parameters that OpenVINO keeps beside it; NaN for a run."""
    if path is None:
        return np.nan
    beside = path.with_suffix(".bin") if path.suffix == FORMATS["openvino"].suffix else None
    return sum(file.stat().st_size for file in (path, beside) if file is not None) / 1e6


def _cells(row):
    size = "" if np.isnan(row.megabytes) else f"{row.megabytes:.1f}"
    iou = "" if row.gas_iou is None else f"{row.gas_iou:.4f}"
    return row.name, f"{row.milliseconds:.1f}", f"{row.pairs_per_second:.1f}", size, iou
