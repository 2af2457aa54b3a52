"""What counting metrics adds to a forward pass: on the device as evaluation does it, and on the host.

    python -m benchmarks.evaluation

Pairs of 480x640, all taken in turns; prints medians and their ratio to the forward pass alone.
"""

import functools
import os

import jax
import numpy as np
import sklearn.metrics
from absl import app, flags

from benchmarks import ours
from benchmarks.timing import alternate, table
from fume_jax.learning.losses import example_losses
from fume_jax.learning.step import eval_step, predict_step, split_model
from fume_jax.schema import GASES, MASK_CLASSES

_REPEATS = flags.DEFINE_integer("repeats", 20, "Runs of each.", lower_bound=1)
_BATCH = flags.DEFINE_integer("batch", 1, "Pairs a run.", lower_bound=1)


def with_numpy(forward, batch):
    """Counts of the masks of a batch on the host, in numpy."""
    outputs = jax.device_get(forward())
    for gas in GASES:
        cells = 3 * np.asarray(batch[f"{gas}_mask"]) + outputs[f"{gas}_seg_logits"].argmax(-1)
        np.bincount(cells.ravel(), minlength=9)


def with_scikit_learn(forward, batch):
    """The same by scikit-learn."""
    outputs = jax.device_get(forward())
    for gas in GASES:
        truth, prediction = np.asarray(batch[f"{gas}_mask"]), outputs[f"{gas}_seg_logits"].argmax(-1)
        sklearn.metrics.confusion_matrix(truth.ravel(), prediction.ravel(), labels=range(len(MASK_CLASSES)))


def main(_) -> None:
    model = ours.fresh_model()
    model.eval()
    graphdef, params, batch_stats = split_model(model)
    batch = jax.device_put(ours.random_batch(_BATCH.value, 480, 640))
    predict_fn = functools.partial(predict_step, graphdef=graphdef)

    def compiled(fn):
        return functools.partial(jax.jit(fn), params, batch_stats, batch)

    def evaluate(losses_fn):
        return compiled(functools.partial(eval_step, predict_fn=predict_fn, losses_fn=losses_fn))

    forward = compiled(predict_fn)
    calls = {
        "forward pass alone": forward,
        "and metrics": evaluate(lambda outputs, batch: {}),
        "and metrics and losses": evaluate(example_losses),
        "and metrics on the host, by numpy": lambda: with_numpy(forward, batch),
        "and metrics on the host, by scikit-learn": lambda: with_scikit_learn(forward, batch),
    }
    timings = alternate(calls, repeats=_REPEATS.value)
    alone = timings["forward pass alone"].seconds
    rows = [[n, f"{1e3 * t.seconds / _BATCH.value:.1f}", f"{t.seconds / alone:.2f}x"] for n, t in timings.items()]
    print(f"{jax.devices()[0].device_kind}, {os.cpu_count()} cores, {_BATCH.value} pair(s) of 480x640")
    print(table(["", "ms a pair", "to the forward pass"], rows))


if __name__ == "__main__":
    app.run(main)
