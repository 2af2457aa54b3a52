"""Writes recordings of both gases as videos: `python -m datasets.synthetic_ogi.film --output=films`.

`fume predict` takes the videos, `co2.mp4` and `ch4.mp4`. The command prints the pH that they were simulated at. With
`--recordings=N` it writes a folder for each of N recordings, in which `truth.npz` has the masks, and `recordings.csv`,
the list for `fume predict --recordings`.
"""

import csv
from pathlib import Path

from absl import flags

from fume_jax.runtime import cli
from fume_jax.runtime.errors import UserError

_NAME = flags.DEFINE_string("name", "demo", "Name of the dataset, one of those in datasets/synthetic_ogi/README.md.")
_OUTPUT = flags.DEFINE_string("output", "films", "Folder that receives the videos.")
_FRAMES = flags.DEFINE_integer("frames", 300, "Number of frames of each video.", lower_bound=1)
_RECORDING = flags.DEFINE_integer("recording", 0, "Index among the test recordings of both gases.", lower_bound=0)
_RECORDINGS = flags.DEFINE_integer(
    "recordings",
    None,
    "Write so many recordings from that index on, as many of each class, a folder each.",
    lower_bound=1,
)
_WIDTH = flags.DEFINE_integer("width", None, "Width in pixels, of which the height is 3/4.", lower_bound=64)
_OTHER = flags.DEFINE_bool(
    "other_camera", False, "Film with a camera of other polarity, half the contrast and less sharpness."
)
_MISSING = flags.DEFINE_integer("ch4_missing", 0, "Leave out every K-th CH4 frame (K > 1), or none (0).", lower_bound=0)
TABLE = "recordings.csv"


def main() -> None:
    import dataclasses

    from datasets.synthetic_ogi.recording import write_truth
    from datasets.synthetic_ogi.synthetic_ogi import config_named
    from fume_jax.schema import CLASSES, GASES, PH_CLASS

    if _MISSING.value == 1:
        raise UserError("--ch4_missing=1 would leave no CH4 frame; choose 2 or more, or 0 for all frames.")
    plans = [plan for plan in config_named(_NAME.value).plan()["test"] if len(plan.gases) == len(GASES)]
    if _WIDTH.value:
        plans = [dataclasses.replace(plan, width=_WIDTH.value, height=_WIDTH.value * 3 // 4) for plan in plans]
    output = Path(_OUTPUT.value)
    if _RECORDINGS.value is None:
        plan = plans[_RECORDING.value % len(plans)]
        _write_films(plan, output)
        print(f"Wrote co2.mp4 and ch4.mp4 into {output}: pH {plan.ph}, {CLASSES[PH_CLASS[plan.ph]]}.")
        return
    plans = _in_turns(plans)[_RECORDING.value :][: _RECORDINGS.value]
    rows = []
    for plan in plans:
        name = f"recording{plan.number:04d}"
        examples = _write_films(plan, output / name)
        write_truth(output / name, examples)
        rows.append((name, f"{name}/co2.mp4", f"{name}/ch4.mp4", plan.ph))
        print(f"{name}: pH {plan.ph}, {CLASSES[PH_CLASS[plan.ph]]}", flush=True)
    with (output / TABLE).open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("id", "co2", "ch4", "ph"), *rows])
    print(f"Wrote {len(rows)} recordings into {output}, which {output / TABLE} lists.")


def _in_turns(plans):
    """Returns plans so that the classes take turns, as long as each has one left."""
    from fume_jax.schema import CLASSES, PH_CLASS

    by_class = [[plan for plan in plans if PH_CLASS[plan.ph] == label] for label in range(len(CLASSES))]
    rest = [plan for own in by_class for plan in own[min(map(len, by_class)) :]]
    return [plan for turn in zip(*by_class, strict=False) for plan in turn] + rest


def _write_films(plan, folder):
    """Writes the videos of a recording, and returns its examples."""
    import numpy as np

    from datasets.synthetic_ogi.camera import through_other_camera
    from datasets.synthetic_ogi.plume import FRAMES_PER_SECOND
    from datasets.synthetic_ogi.recording import render_film
    from fume_jax.data.video import VideoWriter
    from fume_jax.schema import GASES

    examples = render_film(plan, _FRAMES.value)
    for gas in GASES:
        left_out = _MISSING.value if gas == "ch4" else 0
        with VideoWriter(folder / f"{gas}.mp4", FRAMES_PER_SECOND) as film:
            for i, example in enumerate(examples):
                if not left_out or (i + 1) % left_out:
                    frame = through_other_camera(example[f"{gas}_frame"]) if _OTHER.value else example[f"{gas}_frame"]
                    film.write(np.repeat(frame, 3, axis=-1), i / FRAMES_PER_SECOND)
    return examples


if __name__ == "__main__":
    cli.run(main)
