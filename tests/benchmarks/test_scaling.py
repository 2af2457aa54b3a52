"""The estimate on cases by hand, and collectives of the real training step."""

import jax
import pytest
from flax import nnx

from benchmarks import scaling
from benchmarks.collectives import BACKWARD, FORWARD, GRADIENTS, collectives, count_bytes
from benchmarks.measure import Work
from configs.fume import get_config
from fume_jax.config import abstract_model
from fume_jax.models import count_parameters
from fume_jax.models.layers import BatchNorm
from fume_jax.runtime.mesh import create_mesh


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


@pytest.fixture(scope="module")
def steps():
    """The abstract model, and collectives of the training step by groups of batch statistics, on 8 devices."""
    config = get_config("multi_task")
    config.model.backbone = "tiny"
    config.data.height = config.data.width = 64
    found = {}
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        for splits in (1, 8):
            config.train.batch_size, config.model.batch_norm_splits = 1, splits
            found[splits] = collectives(scaling.lower_step(config, create_mesh()).compile().as_text())
    return abstract_model(config), found


def test_a_training_step_exchanges_each_gradient_once(steps):
    model, found = steps
    for exchanges in found.values():
        assert {x.opcode for x in exchanges} == {"all-reduce"}
        # The gradients of a batch norm's scale and bias are statistics of the backward pass.
        nbytes = count_bytes(exchanges, [GRADIENTS, BACKWARD])
        assert nbytes == pytest.approx(4 * count_parameters(model), rel=0.03)


def test_layers_wait_for_each_other_once_each_way_unless_each_device_has_its_own_statistics(steps):
    model, found = steps
    layers = sum(isinstance(module, BatchNorm) for _, module in nnx.iter_modules(model))
    assert layers == 5
    # Compilers merge what does not wait for each other, such as statistics of parallel branches.
    assert 2 * layers - 2 <= sum(x.kind in (FORWARD, BACKWARD) for x in found[1]) <= 2 * layers
    assert 2 * layers - 2 <= max(x.depth for x in found[1]) <= 2 * layers + 1
    assert not count_bytes(found[8], [FORWARD, BACKWARD])
    assert max(x.depth for x in found[8]) <= 3
