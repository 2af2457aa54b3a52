"""The shifted lowering of depthwise convolution against the library's, and its hand-written gradients."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fume_jax.models.depthwise import IMPLEMENTATIONS, depthwise_conv, library_depthwise_conv

# Even and odd, with columns that divide into short groups and not.
SIZES = [(8, 10), (7, 9), (8, 9), (1, 3), (4, 26)]


def arrays(height, width, channels=4, taps=3):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(2, height, width, channels)), jnp.float32)
    return x, jnp.asarray(rng.normal(size=(taps, taps, 1, 4)), jnp.float32)


# Channels and taps of a side; the wider kernel also on a map that is narrower than it.
CASES = [*((size, channels, 3) for size in SIZES for channels in (4, 1)), *((size, 4, 5) for size in SIZES[1:4:2])]


@pytest.mark.parametrize("name", ["shifted", "narrow"])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size, channels, taps", CASES)
def test_equals_the_library_convolution(size, stride, channels, taps, name):
    x, kernel = arrays(*size, channels, taps)
    expected = library_depthwise_conv(x, kernel, stride)
    actual = IMPLEMENTATIONS[name, "primal"](x, kernel, stride)
    chex.assert_equal_shape([actual, expected])
    np.testing.assert_allclose(actual, expected, atol=1e-5)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size, channels, taps", CASES)
def test_gradients_equal_those_of_the_library_convolution(size, stride, channels, taps):
    x, kernel = arrays(*size, channels, taps)
    y, vjp = jax.vjp(lambda x, k: depthwise_conv(x, k, stride), x, kernel)
    _, expected_vjp = jax.vjp(lambda x, k: library_depthwise_conv(x, k, stride), x, kernel)
    g = jnp.asarray(np.random.default_rng(1).normal(size=y.shape), jnp.float32)
    for actual, expected in zip(vjp(g), expected_vjp(g), strict=True):
        np.testing.assert_allclose(actual, expected, atol=1e-4)


@pytest.mark.parametrize("stride", [1, 2])
def test_gradients_are_those_of_finite_differences(stride):
    def convolve(x, kernel):
        return depthwise_conv(x, kernel, stride)

    chex.assert_numerical_grads(convolve, arrays(4, 5), order=1, atol=1e-2, rtol=1e-2, modes=("rev",))


@pytest.mark.parametrize("channels", [4, 64])
@pytest.mark.parametrize("platform, by_library", [("cpu", ()), ("cuda", (4, 64)), ("tpu", (64,))])
def test_each_platform_gets_one_lowering(platform, by_library, channels):
    x, kernel = jnp.zeros((2, 8, 8, channels)), jnp.zeros((3, 3, 1, channels))
    traced = jax.jit(depthwise_conv, static_argnums=2).trace(x, kernel, 1)
    program = traced.lower(lowering_platforms=(platform,)).as_text()
    assert ("stablehlo.convolution" in program) == (channels in by_library)
