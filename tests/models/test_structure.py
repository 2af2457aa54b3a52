"""The structure of a model is that of its computation: nothing is lost, and data flows where it may."""

import dataclasses
import functools

import jax.numpy as jnp
import pytest
from flax import nnx

from fume_jax.models import FUME, MODELS, Architecture, architecture, count_parameters
from fume_jax.models.structure import structure


@functools.cache
def trace(options):
    model = nnx.eval_shape(lambda: FUME(options, dtype=jnp.float32, rngs=nnx.Rngs(0)))
    return model, structure(model, 64, 96)


TINY = Architecture(backbone="tiny")


@pytest.mark.parametrize("name", MODELS)
def test_parts_have_all_parameters_of_a_model(name):
    model, found = trace(architecture(name, backbone="tiny"))
    parts = [part for own in found.blocks.values() for part in own]
    assert sum(part.parameters for part in parts) == count_parameters(model)
    assert {source for source, _ in found.edges} <= {part.path for part in parts} | found.inputs.keys()
    # Everything is used, and everything that is returned is computed from something.
    assert {part.path for part in parts} == {source for source, _ in found.edges} - found.inputs.keys()
    assert found.outputs.keys() == {target for _, target in found.edges} & found.outputs.keys()


def test_data_flows_as_the_model_says():
    _, found = trace(TINY)
    assert found.blocks.keys() == {"encoder", "fusion", "cls_head", "co2_seg_head", "ch4_seg_head"}
    assert found.kinds["fusion"] == "AttentionFusion"
    names = [part.name for part in found.blocks["fusion"]]
    assert names == ["co2_attention", "ch4_attention", "cross_attention", "channel_attention", "conv", "norm"]
    sources = {source for source, target in found.edges if target == "fusion.cross_attention"}
    assert sources == {"encoder.coarse", "fusion.co2_attention", "fusion.ch4_attention"}
    assert {target for source, target in found.edges if source == "ch4_frame"} == {"encoder.fine"}
    assert ("encoder.norm", "co2_seg_head.fusion") in found.edges
    assert ("co2_seg_head.classifier", "co2_seg_logits") in found.edges
    assert found.outputs["co2_seg_logits"] == (1, 64, 96, 3)
    # Both frames go through the shared encoder at once.
    fine = next(part for part in found.blocks["encoder"] if part.name == "fine")
    assert (fine.shape, fine.parameters) == ((2, 8, 12, 8), 8 * 8 * 8 + 8)


def test_separate_encoders_do_not_mix_before_the_fusion():
    _, found = trace(dataclasses.replace(TINY, share_encoder=False))
    assert {target for source, target in found.edges if source == "co2_frame"} == {"co2_encoder.fine"}
    crossing = {target for source, target in found.edges if source.startswith("co2_encoder")}
    assert not any(target.startswith(("ch4_encoder", "ch4_seg_head")) for target in crossing)


def test_modules_of_a_list_are_one_part_and_lists_of_lists_several():
    _, found = trace(Architecture())
    stages = [(part.name, part.kind, part.count) for part in found.blocks["encoder"] if part.name.startswith("stages")]
    assert stages == [(f"stages.{i}", "InvertedResidual", 3) for i in range(3)]
    assert [(part.name, part.count) for part in found.blocks["cls_head"]] == [("hidden", 2), ("logits", 1)]


def test_a_part_that_is_used_by_another_method_than_call_is_there():
    _, found = trace(Architecture(backbone="resnet50_deeplabv3plus"))
    backbone = found.blocks["encoder"][0]
    assert (backbone.name, backbone.kind, backbone.shape) == ("backbone", "ResNet", (2, 4, 6, 2048))
    assert ("encoder.backbone", "encoder.pyramid") in found.edges
    assert ("co2_frame", "encoder.pyramid") not in found.edges
