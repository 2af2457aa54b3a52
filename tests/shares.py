"""The batches that one of several processes has of a dataset on the devices, in a file; see test_resident.py."""

import sys
from itertools import chain, islice

import jax
import numpy as np
from absl import flags

from configs import fume
from fume_jax.config import data_options
from fume_jax.data.dataset import Dataset
from fume_jax.data.loader import Loader
from fume_jax.runtime import distributed
from fume_jax.runtime.console import Console
from fume_jax.runtime.mesh import create_mesh, local_rows


def main(folder, data, *arguments):
    """Args: where to write `PROCESS.npz`, a dataset, and flags of `fume_jax.runtime.distributed`."""
    flags.FLAGS([sys.argv[0], *arguments])
    config = fume.get_config()
    config.data.path, config.data.height, config.data.width, config.data.cache = data, 64, 80, "device"
    config.log.quiet = True
    with distributed.joined(folder):
        loader = Loader(Dataset(data), data_options(config), create_mesh(), Console(quiet=True))
        batches = chain(islice(loader.train(), 3), loader.split("val"))
        shares = [local_rows(dict(batch)) for batch in batches]
        named = {f"{i}/{key}": value for i, share in enumerate(shares) for key, value in share.items()}
        np.savez(f"{folder}/{jax.process_index()}.npz", **named)


if __name__ == "__main__":
    main(*sys.argv[1:])
