"""Segments and classifies the frames of a recording: `fume predict --co2=FRAMES --ch4=FRAMES --output=DIR`.

FRAMES is an image, a folder of images, a pattern such as 'frames/*.png', or a video; one gas may be left out. Images
pair by name, videos by presentation time, and a frame without partner is predicted alone. The command writes to DIR

| | |
| --- | --- |
| `predictions.csv`, `predictions.jsonl` | one line per pair: class, probabilities, measures of each gas's plume |
| `masks/NAME_co2.png` | 0 background, 1 tube, 2 gas, at the frame's own size |
| `overlays/NAME_co2.png` | the mask drawn on the frame |
| `annotated.mp4` | frames with masks and probabilities, for videos |
| `timeline.png` | probabilities and gas over time |
"""

from absl import flags

from fume_jax.inference import flags as model_flags
from fume_jax.runtime import cli
from fume_jax.runtime.errors import UserError

_CO2 = flags.DEFINE_string("co2", None, "CO2 frames: path of an image, a folder of images, a pattern or a video.")
_CH4 = flags.DEFINE_string("ch4", None, "CH4 frames: path of an image, a folder of images, a pattern or a video.")
_OUTPUT = flags.DEFINE_string("output", None, "Folder to write the results to.", required=True)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 8, "Number of pairs that the model processes at once.", lower_bound=1)
_SAVE = flags.DEFINE_list(
    "save", ["masks", "overlays", "video"], "Files to write besides the tables: masks, overlays, video."
)
flags.adopt_module_key_flags(model_flags)


def main() -> int:
    """Predicts as the flags say; returns the exit code."""
    from fume_jax.data.sources import open_source
    from fume_jax.inference.output import PRODUCTS, output_folder
    from fume_jax.inference.recording import predict_recording
    from fume_jax.runtime.preemption import StopRequest

    unknown = set(_SAVE.value) - {"", *PRODUCTS}
    if unknown:
        raise UserError(f"--save={','.join(_SAVE.value)}: expected some of {', '.join(PRODUCTS)}.")
    model_flags.check()
    source = open_source(_CO2.value, _CH4.value)
    with output_folder(_OUTPUT.value, (_CO2.value, _CH4.value)):
        predictor = model_flags.load_predictor()
        card = predictor.card
        print(f"{card.model}, {card.step:,} steps of training, frames scaled to {card.width}x{card.height}", flush=True)
        batch_size = min(_BATCH_SIZE.value, source.total or _BATCH_SIZE.value)
        with StopRequest() as stop:
            options = {"batch_size": batch_size, "products": _SAVE.value, "stop": stop}
            return predict_recording(predictor, source, _OUTPUT.value, **options)


if __name__ == "__main__":
    cli.run(main)
