"""The Pallas lowering of depthwise convolution: interpreted, against the library's; and that it lowers for CUDA."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import depthwise_pallas
from fume_jax.models import depthwise

TOLERANCE = {"float32": 1e-6, "bfloat16": 4e-3}


@pytest.fixture(autouse=True)
def pallas(monkeypatch):
    monkeypatch.setattr(depthwise, "LOWERING", {"default": "pallas"})


@pytest.fixture
def small_tiles(monkeypatch):
    """Tiles so small that they are soon compiled, and that a small array has many of."""
    for name, value in {"PATCH": 2, "PATCHES": 4, "CHANNELS": 4}.items():
        monkeypatch.setattr(depthwise_pallas, name, value)


def outputs(convolve, arrays, dtype, stride):
    """The convolution and its gradients, computed in `dtype` of `arrays`, as float32."""
    x, kernel, g = (jnp.asarray(a, dtype) for a in arrays)
    y, vjp = jax.vjp(functools.partial(convolve, stride=stride), x, kernel)
    return [np.asarray(a, np.float32) for a in (y, *vjp(g))]


def assert_equals_library(size, channels, stride, dtype):
    rng = np.random.default_rng(0)
    shapes = (2, *size, channels), (3, 3, 1, channels), (2, *(-(-n // stride) for n in size), channels)
    # Rounded once, so that the library's float32 and the kernels' bfloat16 start from the same numbers.
    arrays = [jnp.asarray(rng.normal(size=shape), dtype) for shape in shapes]
    actual = outputs(lambda x, kernel, stride: depthwise.depthwise_conv(x, kernel, stride), arrays, dtype, stride)
    expected = outputs(depthwise.library_depthwise_conv, arrays, jnp.float32, stride)
    chex.assert_trees_all_equal_shapes(actual, expected)
    for a, b in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a / np.abs(b).max(), b / np.abs(b).max(), atol=TOLERANCE[dtype])


@pytest.mark.slow
@pytest.mark.parametrize("stride", [1, 2])
def test_equals_the_library_convolution_and_its_gradients(stride, small_tiles):
    assert_equals_library((5, 6), 6, stride, "float32")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "stride", "dtype"), [((4, 7), 1, "bfloat16"), ((7, 4), 2, "bfloat16"), ((1, 3), 2, "float32")]
)
def test_tiles_may_stick_out_anywhere(size, stride, dtype, small_tiles):
    assert_equals_library(size, 3, stride, dtype)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "channels", "stride", "dtype"), [((5, 9), 48, 2, "float32"), ((6, 7), 576, 1, "bfloat16")]
)
def test_equals_the_library_convolution_with_tiles_of_the_real_size(size, channels, stride, dtype):
    assert_equals_library(size, channels, stride, dtype)


@pytest.mark.parametrize(("stride", "dtype"), [(1, "bfloat16"), (2, "float32")])
def test_lowers_for_cuda_as_one_kernel_each_way(stride, dtype):
    x = jax.ShapeDtypeStruct((64, 30, 41, 48), dtype)
    kernel = jax.ShapeDtypeStruct((3, 3, 1, 48), dtype)

    def loss(x, kernel):
        return depthwise.depthwise_conv(x, kernel, stride).astype(jnp.float32).sum()

    text = jax.jit(jax.value_and_grad(loss, (0, 1))).trace(x, kernel).lower(lowering_platforms=("cuda",)).as_text()
    assert text.count("xla.gpu.triton") == 2
    assert "stablehlo.convolution" not in text and "stablehlo.pad" not in text
