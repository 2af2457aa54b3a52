"""Batch norm against PyTorch's in training mode, and what masking adds to it; pooling against the library's."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec

from benchmarks.collectives import collectives
from fume_jax.models.layers import BatchNorm, max_pool
from fume_jax.runtime.mesh import create_mesh

SHAPE = (6, 5, 4, 3)


def layer(rng):
    norm = BatchNorm(3)
    norm.scale[...] = jnp.asarray(rng.uniform(0.5, 1.5, 3), jnp.float32)
    norm.bias[...] = jnp.asarray(rng.normal(size=3), jnp.float32)
    norm.mean[...] = jnp.asarray(rng.normal(size=3), jnp.float32)
    norm.var[...] = jnp.asarray(rng.uniform(0.5, 1.5, 3), jnp.float32)
    return norm


def torch_twin(norm):
    twin = torch.nn.BatchNorm2d(3)
    twin.load_state_dict(
        {
            "weight": torch.tensor(np.asarray(norm.scale[...])),
            "bias": torch.tensor(np.asarray(norm.bias[...])),
            "running_mean": torch.tensor(np.asarray(norm.mean[...])),
            "running_var": torch.tensor(np.asarray(norm.var[...])),
            "num_batches_tracked": torch.tensor(0),
        }
    )
    return twin


@pytest.mark.parametrize("present", [[1, 1, 1, 1, 1, 1], [1, 0, 0, 1, 1, 0], [0, 0, 1, 0, 0, 0]])
def test_equals_torch_in_training_mode_on_the_present_frames(present):
    rng = np.random.default_rng(0)
    norm, x = layer(rng), rng.normal(2, 3, SHAPE).astype(np.float32)
    twin, rows = torch_twin(norm), np.flatnonzero(present)
    expected = twin(torch.tensor(x[rows].transpose(0, 3, 1, 2)))
    y = norm(jnp.asarray(x), jnp.asarray(present, jnp.float32))
    np.testing.assert_allclose(y[rows], expected.detach().numpy().transpose(0, 2, 3, 1), atol=1e-5)
    np.testing.assert_allclose(norm.mean[...], twin.running_mean, rtol=1e-5)
    np.testing.assert_allclose(norm.var[...], twin.running_var, rtol=1e-5)


def test_gradients_equal_torch_on_the_present_frames():
    rng = np.random.default_rng(1)
    norm, x = layer(rng), rng.normal(size=SHAPE).astype(np.float32)
    weights, present = rng.normal(size=SHAPE).astype(np.float32), np.array([1, 1, 0, 1, 0, 1], np.float32)
    twin, rows = torch_twin(norm), np.flatnonzero(present)
    torch_x = torch.tensor(x[rows].transpose(0, 3, 1, 2), requires_grad=True)
    (twin(torch_x) * torch.tensor(weights[rows].transpose(0, 3, 1, 2))).sum().backward()
    graphdef, params, stats = nnx.split(norm, nnx.Param, nnx.BatchStat)

    def total(params, x):
        y = nnx.merge(graphdef, params, stats, copy=True)(x, jnp.asarray(present))
        return (y * weights * present[:, None, None, None]).sum()

    grads, grad_x = jax.grad(total, (0, 1))(params, jnp.asarray(x))
    np.testing.assert_allclose(grad_x[rows], torch_x.grad.numpy().transpose(0, 2, 3, 1), atol=1e-4)
    np.testing.assert_allclose(grad_x[present == 0], 0)
    np.testing.assert_allclose(grads["scale"][...], twin.weight.grad, rtol=1e-4)
    np.testing.assert_allclose(grads["bias"][...], twin.bias.grad, rtol=1e-4)


def test_nothing_present_leaves_statistics_alone_and_stays_finite():
    rng = np.random.default_rng(2)
    norm, x = layer(rng), jnp.asarray(rng.normal(size=SHAPE), jnp.float32)
    mean, var = norm.mean[...], norm.var[...]
    y = norm(x, jnp.zeros(6))
    np.testing.assert_array_equal(norm.mean[...], mean)
    np.testing.assert_array_equal(norm.var[...], var)
    norm.eval()
    np.testing.assert_allclose(y, norm(x), rtol=1e-5, atol=1e-6)


def test_absent_frames_have_no_influence():
    rng = np.random.default_rng(3)
    present = jnp.asarray([1, 1, 0, 1, 0, 1], jnp.float32)
    x = rng.normal(size=SHAPE).astype(np.float32)
    garbage = np.where(np.asarray(present)[:, None, None, None] > 0, x, 1e4)
    a, b = layer(np.random.default_rng(0)), layer(np.random.default_rng(0))
    y_a, y_b = a(jnp.asarray(x), present), b(jnp.asarray(garbage), present)
    np.testing.assert_array_equal(y_a[present > 0], y_b[present > 0])
    np.testing.assert_array_equal(a.var[...], b.var[...])


def test_statistics_are_those_of_the_global_batch_when_sharded():
    mesh = create_mesh()
    assert mesh.size == 8
    rng = np.random.default_rng(4)
    x = jnp.asarray(rng.normal(size=(16, 5, 4, 3)), jnp.float32)
    present = jnp.asarray(rng.integers(0, 2, 16), jnp.float32)  # some devices hold no present frame at all
    graphdef, state = nnx.split(layer(rng))

    def apply(x, present):
        norm = nnx.merge(graphdef, state, copy=True)
        return norm(x, present), norm.mean[...], norm.var[...]

    expected = jax.jit(apply)(x, present)
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    for a, b in zip(jax.jit(apply)(*jax.device_put((x, present), sharding)), expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_computes_in_the_given_dtype_and_keeps_statistics_in_float32():
    norm = BatchNorm(3, dtype=jnp.bfloat16)
    assert norm(jnp.ones(SHAPE, jnp.bfloat16)).dtype == jnp.bfloat16
    assert norm.mean[...].dtype == norm.var[...].dtype == jnp.float32


def test_each_group_is_normalised_as_if_it_were_a_batch_and_the_running_statistics_move_to_the_mean():
    rng = np.random.default_rng(5)
    x = jnp.asarray(rng.normal(size=SHAPE), jnp.float32)
    present = jnp.asarray([1, 0, 1, 1, 0, 1], jnp.float32)
    norm, alone = layer(np.random.default_rng(0)), [layer(np.random.default_rng(0)) for _ in range(3)]
    norm.splits = 3
    y = norm(x, present)
    for i, one in enumerate(alone):
        rows = slice(2 * i, 2 * i + 2)
        np.testing.assert_allclose(y[rows], one(x[rows], present[rows]), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(norm.mean[...], np.mean([one.mean[...] for one in alone], 0), rtol=1e-5)
    np.testing.assert_allclose(norm.var[...], np.mean([one.var[...] for one in alone], 0), rtol=1e-5)


def test_two_groups_by_hand():
    # Frames of one pixel and channel. The first group has mean 2 and variance 1, unbiased 2; of the second one frame
    # counts, so that its mean is 10 and its variance 0.
    norm = BatchNorm(1, epsilon=0.25)
    norm.splits = 2
    y = norm(jnp.asarray([1.0, 3.0, 10.0, 99.0])[:, None, None, None], jnp.asarray([1.0, 1.0, 1.0, 0.0]))
    np.testing.assert_allclose(y.ravel()[:3], [-1 / 1.25**0.5, 1 / 1.25**0.5, 0], rtol=1e-6)
    np.testing.assert_allclose(norm.mean[...], 0.1 * (2 + 10) / 2, rtol=1e-6)
    np.testing.assert_allclose(norm.var[...], 0.9 + 0.1 * (2 + 0) / 2, rtol=1e-6)


@pytest.mark.parametrize("present", [[1, 1, 0, 0], [0, 0, 0, 0]])
def test_a_group_without_frames_has_the_running_statistics_and_does_not_move_them(present):
    rng = np.random.default_rng(6)
    x = jnp.asarray(rng.normal(size=(4, *SHAPE[1:])), jnp.float32)
    norm, alone = layer(np.random.default_rng(0)), layer(np.random.default_rng(0))
    norm.splits = 2
    y = norm(x, jnp.asarray(present, jnp.float32))
    expected = alone(x[:2], jnp.asarray(present[:2], jnp.float32))
    np.testing.assert_allclose(y[:2], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(norm.mean[...], alone.mean[...], rtol=1e-6)
    np.testing.assert_allclose(norm.var[...], alone.var[...], rtol=1e-6)
    before = layer(np.random.default_rng(0))
    before.eval()
    np.testing.assert_allclose(y[2:], before(x[2:]), rtol=1e-5, atol=1e-6)


def test_gradients_stay_within_their_group():
    rng = np.random.default_rng(7)
    x, weights = (jnp.asarray(rng.normal(size=SHAPE), jnp.float32) for _ in range(2))
    graphdef, params, stats = nnx.split(layer(rng), nnx.Param, nnx.BatchStat)

    def total(params, x, rows, groups):
        norm = nnx.merge(graphdef, params, stats, copy=True)
        norm.splits = groups
        return (norm(x[rows]) * weights[rows]).sum()

    grads, grad_x = jax.grad(total, (0, 1))(params, x, slice(None), 2)
    halves = [jax.grad(total, (0, 1))(params, x, rows, 1) for rows in (slice(3), slice(3, None))]
    np.testing.assert_allclose(grad_x, halves[0][1] + halves[1][1], rtol=1e-4, atol=1e-5)
    for name in ("scale", "bias"):
        expected = sum(half[name][...] for half, _ in halves)
        np.testing.assert_allclose(grads[name][...], expected, rtol=1e-4, atol=1e-5)


def test_groups_of_one_device_each_exchange_nothing_forward_or_backward():
    norm = layer(np.random.default_rng(0))
    norm.splits = 8
    graphdef, state = nnx.split(norm)

    def total(x, present):
        y = nnx.merge(graphdef, state, copy=True)(x, present)
        return jnp.square(y).sum(), y

    def apply(x, present):
        return jax.grad(total, has_aux=True)(x, present)

    sharding = NamedSharding(create_mesh(), PartitionSpec("data"))
    batch = [jax.ShapeDtypeStruct(shape, jnp.float32, sharding=sharding) for shape in ((16, 5, 4, 3), (16,))]
    compiled = jax.jit(apply, out_shardings=sharding).lower(*batch).compile()
    assert collectives(compiled.as_text()) == []


def library_max_pool(x):
    return nnx.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))


@pytest.mark.parametrize("size", [(8, 10), (7, 9), (2, 5), (1, 1)])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_pooling_and_its_gradient_equal_those_of_the_library(size, dtype):
    # Few values, so that windows have equal pixels, as they have after a ReLU; sums of the gradient are exact.
    rng = np.random.default_rng(0)
    x = jnp.asarray(np.maximum(rng.integers(-3, 4, (3, *size, 2)), 0), dtype)
    g = jnp.asarray(rng.integers(1, 9, (3, *(-(-side // 2) for side in size), 2)), dtype)

    @functools.partial(jax.jit, static_argnums=0)
    def apply(pool, x, g):
        y, vjp = jax.vjp(pool, x)
        return y, *vjp(g)

    for found, expected in zip(apply(max_pool, x, g), apply(library_max_pool, x, g), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_the_gradient_of_pooling_goes_to_the_first_of_equal_pixels_as_in_torch():
    x = torch.zeros(1, 2, 6, 7, requires_grad=True)
    torch.nn.functional.max_pool2d(x, 3, stride=2, padding=1).sum().backward()
    grad_x = jax.grad(lambda x: max_pool(x).sum())(jnp.zeros((1, 6, 7, 2)))
    np.testing.assert_array_equal(grad_x, x.grad.numpy().transpose(0, 2, 3, 1))


def test_pixels_beyond_the_edge_are_no_maximum():
    np.testing.assert_array_equal(max_pool(jnp.full((1, 4, 4, 1), -5.0)), -5.0)
