"""Segments and classifies recordings: `fume predict --co2=FRAMES --ch4=FRAMES --output=DIR`.

FRAMES is an image, a folder of images, a pattern such as 'frames/*.png', a video, or a file of many frames (SEQ, CSQ,
TIFF, NumPy); one gas may be left out. Images pair by name, films by time, and a frame without partner is predicted
alone. The command writes to DIR

| | |
| --- | --- |
| `predictions.csv`, `predictions.jsonl` | one line per pair: class, probabilities, measures of each gas's plume |
| `recording.json`, `recording.html` | what all frames say together; the page has timeline and frames |
| `masks/NAME_co2.png` | 0 background, 1 tube, 2 gas, at the frame's own size |
| `overlays/NAME_co2.png` | the mask drawn on the frame |
| `probabilities/NAME_co2.npz` | the probabilities of each pixel, if `--save` names them |
| `annotated.mp4` | frames with masks and probabilities, for films |
| `timeline.png` | probabilities and gas over time |

`--recordings=LIST` predicts many recordings instead, each into a folder of DIR, and sums them up in `recordings.csv`.
`--share=K/N` predicts a part of them; the command without it then writes that table.
"""

import re
from pathlib import Path

from absl import flags

from fume_jax.inference import flags as model_flags
from fume_jax.runtime import cli
from fume_jax.runtime.errors import UserError

_CO2 = flags.DEFINE_string("co2", None, "CO2 frames: path of an image, a folder of images, a pattern or a film.")
_CH4 = flags.DEFINE_string("ch4", None, "CH4 frames: path of an image, a folder of images, a pattern or a film.")
_RECORDINGS = flags.DEFINE_string(
    "recordings",
    None,
    "In place of --co2 and --ch4, a folder of recordings, or a table with the columns id, co2, ch4, and optional ones: "
    "offset_s, range, mm_per_pixel, start_s, stop_s, ph, class_name, subject.",
)
_RANGE = flags.DEFINE_string(
    "range",
    "recording",
    "How frames deeper than 8 bits become grey: by one range for the recording, by that of each frame (frame), or "
    "LOW,HIGH in their unit.",
)
_RATE = flags.DEFINE_float("rate", None, "Frames per second of files that state no times.", lower_bound=1e-6)
_OFFSET = flags.DEFINE_string(
    "offset", None, "Seconds by which the clock of CH4 is ahead, or auto, which finds them. Default: by clock times."
)
_MM_PER_PIXEL = flags.DEFINE_float(
    "mm_per_pixel", None, "Size of a pixel in the scene in millimetres, for lengths and areas in mm.", lower_bound=1e-9
)
_SHARE = flags.DEFINE_string("share", "0/1", "K/N predicts the recordings K, K + N, K + 2 N ... of a list, from 0.")
_OUTPUT = flags.DEFINE_string("output", None, "Folder to write the results to.", required=True)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 8, "Number of pairs that the model processes at once.", lower_bound=1)
_TTA = flags.DEFINE_bool("tta", False, "Average predictions over each frame and its mirror image.")
_SAVE = flags.DEFINE_list(
    "save",
    ["masks", "overlays", "video"],
    "Files to write besides the tables: masks, overlays, video, probabilities (of the classes of each pixel).",
)
flags.adopt_module_key_flags(model_flags)


def main() -> int:
    """Predicts as the flags say; returns the exit code."""
    from fume_jax.data.recording_list import AUTO, Recording, read_recordings, unread_columns
    from fume_jax.data.scale import parse_range
    from fume_jax.data.sources import open_source
    from fume_jax.inference.output import PRODUCTS, output_folder
    from fume_jax.inference.recording import predict_recording
    from fume_jax.inference.recordings import find_settings, predict_recordings
    from fume_jax.inference.settings import FOUND, open_predicted
    from fume_jax.runtime.preemption import StopRequest

    unknown = set(_SAVE.value) - {"", *PRODUCTS}
    if unknown:
        raise UserError(f"--save={','.join(_SAVE.value)}: expected some of {', '.join(PRODUCTS)}.")
    model_flags.check()
    options = {"products": _SAVE.value}
    if _RECORDINGS.value is not None:
        for flag in (_CO2, _CH4, _OFFSET, _MM_PER_PIXEL, _RANGE):
            if flag.present:
                raise UserError(f"--{flag.name} and --recordings do not go together; the table has a column for it.")
        recordings, share = read_recordings(_RECORDINGS.value), _parse_share(_SHARE.value)
        for note in unread_columns(_RECORDINGS.value):
            print(f"note: {note}")
        with StopRequest() as stop:
            options |= {"batch_size": _BATCH_SIZE.value, "rate": _RATE.value, "share": share, "stop": stop}
            return predict_recordings(_load(), recordings, _OUTPUT.value, **options)
    paths, limits = (_CO2.value, _CH4.value), parse_range(_RANGE.value)
    offset = _OFFSET.value if _OFFSET.value == AUTO else _seconds(_OFFSET.value)
    # Before the model is loaded, so that what is wrong is said at once.
    source = open_source(*paths, range=limits, rate=_RATE.value, offset=None if offset == AUTO else offset)
    recording = Recording(Path(_OUTPUT.value).absolute().name, *paths, offset, limits, _MM_PER_PIXEL.value)
    with output_folder(_OUTPUT.value, paths):
        predictor = _load()
        batch_size = min(_BATCH_SIZE.value, source.total or _BATCH_SIZE.value)
        settings = find_settings(predictor, recording, _RATE.value, batch_size)
        if FOUND in settings:
            source = open_predicted(settings)
        with StopRequest() as stop:
            options |= {"batch_size": batch_size, "mm_per_pixel": _MM_PER_PIXEL.value, "stop": stop}
            return predict_recording(predictor, source, _OUTPUT.value, settings=settings, **options)


def _load():
    predictor = model_flags.load_predictor(tta=_TTA.value)
    card = predictor.card
    # The steps of what it started from do not count, so that a model may have none of its own.
    start = f" after {init_from}" if (init_from := card.config.get("init_from")) else ""
    trained = f"{card.step:,} steps of training{start}"
    print(f"{card.model}, {trained}, frames scaled to {card.width}x{card.height}", flush=True)
    return predictor


def _seconds(text):
    try:
        return None if text is None else float(text)
    except ValueError as error:
        raise UserError(f"--offset={text}: expected seconds, such as -1.5, or auto.") from error


def _parse_share(text):
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if not match or int(match[1]) >= int(match[2]):
        raise UserError(f"--share={text}: expected K/N with K from 0 to N - 1.")
    return int(match[1]), int(match[2])


if __name__ == "__main__":
    cli.run(main)
