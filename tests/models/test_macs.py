"""Multiply-accumulates are those of the architecture, however it is lowered."""

import functools

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from fume_jax.models import create_model
from fume_jax.models import macs as macs_module
from fume_jax.models.fast_scnn import PyramidPooling
from fume_jax.models.macs import count_macs
from tests.commands import run


@functools.cache
def macs(name, height=96, width=128, **options):
    return count_macs(nnx.eval_shape(lambda: create_model(name, **options, rngs=nnx.Rngs(0))), height, width)


def test_fume_at_full_size_has_what_was_published():
    assert macs("fume", 480, 640) == pytest.approx(2.03e9, rel=0.02)


def test_counts_add_up():
    # Two frames through an encoder and a head each, with nothing between them.
    assert macs("fume", tasks="segmentation") == 2 * macs("segmentation_only")
    assert macs("segmentation_only", gas="both") == 2 * macs("segmentation_only")
    assert macs("fume") == macs("fume_separate")
    # Mean instead of concatenation: the 1x1 convolution to 128 channels at 3x4 positions has 128 inputs fewer.
    assert macs("fume", fusion="concat") - macs("fume", fusion="add") == 3 * 4 * 128 * 128
    # One more input channel of the first convolution, 3x3 to 32 channels at half size; one more linear layer, the
    # last of 3 outputs from 256 instead of 128.
    first, linear = 48 * 64 * 32 * 9, 256 * 128 + 128 * 3 - 256 * 3
    assert macs("early_fusion") - macs("multi_task") == first
    assert macs("classification_only") - macs("multi_task", tasks="classification") == linear


def test_a_branch_of_the_pyramid_counts_its_own_cells_alone():
    pyramid = nnx.eval_shape(lambda: PyramidPooling(128, dtype=jnp.float32, rngs=nnx.Rngs(0)))
    graphdef, state = nnx.split(nnx.view(pyramid, use_running_average=True))
    x, present = jnp.zeros((2, 3, 4, 128)), jnp.ones(2)
    jaxpr = jax.make_jaxpr(lambda state: nnx.merge(graphdef, state)(x, present))(state).jaxpr
    # Convolutions of 1, 4, 9 and 36 cells from 128 to 32 channels, and the merging one from 256 to 128.
    assert macs_module._count(jaxpr) == 2 * ((1 + 4 + 9 + 36) * 128 * 32 + 3 * 4 * 256 * 128)


def test_the_summary_lists_every_model():
    result = run("fume_jax.summary")
    assert result.returncode == 0, result.stderr
    lines = [line.split() for line in result.stdout.splitlines()[1:]]
    assert lines[0] == ["fume", "fast_scnn", "1,656,236", "2.03", "6.62"]
    assert ["fume_separate", "resnet50_deeplabv3plus", "62,979,516", "97.01", "251.92"] in lines
    assert [line[0] for line in lines if line[1] == "fast_scnn"] == [
        "fume",
        "fume_separate",
        "fume_concat",
        "segmentation_only",
        "classification_only",
        "gas_aware",
        "early_fusion",
        "multi_task",
    ]
