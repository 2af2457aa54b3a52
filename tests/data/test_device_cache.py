"""A dataset on the devices: the batches that the host would have sent, on any number of devices, run after run."""

import itertools
import re
import types

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from configs import fume
from fume_jax.config import create_augmentation, data_options
from fume_jax.data import device_cache, pipeline
from fume_jax.data.dataset import Dataset
from fume_jax.data.device_cache import DeviceCache, decode, decoded_spec
from fume_jax.data.loader import Loader
from fume_jax.learning.augment import draw_plan
from fume_jax.runtime import preflight
from fume_jax.runtime.console import Console
from fume_jax.runtime.errors import UserError
from fume_jax.runtime.mesh import to_devices
from fume_jax.training.setup import estimate_host_bytes
from fume_jax.training.tensorboard import read_scalars
from tests.commands import run, start, train_arguments
from tests.runtime.test_distributed import LAYOUTS, finished, together
from tests.training.test_resume import assert_same

OPTIONS = [
    "--config.model.name=multi_task",
    "--config.augment.elastic.probability=0.5",
    "--config.train.batch_size=8",
    "--config.train.epochs=4",
    "--config.eval.every_epochs=2",
    "--config.log.every_steps=1",
    "--config.log.images=1",
]


@pytest.fixture(scope="module")
def config(tiny_dataset):
    config = fume.get_config()
    config.data.path = tiny_dataset
    config.data.height, config.data.width = 64, 80
    config.augment.gaussian_noise.probability = 0.0  # its numbers are not those of the host
    config.log.quiet = True
    return config


def mesh_of(devices):
    return Mesh(np.array(jax.devices()[:devices]), ("data",))


def loader_of(config, cache, devices=1):
    config = config.copy_and_resolve_references()
    config.data.cache = cache
    return Loader(Dataset(config.data.path), data_options(config), mesh_of(devices), Console(quiet=True))


def batches(config, cache, devices=1, start_step=0):
    """The first five batches of training, and all of evaluation."""
    loader = loader_of(config, cache, devices)
    return list(itertools.islice(loader.train(start_step), 5)), list(loader.split("val"))


@pytest.fixture(scope="module")
def of_host(config):
    return jax.device_get(batches(config, "none"))


@pytest.mark.parametrize("devices", [pytest.param(1, marks=pytest.mark.slow), 8])
def test_batches_are_those_of_the_host(config, of_host, devices, monkeypatch):
    monkeypatch.setattr(device_cache, "CHUNK", 10)  # three of them, the last one smaller
    training, evaluation = batches(config, "device", devices)
    assert len(training[0]["labels"].sharding.device_set) == devices
    for found, expected in zip((*training, *evaluation), itertools.chain(*of_host), strict=True):
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            assert (found[key].shape, found[key].dtype) == (value.shape, value.dtype), key
            if key.endswith("frame"):
                assert np.abs(found[key] - value).max() * 127.5 <= 2.001
            elif key in ("co2_mask", "ch4_mask"):
                assert (found[key] != value).mean() < 1e-3
            else:
                np.testing.assert_array_equal(found[key], value)
    for found, expected in zip(evaluation, of_host[1], strict=True):
        for key, value in expected.items():
            np.testing.assert_array_equal(found[key], value, err_msg="nothing is drawn, nothing rounded")


def test_a_start_in_the_middle_delivers_what_would_have_come_next(config):
    whole, _ = batches(config, "device", devices=8)
    rest, _ = batches(config, "device", devices=8, start_step=2)
    jax.tree.map(np.testing.assert_array_equal, rest[:3], whole[2:])


def test_devices_gather_and_augment_without_asking_one_another(config):
    dataset, mesh, augmentation = Dataset(config.data.path), mesh_of(8), create_augmentation(config)
    source = dataset.split("val")
    chunks = decode(lambda i: pipeline.read_example(source, i, height=64, width=80), len(source), num_threads=1)
    cache = DeviceCache(decoded_spec(len(source), 64, 80), chunks, mesh)
    plan = draw_plan(augmentation, np.random.default_rng(0), height=64, width=80)
    request = {"example_index": np.int32(3), "plan": plan}
    requests = next(to_devices([jax.tree.map(lambda x: np.stack([x] * 8), request)], mesh))
    program = cache.gather.lower(cache.arrays, requests).compile().as_text()
    assert "gather" in program
    assert not re.search(r"all-gather|all-reduce|all-to-all|collective-permute", program)


