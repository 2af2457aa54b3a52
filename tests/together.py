"""What one of several processes reads, learns and counts, as JSON in the last line; see test_processes.py."""

import json
import sys
from itertools import islice
from unittest import mock

import jax
from absl import flags
from flax import nnx

from fume_jax.config import create_optimizer, data_options
from fume_jax.data.dataset import Dataset
from fume_jax.data.loader import Loader
from fume_jax.evaluation import evaluator
from fume_jax.evaluation.evaluator import create_eval_fns
from fume_jax.runtime import distributed
from fume_jax.runtime.console import Console
from fume_jax.runtime.mesh import create_mesh, local_rows
from fume_jax.runtime.preemption import StopRequest
from fume_jax.training.checkpoint import load_config
from fume_jax.training.setup import create_state_fn, create_train_fn, load_best_model

# Two epochs.
STEPS = 6


def main(workdir, *arguments):
    """Args: the folder of a run that has a checkpoint, and flags of `fume_jax.runtime.distributed`."""
    flags.FLAGS([sys.argv[0], *arguments])
    config = load_config(workdir)
    with distributed.joined(workdir) as agree:
        mesh = create_mesh()
        loader = Loader(Dataset(config.data.path), data_options(config), mesh, Console(quiet=True))
        batches = list(islice(loader.train(), STEPS))
        said = {"read": [local_rows(batch["example_index"]).tolist() for batch in batches]}
        said["steps"] = first_steps(config, mesh, batches[:3], agree)
        model, _ = load_best_model(config, workdir, mesh)
        eval_fn, _ = create_eval_fns(config, mesh)
        val_batches = StopRequest(agree).until(loader.split("val"))
        results = evaluator.collect_results(eval_fn, model, val_batches)
        said["counts"] = {name: values.tolist() for name, values in evaluator.total_counts(results).items()}
        said["examples"] = results["example_index"].tolist()
        said["layout"] = [jax.process_count(), jax.local_device_count()]
    print(json.dumps(said))


def first_steps(config, mesh, batches, agree):
    """Metrics of the first steps of a network without bends, at which rounding would be blown up."""
    _, tx = create_optimizer(config, steps_per_epoch=len(batches))
    state = create_state_fn(config, tx, mesh)()
    with mock.patch.object(nnx, "relu", nnx.softplus), mock.patch.object(nnx, "relu6", nnx.softplus):
        train_fn = create_train_fn(config, tx).lower(state, batches[0]).compile()
    agree(False)  # as the loop does: the first exchange waits only 30 s for a process that compiles longer
    metrics = []
    for batch in batches:
        state, of_step = train_fn(state, batch)
        metrics.append({name: float(value) for name, value in of_step.items()})
    return metrics


if __name__ == "__main__":
    main(*sys.argv[1:])
