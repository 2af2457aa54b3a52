"""What one of several processes reads, learns and counts, as JSON in the last line; see test_processes.py."""

import json
import sys
from itertools import islice
from unittest import mock

import jax
from absl import flags
from flax import nnx

from fume_jax import build, evaluation, processes, sharding
from fume_jax.checkpoint import load_config
from fume_jax.input_pipeline import Dataset
from fume_jax.stopping import StopRequest

# Two epochs.
STEPS = 6


def main(workdir, *arguments):
    """Args: the folder of a run that has a checkpoint, and flags of `fume_jax.processes`."""
    flags.FLAGS([sys.argv[0], *arguments])
    config = load_config(workdir)
    with processes.joined(workdir) as agree:
        mesh, dataset = sharding.create_mesh(), Dataset(config.data.path)
        batches = list(islice(build.training_batches(config, dataset, mesh, 0), STEPS))
        said = {"read": [sharding.own_share(batch["example_index"]).tolist() for batch in batches]}
        said["steps"] = first_steps(config, mesh, batches[:3], agree)
        model, _ = build.best_model(config, workdir, mesh)
        eval_fn, _ = build.eval_and_predict_fns(config, mesh)
        val_batches = StopRequest(agree).until(build.evaluation_batches(config, dataset, mesh, "val"))
        results = evaluation.collect(eval_fn, model, val_batches)
        said["counts"] = {name: values.tolist() for name, values in evaluation.total_counts(results).items()}
        said["examples"] = results["example_index"].tolist()
        said["layout"] = [jax.process_count(), jax.local_device_count()]
    print(json.dumps(said))


def first_steps(config, mesh, batches, agree):
    """Metrics of the first steps of a network without bends, at which rounding would be blown up."""
    _, tx = build.optimizer(config, steps_per_epoch=len(batches))
    state = build.create_state_fn(config, tx, mesh)()
    with mock.patch.object(nnx, "relu", nnx.softplus), mock.patch.object(nnx, "relu6", nnx.softplus):
        train_fn = build.train_fn(config, tx).lower(state, batches[0]).compile()
    agree(False)  # as the loop does: the first exchange waits only 30 s for a process that compiles longer
    metrics = []
    for batch in batches:
        state, of_step = train_fn(state, batch)
        metrics.append({name: float(value) for name, value in of_step.items()})
    return metrics


if __name__ == "__main__":
    main(*sys.argv[1:])
