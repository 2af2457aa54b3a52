"""The estimate on cases by hand, and collectives of the real training step."""

import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from jax.sharding import Mesh

from benchmarks import programs, scaling
from benchmarks.collectives import BACKWARD, FORWARD, GRADIENTS, collectives, count_bytes
from benchmarks.measure import Work
from configs.fume import get_config
from fume_jax.config import abstract_model
from fume_jax.models import count_parameters
from fume_jax.models.backbones import BACKBONES
from fume_jax.models.layers import BatchNorm


def test_the_efficiency_by_hand():
    machine = scaling.Machine(Work(100, 10), bandwidth=50, latencies={4: 0.5})
    # 4 s of arithmetic or 6 s of memory; 3 all-reduces of 0.5 s, and 2 3/4 of 100 bytes at 50 a second.
    assert machine.efficiency(Work(400, 20), 4, count=3, nbytes=100) == 4 / (4 + 1.5 + 3)
    assert machine.efficiency(Work(400, 60), 4, count=3, nbytes=100) == 6 / (6 + 1.5 + 3)
    assert machine.efficiency(Work(400, 20), 4, count=3, nbytes=100, latency_factor=2) == 4 / (4 + 3 + 3)


def test_every_machine_has_a_latency_for_every_number_of_devices():
    assert {tuple(machine.latencies) for machine in scaling.MACHINES.values()} == {(8, 64, 1024)}
    assert all(
        [*machine.latencies.values()] == sorted(machine.latencies.values()) for machine in scaling.MACHINES.values()
    )


class ThreeNorms(nnx.Module):
    """An encoder of three batch norms, each of which waits for the one before."""

    channels = (8, 8)
    strides = (8, 32)

    def __init__(self, in_channels=1, *, dtype=jnp.float32, rngs):
        self.fine = nnx.Conv(in_channels, 8, (8, 8), strides=8, dtype=dtype, rngs=rngs)
        self.norms = nnx.List([BatchNorm(8, dtype=dtype) for _ in range(3)])
        self.coarse = nnx.Conv(8, 8, (4, 4), strides=4, dtype=dtype, rngs=rngs)

    def __call__(self, frames, present):
        x = self.fine(frames)
        for norm in self.norms:
            x = nnx.relu(norm(x, present))
        return x, self.coarse(x)


@pytest.fixture(scope="module")
def steps():
    """Number of parameters, and collectives of the training step by devices and groups of batch statistics."""
    config = get_config("classification_only")
    config.model.backbone = "three_norms"
    config.data.height = config.data.width = 64
    found = {}
    with pytest.MonkeyPatch.context() as patch, jax.numpy_dtype_promotion("standard"):
        patch.setitem(BACKBONES, "three_norms", ThreeNorms)
        for devices, splits in ((2, 1), (8, 1), (8, 8)):
            config.train.batch_size, config.model.batch_norm_splits = 1, splits
            mesh = Mesh(jax.devices()[:devices], ("data",))
            with jax.numpy_rank_promotion("allow"):
                found[devices, splits] = collectives(programs.lower_step(config, mesh).compile().as_text())
        return count_parameters(abstract_model(config)), found


def test_a_training_step_exchanges_each_gradient_once_and_no_more_often_on_more_devices(steps):
    parameters, found = steps
    for exchanges in found.values():
        assert {x.opcode for x in exchanges} == {"all-reduce"}
        # The gradients of a batch norm's scale and bias are statistics of the backward pass.
        assert count_bytes(exchanges, [GRADIENTS, BACKWARD]) == pytest.approx(4 * parameters, rel=0.03)
    assert found[2, 1] == found[8, 1]


def test_layers_wait_for_each_other_once_each_way_unless_each_device_has_its_own_statistics(steps):
    _, found = steps
    assert [x.kind for x in sorted(found[8, 1], key=lambda x: x.depth)] == 3 * [FORWARD] + 3 * [BACKWARD] + [GRADIENTS]
    assert sorted(x.depth for x in found[8, 1]) == list(range(1, 8))
    assert not count_bytes(found[8, 8], [FORWARD, BACKWARD])
    assert max(x.depth for x in found[8, 8]) <= 3
