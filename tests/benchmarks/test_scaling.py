"""The estimate on cases by hand, and collectives of the real training step."""

import jax
import pytest
from jax.sharding import Mesh

from benchmarks import scaling
from benchmarks.collectives import BACKWARD, FORWARD, GRADIENTS, collectives, count_bytes
from benchmarks.measure import Work
from configs.fume import get_config
from fume_jax.config import abstract_model
from fume_jax.models import count_parameters


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
    """Number of parameters, and collectives of the training step by number of devices and groups of statistics."""
    config = get_config()
    config.model.name = "multi_task"
    config.data.height = config.data.width = 64
    found = {}
    for devices, splits in ((2, 1), (8, 1), (8, 8)):
        config.train.batch_size, config.model.batch_norm_splits = 1, splits
        mesh = Mesh(jax.devices()[:devices], ("data",))
        # Most of the time goes into code, which need not be fast here.
        compiled = scaling.lower_step(config, mesh).compile({"xla_backend_optimization_level": 0})
        found[devices, splits] = collectives(compiled.as_text())
    return count_parameters(abstract_model(config)), found


@pytest.mark.slow
def test_a_training_step_exchanges_each_gradient_once_and_no_more_often_on_more_devices(steps):
    parameters, found = steps
    for exchanges in found.values():
        assert {x.opcode for x in exchanges} == {"all-reduce"}
        # The gradients of a batch norm's scale and bias are statistics of the backward pass.
        assert count_bytes(exchanges, [GRADIENTS, BACKWARD]) == pytest.approx(4 * parameters, rel=0.03)
    assert found[2, 1] == found[8, 1]


@pytest.mark.slow
def test_layers_wait_for_each_other_once_each_way_unless_each_device_has_its_own_statistics(steps):
    _, found = steps
    layers = 33
    for kind in (FORWARD, BACKWARD):
        assert sum(x.kind == kind for x in found[8, 1]) == pytest.approx(layers, abs=5)
        assert not any(x.kind == kind for x in found[8, 8])
    assert max(x.depth for x in found[8, 1]) >= 2 * layers - 5
    assert max(x.depth for x in found[8, 8]) <= 3
