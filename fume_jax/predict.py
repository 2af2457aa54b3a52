"""Segments and classifies frames from files.

    python -m fume_jax.predict --workdir=runs/demo --co2=FRAMES --ch4=FRAMES --output=DIR

FRAMES is an image or a folder of images; one gas may be left out, and frames of two folders pair by name. DIR receives
`masks/NAME_co2.png` (0 background, 1 tube, 2 gas, at the frame's own size), `overlays/` likewise, and
`predictions.csv`.
"""

from absl import flags

from fume_jax import cli

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run whose best checkpoint predicts.")
_CO2 = flags.DEFINE_string("co2", None, "CO2 frame, or folder of frames.")
_CH4 = flags.DEFINE_string("ch4", None, "CH4 frame, or folder of frames.")
_OUTPUT = flags.DEFINE_string("output", None, "Folder for the results.")
flags.mark_flags_as_required(["workdir", "output"])


def main() -> int:
    """Predicts as the flags say; returns the exit code."""
    from fume_jax.checkpoint import load_config
    from fume_jax.frames import match_frames
    from fume_jax.prediction import predict_files

    pairs = match_frames(_CO2.value, _CH4.value)
    return predict_files(load_config(_WORKDIR.value), _WORKDIR.value, pairs, _OUTPUT.value)


if __name__ == "__main__":
    cli.run(main)
