"""The programs of a recipe, compiled for devices that need not be there."""

import importlib.util
import os

import jax
import numpy as np
from absl import flags
from jax.sharding import Mesh
from ml_collections import config_flags

from fume_jax.config import abstract_model, create_optimizer, eval_batch_shape, train_batch_shape, validate_config
from fume_jax.evaluation.evaluator import create_eval_fns
from fume_jax.learning.step import split_model
from fume_jax.runtime.errors import UserError, needs_extra
from fume_jax.runtime.mesh import abstract_batch, replicated
from fume_jax.training.checkpoint import with_sharding
from fume_jax.training.setup import abstract_state, create_train_fn, flat_state

CONFIG = config_flags.DEFINE_config_file("config", None, "Recipe, such as fume.", lock_config=True)
TOPOLOGY = flags.DEFINE_string("topology", None, "TPU to compile for, such as v5e:2x4, v5e:16x16 or v6e:8x8.")
# The compiler asks nobody what machine it is on, and leaves a TPU that is there to others.
TPU_FLAGS = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}
# An H100 SXM in XLA's words (GpuTargetConfigProto), with NVIDIA's figures.
H100 = """
gpu_device_info {
  cuda_compute_capability { major: 9 }
  core_count: 132 fpus_per_core: 128 clock_rate_ghz: 1.98
  threads_per_warp: 32 threads_per_block_limit: 1024 threads_per_core_limit: 2048
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
  shared_memory_per_block: 49152 shared_memory_per_block_optin: 232448 shared_memory_per_core: 233472
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  device_memory_size: 84942979072 memory_bandwidth: 3352320000000 l2_cache_size: 52428800
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 8 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""
# Triton's matrix products choose their tiles on a device.
COMPILER_OPTIONS = {"cuda": {"xla_gpu_enable_triton_gemm": False}}


def tpu_mesh(topology: str) -> Mesh:
    """Creates a mesh of the devices of a TPU that need not be there; UserError if no compiler knows it."""
    from jax.experimental import topologies

    if importlib.util.find_spec("libtpu") is None:
        raise UserError('--topology needs the compiler for TPU; install it with pip install -e ".[tpu]".')
    os.environ |= TPU_FLAGS
    try:
        described = topologies.get_topology_desc(platform="tpu", topology_name=topology)
    except jax.errors.JaxRuntimeError as error:
        raise UserError(f"--topology={topology} is none such as v5e:2x4, v5e:16x16 or v6e:8x8: {error}") from error
    return topologies.make_mesh(described, (len(described.devices),), ("data",))


def h100_mesh() -> Mesh:
    """Creates a mesh of one H100 that need not be there; UserError without the compiler for GPUs of NVIDIA."""
    from jax.experimental import topologies

    with needs_extra("compilers", "The compiler for GPUs"):
        from jax_plugins import xla_cuda12
    xla_cuda12.initialize()
    described = topologies.get_topology_desc("h100", "cuda", target_config=H100, topology="1x1x1")
    return topologies.make_mesh(described, (1,), ("data",))


def one_device(platform: str, topology: str) -> Mesh:
    """Creates a mesh of one device: an H100 (`cuda`), a TPU of a `topology` (`tpu`) or this CPU (`cpu`)."""
    if platform == "cuda":
        return h100_mesh()
    devices = tpu_mesh(topology).devices if platform == "tpu" else np.array(jax.devices("cpu"))
    return Mesh(devices.flat[:1], ("data",))


def lower_step(config, mesh: Mesh) -> jax.stages.Lowered:
    """Lowers the training step of a recipe whose batch each device of the mesh takes."""
    config.train.batch_size *= mesh.size
    validate_config(config)
    _, tx = create_optimizer(config, steps_per_epoch=1)
    batch = abstract_batch(**train_batch_shape(config), mesh=mesh)
    return create_train_fn(config, tx).lower(flat_state(abstract_state(config, tx, mesh), mesh), batch)


def lower_forward(config, mesh: Mesh) -> jax.stages.Lowered:
    """Lowers the forward pass of a recipe on `config.eval.batch_size` pairs."""
    validate_config(config)
    shape = {key: value for key, value in eval_batch_shape(config).items() if key != "keys"}
    model = with_sharding(split_model(abstract_model(config))[1:], replicated(mesh))
    return create_eval_fns(config, mesh)[1].lower(*model, abstract_batch(**shape, mesh=mesh))
