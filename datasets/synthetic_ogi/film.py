"""Writes a recording of both gases as two videos: `python -m datasets.synthetic_ogi.film --output=films`.

`fume predict` takes the videos, `co2.mp4` and `ch4.mp4`. The command prints the pH that they were simulated at.
"""

from pathlib import Path

import numpy as np
from absl import flags

from fume_jax.runtime import cli
from fume_jax.runtime.errors import UserError

_NAME = flags.DEFINE_string("name", "demo", "Name of the dataset, one of those in datasets/synthetic_ogi/README.md.")
_OUTPUT = flags.DEFINE_string("output", "films", "Folder that receives the videos.")
_FRAMES = flags.DEFINE_integer("frames", 300, "Number of frames of each video.", lower_bound=1)
_RECORDING = flags.DEFINE_integer("recording", 0, "Index among the test recordings of both gases.", lower_bound=0)
_MISSING = flags.DEFINE_integer("ch4_missing", 0, "Leave out every K-th CH4 frame (K > 1), or none (0).", lower_bound=0)


def main() -> None:
    from datasets.synthetic_ogi.plume import FRAMES_PER_SECOND
    from datasets.synthetic_ogi.recording import render_film
    from datasets.synthetic_ogi.synthetic_ogi import config_named
    from fume_jax.data.video import VideoWriter
    from fume_jax.schema import CLASSES, GASES

    if _MISSING.value == 1:
        raise UserError("--ch4_missing=1 would leave no CH4 frame; choose 2 or more, or 0 for all frames.")
    plans = [plan for plan in config_named(_NAME.value).plan()["test"] if len(plan.gases) == len(GASES)]
    plan = plans[_RECORDING.value % len(plans)]
    examples = render_film(plan, _FRAMES.value)
    for gas in GASES:
        left_out = _MISSING.value if gas == "ch4" else 0
        with VideoWriter(Path(_OUTPUT.value) / f"{gas}.mp4", FRAMES_PER_SECOND) as film:
            for i, example in enumerate(examples):
                if not left_out or (i + 1) % left_out:
                    film.write(np.repeat(example[f"{gas}_frame"], 3, axis=-1), i / FRAMES_PER_SECOND)
    print(f"Wrote co2.mp4 and ch4.mp4 into {_OUTPUT.value}: pH {plan.ph}, {CLASSES[examples[0]['label']]}.")


if __name__ == "__main__":
    cli.run(main)