def devices_with(monkeypatch, **stats):
    device = types.SimpleNamespace(memory_stats=lambda: stats or None)
    monkeypatch.setattr(jax, "local_devices", lambda: [device])


def test_auto_is_the_device_if_half_of_its_memory_holds_the_dataset(config, monkeypatch):
    needed = loader_of(config, "auto").cache_bytes
    assert needed == (24 + 12) * (4 * 64 * 80 + 2 * 4 + 4 + 4)
    assert loader_of(config, "auto").cache == "none", "a CPU"
    for limit, expected in ((2 * needed + 2, "device"), (2 * needed, "none")):
        devices_with(monkeypatch, bytes_limit=limit, bytes_in_use=0)
        assert loader_of(config, "auto").cache == expected


def test_a_dataset_too_large_for_the_device_is_refused(config, monkeypatch):
    devices_with(monkeypatch, bytes_limit=10**9, bytes_in_use=9 * 10**8)
    preflight.check_device_memory(10**8)
    with pytest.raises(
        UserError, match=r"needs 200\.0 MB of device memory, .* 100\.0 MB free.*--config\.data\.cache=none"
    ):
        preflight.check_device_memory(2e8)


def test_memory_of_the_host_is_counted_where_it_is_the_devices(config):
    step = jax.jit(lambda x: x).lower(1.0).compile()
    on_device, on_host = loader_of(config, "device"), loader_of(config, "none")
    counted = estimate_host_bytes(config, on_device, step) - estimate_host_bytes(config, on_host, step)
    assert counted == 8 * on_device.cache_bytes


@pytest.fixture(scope="module")
def trained(tiny_dataset, tmp_path_factory):
    """Folder of a run on two devices that hold the dataset."""
    workdir = tmp_path_factory.mktemp("device_cache") / "whole"
    result = run(
        "fume_jax.main", *train_arguments(tiny_dataset, workdir), *OPTIONS, "--config.data.cache=device", devices=2
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("decoding the") == 2
    return workdir


@pytest.mark.soak
def test_training_on_the_device_learns_as_from_the_host(trained, tiny_dataset, tmp_path):
    arguments = [*train_arguments(tiny_dataset, tmp_path), *OPTIONS, "--config.data.cache=none"]
    result = run("fume_jax.main", *arguments, devices=2)
    assert result.returncode == 0, result.stderr
    host, device = (np.array(read_scalars(folder)["train/loss"][1]) for folder in (tmp_path, trained))
    np.testing.assert_allclose(device[:3], host[:3], rtol=1e-2)
    np.testing.assert_allclose(device, host, rtol=0.2)
    assert np.ptp(host) > 0.2 * host[0], "losses differ by more than what is compared"


@pytest.mark.soak
def test_a_stopped_run_goes_on_to_the_same_numbers(trained, tiny_dataset, tmp_path):
    arguments = [*train_arguments(tiny_dataset, tmp_path), *OPTIONS, "--config.data.cache=device"]
    process = start("fume_jax.main", *arguments, devices=2)
    while not process.stdout.readline().startswith("epoch 2, step 5"):
        assert process.poll() is None
    process.terminate()
    printed = process.communicate()[0]
    assert process.returncode == 75, printed
    result = run("fume_jax.main", *arguments, devices=2)
    assert result.returncode == 0, result.stderr
    assert_same(tmp_path, trained)


@pytest.mark.slow
def test_processes_gather_each_its_share(tiny_dataset, tmp_path):
    found = {}
    for layout in LAYOUTS:
        folder = tmp_path / str(layout)
        folder.mkdir()
        finished(together("tests.shares", [folder, tiny_dataset], *layout), [0] * layout[0])
        shares = [np.load(folder / f"{i}.npz") for i in range(layout[0])]
        found[layout] = {key: np.concatenate([share[key] for share in shares]) for key in shares[0].files}
    for layout in LAYOUTS[1:]:
        jax.tree.map(np.testing.assert_array_equal, found[layout], found[LAYOUTS[0]])
