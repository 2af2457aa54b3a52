"""The batches that one of several processes has of a dataset on the devices, in a file; see test_resident.py."""

import sys
from itertools import chain, islice

import jax
import numpy as np
from absl import flags

from configs import fume
from fume_jax import build, processes, sharding
from fume_jax.input_pipeline import Dataset


def main(folder, data, *arguments):
    """Args: where to write `PROCESS.npz`, a dataset, and flags of `fume_jax.processes`."""
    flags.FLAGS([sys.argv[0], *arguments])
    config = fume.get_config()
    config.data.path, config.data.height, config.data.width, config.data.cache = data, 64, 80, "device"
    config.log.quiet = True
    with processes.joined(folder):
        mesh, dataset = sharding.create_mesh(), Dataset(data)
        training = islice(build.training_batches(config, dataset, mesh, 0), 3)
        batches = chain(training, build.evaluation_batches(config, dataset, mesh, "val"))
        shares = [sharding.own_share(dict(batch)) for batch in batches]
        named = {f"{i}/{key}": value for i, share in enumerate(shares) for key, value in share.items()}
        np.savez(f"{folder}/{jax.process_index()}.npz", **named)


if __name__ == "__main__":
    main(*sys.argv[1:])
