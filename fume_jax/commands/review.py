"""Chooses frames to label next: `fume review --predictions=DIR --frames=K --to=labelme --output=REVIEW`.

DIR is a folder that `fume predict` wrote, of one recording or of many. The frames are typical of as many scenes. Those
that the model finds hard come first: it is uncertain of the mask, the gas area jumps, or the mirrored frame has another
mask. They are written with their predicted masks for LabelMe, CVAT or tools that read COCO.
"""

from absl import flags

from fume_jax.inference import flags as model_flags
from fume_jax.runtime import cli

_PREDICTIONS = flags.DEFINE_string("predictions", None, "Folder that `fume predict` wrote.", required=True)
_OUTPUT = flags.DEFINE_string("output", None, "New folder to write the frames to.", required=True)
_FRAMES = flags.DEFINE_integer("frames", 50, "Number of frames, each of one gas, to choose.", lower_bound=1)
_TO = flags.DEFINE_enum("to", "labelme", ["labelme", "cvat", "coco"], "Tool or format to write the masks for.")
_EXACT = flags.DEFINE_bool(
    "exact", False, "Has LabelMe get masks of pixels rather than polygons, which are easier to edit."
)
_PER_RECORDING = flags.DEFINE_integer("per_recording", None, "The most frames to choose of a recording.", lower_bound=1)
_CANDIDATES = flags.DEFINE_integer(
    "candidates", 400, "The most frames of a recording that are scored, evenly spread over it.", lower_bound=1
)
_SEED = flags.DEFINE_integer("seed", 0, "Seed of the clusters of frames that look alike.", lower_bound=0)
flags.adopt_module_key_flags(model_flags)


def main() -> int:
    """Chooses as the flags say; returns the exit code."""
    from fume_jax.inference.review import review

    model_flags.check()
    return review(
        model_flags.load_predictor(),
        _PREDICTIONS.value,
        _OUTPUT.value,
        count=_FRAMES.value,
        to=_TO.value,
        exact=_EXACT.value,
        per_recording=_PER_RECORDING.value,
        most=_CANDIDATES.value,
        seed=_SEED.value,
    )


if __name__ == "__main__":
    cli.run(main)
